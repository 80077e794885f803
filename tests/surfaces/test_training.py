"""`prismrank train` end to end on a small ledger, and every shipped configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError, LedgerError
from surfaces import training
from surfaces.ledger.store import Ledger
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
        "surface": "movies",
        "ledger": f"sqlite:///{tmp_path / 'ledger.sqlite'}",
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
    training.run(config, fresh=True)
    assert len(log.read_text()) > len(before)


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
        ({"ledger": None}, "give either 'dataset' or 'ledger'"),
        ({"dataset": "movielens-100k"}, "give either 'dataset' or 'ledger'"),
        ({"dataset": "netflix", "ledger": None}, "'netflix' is not known; there is 'movielens-100k'"),
        ({"training": {"steps": 0}}, r"training\.steps: .*greater than or equal to 1"),
        ({"training": {"steps": 1, "stepz": 2}}, r"training\.stepz: .*not permitted"),
        ({"surface": "moviez"}, "moviez"),
        ({"model": "nona"}, "no model configuration 'nona'"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(config: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, LedgerError), match=message) as caught:
        training.run(edited(config, **changes))
    assert "\n" not in str(caught.value)


def test_a_ledger_that_is_not_there_is_not_made(config: Path) -> None:
    with pytest.raises(LedgerError):
        training.run(edited(config, ledger=f"sqlite:///{config.parent / 'nothing.sqlite'}"))
    assert not (config.parent / "nothing.sqlite").exists()
