"""A/B tests as a run's data: the table, its split, the trees, and the run, with a teacher and with preferences."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from scipy.stats import beta

from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError, LedgerError
from surfaces.examples.ab_tests import ABTest, Columns, SplitTests, read_tests
from surfaces.examples.ab_trees import ABSurface, ABTrees, context_of, expected_ndcg, item_of, scored, won
from surfaces.examples.mix import Mix
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec
from surfaces.training import run as training
from tests.surfaces.world import fill

REGISTRY = Registry.shipped()
SPEC, FORM = REGISTRY.surface("headlines"), REGISTRY.trunk("member")
GOOD, BAD = ("Wonderful", "Amazing", "Secret"), ("Report", "Minutes", "Summary")
Rows = list[dict[str, object]]


def rows(tests: int = 40) -> Rows:
    """Tests of four texts each, whose rate is higher the more of three words they hold."""
    rng, found = random.Random(0), Rows()
    for number in range(tests):
        for good in rng.sample(range(4), 4):
            words = [*rng.sample(GOOD, good), *rng.sample(BAD, 3 - good)]
            text = " ".join([*rng.sample(words, 3), str(4 * number + good)])
            shown = rng.randint(2000, 4000)
            clicks = sum(rng.random() < 0.02 * (1 + good) for _ in range(shown // 4))
            found.append({"test_id": f"t{number}", "text": text, "impressions": shown // 4, "clicks": clicks,
                          "context": f"Story {number}"})  # fmt: skip
    return found


def written(folder: Path, table: Rows, name: str = "tests.parquet") -> Path:
    path = folder / name
    frame = pl.DataFrame(table, infer_schema_length=None, strict=False)
    {".parquet": frame.write_parquet, ".csv": frame.write_csv, ".jsonl": frame.write_ndjson}[path.suffix](path)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return written(tmp_path, rows())


def split(path: Path, seed: int = 0) -> SplitTests:
    return SplitTests.read(path, Columns(), held_out=0.2, seed=seed)


def trees(path: Path, engine: TorchEngine, spec: SurfaceSpec = SPEC) -> ABTrees:
    return ABTrees(ABSurface(spec, FORM, split(path), True, 200), engine, positions=3)


@pytest.mark.parametrize("name", ["tests.parquet", "tests.csv", "tests.jsonl"])
def test_every_file_form_gives_the_same_tests(tmp_path: Path, name: str) -> None:
    found = read_tests(written(tmp_path, rows(), name), Columns())
    assert len(found) == 40
    first = rows()[:4]
    assert found[0].texts == tuple(row["text"] for row in first)
    assert found[0].clicks == tuple(row["clicks"] for row in first)
    assert (found[0].test_id, found[0].context) == ("t0", "Story 0")


def test_columns_have_names_of_their_own(tmp_path: Path) -> None:
    names = {"test_id": "clickability_test_id", "text": "headline", "context": "lede"}
    renamed = [{names.get(key, key): value for key, value in row.items()} for row in rows()]
    columns = Columns(test="clickability_test_id", text="headline", context="lede")
    assert read_tests(written(tmp_path, renamed), columns) == read_tests(written(tmp_path, rows(), "a.csv"), Columns())


def test_a_table_without_a_context_has_none(tmp_path: Path) -> None:
    bare = [{key: value for key, value in row.items() if key != "context"} for row in rows()]
    path = written(tmp_path, bare)
    assert context_of(read_tests(path, Columns())[0]) == {}
    with pytest.raises(ConfigError, match=r"no column 'context' \(it has test_id, text, impressions, clicks\)"):
        read_tests(path, Columns(context="context"))


def test_the_same_text_twice_is_one_and_a_test_of_one_text_is_none(tmp_path: Path) -> None:
    made = [
        {"test_id": "a", "text": text, "impressions": 100, "clicks": clicks}
        for text, clicks in (("x", 1), ("y", 2), ("x", 3))
    ] + [{"test_id": "b", "text": "alone", "impressions": 10, "clicks": 1}]
    (found,) = read_tests(written(tmp_path, made), Columns())
    assert (found.texts, found.impressions, found.clicks) == (("x", "y"), (200, 100), (4, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clicks": -1}, r"row 2: 'clicks' is -1; it is a whole number from 0 on"),
        ({"clicks": None}, r"row 2: 'clicks' is None"),
        ({"clicks": 1.5}, r"row 2: 'clicks' is 1\.5"),
        ({"clicks": float("nan")}, r"row 2: 'clicks' is nan"),
        ({"impressions": 0}, r"row 2: 'impressions' is 0; it is a whole number from 1 on"),
        ({"impressions": 5, "clicks": 6}, r"row 2: 6 clicks of 5 impressions"),
        ({"text": " "}, r"row 2: 'text' is empty"),
        ({"test_id": None}, r"row 2: 'test_id' is empty"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    made = [row | (change if number == 1 else {}) for number, row in enumerate(rows(2))]
    path = tmp_path / "tests.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    with pytest.raises(ConfigError, match=message):
        read_tests(path, Columns())


def test_files_that_are_no_tests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.parquet: no such file; tests are a \.parquet, \.jsonl or \.csv"):
        read_tests(tmp_path / "nothing.parquet", Columns())
    (tmp_path / "tests.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"tests\.txt: no such file"):
        read_tests(tmp_path / "tests.txt", Columns())
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(LedgerError, match=r"torn\.parquet: not a whole parquet file"):
        read_tests(tmp_path / "torn.parquet", Columns())
    with pytest.raises(ConfigError, match=r"1 tests of two texts or more are too few"):
        split(written(tmp_path, rows(1)))


def test_a_test_is_whole_in_one_part_and_stays_there(table: Path, tmp_path: Path) -> None:
    found = split(table)
    parts = [{test.test_id for test in part} for part in (found.learned, found.validating, found.held_out)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 40
    assert all(parts)
    more = split(written(tmp_path, [*rows(), {**rows()[0], "test_id": "new"}], "more.csv"))
    assert more == found  # what comes later moves nothing; a test of one text is none
    assert {test.test_id for test in split(table, seed=1).held_out} != parts[2]


def test_the_posterior_is_that_of_beta_distributions() -> None:
    test = ABTest("a", "", ("x", "y"), (3000, 2900), (60, 43))
    grid = np.linspace(0, 0.06, 20_001)
    x, y = beta(61, 2941), beta(44, 2858)
    exact = float(np.trapezoid(x.pdf(grid) * y.cdf(grid), grid))
    assert test.posterior.beats_KK[0, 1] == pytest.approx(exact, abs=0.02)
    assert test.posterior.best_K == pytest.approx([test.posterior.beats_KK[0, 1], test.posterior.beats_KK[1, 0]])


def test_a_winner_is_clear_where_two_proportions_differ() -> None:
    """z = (.03 - .02) / sqrt(.025 x .975 x (1/2000 + 1/2000)) = 2.03: p is .043; with a little less it is above."""
    assert ABTest("a", "", ("x", "y"), (2000, 2000), (60, 40)).clear
    assert not ABTest("a", "", ("x", "y"), (2000, 2000), (59, 41)).clear
    assert not ABTest("a", "", ("x", "y", "z"), (2000, 2000, 2000), (60, 59, 10)).clear
    assert not ABTest("a", "", ("x", "y"), (20, 20), (0, 0)).clear


def test_figures_of_a_pick() -> None:
    test = ABTest("a", "", ("x", "y", "z"), (100, 100, 100), (1, 50, 2))
    assert (test.best, won(test, np.array([0.0, 1.0, 0.5])), won(test, np.array([2.0, 1.0, 0.5]))) == (1, 1.0, 0.0)
    assert won(test, np.zeros(3)) == pytest.approx(1 / 3)
    assert expected_ndcg(test, np.array([0.0, 1.0, 0.5])) == pytest.approx(1.0)
    assert expected_ndcg(test, np.array([2.0, 1.0, 0.5])) == pytest.approx(1 / math.log2(3))


def test_labels_say_what_the_counts_say(table: Path, tiny_engine: TorchEngine) -> None:
    tests = split(table).learned[:3]
    labelled = trees(table, tiny_engine).tree(tests)
    assert labelled.leaves == sum(len(test.texts) for test in tests)
    yes, no = SPEC.answers.index("yes"), SPEC.answers.index("no")
    first = 0
    for test, one, graded in zip(tests, labelled.lists, labelled.graded, strict=True):
        assert one.leaves == graded.leaves == tuple(range(first, first + 4))
        assert (one.yes, one.no, one.leaves[one.chosen]) == (yes, no, first + test.best)
        assert one.shares == pytest.approx(np.array(test.clicks) / sum(test.clicks))
        assert np.array(one.stands_for) / sum(one.stands_for) == pytest.approx(
            np.array(test.impressions) / sum(test.impressions)
        )
        assert graded.came == pytest.approx(test.rates_K)
        pairs = [pair for pair in labelled.preferences if first <= pair.preferred < first + 4]
        assert len(pairs) == 6
        for pair in pairs:
            a, b = pair.preferred - first, pair.other - first
            assert pair.sure == test.posterior.beats_KK[a, b] >= test.posterior.beats_KK[b, a]
        first += 4


def test_a_test_without_a_click_is_no_choice(table: Path, tiny_engine: TorchEngine) -> None:
    labelled = trees(table, tiny_engine).tree([ABTest("a", "", ("x", "y"), (10, 20), (0, 0))])
    assert labelled.lists == ()
    assert labelled.graded[0].came == (0.0, 0.0)


def test_training_reads_what_a_request_would(table: Path, tiny_engine: TorchEngine) -> None:
    """A tree of several tests gives each leaf what its test alone gives it, as `rank` composes it."""
    tests = split(table).learned[:5]
    labelled = trees(table, tiny_engine).tree(tests)
    said = tiny_engine.score([labelled.tree])[0].table()
    yes, no = SPEC.answers.index("yes"), SPEC.answers.index("no")
    ours = 1 / (1 + np.exp(-(said[:, yes] - said[:, no]).astype(np.float64)))
    theirs = np.concatenate(scored(SPEC, FORM, tiny_engine, tests))
    assert np.abs(ours - theirs).max() < 1e-6
    assert labelled.prompt is not None
    assert tiny_engine.read(labelled.prompt) == labelled.tree
    told = [piece.text for node in labelled.prompt.nodes for piece in node.pieces]
    assert f"The story: {tests[0].context}\n" in told
    assert tests[0].texts[0] in told


def test_nothing_held_out_or_validating_is_in_a_tree(table: Path, tiny_engine: TorchEngine) -> None:
    data = Mix([trees(table, tiny_engine)], trees_per_step=4, seed=0)
    found = split(table)
    hidden = {text for test in (*found.validating, *found.held_out) for text in test.texts}
    seen = {
        piece.text
        for step in range(20)
        for labelled in data.batch(step)
        if labelled.prompt
        for node in labelled.prompt.nodes
        for piece in node.pieces
    }
    assert not seen & hidden
    assert {test.texts[0] for test in found.learned} <= seen
    assert not hidden & set(ABSurface(SPEC, FORM, found, True, 200).texts())
    assert [each.tree for each in data.batch(7)] == [each.tree for each in data.batch(7)]


def test_a_surface_that_cannot_say_yes_is_refused(table: Path, tiny_engine: TorchEngine) -> None:
    with pytest.raises(ConfigError, match=r"surface 'ads': .* give it a head of type pointwise"):
        trees(table, tiny_engine, REGISTRY.surface("ads"))


def test_a_text_may_be_a_title(tiny_engine: TorchEngine) -> None:
    assert SPEC.prompt.wording().leaf(item_of("Hello")) == SPEC.prompt.wording().leaf({"title": "Hello"}) == "Hello"


@pytest.fixture
def config(tmp_path: Path, table: Path) -> Path:
    model = yaml.safe_load(Path("configs/model/nano.yaml").read_text())
    small = {"vocab_size": 512, "hidden_size": 48, "layers": 1, "compressor": False, "experts": 4, "expert_size": 48}
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(model | small))
    settings = {
        "model": str(tmp_path / "model.yaml"),
        "data": [{"tests": str(table), "surfaces": ["headlines"]}],
        "out": str(tmp_path / "run"),
        "examples": {"positions": 3},
        "training": {"steps": 60, "threads": 1, "validate_every": 30, "checkpoint_every": 30, "learning_rate": 0.01},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "train.yaml"


def edited(config: Path, **changes: object) -> Path:
    settings = yaml.safe_load(config.read_text())
    settings["training"] |= changes.pop("training", {})
    (config.parent / "other.yaml").write_text(yaml.safe_dump(settings | changes))
    return config.parent / "other.yaml"


def log_of(config: Path, run: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.parent / run / training.LOG_FILE).read_text().splitlines()]


def test_a_run_learns_then_teaches_then_prefers(config: Path, table: Path) -> None:
    model = training.run(config)
    test = split(table).held_out
    engine = TorchEngine.load(model)
    share = np.mean([won(each, scores) for each, scores in zip(test, scored(SPEC, FORM, engine, test), strict=True)])
    assert share > 0.6  # one in four by chance
    validations = [line for line in log_of(config, "run") if "headlines_won" in line]
    assert [line["step"] for line in validations] == [30, 60]

    smaller = yaml.safe_load((config.parent / "model.yaml").read_text()) | {"vocab_size": 600, "hidden_size": 24}
    (config.parent / "student.yaml").write_text(yaml.safe_dump(smaller | {"heads": 2, "kv_heads": 2}))
    short = {"steps": 8, "validate_every": 8}
    taught = edited(
        config, model=str(config.parent / "student.yaml"), teacher=str(model), out=str(config.parent / "student"),
        training=short | {"loss": {"distill": 1.0}},
    )  # fmt: skip
    training.run(taught)
    steps = [line for line in log_of(config, "student") if "distill" in line]
    assert len(steps) == 8
    assert all(line["distill"] > 0 and line["preference"] == 0 for line in steps)

    training.run(
        edited(config, model=str(model), out=str(config.parent / "dpo"), training=short | {"loss": {"preference": 1}})
    )
    steps = [line for line in log_of(config, "dpo") if "preference" in line]
    assert steps[0]["preference"] == pytest.approx(math.log(2), abs=1e-4)
    assert all(line["distill"] == 0 for line in steps)


def test_a_run_has_ledgers_and_tests(config: Path) -> None:
    with Ledger.open(f"sqlite:///{config.parent / 'ledger.sqlite'}") as ledger:
        fill(ledger)
    films = {"ledger": f"sqlite:///{config.parent / 'ledger.sqlite'}", "surfaces": ["movies"]}
    data = [*yaml.safe_load(config.read_text())["data"], films]
    model = yaml.safe_load((config.parent / "model.yaml").read_text())
    (config.parent / "model.yaml").write_text(yaml.safe_dump(model | {"compressor": True}))
    short = {"steps": 3, "validate_every": 3}
    training.run(edited(config, data=data, training=short, temperature=100.0, validation={"members": 5}))
    found = log_of(config, "run")[-2]
    assert {"headlines_ndcg@10", "headlines_won", "movies_ndcg@10"} <= found.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "nowhere"}, "'teacher' and a weight 'distill' under training.loss go together"),
        ({"training": {"loss": {"distill": 1}}}, "'teacher' and a weight 'distill' under training.loss go together"),
        ({"training": {"loss": {"preference": 1}}}, "give a model folder|'model' should be its folder"),
        ({"data": [{"tests": "t.csv", "columns": {"texts": "x"}, "surfaces": ["headlines"]}]}, r"columns\.texts"),
        ({"data": [{"tests": "t.csv", "world": "network", "surfaces": ["headlines"]}]}, "give one of 'ledger'"),
        ({"data": [{"tests": "t.csv", "surfaces": ["headlines"]}]}, r"t\.csv: no such file"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(config: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        training.run(edited(config, **changes))
    assert "\n" not in str(caught.value)
