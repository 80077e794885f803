"""What the sources say together: weights that are learned from the ledger, and words like any source's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prompts.errors import SpecError
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources import fit
from surfaces.sources.base import NOTHING, Interactions, Materials
from surfaces.sources.fit import advisers, evidence_only, interactions_of
from surfaces.sources.overall import EQUAL, FIRST, OVERALL, Case, Overall, keep, kept, learned
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import read_spec
from surfaces.visit import Visit
from tests.surfaces.world import fill

ITEMS = 200
NOBODY = np.zeros(0, dtype=np.int64)


def cases(count: int, seed: int = 0) -> Iterator[Case]:
    """The first source is mostly right, the second knows nothing, the third is wrong as often as it can be."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        target = int(rng.integers(ITEMS))
        good, chance = rng.normal(size=ITEMS), rng.normal(size=ITEMS)
        good[target] += 4
        yield Case(np.stack([good, chance, -good]), NOBODY, target)


def test_weights_follow_who_was_right() -> None:
    overall = learned(("good", "chance", "wrong"), cases(300))
    assert max(overall.weights["good"]) > 0.5
    assert max(overall.weights["chance"][:2]) < 0.15
    assert overall.weights["wrong"][0] == 0, "never below 0, so that nobody's praise counts against an item"
    places = []
    for case in cases(100, seed=1):
        scores = overall.scores(("good", "chance", "wrong"), case.found_AI, NOBODY)
        places.append(int((scores > scores[case.target]).sum()))
    assert np.median(places) <= 1


def test_without_cases_all_count_alike_and_few_change_little() -> None:
    assert set(learned(("a", "b"), ()).weights.values()) == {EQUAL}
    few = learned(("good", "chance", "wrong"), cases(1)).weights
    many = learned(("good", "chance", "wrong"), cases(300)).weights
    assert EQUAL[0] < few["good"][0] < many["good"][0]
    assert EQUAL[0] > few["chance"][0] > many["chance"][0]


def test_a_source_that_nobody_learned_of_counts_as_the_equal_ones_do() -> None:
    found = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert np.argsort(Overall({"a": EQUAL}).scores(("a", "b"), found, NOBODY)).tolist()[0] == 1, "second for both"
    scores = Overall({"a": EQUAL, "b": (0.0, 0.0, 0.0)}).scores(("a", "b"), found, NOBODY)
    assert np.argsort(-scores).tolist() == [0, 1, 2]


def test_where_all_are_silent_it_is_silent() -> None:
    found = np.array([[1.0, NOTHING, NOTHING], [NOTHING, 2.0, NOTHING]])
    scores = Overall({}).scores(("a", "b"), found, NOBODY)
    assert np.isneginf(scores).tolist() == [False, False, True]
    assert np.isneginf(Overall({}).scores(("a",), np.full((1, 3), NOTHING), NOBODY)).all()


def test_what_was_chosen_before_moves_nothing() -> None:
    """A member's own items are placed, but the others' places are told among the others."""
    found = np.array([[9.0, 3.0, 2.0, 1.0]])
    seen = np.array([0])
    with_seen = Overall({"a": (1.0, 1.0, 0.0)}).scores(("a",), found, seen)
    without = Overall({"a": (1.0, 1.0, 0.0)}).scores(("a",), found[:, 1:], NOBODY)
    assert with_seen[1:] == pytest.approx(without)
    assert with_seen[0] > with_seen[1]


def test_places_beyond_the_first_are_alike() -> None:
    found = np.arange(3.0 * FIRST)[None]
    scores = Overall({"a": (0.0, 1.0, 0.0)}).scores(("a",), found, NOBODY)
    assert scores[-1] == 0
    assert scores[-FIRST:].tolist() == pytest.approx((-np.log(np.arange(FIRST, 0, -1.0))).tolist())
    assert set(scores[:-FIRST].tolist()) == {-np.log(FIRST + 1.0)}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as opened:
        fill(opened)
        yield opened


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fit, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "overall"


@pytest.fixture(scope="module")
def spec() -> SurfaceSpec:
    return Registry.shipped().surface("movies").model_copy(update={"evidence": ("popular", "co_visitation", OVERALL)})


def test_a_leaf_tells_it_last(ledger: Ledger, spec: SurfaceSpec, cache: Path) -> None:
    retrieval = evidence_only(Materials(spec, interactions_of(spec, ledger), ledger))
    visit = Visit(timeline=ledger.timeline("m00"), member_id="m00")
    history = set(retrieval.history(visit).tolist())
    open_items = [item_id for place, item_id in enumerate(retrieval.item_ids) if place not in history]
    said = [piece.text for piece in retrieval.evidence(visit, [*open_items, "unknown"], compress=False)]
    assert all(", overall " in text for text in said)
    assert sum("overall top 1)" in text for text in said) >= 1
    assert said[-1] == " (popularity none, chosen together none, overall none)"


def test_it_is_learned_without_the_last_choices(
    ledger: Ledger, spec: SurfaceSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Interactions] = []

    def listening(materials: Materials) -> tuple[fit.Adviser, ...]:
        fitted.append(materials.data)
        return advisers(materials)

    monkeypatch.setattr(fit, "advisers", listening)
    data = interactions_of(spec, ledger)
    evidence_only(Materials(spec, data, ledger))
    assert [each.sequences[0].tolist() for each in fitted] == [
        data.sequences[0].tolist(),
        data.sequences[0][:-1].tolist(),
    ]


def test_it_is_kept_until_events_come(ledger: Ledger, spec: SurfaceSpec, cache: Path) -> None:
    materials = Materials(spec, interactions_of(spec, ledger), ledger)
    first = evidence_only(materials).overall
    (file,) = cache.iterdir()
    keep(file, Overall({"popular": (0.5, 0.0, 0.0)}))
    assert evidence_only(materials).overall == Overall({"popular": (0.5, 0.0, 0.0)}), "from the folder"
    file.write_text('{"popular": [-1, 0, 0]}')
    assert evidence_only(materials).overall == first, "learned again"
    evidence_only(Materials(spec, materials.data.without_last(1), ledger))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "told", ["", "[]", '{"a": [1]}', '{"a": "xyz"}', '{"a": [1, 2, NaN]}', "\x00", '{"a": [1e999, 0, 0]}']
)
def test_what_is_no_weights_is_not_read(tmp_path: Path, told: str) -> None:
    (tmp_path / "kept.json").write_text(told)
    assert kept(tmp_path / "kept.json") is None


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep(tmp_path / "file" / "kept.json", Overall({}))
    assert kept(tmp_path / "kept.json") is None


def test_alone_it_says_nothing(tmp_path: Path) -> None:
    text = (
        "surface: films\ndescription: Films\nitem_kind: movie\nprompt: {instruction: Films, item: '{{ title }}'}\n"
        "sources: [{type: popular, k: 5}]\nevidence: [overall]\nheads: [{name: watch, type: pointwise, weight: 1.0}]\n"
    )
    with pytest.raises(SpecError, match=r"films\.yaml:6:\d+: .*'overall' is what the others say together"):
        read_spec(text, "films.yaml")


@pytest.mark.parametrize("name", ["popular", "co_visitation", "itemknn", "ease", "slist"])
def test_a_new_item_has_the_score_that_the_source_names(ledger: Ledger, spec: SurfaceSpec, name: str) -> None:
    ledger.put_items([Item("new", "movie", {"title": "Never chosen", "year": 2000, "genres": ["Action"]})])
    (adviser,) = advisers(
        Materials(spec.model_copy(update={"evidence": (name,)}), interactions_of(spec, ledger), ledger)
    )
    place = interactions_of(spec, ledger).index["new"]
    assert adviser.source.scores(np.arange(3))[place] == adviser.of_new


def test_a_source_that_reads_texts_judges_a_new_item_by_its_own(ledger: Ledger, spec: SurfaceSpec) -> None:
    (adviser,) = advisers(
        Materials(spec.model_copy(update={"evidence": ("bm25",)}), interactions_of(spec, ledger), ledger)
    )
    assert adviser.of_new is None
