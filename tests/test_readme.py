"""What the README says is so: its commands exist, its surface file is right, its files are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve.cli import app
from serve.demo import FAMILY
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import read_spec

README = Path("README.md").read_text(encoding="utf-8")
CALLED = r"prismrank ((?:surface |bench |model )?[a-z]+)(?= |`|$)"
COMMANDS = sorted(set(re.findall(CALLED, README, flags=re.MULTILINE)))
FILES = sorted(set(re.findall(r"(?<![\w/.])((?:configs|docs)/[\w/.-]+\.\w+)", README)))


def test_nothing_in_it_waits_to_be_filled_in() -> None:
    card = Path("foundation/checkpoints/nano/README.md").read_text(encoding="utf-8")
    assert not re.search(r"@@|TODO|FIXME", README + card)
    assert "NDCG@10" in card
    assert "minutes" in card


def test_it_shows_a_surface_that_is_right() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert isinstance(read_spec(block, "README.md").spec, SurfaceSpec)
    assert block == FAMILY, "the demo and the README show the same file"
    assert len(FAMILY.splitlines()) <= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_exist(command: str) -> None:
    found = CliRunner().invoke(app, [*command.split(), "--help"])
    assert found.exit_code == 0, found.output


def test_it_names_the_usual_commands() -> None:
    assert {"import", "serve", "train", "evaluate", "surface check"} <= set(COMMANDS)


@pytest.mark.parametrize("path", FILES)
def test_its_files_are_there(path: str) -> None:
    assert Path(path).is_file()


@pytest.mark.parametrize("path", sorted(Path().glob("configs/*/*.yaml")), ids=str)
def test_a_configuration_says_what_it_is_for(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("#"), "a configuration opens by saying what it is for"


def test_the_makefile_has_what_the_readme_asks_for() -> None:
    targets = set(re.findall(r"^([a-z-]+):", Path("Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets
