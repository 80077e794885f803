"""`prismrank train --since`: new events are learned, bad training is refused, and what serves is always whole."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from foundation import model as models
from foundation.engine.torch import TorchEngine
from prompts.errors import CheckpointError, ConfigError, TrainingError
from serve.cli import main
from surfaces.evaluation.bootstrap import Interval, interval
from surfaces.examples.ab_tests import Columns, SplitTests
from surfaces.examples.ab_trees import ABSurface
from surfaces.ledger.records import Event, Item
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, shipped_folder
from surfaces.training import run as training
from surfaces.training import update
from surfaces.training.guard import Compared, check, compared
from surfaces.training.trained import TRAINED_FILE, Learned, Trained
from tests.conftest import tiny_config
from tests.surfaces.world import EVENTS, FILMS, MEMBERS, fill

NEWER = 1_000_000.0
SEEN = 5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ledger, a configuration and a run of it that has learned a little; tests take copies."""
    folder = tmp_path_factory.mktemp("trained")
    with Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}") as ledger:
        fill(ledger)
    (folder / "surfaces").mkdir()
    text = re.sub("evidence: .*", "evidence: [popular, co_visitation]", (shipped_folder() / "movies.yaml").read_text())
    (folder / "surfaces" / "movies.yaml").write_text(text)
    model = yaml.safe_load(Path("configs/model/nano.yaml").read_text())
    small = {"vocab_size": 512, "hidden_size": 48, "layers": 1, "experts": 2, "expert_size": 48}
    (folder / "model.yaml").write_text(yaml.safe_dump(model | small))
    written(folder)
    training.run(folder / "train.yaml")
    return folder


def written(folder: Path, **changes: object) -> Path:
    """The configuration, with other settings of the update."""
    settings = {
        "model": str(folder / "model.yaml"),
        "data": [{"ledger": f"sqlite:///{folder / 'ledger.sqlite'}", "surfaces": ["movies"]}],
        "surfaces": [str(folder / "surfaces")],
        "out": str(folder / "run"),
        "examples": {"positions": 8, "likely": 8, "others": 8},
        "training": {
            "steps": 20, "threads": 1, "learning_rate": 0.01, "warmup": 5, "validate_every": 20, "checkpoint_every": 20,
        },
        "validation": {"members": 30},
        "update": {"steps": 8, "warmup": 0, "learning_rate": 0.005},
    }  # fmt: skip
    (folder / "train.yaml").write_text(yaml.safe_dump(settings | changes))
    return folder / "train.yaml"


@pytest.fixture
def config(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "copy")
    began = tmp_path / "copy" / "run" / training.CONFIG_FILE
    began.write_text(began.read_text().replace(str(trained), str(tmp_path / "copy")))
    return written(tmp_path / "copy")


def goes_on(config: Path) -> None:
    """There are six westerns now, and every member watches five of them, later than all that was."""
    with Ledger.open(f"sqlite:///{config.parent / 'ledger.sqlite'}") as ledger:
        ledger.put_items(
            Item(f"w{n}", "movie", {"title": f"Żółć {n}", "year": 2030, "genres": ["Western"]}) for n in range(6)
        )
        ledger.add_events(
            Event(f"m{n:02}", f"w{(place * (1 + n % 2 * 4) + n) % 6}", "movies", "like", NEWER + 100 * n + place)
            for n in range(MEMBERS)
            for place in range(SEEN)
        )


def keeps_on(config: Path) -> None:
    """Every member watches three more films of their camp, whichever."""
    rng = np.random.default_rng(0)
    with Ledger.open(f"sqlite:///{config.parent / 'ledger.sqlite'}") as ledger:
        seen = {
            name: {event.item_id for event in events} for name, events in ledger.timelines(ledger.member_ids()).items()
        }
        for n, (name, watched) in enumerate(sorted(seen.items())):
            left = [f"f{film:02}" for film in range(n % 2, FILMS, 2) if f"f{film:02}" not in watched]
            more = [str(item) for item in rng.permutation(left)[:3]]
            ledger.add_events(Event(name, item, "movies", "like", NEWER + place) for place, item in enumerate(more))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def serving(config: Path) -> Path:
    return config.parent / "run" / training.RELEASE


def test_a_release_says_what_it_learned_from(config: Path) -> None:
    """Of twelve films the last two are held out."""
    told = json.loads((serving(config) / TRAINED_FILE).read_text())
    newest = 1000.0 * (MEMBERS - 1) + EVENTS - 3
    assert told == {"config": "train", "surfaces": {"movies": {"newest": newest, "spots": MEMBERS * (EVENTS - 2)}}}


def test_new_events_are_learned_and_released(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, old = weights(serving(config)), models.version(serving(config))
    goes_on(config)
    assert main(["train", str(config), "--since", "last"]) == 0
    out = capsys.readouterr().out
    before_ndcg, after_ndcg = map(float, re.findall(r"movies: NDCG@10 (0\.\d+), then (0\.\d+)", out)[0])
    assert after_ndcg > before_ndcg + 0.05, "westerns are what comes next"
    assert weights(serving(config)) != before
    assert TorchEngine.load(serving(config)).model_version != old
    learned = Trained.load(serving(config)).surfaces["movies"]
    assert learned == Learned(newest=NEWER + 100 * (MEMBERS - 1) + SEEN - 3, spots=MEMBERS * (EVENTS + SEEN - 2))
    left = {path.name for path in (config.parent / "run" / update.FOLDER).iterdir()}
    assert not left & {"model", "last", "best", update.BEGUN_FILE}
    after = weights(serving(config))
    training.run(config)
    assert weights(serving(config)) == after, "a finished run does not put its own model back"


def test_bad_training_is_refused_and_the_old_model_serves(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in serving(config).iterdir()}
    keeps_on(config)
    written(config.parent, update={"steps": 2, "warmup": 0, "learning_rate": 1.0, "rehearsal": 0.0})
    assert main(["train", str(config), "--since", "last"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "surface 'movies': NDCG@10 on held-out events fell by 0." in error
    assert "stays as it was" in error
    assert {path.name: path.read_bytes() for path in serving(config).iterdir()} == before
    TorchEngine.load(serving(config))
    refused = config.parent / "run" / update.FOLDER / training.RELEASE
    assert weights(refused) != before["model.safetensors"]
    written(config.parent, update={"steps": 8, "warmup": 0, "learning_rate": 1e-4})  # too gentle to be worse
    update.run(config, "last")
    assert weights(serving(config)) != before["model.safetensors"], "the next run begins anew"


def test_a_stopped_update_goes_on(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between the release and the guard, it does not train again."""
    goes_on(config)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(update, "compared", stopped)
        with pytest.raises(KeyboardInterrupt):
            update.run(config, "last")
    log = config.parent / "run" / update.FOLDER / training.LOG_FILE
    seen = log.stat().st_mtime_ns
    assert len(update.run(config, "last").figures) == 1
    assert log.stat().st_mtime_ns == seen


def test_leaves_hang_at_new_events_and_at_a_share_of_old_ones(config: Path) -> None:
    goes_on(config)
    told = training.TrainConfig.load(config)
    engine = TorchEngine.load(serving(config))
    with training.lessons(told) as taught:
        (part,) = training.examples_of(told, taught, engine)
        new, old = part.parted(NEWER - 1)
        wanted = {NEWER + 100 * n + place for n in range(MEMBERS) for place in range(SEEN - 2)}
        assert {float(at) for each in new.courses for at in each.times_S} == wanted
        assert (new.size, old.size) == (len(wanted), MEMBERS * EVENTS)
        drawn = update.rehearsing(told, [part], {"movies": NEWER - 1})
        trees = [tree for step in range(20) for tree in drawn.batch(step)]
        stems = [sum(node.parent == 0 for node in tree.tree.nodes) for tree in trees]
        assert 0.15 < float(np.mean([count > SEEN - 2 for count in stems])) < 0.45
        new_trees = [tree.tree for tree, count in zip(trees, stems, strict=True) if count <= SEEN - 2]
        assert min(len(tree.nodes[0].vectors) for tree in new_trees) >= EVENTS, "older events are in the trunk"
        again = update.rehearsing(told, [part], {"movies": NEWER - 1}).batch(3)
        assert [tree.tree.size for tree in again] == [tree.tree.size for tree in drawn.batch(3)]


@pytest.mark.parametrize(
    ("since", "message"),
    [
        ("yesterday", r"--since: 'yesterday' is not a time; write 'last', seconds since 1970 or ISO 8601"),
        ("last", r"nothing new to learn from on surface 'movies' after 1970-01-01T08:03:29\+00:00"),
        ("2026-01-01T00:00:00Z", r"nothing new to learn from on surface 'movies' after 2026-01-01T00:00:00\+00:00"),
    ],
)
def test_what_cannot_be_learned_is_one_clear_line(config: Path, since: str, message: str) -> None:
    before = weights(serving(config))
    with pytest.raises((ConfigError, TrainingError), match=message):
        update.run(config, since)
    assert weights(serving(config)) == before


def test_positions_are_no_times(config: Path) -> None:
    url = f"sqlite:///{config.parent / 'ordered.sqlite'}"
    with Ledger.open(url) as ledger:
        ledger.set_clock("order")
        fill(ledger)
    written(config.parent, data=[{"ledger": url, "surfaces": ["movies"]}])
    with pytest.raises(ConfigError, match="the clock of surface 'movies's ledger is 'order': train anew"):
        update.run(config, "5")


def test_there_must_be_something_to_go_on_from_and_to_compare_on(config: Path) -> None:
    (serving(config) / TRAINED_FILE).write_text('{"config": "train", "surfaces": {"movies": {"newest": "5"}}}')
    with pytest.raises(CheckpointError, match=r"trained\.json: surfaces\.movies\.newest: .*give --since a time"):
        update.run(config, "last")
    (serving(config) / TRAINED_FILE).unlink()
    with pytest.raises(CheckpointError, match="what the model learned from is unknown"):
        update.run(config, "last")
    Trained(config="other", surfaces={"feed": Learned(newest=1.0, spots=1)}).save(serving(config))
    with pytest.raises(CheckpointError, match="the model learned nothing on surface 'movies'"):
        update.run(config, "last")
    written(config.parent, examples={"holdout": 1})
    with pytest.raises(ConfigError, match=r"examples\.holdout: 1; --since needs 2 or more"):
        update.run(config, "5")
    shutil.rmtree(serving(config))
    with pytest.raises(CheckpointError, match="no model to train on from"):
        update.run(config, "5")


def change(value: float, low: float, high: float, surface: str = "movies") -> Compared:
    return Compared(surface, 0.5, 0.5 + value, Interval(value, low, high))


def test_the_guard_tells_chance_from_worse() -> None:
    check([change(0.1, 0.05, 0.2), change(-0.004, -0.02, 0.01)], 0.005)
    check([change(-0.005, -0.02, 0.01)], 0.005)
    with pytest.raises(TrainingError, match=r"'ads': .* fell by 0\.1000, from 0\.5000 to 0\.4000, more than by chance"):
        check([change(0.3, 0.2, 0.4), change(-0.1, -0.15, -0.05, "ads")], 0.5)
    with pytest.raises(TrainingError, match=r"'ads': .* the mean over 2 surfaces fell by 0\.0100, and 0\.005 is allow"):
        check([change(0.01, -0.1, 0.1), change(-0.03, -0.1, 0.1, "ads")], 0.005)


def test_members_are_compared_in_pairs() -> None:
    """A small loss of everybody is beyond chance, however much members differ."""
    before_M = np.random.default_rng(0).random(200)
    worse = interval(before_M - 0.01 - before_M)
    assert worse.high < 0


@pytest.mark.parametrize("exchanging", [True, False])
def test_folders_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanging: bool) -> None:
    for name in ("fresh", "serving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    if not exchanging:
        monkeypatch.setattr(update, "_EXCHANGE", 1 << 20)  # a flag that no system knows
    update.swap(tmp_path / "fresh", tmp_path / "serving")
    assert (tmp_path / "serving" / "name").read_text() == "fresh"
    assert (tmp_path / "fresh" / "name").read_text() == "serving"
    assert {path.name for path in tmp_path.iterdir()} == {"fresh", "serving"}


def test_a_kill_between_two_steps_loses_nothing(config: Path) -> None:
    goes_on(config)
    serving(config).rename(serving(config).with_name(".model.old"))
    update.run(config, "last")
    assert serving(config).is_dir()


def test_surfaces_over_tests_are_compared_test_by_test(tmp_path: Path, tiny_engine: TorchEngine) -> None:
    """A model beside itself has not changed at all."""
    rows = [f"{n},{text},1000,{clicks}" for n in range(60) for text, clicks in ((f"Toy {n}", 90), (f"Toy Toy {n}", 10))]
    (tmp_path / "tests.csv").write_text("\n".join(["test_id,text,impressions,clicks", *rows]))
    tests = SplitTests.read(tmp_path / "tests.csv", Columns(), held_out=0.2, seed=0)
    registry = Registry.shipped()
    surface = ABSurface(registry.surface("headlines"), registry.trunk("member"), tests, True, 50)
    other = TorchEngine(
        models.build(tiny_config(vocab_size=len(tiny_engine.encoder.tokenizer)), 1), tiny_engine.encoder
    )
    (same,), (found,) = compared([surface], tiny_engine, tiny_engine), compared([surface], tiny_engine, other)
    assert same.change == Interval(0.0, 0.0, 0.0)
    assert (found.before, found.after) == pytest.approx(
        [surface.validate(each)["ndcg@10"] for each in (tiny_engine, other)], abs=1e-4
    )
    assert found.change.value == pytest.approx(found.after - found.before)
