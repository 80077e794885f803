"""`prismrank bench curves` on small ledgers: every axis, resumed, as JSON, as a table and as a picture."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import yaml
from rich.console import Console

from prompts.errors import ConfigError
from serve.cli import main
from surfaces.curves import axes, bench, picture, trial
from surfaces.curves.bench import Asked
from surfaces.curves.trial import Laboratory, Trial, scaled
from surfaces.evaluation.protocols import Split
from surfaces.examples.data import DataSpec
from surfaces.examples.trees import Shelf
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import shipped_folder
from surfaces.training.run import TrainConfig, ValidationSettings, lessons
from tests.conftest import tiny_config
from tests.surfaces.world import fill

SECONDS = 0.1


def fill_network(ledger: Ledger) -> None:
    """Twenty members who read posts and apply for jobs, in turn."""
    items = [Item(f"p{n}", "post", {"text": f"Post {n}"}) for n in range(12)]
    items += [Item(f"j{n}", "job", {"title": f"Job {n}", "company": "Firm"}) for n in range(12)]
    turns = (("p", "feed", "like"), ("j", "jobs", "apply"))
    ledger.write(
        items=items,
        members=[Member(f"m{n:02}", {"occupation": "writer"}) for n in range(20)],
        events=[
            Event(f"m{n:02}", f"{kind}{(n + place) % 12}", surface, action, 1000.0 + 10 * place + side)
            for n in range(20)
            for place in range(5)
            for side, (kind, surface, action) in enumerate(turns)
        ],
    )
    ledger.set_note("nobody in it is real")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ledgers of films and of a network, a small model, and a surface whose evidence is quickly learned."""
    folder = tmp_path_factory.mktemp("curves")
    (folder / "surfaces").mkdir()
    text = re.sub("evidence: .*", "evidence: [popular]", (shipped_folder() / "movies.yaml").read_text())
    (folder / "surfaces" / "movies.yaml").write_text(text)
    for name, write in (("films", fill), ("network", fill_network)):
        with Ledger.open(f"sqlite:///{folder / name}.sqlite") as ledger:
            write(ledger)
    (folder / "model.yaml").write_text(yaml.safe_dump(tiny_config(expert_size=32).model_dump()))
    return folder


def settings(places: Path, out: Path, name: str, *surfaces: str) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "model": str(places / "model.yaml"),
            "data": [DataSpec(ledger=f"sqlite:///{places / name}.sqlite", surfaces=surfaces)],
            "surfaces": [places / "surfaces"],
            "out": out,
            "examples": {"positions": 3, "likely": 2, "others": 2, "holdout": 2},
            "training": {"steps": 1, "trees_per_step": 2, "threads": 1},
            "validation": ValidationSettings(members=8, candidates=6),
        }
    )


def asked(places: Path, out: Path, *names: str) -> Asked:
    films, network = settings(places, out, "films", "movies"), settings(places, out, "network", "feed", "jobs")
    return Asked(names, films, network, SECONDS / 60, out)


@pytest.fixture(scope="module")
def measured(places: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bench.Found, list[str], Asked]:
    """All axes, what was told before, and what was asked."""
    told: list[str] = []
    what = asked(places, tmp_path_factory.mktemp("out"), *axes.AXES)
    return bench.run(what, told.append), told, what


def test_every_axis_has_points_with_intervals(measured: tuple[bench.Found, list[str], Asked]) -> None:
    found = json.loads(json.dumps(measured[0]))
    assert {name: len(axis["points"]) for name, axis in found["axes"].items()} == {
        "data": 4, "model": 3, "history": 4, "detail": 3, "cold": 3, "gap": 4, "surface": 4,
    }  # fmt: skip
    for axis in found["axes"].values():
        assert axis["title"]
        assert axis["unit"]
        for point in axis["points"]:
            assert point["members"] >= 1
            assert point["steps"] >= 1
            for name in bench.FIGURES:
                assert 0 <= point[name]["low"] <= point[name]["value"] <= point[name]["high"] <= 1
    assert found["minutes"] == pytest.approx(SECONDS / 60)
    assert found["axes"]["surface"]["note"] == "nobody in it is real"
    assert "note" not in found["axes"]["data"]


def test_axes_vary_what_they_say(measured: tuple[bench.Found, list[str], Asked]) -> None:
    found = measured[0]["axes"]
    assert [point["learned_members"] for point in found["data"]["points"]] == [4, 8, 15, 30]
    sizes = [point["x"] for point in found["model"]["points"]]
    assert sizes == sorted(set(sizes))
    assert sizes == [point["parameters"] for point in found["model"]["points"]]
    assert [point["x"] for point in found["history"]["points"]] == [16, 32, 64, 128]
    details = {point["label"]: point["tokens"] for point in found["detail"]["points"]}
    assert details["text"] > details["mixed"] > details["vector"] > 10
    assert [point["x"] for point in found["cold"]["points"]] == [5, 10, 100]
    assert found["cold"]["points"][0]["learned_members"] == 24
    days = [point["x"] for point in found["gap"]["points"]]
    assert days == sorted(days)
    assert [(point["label"], point["series"]) for point in found["surface"]["points"]] == [
        ("feed", "learned"), ("feed", "never seen"), ("jobs", "learned"), ("jobs", "never seen"),
    ]  # fmt: skip


def test_the_budget_is_told_before(measured: tuple[bench.Found, list[str], Asked]) -> None:
    """Runs that several points ask for are counted, and made, once."""
    _, told, what = measured
    assert len(told) == 1
    assert told[0].startswith("16 training runs of 0.00166667 minutes, 0.0266667 minutes in all, and ")
    assert len(list((what.out / "trials").iterdir())) == 16


def test_a_bench_that_is_done_is_not_done_again(
    measured: tuple[bench.Found, list[str], Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Laboratory, "learned", never)
    told: list[str] = []
    again = bench.run(measured[2], told.append)
    assert again["axes"] == measured[0]["axes"]
    assert told[0].startswith("0 training runs")


def test_a_stopped_bench_goes_on(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after the first run's training: the model is not trained again, the points are those of one go."""
    what = asked(places, tmp_path, "cold")
    fits: list[str] = []
    fit: Callable[..., None] = trial.Trainer.fit

    def counted(self: trial.Trainer, *arguments: object) -> None:
        fits.append(self.folder.name)
        fit(self, *arguments)

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trial.Trainer, "fit", counted)
    with monkeypatch.context() as patch:
        patch.setattr(bench, "rank", stopped)
        with pytest.raises(KeyboardInterrupt):
            bench.run(what)
    assert len(fits) == 2
    assert fits[0].startswith("probe-")
    found = bench.run(what)
    assert len(fits) == 2
    assert len(found["axes"]["cold"]["points"]) == 3


def test_other_code_or_settings_are_another_run(places: Path, tmp_path: Path) -> None:
    config = settings(places, tmp_path, "films", "movies")
    with lessons(config) as taught:
        lab = Laboratory(config, taught, 1.0, "a", lambda *_: None)
        others = [replace(lab, code="b"), replace(lab, minutes=2.0), replace(lab, evidence=False)]
        keys = {each.key(Trial()) for each in (lab, *others)} | {lab.key(Trial(budget=16))}
        assert len(keys) == 5
        assert lab.key(Trial()) == replace(lab, config=config.model_copy(update={"out": tmp_path / "x"})).key(Trial())


def test_nothing_is_learned_of_strangers_of_what_came_later_and_of_a_surface_left_out(
    places: Path, tmp_path: Path
) -> None:
    config = settings(places, tmp_path, "network", "feed", "jobs")
    with lessons(config) as taught:
        lab = Laboratory(config, taught, 1.0, "", lambda *_: None)
        engine = trial.TorchEngine(trial.new_model(tiny_config(), lab.encoder, 0), lab.encoder)
        whole = Shelf.of(taught[0].ledger, taught[0].form, engine, config.examples)

        def shelf(**changes: Any) -> Shelf:
            return trial.narrowed(whole, Trial(**changes), lab.strangers)

        assert not {each.member_id for each in shelf().timelines} & lab.strangers
        assert len(lab.strangers) == 4
        assert {event.surface for each in shelf(without="jobs").timelines for event in each.acts} == {"feed"}
        assert max(event.timestamp for each in shelf(until=1030.0).timelines for event in each.acts) == 1021.0


def test_without_evidence_leaves_are_texts_alone(places: Path, tmp_path: Path) -> None:
    config = settings(places, tmp_path, "films", "movies")
    with lessons(config) as taught:
        lab = Laboratory(config, taught, SECONDS / 60, "", lambda *_: None, evidence=False)
        outcome = lab.learned(Trial())
        assert taught[0].spec.evidence == ("popular",)
    assert outcome.taught[0].spec.evidence == ()


def test_strangers_are_asked_early(places: Path, tmp_path: Path) -> None:
    """Every choice counts on films; nobody's events are learned from who is asked."""
    config = settings(places, tmp_path, "films", "movies")
    with lessons(config) as taught:
        lab = Laboratory(config, taught, 1.0, "", lambda *_: None)
        splits: list[Split] = [point.split for point in axes.AXES["cold"].points(lab)]
    assert [{len(case.history) for case in split.cases} for split in splits] == [{5}, {10}, {11}]
    for split in splits:
        assert {case.member_id for case in split.cases} <= lab.strangers
        lengths = dict(zip(split.train.member_ids, map(len, split.train.sequences), strict=True))
        assert {lengths[name] for name in lab.strangers} == {0}


def test_the_gap_is_cut_into_equal_parts_by_time(measured: tuple[bench.Found, list[str], Asked]) -> None:
    members = [point["members"] for point in measured[0]["axes"]["gap"]["points"]]
    assert max(members) - min(members) <= 1


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_sizes_fit_their_heads(factor: float) -> None:
    config = tiny_config()
    changed = scaled(config, factor)
    assert changed.hidden_size == config.hidden_size * factor
    assert changed.layers == max(1, config.layers * factor)


def test_the_picture_has_a_panel_an_axis(measured: tuple[bench.Found, list[str], Asked]) -> None:
    image = matplotlib.image.imread(io.BytesIO(picture.draw(measured[0])), format="png")
    height, width = image.shape[:2]
    assert width == round(picture.WIDTH * picture.DPI)
    assert height == round(4 * picture.HEIGHT * picture.DPI)
    assert image[..., :3].std() > 0.01
    one = {**measured[0], "axes": {"data": measured[0]["axes"]["data"]}}
    assert picture.draw(one) != picture.draw(measured[0])


def test_the_tables_tell_every_point(measured: tuple[bench.Found, list[str], Asked]) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(*bench.to_tables(measured[0]))
    text = console.export_text()
    for axis in measured[0]["axes"].values():
        assert axis["title"] in text
        assert all(point["label"] in text for point in axis["points"])
    assert "nobody in it is real" in text


def test_an_axis_that_is_none_is_one_clear_line(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"no axis is called 'histroy'.*history"):
        asked(places, tmp_path, "histroy")
    with pytest.raises(ConfigError, match="each once"):
        asked(places, tmp_path, "data", "data")
    assert main(["bench", "curves", "--axes", "size", "--out", str(tmp_path / "out")]) == 2
    assert "--axes: no axis is called 'size'" in capsys.readouterr().err
    assert main(["bench", "curves", "--png", str(tmp_path / "nothing" / "a.png")]) == 2
    assert "a.png: there is no folder" in " ".join(capsys.readouterr().err.split())


def test_the_command_writes_what_it_shows(
    measured: tuple[bench.Found, list[str], Asked],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The settings are small ones, and the points are there already."""
    monkeypatch.setattr(bench, "shipped", lambda *_, **__: measured[2])
    json_out, png = tmp_path / "curves.json", tmp_path / "curves.png"
    assert main(["bench", "curves", "--json", str(json_out), "--png", str(png), "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "Members whom nobody knew" in captured.out
    assert "0 training runs" in captured.err
    assert json.loads(json_out.read_text())["axes"] == json.loads(json.dumps(measured[0]["axes"]))
    assert png.read_bytes().startswith(b"\x89PNG")
