"""The whole of it, on a simulated network and on a small ledger."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError, LedgerError
from surfaces.calibrated import CalibratedSurface, Calibrations, HeadFigures, Line
from surfaces.evaluation import recommend
from surfaces.evaluation.lists import read_lists
from surfaces.evaluation.method import Visits
from surfaces.evaluation.metrics import METRICS
from surfaces.evaluation.report import Report
from surfaces.evaluation.results import Results
from surfaces.evaluation.suite import Asked, Suite, names
from surfaces.evaluation.tables import tables
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from tests.surfaces.evaluation.shelf import event, fill

METHODS = (
    "random",
    "popular",
    "popular_7d",
    "co_visitation",
    "bm25",
    "retrieval",
    "zero_shot",
    "fused",
    "fused_sources",
    "late",
)


def suite(ledger: Ledger, engine: TorchEngine | None, folder: Path | None = None, **asked: object) -> Suite:
    settings = {"surface": "jobs", "against": ("popular",), "budget": 1, **asked}
    return Suite(Asked(**settings), Registry.shipped(), ledger, engine, folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def report(network: Ledger, tiny_engine: TorchEngine, tmp_path_factory: pytest.TempPathFactory) -> Report:
    told: list[str] = []
    folder = tmp_path_factory.mktemp("out")
    return replace(suite(network, tiny_engine, folder, against=METHODS, budget=2), tell=told.append).run()


def test_the_json_has_what_others_build_on(report: Report) -> None:
    found = json.loads(json.dumps(report.told, allow_nan=False))
    assert (found["surface"], found["protocol"], found["subject"]) == ("jobs", "leave-one-out", "foundation")
    assert list(found["methods"]) == ["foundation", *METHODS]
    for by_metric in found["methods"].values():
        assert list(by_metric) == list(METRICS)
        for value in by_metric.values():
            assert 0 <= value["low"] <= value["value"] <= value["high"] <= 1
    for name, part in found["segments"].items():
        assert list(part["methods"]) == list(found["methods"]), name
        assert part["members"] <= found["members"]
    assert found["leaks"] == {
        "timelines": {"checked": found["members"], "found": 0},
        "prompts": {"checked": 2 * found["members"], "found": 0},
        "indexes": {"checked": 1, "found": 0},
    }
    assert set(found["coverage"]) == {"bm25", "co_visitation", "popular", "recent", "merged"}
    assert set(found["tuning"]) == {"popular", "popular_7d", "co_visitation", "bm25"}
    assert set(found["fused_weights"]) == {"foundation", "bm25", "co_visitation", "popular", "recent"}
    assert found["costs"]["foundation"]["tokens"] > 0 == found["costs"]["popular"]["tokens"]
    assert 0 < found["methods"]["late"]["ndcg@10"]["value"] < 1
    assert (found["costs"]["fused"]["tokens"] > 0) == (found["fused_weights"]["foundation"] > 0)
    assert {"interest", "apply", "save", "dismiss"} == set(found["calibration"]["foundation"])
    assert "simulated" in " ".join(found["notes"])
    assert found["machine"]["torch"]


def test_differences_are_paired(report: Report) -> None:
    found = report.told
    for name, by_metric in found["differences"].items():  # type: ignore[union-attr]
        ours, theirs = (found["methods"][each]["auc"]["value"] for each in ("foundation", name))  # type: ignore[index]
        assert by_metric["auc"]["value"] == pytest.approx(ours - theirs)
    assert report.difference("random", "auc").value == pytest.approx(
        float(np.mean(report.results["foundation"].values("auc") - report.results["random"].values("auc")))
    )


def test_the_tables_fit_a_terminal_and_tell_it_all(report: Report) -> None:
    out = io.StringIO()
    console = Console(file=out, width=88)
    console.print(*tables(report))
    said = out.getvalue()
    assert all(name in said for name in ("foundation", *METHODS, *(segment.name for segment in report.segments)))
    assert all(f"coverage@{k}" in said for k in (10, 200))
    assert "jobs: leave-one-out" in said
    assert "…" not in said
    value = report.figure("popular", "hr@10").value
    assert f"{value:.3f}".removeprefix("0") in said


def test_everything_is_kept_and_more_methods_may_come(
    network: Ledger, tiny_engine: TorchEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = suite(network, tiny_engine, tmp_path).run()
    split = pl.read_parquet(tmp_path / "split.parquet")
    assert split.columns == ["member_id", "item_id", "label", "timestamp"]
    assert len(split) == len(first.split.cases)
    train = pl.read_parquet(tmp_path / "train.parquet")
    assert len(train) == sum(map(len, first.split.train.sequences))
    assert not len(train.join(split.rename({"label": "held"}), on=["member_id", "item_id", "timestamp"]))
    calls: list[int] = []
    score = tiny_engine.score
    monkeypatch.setattr(tiny_engine, "score", lambda trees: calls.append(1) or score(trees))
    again = suite(network, tiny_engine, tmp_path, against=("popular", "bm25", "random")).run()
    assert len(calls) <= 3, "the model was asked only to foretell its time"
    assert again.figure("foundation", "auc") == first.figure("foundation", "auc")
    assert list(again.results) == ["foundation", "popular", "bm25", "random", "retrieval"]
    assert json.loads((tmp_path / "report.json").read_text())["subject"] == "foundation"


def test_drawn_candidates_are_a_list_file(network: Ledger, tmp_path: Path) -> None:
    """What was asked can be asked again, of this or of any other system."""
    first = suite(network, None, tmp_path, candidates=20).run()
    lists = read_lists(tmp_path / "split.parquet")
    assert {len(each.labels) for each in lists} == {20}
    second = suite(network, None, protocol="lists", lists=tmp_path / "split.parquet").split
    for number, (one, other) in enumerate(zip(first.split.cases, second.cases, strict=True)):
        assert (one.member_id, one.wanted) == (other.member_id, other.wanted)
        assert first.split.items(number) == second.items(number)
        assert [each.event_id for each in other.history] == [each.event_id for each in one.history]


def test_rankings_of_another_system_stand_beside(network: Ledger, tmp_path: Path) -> None:
    asked = suite(network, None)
    rows = [
        (case.member_id, item_id, float(case.labels.get(item_id, 0.0)))
        for number, case in enumerate(asked.split.cases[1:], 1)
        for item_id in asked.split.items(number)
    ]
    path = tmp_path / "oracle.parquet"
    pl.DataFrame(rows, schema=["member_id", "item_id", "score"], orient="row").write_parquet(path)
    report = suite(network, None, against=("popular", str(path))).run()
    assert list(report.results) == ["popular", "oracle"]
    assert report.results["oracle"].values("mrr")[1:].tolist() == [1.0] * (len(report.split.cases) - 1)
    assert f"oracle says nothing of 1 of the {len(report.split.cases)} rankings" in report.notes
    assert "what oracle learned from cannot be checked here" in report.notes
    assert report.classical == "popular"


def test_a_ranking_file_that_changed_is_read_anew(network: Ledger, tmp_path: Path) -> None:
    path, out, asked = tmp_path / "other.parquet", tmp_path / "out", suite(network, None)
    rows = [
        (case.member_id, item_id, float(case.labels.get(item_id, 0.0)))
        for number, case in enumerate(asked.split.cases)
        for item_id in asked.split.items(number)
    ]
    frame = pl.DataFrame(rows, schema=["member_id", "item_id", "score"], orient="row")
    values = []
    for sign in (1.0, -1.0):
        frame.with_columns(score=sign * pl.col("score")).write_parquet(path)
        values.append(suite(network, None, out, against=(str(path),)).run().figure("other", "auc").value)
    assert values == [1.0, 0.0]


def test_a_ranking_file_knows_the_time_of_a_ledger_without_times(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ledger:
        ledger.set_clock("order")
        fill(ledger)
        asked = suite(ledger, None, surface="movies")
        rows = [(case.member_id, case.wanted[0], 1.0, case.time) for case in asked.split.cases]
        columns = ["member_id", "item_id", "score", "timestamp"]
        pl.DataFrame(rows, schema=columns, orient="row").write_parquet(tmp_path / "oracle.parquet")
        report = suite(ledger, None, surface="movies", against=(str(tmp_path / "oracle.parquet"),)).run()
        assert report.figure("oracle", "mrr").value == 1.0
        assert {Visits(ledger).of(case).now for case in report.split.cases} == {0.0}, "its times are no times"


def test_what_has_no_settings_needs_no_validation(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/few.sqlite") as ledger:
        fill(ledger, [event("ann", "a", 1.0), event("ann", "b", 2.0), event("bob", "a", 1.0), event("bob", "c", 2.0)])
        report = suite(ledger, None, surface="movies", against=("popular", "random")).run()
        assert (report.tuned["popular"].value, report.tuned["popular"].tried) == (None, ())
        assert report.classical == "popular"
        assert "popular" in json.dumps(report.told)
        with pytest.raises(LedgerError, match="no settings can be chosen: in what may be learned from, no member has"):
            suite(ledger, None, surface="movies", against=("itemknn",)).run()


def test_the_routing_goes_by_what_its_routes_serve(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that the surface does not have is above the model: the advice is to have it, the route is the model."""
    monkeypatch.setattr(recommend, "FEWEST", 20)

    def at(ndcg: float) -> Results:
        own = report.results["foundation"]
        values_MF = own.values_MF.copy()
        values_MF[:, METRICS.index("ndcg@10")] = ndcg
        return replace(own, values_MF=values_MF)

    bench = {"foundation": at(0.3), "bm25": at(0.4), "retrieval": at(0.2)}
    found = replace(report, results=bench)
    assert (found.classical, found.verdict.route) == ("bm25", "classical")
    assert found.routing is not None
    assert found.routing["default"] == "foundation"
    level = replace(report, results={**bench, "retrieval": at(0.3)}).routing
    assert level is not None
    assert level["default"] == "classical"


def test_results_do_not_outlive_the_texts_that_they_came_from(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/texts.sqlite") as ledger:
        fill(ledger)
        asked = suite(ledger, None, surface="movies", against=("bm25",))
        before = asked._basis
        assert suite(ledger, None, surface="movies")._basis == before
        ledger.put_items([Item("a", "movie", {"title": "Another"})])
        assert suite(ledger, None, surface="movies")._basis != before


def test_what_cannot_be_had_is_left_out_of_all_of_them(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/order.sqlite") as ledger:
        ledger.set_clock("order")
        fill(ledger)
        report = suite(ledger, None, surface="movies", against=("all",)).run()
        assert "popular_7d" not in report.results
        assert {"popular", "ease", "sasrec", "text_embedding"} <= set(report.results)
        assert any(
            note.startswith("popular_7d is left out: ") and "window needs times" in note for note in report.notes
        )
        assert "the surface's source 'embedding' has no part in this: it needs a model" in report.notes
        with pytest.raises(ConfigError, match="popular_7d"):
            suite(ledger, None, surface="movies", against=("popular_7d",)).run()


def test_a_source_that_reads_the_ledger_as_it_is_now_has_no_part(tmp_path: Path, network: Ledger) -> None:
    """It would find the held-out events there."""
    (tmp_path / "last.yaml").write_text(
        "surface: last\ndescription: Jobs\nitem_kind: job\nprompt: {instruction: Jobs., item: '{{ title }}'}\n"
        "heads: [{name: apply, type: pointwise, weight: 1, actions: [apply, save]}]\n"
        "sources:\n  - {type: popular, k: 5}\n  - type: sql\n    k: 5\n    query: SELECT item_id FROM events\n"
        "      WHERE member_id = :member_id ORDER BY timestamp DESC\n"
    )
    registry = Registry.load([shipped_folder(), tmp_path])
    report = Suite(Asked("last", against=("retrieval",), budget=1), registry, network).run()
    assert report.coverage is not None
    assert set(report.coverage.found) == {"popular", "merged"}
    assert any(note.startswith("the surface's source 'sql' has no part in this") for note in report.notes)


@pytest.mark.parametrize("surface", ["feed", "people"])
def test_impressions_are_lists(network: Ledger, tiny_engine: TorchEngine, surface: str) -> None:
    """A member with several slates counts once."""
    report = suite(network, tiny_engine, surface=surface, protocol="lists", against=("random",)).run()
    found = report.told
    assert found["rankings"] >= found["members"] >= 5  # type: ignore[operator]
    values: dict[str, list[float]] = {}
    for case, value in zip(report.split.cases, report.results["random"].values("auc"), strict=True):
        values.setdefault(case.member_id, []).append(value)
    means = [np.mean(own) for own in values.values()]
    assert report.figure("random", "auc").value == pytest.approx(float(np.mean(means)))


def test_global_time_runs(network: Ledger) -> None:
    report = suite(network, None, surface="feed", protocol="global-time", against=("popular", "popular_7d")).run()
    assert report.split.cut is not None
    assert any(segment.name.startswith("since training") for segment in report.segments)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"against": ("populer",)}, "no method is called 'populer'; did you mean 'popular'"),
        ({"against": ("fused",)}, "no method is called 'fused'; it needs a model"),
        ({"against": ()}, "there is no model and no other method"),
        ({"lists": Path("lists.parquet")}, "a list file goes with the protocol 'lists', not with 'leave-one-out'"),
        ({"protocol": "lists", "candidates": 9}, "leave out --candidates and --history"),
        ({"against": ("absent.parquet",)}, "a ranking file must be a parquet file"),
        (
            {"against": ("x/fused.parquet",)},
            "the ranking file 'fused.parquet' has the name of another method; rename it",
        ),
        ({"against": ("a/x.parquet", "b/x.parquet")}, "the ranking file 'x.parquet' has the name of another method"),
        ({"protocol": "lists", "lists": Path("absent.parquet")}, "a list file must be a parquet file"),
    ],
)
def test_what_cannot_be_asked(network: Ledger, asked: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        suite(network, None, **asked).run()


def test_all_are_every_method(network: Ledger, tiny_engine: TorchEngine) -> None:
    assert suite(network, None, against=("all",)).wanted == names(model=False)
    assert suite(network, tiny_engine, against=("all",)).wanted == [
        "foundation",
        *names(model=False),
        "zero_shot",
        "fused",
        "late",
    ]


def test_the_cost_is_told_before(network: Ledger, tiny_engine: TorchEngine) -> None:
    told: list[str] = []
    asked = replace(suite(network, tiny_engine, members=5, against=("popular", "random")), tell=told.append)
    asked.run()
    assert "5 rankings of" in told[0]
    assert "up to 1 tries each on validation for popular" in told[0]
    assert "candidates a second: about" in told[1]


def test_an_evaluation_reads_the_model_as_it_is_served(
    network: Ledger, tiny_engine: TorchEngine, tmp_path: Path
) -> None:
    """Calibrated heads hold among given lists; results of before are not taken up."""
    version = Registry.shipped().declared("people").version
    found = CalibratedSurface(
        version=version, fitted_on="impressions", members=1, rankings=1, answers=1,
        heads={
            "connect": HeadFigures(
                map=Line(slope=0.5, intercept=-4.0), rate=0.1, ece_before=0.2, ece_after=0.01
            )
        },
    )  # fmt: skip
    asked = suite(network, tiny_engine, tmp_path, surface="people", against=("random",), members=20)
    raw = asked.run()
    told = replace(asked, calibrations=Calibrations(model="0" * 12).plus("people", found)).run()
    assert (raw.told["calibrated"], told.told["calibrated"]) == (False, True)
    said, same = (each.results["foundation"].answered("connect")[0] for each in (raw, told))
    np.testing.assert_allclose(same, found.heads["connect"].map(said.astype(np.float64)), rtol=1e-3)  # type: ignore[misc]
    np.testing.assert_array_equal(told.results["foundation"].tops_MK, raw.results["foundation"].tops_MK)
