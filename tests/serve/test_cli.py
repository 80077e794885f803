"""The command line: help for newcomers, one line for bad input, and each command on real input."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import polars as pl
import pytest

from serve.cli import app, main
from surfaces.ledger.store import Ledger

COMMANDS = [
    ["demo"], ["import"], ["train"], ["evaluate"], ["serve"], ["surface"], ["surface", "check"], ["surface", "list"],
    ["surface", "schema"], ["surface", "preview"], ["surface", "init"], ["surface", "diff"],
    ["bench"], ["bench", "score"], ["bench", "train"], ["bench", "experiments"], ["bench", "curves"],
    ["bench", "headlines"], ["bench", "attacks"], ["bench", "serve"], ["bench", "tenants"],
    ["model"], ["model", "pull"], ["model", "upcycle"], ["model", "plan"], ["calibrate"],
]  # fmt: skip


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command line says to bad input."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("prismrank: ")
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_every_command_has_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--help"]) == 0
    assert "Usage: prismrank" in capsys.readouterr().out


def test_every_command_and_option_is_explained() -> None:
    from typer.main import get_command

    def walk(command: object, name: str) -> None:
        assert getattr(command, "help", None), name
        for parameter in getattr(command, "params", ()):
            assert getattr(parameter, "help", None), f"{name}: {parameter.name}"
        for child_name, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {child_name}")

    walk(get_command(app), "prismrank")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("prismrank 0.")


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    names = "{'torch', 'fastapi', 'polars'}"
    code = f"import sys; from serve.cli import main; main(['--help']); print({names} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().endswith("set()")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sing"], "No such command 'sing'"),
        (["serve"], "Missing option '--ledger'"),
        (["serve", "--ledger", "sqlite:///x", "--prot", "1"], "No such option: --prot"),
        (["serve", "--ledger", "sqlite:///x", "--port", "70000"], "'--port'"),
        (["serve", "--ledger", "sqlite:////nowhere/at/all.sqlite"], "no folder /nowhere/at"),
        (["serve", "--ledger", "mysql://host/db"], "a ledger cannot live in mysql"),
        (["import", "--ledger", "sqlite://"], "one of a folder, --dataset NAME and --world NAME"),
        (["import", "/nowhere", "--ledger", "sqlite:///x.sqlite"], "no folder at /nowhere"),
        (["import", "--dataset", "netflix", "--ledger", "sqlite://"], "netflix"),
        (["train", "/nowhere/movies.yaml"], "no train configuration"),
        (["surface", "check", "/nowhere/x.yaml"], "/nowhere/x.yaml: cannot be read"),
        (["surface", "list", "--surfaces", "/nowhere"], "/nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_status_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in refused(arguments, capsys)


def test_the_process_exits_with_the_status_and_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serve.cli", "serve", "--ledger", f"sqlite:///{tmp_path / 'none.sqlite'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no ledger at" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupted_it_exits_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("surfaces.ledger.folder.import_folder", interrupt)
    assert main(["import", str(tmp_path), "--ledger", f"sqlite:///{tmp_path / 'l.sqlite'}"]) == 130


def test_import_brings_a_folder_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,kind,title\na,movie,A\nb,movie,B\n")
    (folder / "members.jsonl").write_text('{"member_id": "m", "age": 30}\n')
    (folder / "events.csv").write_text("member_id,item_id,surface,action,timestamp\nm,a,movies,like,2026-01-31\n")
    arguments = ["import", str(folder), "--ledger", f"sqlite:///{tmp_path / 'l.sqlite'}"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.split("\n")[0] == "2 items, 1 members, 1 new events"
    assert main(arguments) == 0
    assert "0 new events" in capsys.readouterr().out


def test_import_of_a_broken_folder_says_where_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,kind\na,movie\na,movie\n")
    (folder / "members.csv").write_text("member_id\nm\n")
    (folder / "events.csv").write_text("member_id,item_id,surface,action\nm,a,movies,like\n")
    ledger = f"sqlite:///{tmp_path / 'l.sqlite'}"
    line = refused(["import", str(folder), "--ledger", ledger], capsys)
    assert "items.csv" in line
    with Ledger.open(ledger) as opened:
        assert opened.counts() == (0, 0, 0)


def test_the_ledger_may_come_from_the_environment(
    url: str, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRISMRANK_LEDGER", url)
    assert main(["surface", "preview", "movies", "--member", "m1", "--model", model]) == 0
    assert "Film" in capsys.readouterr().out


def test_surfaces_are_listed_with_those_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evening.yaml").write_text(EVENING)
    assert main(["surface", "list", "--surfaces", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "movies" in out
    assert "evening" in out


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["surface", "schema"]) == 0
    assert {"surface", "heads", "sources"} <= set(json.loads(capsys.readouterr().out)["properties"])
    assert main(["surface", "schema", "--trunk"]) == 0
    assert {"trunk", "timeline"} <= set(json.loads(capsys.readouterr().out)["properties"])


EVENING = """\
surface: evening
description: Films for tonight
item_kind: movie
prompt:
  instruction: Which film tonight?
  item: "{{ title }}"
sources: [{type: popular, k: 10}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
"""


def test_check_says_that_a_file_is_right(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evening.yaml"
    path.write_text(EVENING)
    for chosen in (model, "none"):
        assert main(["surface", "check", str(path), "--model", chosen]) == 0
        assert capsys.readouterr().out.startswith(f"{path}: right (version ")


def test_check_says_file_line_and_column_of_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evening.yaml"
    path.write_text(EVENING.replace("instruction", "instrucion"))
    line = refused(["surface", "check", str(path), "--model", "none"], capsys)
    assert f"{path}:5:3" in line
    assert "did you mean 'instruction'?" in line


def test_check_refuses_answers_that_begin_alike(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evening.yaml"
    heads = "heads: [{name: zzzza, type: choice, weight: 1.0}, {name: zzzzb, type: choice}]"
    path.write_text(EVENING.replace("heads: [{name: watch, type: pointwise, weight: 1.0}]", heads))
    assert "begin with the same token" in refused(["surface", "check", str(path), "--model", model], capsys)


def test_preview_shows_what_the_model_reads(url: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["surface", "preview", "movies", "--ledger", url, "--model", model, "--member", "m1", "--k", "3"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "trunk · " in out
    assert "Member. 21 F artist" in out
    assert "Films. Which one does the member watch next?" in out
    assert out.partition("leaves")[2].count("Film ") == 3


def test_preview_of_what_is_unknown(url: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--ledger", url, "--model", model, "--member"]
    assert "did you mean 'movies'?" in refused(["surface", "preview", "movie", *common, "m1"], capsys)
    assert "unknown member 'mx'" in refused(["surface", "preview", "movies", *common, "mx"], capsys)


def test_evaluate_writes_figures(url: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "figures.json"
    arguments = ["evaluate", "movies", "--ledger", url, "--model", model, "--against", "popular, random"]
    assert main([*arguments, "--members", "8", "--candidates", "10", "--json", str(out)]) == 0
    assert "popular" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert (figures["surface"], figures["protocol"], figures["members"]) == ("movies", "leave-one-out", 8)
    assert list(figures["methods"]) == ["foundation", "popular", "random", "retrieval"]
    assert set(figures["methods"]["foundation"]["ndcg@10"]) == {"value", "low", "high"}


def test_evaluate_without_a_model(url: str, tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    assert main(["evaluate", "movies", "--ledger", url, "--model", "none", "--json", str(out)]) == 0
    assert list(json.loads(out.read_text())["methods"]) == ["popular", "co_visitation"]


def test_evaluate_writes_a_page_and_goes_on(url: str, model: str, tmp_path: Path) -> None:
    """By lists of a file, beside another system's rankings; the second time nothing is left to be done."""
    lists, other, html = tmp_path / "lists.parquet", tmp_path / "other.parquet", tmp_path / "page.html"
    rows = [(f"m{member}", f"f{film}") for member in range(8) for film in range(6)]
    frame = pl.DataFrame(rows, schema=["member_id", "item_id"], orient="row")
    frame.with_columns(label=(pl.col("item_id") == "f1").cast(pl.Int8)).write_parquet(lists)
    frame.with_columns(score=pl.lit(0.5)).write_parquet(other)
    arguments = ["evaluate", "movies", "--ledger", url, "--model", model, "--protocol", "lists", "--lists", str(lists)]
    arguments += ["--against", f"random,{other}", "--out", str(tmp_path / "out"), "--html", str(html)]
    assert main(arguments) == 0
    first = html.read_text(encoding="utf-8")
    assert "other says" not in first
    assert "<svg" in first
    (kept,) = (tmp_path / "out").glob("foundation-*.npz")
    before = kept.read_bytes()
    assert main([*arguments, "--json", str(tmp_path / "told.json")]) == 0
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["methods"]["other"]["auc"]["value"] == 0.5
    assert kept.read_bytes() == before


def test_what_could_not_be_written_is_said_before_the_work(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["evaluate", "movies", "--ledger", url, "--model", "none"]
    for option in ("--json", "--html"):
        assert "there is no folder" in refused([*common, option, str(tmp_path / "absent" / "out")], capsys)
        assert "it is a folder" in refused([*common, option, str(tmp_path)], capsys)
    (tmp_path / "file").touch()
    assert "--out names a folder" in refused([*common, "--out", str(tmp_path / "file")], capsys)


def test_evaluate_of_what_is_unknown(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--ledger", url, "--model", "none"]
    assert "did you mean 'popular'?" in refused(["evaluate", "movies", *common, "--against", "populer"], capsys)
    assert "no surface is called 'x'" in refused(["evaluate", "x", *common], capsys)
    assert "no checkpoint 'bert'" in refused(["evaluate", "movies", "--ledger", url, "--model", "bert"], capsys)


def test_a_damaged_checkpoint_is_one_clear_line(
    url: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in Path(model).iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    line = refused(["evaluate", "movies", "--ledger", url, "--model", str(broken)], capsys)
    assert str(broken) in line


def test_serve_serves_until_it_is_interrupted(url: str, model: str) -> None:
    command = [sys.executable, "-m", "serve.cli", "serve", "--ledger", url, "--model", model, "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "serves at " in line)
            assert alive(line.partition("serves at ")[2].partition(";")[0])
            process.send_signal(signal.SIGINT)
            rest = process.stderr.read()
            assert process.wait(20) == 130
        finally:
            process.kill()
    assert "Traceback" not in rest


def alive(url: str) -> bool:
    """Whether /livez answers; a server that is just starting is given a while."""
    for _ in range(200):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/livez", timeout=10) as reply:
            return bool(reply.status == 200)
        time.sleep(0.05)
    return False
