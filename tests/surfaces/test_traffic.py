"""What `routing` and `experiment` mean: which way a visit goes, and the order that each way gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator
from scipy.stats import zscore

from prompts.errors import ConfigError, SpecError
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.routing import Router, Way, standard
from surfaces.sources.base import Materials
from surfaces.sources.fit import fit_sources, interactions_of
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import as_yaml, read_spec
from surfaces.spec_schema import surface_schema
from surfaces.traffic import Traits, WhenSpec
from surfaces.visit import Visit
from surfaces.yaml_reader import read_yaml
from tests.surfaces.world import chosen, fill_few

FILMS = """\
surface: films
description: Films
item_kind: movie
prompt: {instruction: Films., item: "{{ title }}"}
sources:
  - {type: popular, k: 20}
  - {type: co_visitation, k: 20}
heads: [{name: watch, type: pointwise, weight: 1.0}, {name: hide, type: choice, weight: -1.0}]
"""
FUSED = "routing: {default: fused, fused: {foundation: 1.0, co_visitation: 0.7, popular: 0.3}}\n"
AB = "experiment: {name: one, kind: ab, arms: {foundation: 0.5, classical: 0.5}}\n"
INTERLEAVE = "experiment: {name: two, kind: interleave, arms: {foundation: 0.5, classical: 0.5}}\n"
ALL = list("abcdef")


def spec_of(more: str) -> SurfaceSpec:
    spec = read_spec(FILMS + more, "films.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    return spec


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Films a to f: a was chosen three times, b and c twice, d once, e only shown, f never."""
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('few')}/ledger.sqlite") as ledger:
        fill_few(ledger)
        yield ledger


def router_over(ledger: Ledger, more: str = "") -> Router:
    spec = spec_of(more)
    data = interactions_of(spec, ledger)
    return Router.of(spec, fit_sources(Materials(spec, data, ledger)), data.clock)


@pytest.fixture(scope="module")
def fusing(few: Ledger) -> Router:
    return router_over(few, FUSED)


def visit_of(ledger: Ledger, member_id: str, now: float = 100.0) -> Visit:
    return Visit(ledger.timeline(member_id), member_id, now=now, lookup=ledger.items)


# ---------------------------------------------------------------- the file


def test_by_default_the_model_ranks_every_visit(few: Ledger) -> None:
    spec = spec_of("")
    assert (spec.routing.rules, spec.routing.default, spec.routing.fused, spec.experiment) == (
        (),
        "foundation",
        None,
        None,
    )
    assert router_over(few).way(visit_of(few, "ann"), ALL) == Way(("foundation",))


WRONG = {
    "routing: {rules: [{when: {histry: {max: 0}}, to: classical}]}": (
        "9:27: routing.rules[0].when.histry: unknown key; did you mean 'history'?"
    ),
    "routing: {rules: [{when: {history: {}}, to: classical}]}": (
        "9:36: routing.rules[0].when.history: says nothing; give it a 'min', a 'max' or both"
    ),
    "routing: {rules: [{when: {}, to: classical}]}": (
        "9:26: routing.rules[0].when: says nothing; name a condition (history, cold_items, tail_items, gap), or"
    ),
    "routing: {rules: [{to: classical}]}": "9:19: routing.rules[0].when: this key is missing",
    "routing: {rules: [{when: {history: {min: 3, max: 2}}, to: classical}]}": (
        "9:50: routing.rules[0].when.history.max: is below 'min', so that nothing is between them; exchange the two"
    ),
    "routing: {rules: [{when: {history: {min: 2.5}}, to: classical}]}": (
        "9:42: routing.rules[0].when.history.min: should be a whole number, not 2.5"
    ),
    "routing: {rules: [{when: {history: 3}, to: classical}]}": (
        "9:36: routing.rules[0].when.history: should be a mapping (key: value), not 3"
    ),
    "routing:\n  rules:\n    - {when: {history: {min: 2}}, to: clasical}": (
        "11:39: routing.rules[0].to: unknown value 'clasical'; did you mean 'classical'?"
    ),
    "routing: {rules: [{when: {tail_items: {min: 2}}, to: classical}]}": (
        "9:45: routing.rules[0].when.tail_items.min: should be less than or equal to 1, not 2"
    ),
    "routing: {rules: [{when: {gap: {min: 2 days}}, to: classical}]}": (
        "9:38: routing.rules[0].when.gap.min: should be a whole number and one of s, m, h, d, w, like 14d or 6h"
    ),
    "routing: {rules: [{when: {gap: {min: 2d}}, to: fused}]}": (
        "9:48: routing.rules[0].to: the fused order has no weights; say them under 'routing', like fused: {"
    ),
    "routing: {default: fused}": "9:20: routing.default: the fused order has no weights",
    "routing: {default: model}": "9:20: routing.default: unknown value 'model'; known: classical, foundation, fused",
    "routing: {default: fused, fused: {foundation: 1.0, co_visitaton: 0.7}}": (
        "9:66: routing.fused.co_visitaton: 'co_visitaton' is no source of this surface; did you mean 'co_visitation'?"
    ),
    "routing: {fused: {co_visitation: 0.7}}": (
        "9:18: routing.fused: the model has no weight; give 'foundation' one, or send visits to 'classical'"
    ),
    "routing: {fused: {foundation: 0, popular: 1}}": "9:18: routing.fused: the model has no weight",
    "routing: {fused: {foundation: 1, popular: -1}}": (
        "9:43: routing.fused.popular: should be greater than or equal to 0, not -1"
    ),
    "experiment: {name: x, kind: abc, arms: {foundation: 0.5, classical: 0.5}}": (
        "9:29: experiment.kind: unknown value 'abc'; did you mean 'ab'?"
    ),
    "experiment: {name: x, kind: ab, arms: {foundation: 0.5, clasical: 0.5}}": (
        "9:57: experiment.arms.clasical: unknown key; did you mean 'classical'?"
    ),
    "experiment: {name: x, kind: ab, arms: {foundation: 0.5, classical: 0.4}}": (
        "9:39: experiment.arms: the shares sum to 0.9; they should sum to 1"
    ),
    "experiment: {name: x, kind: ab, arms: {foundation: 0.5}}": (
        "9:39: experiment.arms: an experiment needs two arms or more; name some of foundation, fused, classical"
    ),
    "experiment: {name: x, kind: ab, arms: {foundation: 1.5, classical: 0.5}}": (
        "9:52: experiment.arms.foundation: should be less than 1, not 1.5"
    ),
    "experiment: {name: x, kind: interleave, arms: {foundation: 0.6, classical: 0.4}}": (
        "9:47: experiment.arms: interleaved, both arms fill half of a slate; give each the share 0.5"
    ),
    "routing: {fused: {foundation: 1}}\nexperiment: {name: x, kind: interleave, arms: "
    "{foundation: 0.5, classical: 0.25, fused: 0.25}}": (
        "10:47: experiment.arms: interleaving compares exactly two arms, not 3; or take kind: ab"
    ),
    "experiment: {name: x, kind: ab, arms: {foundation: 0.5, fused: 0.5}}": (
        "9:64: experiment.arms.fused: the fused order has no weights"
    ),
    "experiment: {name: X y, kind: ab, arms: {foundation: 0.5, classical: 0.5}}": (
        "9:20: experiment.name: should be a name"
    ),
}


@pytest.mark.parametrize(("more", "problem"), WRONG.items(), ids=range(len(WRONG)))
def test_a_wrong_file_is_told_with_line_and_column(more: str, problem: str) -> None:
    with pytest.raises(SpecError) as raised:
        read_spec(FILMS + more + "\n", "films.yaml")
    assert str(raised.value).startswith(f"films.yaml:{problem}")
    assert "\n" not in str(raised.value)


def test_a_source_may_not_be_called_as_the_model_is_in_the_weights() -> None:
    text = FILMS.replace("popular, k", "popular, name: foundation, k") + "routing: {fused: {foundation: 1}}\n"
    with pytest.raises(SpecError, match=r"^f\.yaml:6:5: sources\[0\]: 'foundation' is the model here"):
        read_spec(text, "f.yaml")


EVERYTHING = """\
routing:
  rules:
    - {when: {history: {max: 0}}, to: classical}
    - when: {history: {min: 5, max: 100}, cold_items: {min: 0.1}, tail_items: {max: 1}, gap: {min: 30d, max: 600}}
      to: fused
    - {when: {history: null, gap: {max: 1h}}, to: foundation}
  default: classical
  fused: {foundation: 1, co_visitation: 0.7, popular: 0}
experiment:
  name: three-ways
  kind: ab
  arms: {foundation: 0.25, classical: 0.25, fused: 0.5}
"""


def test_schema_and_reader_are_of_one_mind() -> None:
    valid = Draft7Validator(surface_schema()).is_valid
    right = EVERYTHING.replace("600", "5000000")
    assert valid(read_yaml(FILMS + right, "f.yaml").data)
    spec = spec_of(right)
    assert read_spec(as_yaml(spec), "again.yaml").spec == spec
    assert valid(read_yaml(as_yaml(spec), "f.yaml").data)
    for wrong in (
        "routing: {default: model}",
        "routing: {rules: [{to: fused}]}",
        "experiment: {name: x}",
        "routing: 3",
    ):
        assert not valid(read_yaml(FILMS + wrong, "f.yaml").data)
    with pytest.raises(SpecError, match=r"12:\d+: routing\.rules\[1\]\.when\.gap\.max: is below 'min'"):
        spec_of(EVERYTHING)


def test_what_traffic_does_is_part_of_the_version() -> None:
    versions = [spec_of(more).version for more in ("", FUSED, AB, INTERLEAVE, AB.replace("one", "other"))]
    assert len(set(versions)) == len(versions)


# ---------------------------------------------------------------- rules


def traits(history: int = 0, cold: float = 0.0, tail: float = 0.0, gap: float | None = None) -> Traits:
    return Traits(history, cold, tail, gap)


@pytest.mark.parametrize(
    ("when", "yes", "no"),
    [
        ({"history": {"max": 0}}, [traits(0)], [traits(1)]),
        ({"history": {"min": 2, "max": 4}}, [traits(2), traits(4)], [traits(1), traits(5)]),
        ({"cold_items": {"min": 0.5}}, [traits(cold=0.5)], [traits(cold=0.49)]),
        ({"tail_items": {"max": 0.1}}, [traits(tail=0.1)], [traits(tail=0.2)]),
        ({"gap": {"min": "1h"}}, [traits(gap=3600.0)], [traits(gap=3599.0), traits(gap=None)]),
        ({"gap": {"max": "1h"}}, [traits(gap=0.0)], [traits(gap=3601.0), traits(gap=None)]),
        ({"history": {"min": 1}, "gap": {"max": "1h"}}, [traits(1, gap=1.0)], [traits(0, gap=1.0), traits(1, gap=4e3)]),
    ],
)
def test_all_conditions_of_a_rule_must_hold(when: dict[str, object], yes: list[Traits], no: list[Traits]) -> None:
    rule = WhenSpec.model_validate(when)
    assert all(rule.holds(one) for one in yes)
    assert not any(rule.holds(one) for one in no)


def test_what_rules_see_of_a_visit(few: Ledger) -> None:
    router = router_over(few)
    ann = visit_of(few, "ann", now=10.0)
    assert [event.item_id for event in ann.timeline] == ["a", "song", "b", "e", "c"]
    seen = router.traits(ann, ["a", "b", "c", "d", "e"])
    assert seen == Traits(history=3, cold_items=0.2, tail_items=0.4, gap=7.0), "the head is a and b: five of eight"
    assert router.traits(ann, ["f", "unheard of"]).cold_items == 1.0, "what came later is cold"
    assert router.traits(visit_of(few, "new"), []) == Traits(0, 0.0, 0.0, None)
    hidden = Visit([*chosen("x", "a"), Event("x", "b", "films", "hide", 9.0)], now=5.0)
    assert router.traits(hidden, ["a"]) == Traits(1, 0.0, 0.0, 0.0), "what was hidden is no choice"


def test_the_first_rule_that_holds_decides(few: Ledger) -> None:
    rules = """\
routing:
  rules:
    - {when: {history: {max: 0}}, to: classical}
    - {when: {cold_items: {min: 1}}, to: foundation}
    - {when: {history: {max: 3}}, to: fused}
  default: classical
  fused: {foundation: 1.0}
"""
    router = router_over(few, rules)
    assert router.way(visit_of(few, "new"), ["f"]).route == "classical"
    assert router.way(visit_of(few, "ann"), ["f"]).route == "foundation"
    assert router.way(visit_of(few, "ann"), ["a"]).route == "fused"
    longer = Visit(chosen("x", "a", "b", "c", "d"), now=10.0)
    assert router.way(longer, ["a"]).route == "classical"


@pytest.mark.parametrize("more", [AB, INTERLEAVE, "routing: {rules: [{when: {gap: {min: 1d}}, to: classical}]}\n"])
def test_what_needs_times_is_refused_where_timestamps_are_positions(more: str, tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        ledger.write(items=[Item("a", "movie", {})], members=[Member("ann", {})], clock="order")
        router_over(ledger, "routing: {rules: [{when: {history: {max: 0}}, to: classical}]}\n")
        with pytest.raises(
            ConfigError, match=r"surface 'films': (experiment|routing\.rules\[0\]\.when\.gap): .*'order'"
        ):
            router_over(ledger, more)


def test_before_anything_happened_everything_is_cold(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        ledger.put_items([Item("a", "movie", {})])
        assert router_over(ledger).traits(Visit(), ["a"]) == Traits(0, 1.0, 0.0, None)
        with Ledger.open(f"sqlite:///{tmp_path / 'empty.sqlite'}") as empty:
            assert router_over(empty).traits(Visit(), []) == Traits(0, 0.0, 0.0, None)


# ---------------------------------------------------------------- orders


def test_the_fused_order_is_the_sum_of_z_scores(few: Ledger, fusing: Router) -> None:
    router, ann = fusing, visit_of(few, "ann")
    utility_L = np.array([0.1, 0.4, 0.2, 0.9, 0.3, 0.8])
    together = {each.name: each.source for each in router.retrieval.sources}["co_visitation"]
    said = together.scores(router.retrieval.history(ann), ann)
    assert np.isneginf(said[[4, 5]]).all(), "of e and f it has nothing to say"
    said = np.where(np.isfinite(said), said, said[np.isfinite(said)].min())
    by_hand = 1.0 * zscore(utility_L) + 0.7 * zscore(said) + 0.3 * zscore([3, 2, 2, 1, 0, 0])
    assert router.scores("fused", utility_L, ann, ALL) == pytest.approx(by_hand, abs=1e-12)


def test_what_a_source_does_not_know_counts_as_the_lowest_of_the_list(few: Ledger) -> None:
    router = router_over(few, "routing: {fused: {foundation: 1.0, popular: 1.0}}\n")
    scores = router.scores("fused", np.zeros(3), visit_of(few, "ann"), ["unheard of", "a", "d"])
    assert scores == pytest.approx(zscore([1, 3, 1]))
    assert (router.scores("fused", np.zeros(2), visit_of(few, "ann"), ["x", "y"]) == 0).all()
    assert router.scores("fused", np.zeros(0), visit_of(few, "ann"), []).shape == (0,)


@given(utilities=st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_who_is_preferred_by_all_is_never_behind(few: Ledger, fusing: Router, utilities: list[float]) -> None:
    ann, utility_L = visit_of(few, "ann"), np.array(utilities)
    fused_L = fusing.scores("fused", utility_L, ann, ALL)
    history_H = fusing.retrieval.history(ann)
    lists = [utility_L, *(fitted.source.scores(history_H, ann) for fitted in fusing.retrieval.sources)]
    for one in range(6):
        for other in range(6):
            if all(values[one] >= values[other] for values in lists):
                assert fused_L[one] >= fused_L[other] - 1e-9


def test_equal_values_have_no_say() -> None:
    assert (standard(np.full(7, 0.1)) == 0).all()
    assert standard(np.array([1.0, 3.0])) == pytest.approx([-1.0, 1.0])
    assert standard(np.array([0.0, 5e-324])) == pytest.approx([-1.0, 1.0]), "however little they differ"


def test_the_classical_order_is_that_of_retrieval(few: Ledger) -> None:
    scores = router_over(few).scores("classical", np.array([0.0, 5.0, 9.0]), Visit(), ["a", "b", "c"])
    assert list(np.argsort(-scores)) == [0, 1, 2]
    utility_L = np.array([0.3, 0.1, 0.2])
    assert router_over(few).scores("foundation", utility_L, Visit(), ["a", "b", "c"]) is utility_L


# ---------------------------------------------------------------- experiments


def visits(count: int, now: float = 100.0) -> list[Visit]:
    return [Visit(member_id=f"m{number}", now=now) for number in range(count)]


def test_members_are_shared_out_among_the_arms_for_good(few: Ledger) -> None:
    one, again = router_over(few, AB), router_over(few, AB)
    ways = [one.way(visit, ALL) for visit in visits(2000)]
    counts = Counter(way.route for way in ways)
    assert set(counts) == {"foundation", "classical"}
    assert abs(counts["foundation"] - 1000) < 4 * 500**0.5, "four standard errors of a fair coin"
    assert [again.way(visit, ["a"]) for visit in visits(2000, now=9e9)] == ways, "whenever, whatever the candidates"
    assert all(way.arm == way.route and way.experiment and way.experiment.name == "one" for way in ways)
    other = router_over(few, AB.replace("one", "other"))
    same = sum(other.way(visit, ALL).route == way.route for visit, way in zip(visits(2000), ways, strict=True))
    assert abs(same - 1000) < 4 * 500**0.5, "another experiment assigns anew"


def test_the_order_in_which_a_file_names_the_arms_does_not_count(few: Ledger) -> None:
    plain = router_over(few, AB)
    turned = router_over(few, AB.replace("foundation: 0.5, classical: 0.5", "classical: 0.5, foundation: 0.5"))
    assert [turned.way(visit, ALL) for visit in visits(50)] == [plain.way(visit, ALL) for visit in visits(50)]


@pytest.mark.parametrize("more", [AB, INTERLEAVE])
def test_one_whom_the_ledger_does_not_know_is_in_no_experiment(few: Ledger, more: str) -> None:
    rules = "routing: {rules: [{when: {history: {max: 0}}, to: classical}]}\n"
    router = router_over(few, rules + more)
    assert router.way(Visit(), ALL) == Way(("classical",))
    assert router.way(Visit(chosen("", "a")), ALL) == Way(("foundation",))
    assert router.way(Visit(member_id="m1"), ALL).experiment is not None


def test_a_way_of_two_has_no_route_and_asks_the_model(few: Ledger) -> None:
    way = router_over(few, INTERLEAVE).way(Visit(member_id="m1"), ALL)
    assert (way.routes, way.route, way.arm) == (("foundation", "classical"), None, None)
    assert way.interleaved
    assert way.asks_model
    assert not Way(("classical",)).asks_model
    assert Way(("fused",)).asks_model


def test_two_orders_are_drawn_together(few: Ledger) -> None:
    router = router_over(few, INTERLEAVE)
    utility_L = np.arange(6.0)  # the model's order is that of retrieval, turned round
    firsts, drawn = Counter[str](), set[tuple[str, ...]]()
    for visit in visits(400):
        way = router.way(visit, ALL)
        placed = router.draft(way, utility_L, visit, ALL)
        assert placed == router.draft(way, utility_L, visit, ALL), "the same visit, the same draw"
        assert sorted(each.item_id for each in placed) == ALL
        for team, order in (("classical", ALL), ("foundation", ALL[::-1])):
            picked = [each.item_id for each in placed if each.team == team]
            assert picked == order[:3], "each puts its best that are left"
        firsts[placed[0].team] += 1
        drawn.add(tuple(each.item_id for each in placed))
    assert abs(firsts["foundation"] - 200) < 4 * 100**0.5
    assert len(drawn) == 8, "three rounds, each with a coin of its own"
    way, (one, later) = router.way(visits(1)[0], ALL), (visits(20, now) for now in (1.0, 2.0))
    assert [router.draft(way, utility_L, visit, ALL) for visit in one] != [
        router.draft(way, utility_L, visit, ALL) for visit in later
    ], "at another time, another draw"
