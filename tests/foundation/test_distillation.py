"""Distillation: the loss is the divergence of the teacher's answers, and a teacher reads the trees as text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from foundation import tokenizer
from foundation.engine.base import TokenNode, TokenTree
from foundation.engine.reading import Reading
from foundation.engine.torch import TorchEngine
from foundation.model import Ranker, build
from foundation.tokenizer import TextEncoder
from foundation.training import distributed
from foundation.training.distillation import WithTeacher, distill_loss, frozen_logits, spots
from foundation.training.labels import Choice, Graded, LabelledTree, Listwise, losses
from foundation.training.trainer import StepReport, Trainer, Watcher
from prompts.errors import TrainingError
from prompts.tree import Piece, PromptNode, PromptTree
from tests.conftest import TEXTS, tiny_config
from tests.foundation.runs import settings

ANSWERS = ("like", "none", "yes", "no")
YES, NO = 2, 3
WORDS = ("Comedy", "Drama", "Action", "Crime", "Thriller", "writer")


class Trunks:
    """Trees as text: the leaf that says what the trunk says is the right one, if there are labels."""

    def __init__(self, encoder: TextEncoder, *, labelled: bool = True) -> None:
        self._encoder, self._labelled = encoder, labelled

    def batch(self, step: int) -> list[LabelledTree]:
        rng = random.Random(step)
        return [self._tree(rng) for _ in range(6)]

    def _tree(self, rng: random.Random) -> LabelledTree:
        words = rng.sample(WORDS, 4)
        said = [PromptNode((Piece(f" {word}"),), 1, answers=ANSWERS) for word in words]
        prompt = PromptTree((PromptNode((Piece(f"Films {words[1]}"),)), PromptNode((Piece("which"),), 0), *said))
        lists = (Listwise((0, 1, 2, 3), 1, YES, NO, (1.0,) * 4),) if self._labelled else ()
        graded = (Graded((0, 1, 2, 3), (0.0, 1.0, 0.0, 0.0), YES, NO),)
        return LabelledTree(Reading(self._encoder, compresses=False).read(prompt), lists, (), graded, prompt=prompt)


@pytest.fixture(scope="module")
def teacher() -> tuple[Ranker, TextEncoder]:
    """Another model, with other words for tokens."""
    encoder = TextEncoder(tokenizer.train([text for text in TEXTS[::-1] for _ in range(5)], 700))
    return build(tiny_config(vocab_size=len(encoder.tokenizer), compressor=True), seed=5), encoder


def two_spots(logits_LA: torch.Tensor, taught_LA: torch.Tensor | None) -> tuple[torch.Tensor, LabelledTree]:
    stems = (TokenNode((5,), 0), TokenNode((6,), 0))
    leaves = [TokenNode((7,), 1 + (n > 1), None, (1, 2, 3, 4)) for n in range(5)]
    labels = (Listwise((0, 1), 0, YES, NO, (1.0, 1.0)),), (Choice(4, (0, 1), 0),)
    return logits_LA, LabelledTree(TokenTree((TokenNode((4,)), *stems, *leaves)), *labels, taught_LA=taught_LA)


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def divergence(teacher: Sequence[torch.Tensor], student: Sequence[torch.Tensor]) -> torch.Tensor:
    p, q = torch.stack(list(teacher)).softmax(0), torch.stack(list(student)).softmax(0)
    return (p * (p.log() - q.log())).sum()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_is_the_divergence_over_lists_and_answers(temperature: float) -> None:
    student, teacher = drawn(0), drawn(1)
    logits, labelled = two_spots(student, teacher)
    s, t = student / temperature, teacher / temperature
    expected = []
    for spot in ((0, 1), (2, 3, 4)):
        lists = divergence([t[leaf, YES] - t[leaf, NO] for leaf in spot], [s[leaf, YES] - s[leaf, NO] for leaf in spot])
        each = [divergence(list(t[leaf, cols]), list(s[leaf, cols])) for leaf in spot for cols in ([2, 3], [0, 1])]
        expected.append(lists + torch.stack(each).sum() / len(spot))
    found = distill_loss(logits, [labelled], temperature)
    assert float(found) == pytest.approx(float(torch.stack(expected).mean()) * temperature**2, abs=1e-12)


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn() -> None:
    student = drawn(0).requires_grad_()
    shifted = drawn(0) + torch.arange(5)[:, None]  # what all answers of a leaf share says nothing
    loss = distill_loss(*_batch(student, shifted), 2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert abs(float(loss.detach())) < 1e-12
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-12


def _batch(student: torch.Tensor, taught: torch.Tensor | None) -> tuple[torch.Tensor, list[LabelledTree]]:
    logits, labelled = two_spots(student, taught)
    return logits, [labelled]


def test_trees_without_a_teacher_are_passed_over() -> None:
    student, teacher = drawn(0), drawn(1)
    alone = distill_loss(*_batch(student, teacher), 1.0)
    both = [two_spots(student, None)[1], two_spots(student, teacher)[1]]
    assert float(distill_loss(torch.cat([drawn(3), student]), both, 1.0)) == pytest.approx(float(alone), abs=1e-12)
    assert float(distill_loss(*_batch(student, None), 1.0)) == 0.0
    assert spots(two_spots(student, None)[1]) == []
    assert spots(two_spots(student, teacher)[1]) == [[0, 1], [2, 3, 4]]


def test_shares_of_a_step_add_up_to_the_step() -> None:
    trees = [two_spots(drawn(n), None if n == 1 else drawn(n + 9))[1] for n in range(4)]
    logits = [drawn(n) for n in range(4)]

    def loss(places: list[int]) -> torch.Tensor:
        rows, part = torch.cat([logits[n] for n in places]), [trees[n] for n in places]
        every = losses(rows, part)._replace(distill=distill_loss(rows, part, 2.0))
        return distributed.shared(every, part, trees).distill

    assert float(loss([0, 1]) + loss([2, 3])) == pytest.approx(float(loss([0, 1, 2, 3])), abs=1e-12)


def test_a_teacher_answers_with_its_own_tokens(tiny_encoder: TextEncoder, teacher: tuple[Ranker, TextEncoder]) -> None:
    ranker, encoder = teacher
    trees = WithTeacher(Trunks(tiny_encoder), ranker, encoder).batch(3)
    plain = Trunks(tiny_encoder).batch(3)
    assert [each.tree for each in trees] == [each.tree for each in plain]
    engine = TorchEngine(ranker, encoder)
    for labelled in trees:
        assert labelled.prompt is not None
        assert labelled.taught_LA is not None
        expected = engine.score([engine.read(labelled.prompt)])[0].table()
        assert (labelled.taught_LA.log_softmax(dim=1) - torch.from_numpy(expected)).abs().max() < 1e-5
        assert not labelled.taught_LA.requires_grad


def test_a_teacher_says_the_same_again_to_the_bit(
    tiny_encoder: TextEncoder, teacher: tuple[Ranker, TextEncoder]
) -> None:
    data = WithTeacher(Trunks(tiny_encoder), *teacher)
    first = [each.taught_LA for each in data.batch(3)]
    data.batch(4)
    assert all(torch.equal(a, b) for a, b in zip(first, (each.taught_LA for each in data.batch(3)), strict=True))


def test_trees_of_tokens_alone_are_refused(tiny_encoder: TextEncoder, teacher: tuple[Ranker, TextEncoder]) -> None:
    class Bare(Trunks):
        def batch(self, step: int) -> list[LabelledTree]:
            return [each._replace(prompt=None) for each in super().batch(step)]

    with pytest.raises(TrainingError, match="tokens alone, which a teacher cannot read"):
        WithTeacher(Bare(tiny_encoder), *teacher).batch(0)


def test_a_student_learns_what_only_its_teacher_knows(
    tiny_encoder: TextEncoder, teacher: tuple[Ranker, TextEncoder], tmp_path: Path
) -> None:
    """Without labels that tell leaves apart, the student comes to order them as the teacher does."""
    data = WithTeacher(Trunks(tiny_encoder, labelled=False), *teacher)
    loss = {"listwise": 0.0, "pointwise": 0.0, "distill": 0.5, "distill_temperature": 1.0, "balance": 0.0}
    run = Trainer(
        build(tiny_config(vocab_size=len(tiny_encoder.tokenizer))), tiny_encoder,
        settings(120, loss=loss, validate_every=120, checkpoint_every=120), tmp_path,
    )  # fmt: skip
    reports: list[StepReport] = []
    before = agreement(run.ranker, data)
    run.fit(data, Watcher(reports.append, lambda *_: None, lambda _: 0.0))
    assert agreement(run.ranker, data) > max(0.75, before + 0.2)
    assert reports[-1].losses.distill < reports[0].losses.distill / 3
    assert reports[-1].loss == pytest.approx(float(reports[-1].losses.distill) / 2, rel=1e-5)


def agreement(ranker: Ranker, data: WithTeacher) -> float:
    """Share of spots, of steps that no run comes to, whose first leaf is the teacher's."""
    trees = [labelled for step in range(1000, 1010) for labelled in data.batch(step)]
    said = frozen_logits(ranker.eval(), [labelled.tree for labelled in trees])
    firsts = [(odds(mine), odds(labelled.taught_LA)) for mine, labelled in zip(said, trees, strict=True)]
    return sum(mine == theirs for mine, theirs in firsts) / len(firsts)


def odds(logits_LA: torch.Tensor | None) -> int:
    assert logits_LA is not None
    return int((logits_LA[:, YES] - logits_LA[:, NO]).argmax())
