"""`prismrank train` end to end on a small ledger, and every shipped configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError, LedgerError
from surfaces.ledger.store import Ledger
from surfaces.training import run as training
from tests.surfaces.world import fill

SHIPPED = sorted(Path("configs/train").glob("*.yaml"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}") as ledger:
        fill(ledger)
    model = yaml.safe_load(Path("configs/model/nano.yaml").read_text())
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(model | {"vocab_size": 512, "hidden_size": 48}))
    settings = {
        "model": str(tmp_path / "model.yaml"),
        "data": [{"ledger": f"sqlite:///{tmp_path / 'ledger.sqlite'}", "surfaces": ["movies"]}],
        "out": str(tmp_path / "run"),
        "examples": {"positions": 4, "likely": 4, "others": 4},
        "training": {"steps": 6, "threads": 1, "validate_every": 3, "checkpoint_every": 2},
        "validation": {"members": 5},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "train.yaml"


def edited(config: Path, **changes: object) -> Path:
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({key: value for key, value in (settings | changes).items() if value is not None}))
    return config


def test_a_run_leaves_a_checkpoint_that_serves(config: Path) -> None:
    folder = training.run(config)
    engine = TorchEngine.load(folder)
    assert engine.compresses
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors"}
    lines = [json.loads(line) for line in (config.parent / "run" / training.LOG_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_ndcg@10" in line] == [3, 6]


def test_a_finished_run_is_not_run_again(config: Path) -> None:
    training.run(config)
    log = config.parent / "run" / training.LOG_FILE
    before = log.read_text()
    training.run(config)
    assert log.read_text() == before
    written = log.stat().st_mtime_ns
    training.run(config, fresh=True)
    assert log.stat().st_mtime_ns > written


def test_a_run_goes_on_only_as_it_began(config: Path) -> None:
    training.run(config)
    changed = edited(config, examples={"positions": 4, "likely": 4, "others": 4, "holdout": 0})
    with pytest.raises(ConfigError, match="a run of another configuration"):
        training.run(changed)
    training.run(changed, fresh=True)


def test_training_goes_on_from_a_model_folder(config: Path) -> None:
    folder = training.run(config)
    training.run(edited(config, model=str(folder), out=str(config.parent / "second")))
    assert (config.parent / "second" / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_whole(path: Path) -> None:
    assert training.TrainConfig.load(path) == training.TrainConfig.load(path.stem)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": [{"surfaces": ["movies"]}]}, r"data\.0: .*give one of 'ledger', 'dataset' and 'world'"),
        (
            {"data": [{"surfaces": ["movies"], "world": "network", "dataset": "movielens-100k"}]},
            r"data\.0: .*give one of 'ledger', 'dataset' and 'world'",
        ),
        ({"data": [{"surfaces": ["movies"], "dataset": "netflix"}]}, r"data\.0\.dataset: .*'movielens-100k'"),
        ({"data": [{"surfaces": ["movies", "movies"], "world": "network"}]}, "the surface 'movies' is named 2 times"),
        ({"data": [{"surfaces": ["feed"], "world": "network", "learn": False}]}, "there is nothing to learn from"),
        ({"training": {"steps": 0}}, r"training\.steps: .*greater than or equal to 1"),
        ({"training": {"steps": 1, "stepz": 2}}, r"training\.stepz: .*not permitted"),
        ({"data": [{"surfaces": ["moviez"], "ledger": "sqlite:///LEDGER"}]}, "moviez"),
        ({"model": "nona"}, "no model configuration 'nona'"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(config: Path, changes: dict[str, object], message: str) -> None:
    text = json.dumps(changes).replace("LEDGER", str(config.parent / "ledger.sqlite"))
    with pytest.raises((ConfigError, LedgerError), match=message) as caught:
        training.run(edited(config, **json.loads(text)))
    assert "\n" not in str(caught.value)


def test_a_ledger_that_is_not_there_is_not_made(config: Path) -> None:
    nothing = {"ledger": f"sqlite:///{config.parent / 'nothing.sqlite'}", "surfaces": ["movies"]}
    with pytest.raises(LedgerError):
        training.run(edited(config, data=[nothing]))
    assert not (config.parent / "nothing.sqlite").exists()
