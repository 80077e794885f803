"""What every classical baseline does: all that a source must, and what makes it fit to be compared with.

A method that joins the comparison adds an entry to `BASELINES`, with settings that make it quick.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from pydantic import ValidationError

from prompts.errors import ConfigError
from surfaces.evaluation.baselines.blend import Blend
from surfaces.evaluation.baselines.factors import Bpr
from surfaces.evaluation.baselines.text import TextEmbedding
from surfaces.evaluation.recipes import recipes, trials
from surfaces.kinds import kinds
from surfaces.ledger.store import Ledger
from surfaces.sources.als import Als
from surfaces.sources.base import NOTHING, Interactions, Materials, Source, SourceKind
from surfaces.sources.ease import Ease
from surfaces.sources.fit import fit_source
from surfaces.sources.itemknn import ItemKnn
from surfaces.sources.slist import Slist
from surfaces.sources.vectors import Vectors
from surfaces.visit import NOBODY, Visit
from tests.contracts.test_source_contract import CHECKS, ITEMS, Bench, drawn, history, interactions, surface

Make = Callable[[int], Source]


def vectors(items: int) -> Vectors:
    """Random unit vectors: the texts of pairs of items, 0 and 1, 2 and 3, are alike."""
    rng = np.random.default_rng(0)
    rows_ID = np.repeat(rng.normal(size=((items + 1) // 2, 8)), 2, axis=0)[:items] + rng.normal(size=(items, 8)) / 10
    return Vectors.of([str(item) for item in range(items)], lambda texts: _unit(rows_ID[[int(text) for text in texts]]))


def _unit(rows_ID: np.ndarray) -> np.ndarray:
    return (rows_ID / np.linalg.norm(rows_ID, axis=1, keepdims=True)).astype(np.float32)


BASELINES: Mapping[str, Make] = {
    "itemknn": lambda _: ItemKnn(decay=1.0),
    "itemknn, decayed": lambda _: ItemKnn(),
    "itemknn, few neighbours, tf-idf": lambda _: ItemKnn(neighbours=3, shrink=1.0, weighting="tf-idf"),
    "ease": lambda _: Ease(l2=5.0),
    "ease, decayed": lambda _: Ease(l2=5.0, decay=0.8),
    "slist": lambda _: Slist(l2=5.0),
    "slist, decayed": lambda _: Slist(l2=5.0, decay=0.5),
    "als": lambda _: Als(factors=3, iterations=5),
    "als, decayed": lambda _: Als(factors=3, iterations=5, decay=0.8),
    "bpr": lambda _: Bpr(factors=4, iterations=20),
    "blend": lambda _: Blend([Ease(l2=5.0), ItemKnn()], [0.7, 0.3]),
    "text_embedding": lambda items: TextEmbedding(vectors(items)),
}
LEARNING = {name: make for name, make in BASELINES.items() if not name.startswith("text_embedding")}
"""Those that learn from what members chose."""

VISITS = (NOBODY, Visit(member_id="member 1"), Visit(member_id="a stranger"))


@pytest.fixture(params=BASELINES)
def make(request: pytest.FixtureRequest) -> Make:
    return BASELINES[request.param]


@pytest.fixture(params=LEARNING)
def learning(request: pytest.FixtureRequest) -> Make:
    return LEARNING[request.param]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_it_is_a_source(check: Callable[[Bench], None], make: Make) -> None:
    check(Bench(make, VISITS))


def test_a_stranger_without_history_is_told_nothing(make: Make) -> None:
    source = make(ITEMS)
    source.fit(drawn(0))
    for visit in (NOBODY, Visit(member_id="a stranger")):
        assert (source.scores(history([]), visit) == NOTHING).all()


def two_camps() -> Interactions:
    """Members who choose among items 0 to 9, and as many who choose among 10 to 19."""
    rng = np.random.default_rng(5)
    return interactions([list(rng.permutation(10)[:6] + 10 * (member % 2)) for member in range(60)], items=20)


def test_it_learns_what_goes_together(learning: Make) -> None:
    """A member of one camp is shown their camp, also when nobody knows them: the history given is what counts."""
    source = learning(20)
    source.fit(two_camps())
    for camp in (0, 1):
        scores_I = source.scores(history([10 * camp, 10 * camp + 1, 10 * camp + 2]))
        scores_I[10 * camp : 10 * camp + 3] = NOTHING
        assert set(np.argsort(-scores_I)[:3] // 10) == {camp}


def test_it_says_nothing_of_items_without_events(learning: Make) -> None:
    """Nor of anything else to a stranger whose history has only such items."""
    source = learning(ITEMS)
    data = drawn(0)
    source.fit(data)
    chosen = np.bincount(np.concatenate(data.sequences), minlength=ITEMS) > 0
    assert not chosen.all()
    for visit in VISITS:
        assert (source.scores(history([0, 1, 39]), visit)[~chosen] == NOTHING).all()
    for visit in (NOBODY, Visit(member_id="a stranger")):
        assert (source.scores(history(np.flatnonzero(~chosen).tolist()), visit) == NOTHING).all()


# As sources of a surface file

OF_FILES: Mapping[str, type[object]] = {"itemknn": ItemKnn, "ease": Ease, "slist": Slist, "als": Als}
"""The methods that a surface file can name as well."""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Materials]:
    """Who chose which things; a ledger that nobody reads."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('things')}/ledger.sqlite") as ledger:
        yield Materials(surface(), drawn(0), ledger)


def entry(kind: str, **settings: object) -> SourceKind:
    """What stands in a surface file, read."""
    found = kinds("sources")[kind].model_validate({"type": kind, "k": 5, **settings})
    assert isinstance(found, SourceKind)
    return found


@pytest.mark.parametrize("kind", OF_FILES)
def test_a_file_may_set_whatever_is_tuned(kind: str, given: Materials) -> None:
    """The settings that an evaluation finds can be written into a file, and give the very method then."""
    past = history([1, 2, 3])
    for settings in trials(recipes()[kind], 4, 0):
        method = recipes()[kind].make(given, settings)
        method.fit(given.data)
        fitted = fit_source(entry(kind, **settings), given)
        assert type(fitted.source) is type(method)
        assert np.array_equal(fitted.source.scores(past), method.scores(past))


@pytest.mark.parametrize("kind", OF_FILES)
def test_every_key_of_a_file_is_a_setting_with_the_same_default(kind: str, given: Materials) -> None:
    """Also those that are not tuned; what is left out of a file is as the method has it."""
    plain = entry(kind)
    own = set(type(plain).model_fields) - set(SourceKind.model_fields)
    settings = inspect.signature(OF_FILES[kind]).parameters
    assert own == set(settings) - {"seed"}
    assert {key: getattr(plain, key) for key in own} == {key: settings[key].default for key in own}
    changed = {key: getattr(plain, key) / 2 for key in own if isinstance(getattr(plain, key), float)}
    whole = {key: getattr(plain, key) + 1 for key in own if isinstance(getattr(plain, key), int)}
    source = entry(kind, **changed, **whole).build(given)
    assert {key: getattr(source, key) for key in changed | whole} == changed | whole


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("itemknn", {"neighbours": 0}), ("itemknn", {"neighbours": 10_001}), ("itemknn", {"neighbours": 2.5}),
        ("itemknn", {"shrink": -1}), ("itemknn", {"weighting": "bm25"}), ("itemknn", {"decay": 0}),
        ("ease", {"l2": 0}), ("ease", {"l2": 2e6}), ("ease", {"decay": 1.01}), ("ease", {"shrink": 1}),
        ("als", {"factors": 513}), ("als", {"alpha": 0.5}), ("als", {"iterations": 0}), ("als", {"regularization": 0}),
    ],
)  # fmt: skip
def test_what_a_file_may_not_set(kind: str, setting: Mapping[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(setting))):
        entry(kind, **setting)


def test_a_surface_file_without_implicit(given: Materials, monkeypatch: pytest.MonkeyPatch) -> None:
    """A surface that lists als is refused with what to install; nothing else needs the package."""
    monkeypatch.setitem(sys.modules, "implicit", None)
    for kind in ("itemknn", "ease"):
        assert fit_source(entry(kind), given).name == kind
    with pytest.raises(ConfigError, match=r"als needs the package implicit: pip install 'prismrank\[evaluate\]'"):
        fit_source(entry("als"), given)
