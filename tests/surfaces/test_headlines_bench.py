"""`prismrank bench headlines`: the baselines are what they say, figures are about held-out tests, runs go on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from serve.cli import main
from surfaces.examples.ab_tests import ABTest, Columns, SplitTests
from surfaces.headlines import linear
from surfaces.headlines.linear import Rows, fitted, pairwise_rows, pointwise_rows
from surfaces.headlines.report import Judged, differences, figures, pairs_right
from surfaces.headlines.stages import HELD_OUT, STAGES

CLEAR = ABTest("clear", "", ("x", "y", "z"), (3000,) * 3, (150, 30, 60))
OPEN = ABTest("open", "", ("x", "y"), (100, 100), (5, 4))


def test_the_line_is_that_of_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(300, 5))
    came = rng.random(300) < 1 / (1 + np.exp(-x_ND @ np.arange(-2.0, 3.0)))
    ours = fitted(Rows(x_ND, came.astype(float), 1.0 - came), 0.01)
    theirs = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=1000).fit(x_ND, came).coef_[0]
    assert np.abs(ours - theirs).max() < 1e-3


def test_rows_hold_the_counts_of_texts_and_pairs() -> None:
    vectors = {text: np.eye(3, dtype=np.float32)[place] for place, text in enumerate("xyz")}
    rows = pointwise_rows([CLEAR, OPEN], vectors)
    assert rows.yes_N.tolist() == [150, 30, 60, 5, 4]
    assert rows.no_N.tolist() == [2850, 2970, 2940, 95, 96]
    pairs = pairwise_rows([CLEAR, OPEN], vectors)
    assert pairs.x_ND[0].tolist() == [1, -1, 0]
    assert pairs.yes_N[:3] == pytest.approx([1, 1, 0], abs=0.01)
    assert 0.5 < pairs.yes_N[3] < 0.8
    for each in (rows, pairs):  # x is the best of all
        (scores,) = linear.scores([CLEAR], vectors, fitted(each, 0.01))
        assert scores.argmax() == 0


def test_figures_are_about_the_tests_that_they_name() -> None:
    right, wrong = np.array([3.0, 1.0, 2.0]), np.array([1.0, 3.0, 2.0])
    flat = np.zeros(2)
    found = {
        "sft": [Judged(CLEAR, wrong), Judged(CLEAR, right), Judged(OPEN, flat)],
        "dpo": [Judged(CLEAR, right), Judged(CLEAR, right), Judged(OPEN, np.array([1.0, 0.0]))],
    }
    told = figures(found)
    assert {name: (figure.interval.value, figure.tests) for name, figure in told["sft"].items()} == {
        "won": (0.5, 2), "won_clear": (0.5, 1), "pairs": (0.5, 1),
    }  # fmt: skip
    assert told["dpo"]["won"].interval.value == 1.0
    gaps = differences(found)["dpo - sft"]
    assert (gaps["won"].interval.value, gaps["pairs"].interval.value) == (0.5, 0.5)


def test_pairs_count_where_rates_differ_significantly() -> None:
    test = ABTest("a", "", ("x", "y", "z"), (1000,) * 3, (100, 98, 10))
    assert pairs_right(test, np.array([0.0, 1.0, -1.0])) == 1.0
    assert pairs_right(test, np.array([0.0, -2.0, -1.0])) == 0.5
    assert pairs_right(test, np.zeros(3)) == 0.5
    assert pairs_right(OPEN, np.zeros(2)) is None


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, words = random.Random(0), ("sun", "rain", "wind", "snow", "fog", "hail")
    path = tmp_path_factory.mktemp("headlines") / "tests.csv"
    rows = [
        {"campaign": f"c{n}", "subject": f"{' '.join(rng.sample(words, 3))} {place}", "sent": 1000,
         "opened": rng.randint(5, 60)}
        for n in range(40) for place in range(3)
    ]  # fmt: skip
    pl.DataFrame(rows).write_csv(path)
    return path


NAMES = "test=campaign,text=subject,impressions=sent,clicks=opened"


def bench(table: Path, *more: str) -> int:
    asked = ["bench", "headlines", "--tests", str(table), "--out", str(table.parent / "runs"), "--steps", "2"]
    return main([*asked, "--columns", NAMES, *more])


def test_the_command_tells_its_budget_measures_and_goes_on(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = table.parent / "report.json"
    assert bench(table, "--seeds", "1", "--json", str(report)) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith("minutes on one core")
    assert told.index("in all") < told.index("seed 0: sft …")
    found = json.loads(report.read_text())
    assert found["methods"].keys() == {
        "random", "text_embedding", "text_embedding_pairs", *(stage.name for stage in STAGES),
    }  # fmt: skip
    split = SplitTests.read(
        table, Columns(test="campaign", text="subject", impressions="sent", clicks="opened"), held_out=HELD_OUT, seed=0
    )
    assert found["parts"]["held_out"] == found["methods"]["sft"]["won"]["tests"] == len(split.held_out)
    assert found["methods"]["random"]["won"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert {"distilled - student", "dpo - sft"} <= found["differences"].keys()

    written = {path: path.stat().st_mtime_ns for path in (table.parent / "runs").rglob("model.safetensors")}
    assert len(written) == 3 * len(STAGES)
    assert bench(table, "--seeds", "1", "--json", str(report)) == 0
    assert json.loads(report.read_text()) == found
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--columns", "tests=a"], "columns: 'tests=a' is no KEY=NAME; the keys are test, text, impressions, clicks"),
        (["--columns", "test"], "columns: 'test' is no KEY=NAME"),
        (["--columns", ""], "no column 'test_id'"),
        (["--tests", "nothing.csv"], "nothing.csv: no such file"),
    ],
)
def test_bad_input_is_one_clear_line(
    table: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(table, *more) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("prismrank: ")
    assert message in last
