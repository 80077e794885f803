"""`prismrank train` with an adapter: the model stays as it is, what is learned is served over it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from foundation.engine.torch import TorchEngine
from foundation.training import checkpoint
from prompts.errors import CheckpointError, ConfigError
from surfaces.adapters import Adapters
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.method import Visits
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from surfaces.spec_file import as_yaml, read_spec
from surfaces.training import run as training
from tests.surfaces.world import fill

NAMED = """\
surface: films
description: Films
item_kind: movie
adapter: taste
prompt: {instruction: "Which film?", item: "{{ title }}"}
sources: [{type: popular, k: 20}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger, a surface file that names an adapter, and the configuration of a small model."""
    folder = tmp_path_factory.mktemp("adapting")
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
        fill(ledger)
    (folder / "surfaces").mkdir()
    (folder / "surfaces" / "films.yaml").write_text(NAMED, encoding="utf-8")
    model = yaml.safe_load(Path("configs/model/nano.yaml").read_text(encoding="utf-8"))
    small = {"vocab_size": 512, "hidden_size": 48, "layers": 2, "initializer_range": 0.15}
    (folder / "model.yaml").write_text(yaml.safe_dump(model | small), encoding="utf-8")
    return folder


def written(place: Path, name: str, **changes: object) -> Path:
    """A configuration, whose run goes into the folder `name`."""
    settings: dict[str, Any] = {
        "model": str(place / "model.yaml"),
        "surfaces": [str(place / "surfaces")],
        "data": [{"ledger": f"sqlite:///{place / 'ledger.sqlite'}", "surfaces": ["movies", "films"]}],
        "out": str(place / name),
        "examples": {"positions": 3, "likely": 3, "others": 3},
        "training": {"steps": 4, "trees_per_step": 2, "threads": 1, "validate_every": 4, "checkpoint_every": 2},
        "validation": {"members": 3},
    }
    path = place / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings | changes), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(place: Path) -> Path:
    """A model that was trained without an adapter, on a surface whose file names one."""
    return training.run(written(place, "base"))


STEEP = {
    "steps": 6, "trees_per_step": 2, "threads": 1, "validate_every": 6, "checkpoint_every": 2, "learning_rate": 0.05,
    "warmup": 1,
}  # fmt: skip


def adapted(place: Path, base: Path, name: str, **changes: object) -> Path:
    given = {"model": str(base), "adapter": {"name": "taste", "rank": 4, "targets": ["v_proj", "q_proj"]}}
    return written(place, name, **(given | {"training": STEEP} | changes))


@pytest.fixture(scope="module")
def learned(place: Path, base: Path) -> Iterator[Path]:
    """The folder that a run of an adapter gives away."""
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    yield training.run(adapted(place, base, "taste"))
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def test_the_base_stays_and_the_adapter_is_what_is_released(place: Path, base: Path, learned: Path) -> None:
    assert learned == place / "taste" / training.ADAPTER
    assert {path.name for path in learned.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    assert not (place / "taste" / training.RELEASE).exists()
    config = json.loads((learned / "adapter_config.json").read_text(encoding="utf-8"))
    engine = TorchEngine.load(base)
    assert f"{config['base_model_name_or_path']}@{config['revision']}" == engine.model_version
    assert (config["r"], config["lora_alpha"], set(config["target_modules"])) == (4, 16, {"q_proj", "v_proj"})
    best = checkpoint.restore(place / "taste" / checkpoint.BEST)[0]
    assert all(float(update.up_OR.detach().abs().max()) > 1e-3 for update in best.attached["taste"].updates)


def test_validation_and_evaluation_rank_under_the_adapter(place: Path, base: Path, learned: Path) -> None:
    """What a run validates is what the released adapter scores over the released model; the base says otherwise."""
    engine, registry = TorchEngine.load(base), Registry.load([shipped_folder(), place / "surfaces"])
    (place / "all").mkdir()
    (place / "all" / "taste").symlink_to(learned)
    Adapters(engine, place / "all").load(registry.declared("films"))
    config = training.TrainConfig.load(place / "taste.yaml")
    best = checkpoint.restore(place / "taste" / checkpoint.BEST)[0]
    with training.lessons(config) as taught:
        assert [each.spec.adapter for each in taught] == ["taste", "taste"]
        films = next(each for each in taught if each.spec.surface == "films")
        plain = films.spec.model_copy(update={"adapter": None})
        case = films.split.cases[0]
        visit, items = Visits(films.ledger).of(case), films.split.items(0)
        found = [
            FoundationMethod(spec, films.form, films.ledger, scorer, films.split.train).judge(visit, items).scores
            for spec, scorer in ((films.spec, engine), (films.spec, TorchEngine(best, engine.encoder)), (plain, engine))
        ]
    assert abs(found[0] - found[1]).max() <= 1e-5
    assert abs(found[0] - found[2]).max() > 1e-3


def test_a_base_run_leaves_the_adapters_of_surface_files_aside(place: Path, base: Path) -> None:
    assert base == place / "base" / training.RELEASE
    with training.lessons(training.TrainConfig.load(place / "base.yaml")) as taught:
        assert [each.spec.adapter for each in taught] == [None, None]


def test_a_run_that_is_over_gives_the_same_away_again(place: Path, base: Path, learned: Path) -> None:
    weights = learned / "adapter_model.safetensors"
    before = weights.read_bytes()
    weights.unlink()
    assert training.run(adapted(place, base, "taste")) == learned
    assert weights.read_bytes() == before


def test_the_model_may_not_change_while_its_adapter_learns(place: Path, base: Path) -> None:
    mine = place / "mine"
    engine = TorchEngine.load(base)
    engine.ranker.save(mine, engine.encoder)
    path = adapted(place, mine, "moved", surfaces=[], data=[
        {"ledger": f"sqlite:///{place / 'ledger.sqlite'}", "surfaces": ["movies"]}
    ])  # fmt: skip
    training.run(path)
    with torch.no_grad():
        next(engine.ranker.lm.parameters()).add_(1.0)
    engine.ranker.save(mine, engine.encoder)
    with pytest.raises(CheckpointError, match="no longer the model that the adapter was begun on"):
        training.run(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nano"}, "'model' should be its folder, and 'nano' is none"),
        ({"training": STEEP | {"gradient_checkpointing": True}}, r"without training\.gradient_checkpointing"),
        ({"adapter": {"name": "Über"}}, r"adapter\.name: .*pattern"),
        ({"adapter": {"name": "a", "rank": 0}}, r"adapter\.rank: .*greater than or equal to 1"),
        ({"adapter": {"name": "a", "targets": ["gate_proj"]}}, r"adapter\.targets\.0: .*'q_proj'"),
        ({"adapter": {"rank": 4}}, r"adapter\.name: Field required"),
    ],
)
def test_a_wrong_adapter_is_one_clear_line(place: Path, base: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        training.run(adapted(place, base, "wrong", **changes))
    assert "\n" not in str(caught.value)
    assert not (place / "wrong").exists()


def test_only_a_surface_that_names_an_adapter_has_another_version_for_it() -> None:
    """What was fitted to a version, and what is kept under it, stays good for surfaces without one."""
    plain, named, other = (
        read_spec(NAMED.replace("adapter: taste\n", line), "films.yaml").spec
        for line in ("", "adapter: taste\n", "adapter: another\n")
    )
    assert "adapter" not in plain.model_dump(mode="json")
    assert len({plain.version, named.version, other.version}) == 3
    assert "adapter: taste" in as_yaml(named)
