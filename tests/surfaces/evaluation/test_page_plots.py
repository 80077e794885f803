"""What an evaluation's page says in which case; its plots are whole, legible, and the same everywhere."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import pytest

from surfaces.evaluation import plots
from surfaces.evaluation.bootstrap import Interval
from surfaces.evaluation.calibration import Bin, Calibration, calibration
from surfaces.evaluation.metrics import METRICS
from surfaces.evaluation.page import page, short
from surfaces.evaluation.plots import Panel, apart, frontier, is_rare, visible, wilson

NASTY = ["<script>alert(1)</script>", "$x_$", r"$\frac{", "_under", "a & b", "\u202eturned", "😀 中文", "x" * 200]


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def figures(value: float) -> dict[str, dict[str, float]]:
    return {metric: figure(value) for metric in METRICS}


def report(**more: object) -> dict[str, object]:
    """A small report; `more` takes the place of its parts."""
    return {
        "surface": "films",
        "protocol": "leave-one-out",
        "candidates": None,
        "members": 50,
        "rankings": 50,
        "split": {"digest": "d1d2", "seed": 0, "cut": None, "notes": []},
        "methods": {"foundation": figures(0.5), "popular": figures(0.3)},
        "differences": {"popular": figures(0.2)},
        "subject": "foundation",
        "advice": {"route": "foundation", "method": "foundation", "reason": "above popular by +0.200 [+0.100, +0.300]"},
        **more,
    }


def words(html: str) -> str:
    """What a reader sees, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL))


def labels(svg: str) -> list[tuple[str, float, float]]:
    """The texts of a plot and where they begin or end."""
    found = []
    for text in ElementTree.fromstring(svg).iter("text"):
        x, y = (float(text.attrib[key]) for key in ("x", "y"))
        found.append((text.text or "", x, y))
    return found


# The page


@pytest.mark.parametrize(
    ("advice", "said"),
    [
        (("foundation", "foundation", "above popular by +0.2"), "Rank by foundation , the model alone: above popular"),
        (("fused", "fused", "above it"), "Rank by fused , the model together with the surface&#39;s sources: above it"),
        (("classical", "popular", "nothing dearer is above it"), "Rank by popular , without the model: nothing dearer"),
        ((None, "", "too few members to tell (7; 30 are needed)"), "No verdict: too few members to tell (7; 30 are"),
    ],
)
def test_the_verdict_is_a_sentence(advice: tuple[str | None, str, str], said: str) -> None:
    told = dict(zip(("route", "method", "reason"), advice, strict=True))
    found = words(page(report(advice=told)))
    assert said.replace("&#39;", "'") in found.replace("&#39;", "'")


def test_without_a_model_nothing_is_said_of_one() -> None:
    told = report(
        methods={"popular": figures(0.3), "ease": figures(0.4)},
        subject="popular",
        classical="ease",
        differences={"ease": figures(-0.2)},
        advice={"route": "classical", "method": "ease", "reason": "there was nothing to compare it with"},
        tuning={
            name: {"settings": {"l2": 3}, "validation_ndcg@10": value, "tries": 2, "seconds": 1.0}
            for name, value in (("popular", 0.1), ("ease", 0.2))
        },
    )
    found = words(page(told))
    assert "No verdict on a model: nothing here asks one. Of the methods without a model, ease did best on" in found
    assert "Blue squares" not in found
    assert "l2 = 3" in found
    assert "▼ below" in found


def test_a_made_up_ledger_is_said_to_be_one_before_any_figure() -> None:
    note = "simulated: a made-up network, nobody in it is real"
    found = words(page(report(notes=[note, "what x learned from cannot be checked here"])))
    assert f"{note}. What these figures say of real members is not known. what x learned from" in found
    assert found.index(note) < found.index("0.500")


def test_segments_of_few_members_are_grey() -> None:
    def segment(members: int) -> dict[str, object]:
        methods = {"foundation": figures(0.5), "popular": figures(0.3)}
        advice = {"route": None, "method": "", "reason": "who knows"}
        return {"members": members, "rankings": members, "methods": methods, "advice": advice}

    text = page(report(segments={"few of them": segment(29), "many of them": segment(30)}))
    rows = dict(re.findall(r'<tr( class="few")?><th scope="row">(few|many) of them', text))
    assert rows == {' class="few"': "few", "": "many"}
    assert "foundation 0.500" in words(text)


def test_ids_in_a_page_are_used_once_and_lead_somewhere() -> None:
    """Several plots stand in one page: the marks of one must not be taken for those of another."""
    head = calibration_of([0.1, 0.4, 0.9], [0.0, 1.0, 1.0])
    told = report(
        costs={name: {"ms": 1.0, "tokens": 0.0} for name in ("foundation", "popular")},
        coverage={name: {f"coverage@{k}": figure(0.4) for k in (10, 50)} for name in ("popular", "merged")},
        calibration={"foundation": {"like": {**head._asdict(), "bins": [part._asdict() for part in head.bins]}}},
        segments={
            "items: tail": {
                "members": 40,
                "rankings": 40,
                "methods": {"foundation": figures(0.5), "popular": figures(0.3)},
                "advice": {"route": None, "method": "", "reason": "so it is"},
            }
        },
    )
    text = page(told)
    assert text.count("<svg ") == 5
    ids = Counter(re.findall(r'\bid="([^"]*)"', text))
    assert set(ids.values()) == {1}
    used = set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
    assert used <= set(ids)
    assert "//" not in text.replace("http://www.w3.org/1999/xlink", ""), "nothing is loaded from elsewhere"


def test_short_figures_have_three_digits_that_count() -> None:
    assert [short(value) for value in (0.12249, 35.36, 99.99, 1204.4)] == ["0.122", "35.4", "100", "1,204"]


# Plots


def spread(value: float) -> Interval:
    return Interval(value, value - 0.1, value + 0.1)


def calibration_of(p: list[float], y: list[float]) -> Calibration:
    import numpy as np

    return calibration(np.array(p), np.array(y))


def drawn(names: list[str]) -> list[str]:
    """Every kind of plot, with these names in it."""
    found = {name: spread(0.3 + place / 50) for place, name in enumerate(names)}
    head = calibration_of([0.1, 0.4, 0.9], [0.0, 1.0, 1.0])
    return [
        plots.by_method(found, names[:1]),
        plots.by_cost(found, dict.fromkeys(names, 2.0), names[:1]),
        plots.by_segment([Panel(name, found, False) for name in names]),
        plots.by_depth({name: {10: spread(0.2), 50: value} for name, value in found.items()}, names[0]),
        plots.reliability(dict.fromkeys(names, head)),
    ]


def test_names_from_outside_are_drawn_letter_by_letter() -> None:
    for svg in drawn(NASTY):
        ElementTree.fromstring(svg)
        texts = "\n".join(text for text, _, _ in labels(svg))
        for name in ("<script>aler…1)</script>", "$x_$", r"$\frac{", "_under", "a & b", "\ufffdturned", "😀 中文"):
            assert name in texts
        assert "x" * 30 not in texts
        assert "<script" not in svg
        assert "\u202e" not in svg


def test_plots_take_the_colours_of_the_page_and_no_others() -> None:
    for svg in drawn(["a", "b"]):
        styles = "".join(re.findall(r'style="[^"]*"', svg))
        outside = re.sub(r"var\(--\w+, #[0-9a-f]{6}\)", "", styles)
        assert "currentColor" in styles
        assert "var(--" in styles
        assert not re.findall(r"#[0-9a-f]{6}", outside)


def test_plots_are_the_same_whatever_settings_matplotlib_has() -> None:
    before = drawn(["a", "b"])
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other", "axes.grid": True}):
        assert drawn(["a", "b"]) == before
        assert matplotlib.rcParams["font.size"] == 30, "and leave them as they were"


def test_methods_are_drawn_best_first_and_those_with_a_model_apart() -> None:
    svg = plots.by_method({"low": spread(0.1), "high": spread(0.9), "middle": spread(0.5)}, ["middle"])
    places = {text: y for text, _, y in labels(svg) if text in ("low", "high", "middle")}
    assert places["high"] < places["middle"] < places["low"]
    assert "var(--s1" in svg
    assert "var(--s1" not in plots.by_method({"low": spread(0.1)}, [])


def test_labels_of_points_in_a_heap_do_not_cover_each_other() -> None:
    names = [f"method {number:02}" for number in range(16)]
    found = {name: spread(0.3 + place / 1000) for place, name in enumerate(names)}
    svg = plots.by_cost({**found, "far": spread(0.9)}, {**dict.fromkeys(names, 1.0), "far": 900.0}, [])
    at = [(x, y) for text, x, y in labels(svg) if text in names]
    assert len(at) == len(names)
    for side in {round(x) for x, _ in at}:
        ys = sorted(y for x, y in at if round(x) == side)
        assert all(below - above >= 8 for above, below in pairwise(ys)), "a line is 8 points high"


def test_a_ranking_that_took_no_time_can_be_drawn() -> None:
    ElementTree.fromstring(plots.by_cost({"a": spread(0.1)}, {"a": 0.0}, []))


def test_the_frontier_is_what_nothing_as_cheap_equals() -> None:
    points = [(5.0, 0.5), (1.0, 0.2), (1.0, 0.3), (2.0, 0.3), (3.0, 0.4), (9.0, 0.1)]
    assert frontier(points) == [(1.0, 0.3), (3.0, 0.4), (5.0, 0.5)]
    assert frontier([]) == []


def test_places_move_apart_no_more_than_they_must() -> None:
    assert apart([], 1.0) == []
    assert apart([0.0, 5.0, 9.0], 1.0) == [0.0, 5.0, 9.0]
    assert apart([0.0, 5.0, 5.0], 1.0) == pytest.approx([0.0, 4.5, 5.5])
    moved = apart([1.0, 1.0, 1.0, 1.2, 7.0], 1.0)
    assert all(right - left >= 1.0 - 1e-12 for left, right in pairwise(moved))
    assert moved[-1] == 7.0


def test_only_segments_that_tell_something_are_coloured() -> None:
    found = {"a": spread(0.1), "b": spread(0.2)}
    clear, faint = (plots.by_segment([Panel("some", found, faint)]) for faint in (False, True))
    assert "var(--s1" in clear
    assert "var(--s2" in clear
    assert "var(--s" not in faint


def test_sources_are_named_where_their_lines_end_and_one_is_bold() -> None:
    found = {name: {10: spread(0.1), 200: spread(0.5)} for name in ("one", "two", "merged")}
    svg = plots.by_depth(found, "merged")
    at = [(x, y) for text, x, y in labels(svg) if text in found]
    assert len({round(x) for x, _ in at}) == 1
    assert min(below - above for above, below in pairwise(sorted(y for _, y in at))) >= 8
    bold = [text.text for text in ElementTree.fromstring(svg).iter("text") if "weight: 700" in text.attrib["style"]]
    assert bold == ["merged"]
    assert [text for text, _, _ in labels(svg) if text in ("10", "200")] == ["10", "200"]


def test_tiny_probabilities_are_drawn_on_a_logarithmic_scale() -> None:
    bins = [Bin(0.0, 0.0, 100, 0.0, 0.0), Bin(1e-3, 2e-3, 100, 1.5e-3, 0.0), Bin(0.01, 0.9, 100, 0.2, 0.1)]
    tiny = Calibration(0.1, 0.1, 0.1, bins, 300, 0.03)
    large = calibration_of([0.2, 0.6, 0.9], [0.0, 1.0, 1.0])
    assert is_rare(tiny)
    assert not is_rare(large)
    ticks = [text for text, _, _ in labels(plots.reliability({"watch": tiny}))]
    assert "0.001" in ticks
    assert "0.001" not in [text for text, _, _ in labels(plots.reliability({"watch": large}))]


def test_wilson_intervals() -> None:
    """Figures of Newcombe, Statistics in Medicine 17 (1998), table I."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)


def test_letters_that_cannot_be_seen_are_shown_as_such() -> None:
    assert visible("Größe 中文 😀") == "Größe 中文 😀"
    assert visible("a\nb\tc\xa0d") == "a b c d"
    assert visible("a\x07\u202e\ud800b") == "a\ufffd\ufffd\ufffdb"
