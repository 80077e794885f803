"""Surfaces and trunks by name: folders in order, additions at run time, errors that say what there is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from prompts.errors import SpecError, UnknownError
from surfaces.registry import Registry, read_file, shipped_folder
from surfaces.spec import SurfaceSpec, TrunkSpec

EVENING = """\
surface: evening
description: Films for a family evening
item_kind: movie
prompt:
  instruction: A film for the whole family, tonight.
  item: "{{ title }} {{ genres | join(', ') }}"
sources: [{type: popular, k: 50}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
policies: [{type: seen}]
"""
VIEWER = """\
trunk: viewer
description: A viewer
profile: "{{ name }}"
timeline: {budget: 64, step: 8, events: {default: "{{ action }} {{ title }}"}}
"""


SHIPPED = sorted(path.stem for path in shipped_folder().glob("*.yaml") if path.read_text().count("\nsurface: ") == 1)


def folder(path: Path, **files: str) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return path


def test_what_is_shipped() -> None:
    registry = Registry.shipped()
    assert registry.names() == SHIPPED
    assert {"movies", "feed", "jobs", "ads", "people"} <= set(SHIPPED)
    movies = registry.surface("movies")
    assert movies.answers == ("like", "dislike", "none", "yes", "no")
    assert [head.name for head in movies.heads if head.weight] == ["watch"]
    assert movies.heads[0].actions == ("like", "watch", "dislike")
    form = registry.trunk(movies.trunk)
    assert (form.detail, form.budget, form.step) == ("vector", 128, 32)


def test_a_later_folder_replaces_names_of_an_earlier(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", evening=EVENING, movies=EVENING.replace("evening", "movies"))
    registry = Registry.load([shipped_folder(), mine])
    assert registry.names() == sorted([*SHIPPED, "evening"])
    assert registry.surface("movies").description == "Films for a family movies"
    swapped = Registry.load([mine, shipped_folder()])
    assert swapped.surface("movies").description == Registry.shipped().surface("movies").description


def test_a_surface_may_come_before_its_trunk_and_from_another_folder(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", evening=EVENING + "trunk: viewer\n")
    second = folder(tmp_path / "b", viewer=VIEWER)
    registry = Registry.load([first, second])
    assert registry.trunk(registry.surface("evening").trunk).budget == 64


def test_only_yaml_files_are_read(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", evening=EVENING)
    (mine / "notes.txt").write_text("no surface", encoding="utf-8")
    (mine / "deeper").mkdir()
    assert Registry.load([shipped_folder(), mine]).names() == sorted([*SHIPPED, "evening"])


def test_an_unknown_name_is_told_with_what_there_is() -> None:
    registry = Registry.shipped()
    with pytest.raises(UnknownError, match="no surface is called 'movis'; did you mean 'movies'"):
        registry.surface("movis")
    with pytest.raises(UnknownError, match="no surface is called 'zzz'; known: " + ", ".join(SHIPPED)):
        registry.surface("zzz")
    with pytest.raises(UnknownError, match="no trunk is called 'viewer'; known: member"):
        registry.trunk("viewer")
    with pytest.raises(UnknownError) as raised:
        registry.surface("x" * 100_000)
    assert len(str(raised.value)) < 300


def test_a_surface_that_names_an_unknown_trunk_is_refused_with_its_place(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", evening=EVENING + "trunk: membr\n")
    with pytest.raises(
        SpecError, match=r"evening\.yaml:10:8: trunk: no trunk is called 'membr'; did you mean 'member'\?"
    ):
        Registry.load([shipped_folder(), mine])
    with pytest.raises(SpecError, match=r"evening\.yaml:1:1: trunk: no trunk is called 'member'$"):
        Registry.load([folder(tmp_path / "alone", evening=EVENING)])


def test_the_same_name_twice_in_a_folder_is_refused(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", one=EVENING, two=EVENING)
    with pytest.raises(SpecError, match=r"two\.yaml:1:10: 'evening' is also declared in .*one\.yaml; rename one"):
        Registry.load([shipped_folder(), mine])


def test_a_surface_and_a_trunk_may_share_a_name(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", one=EVENING.replace("evening", "viewer") + "trunk: viewer\n", two=VIEWER)
    assert Registry.load([mine]).names() == ["viewer"]


def test_a_wrong_file_is_told_with_its_path(tmp_path: Path) -> None:
    mine = folder(tmp_path / "mine", evening=EVENING.replace("k: 50", "kk: 50"))
    with pytest.raises(SpecError, match=r"mine/evening\.yaml:7:27: sources\[0\]\.kk: unknown key; did you mean 'k'\?"):
        Registry.load([shipped_folder(), mine])


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="nowhere: no such folder; give one that holds"):
        Registry.load([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"surface: \xff\xfe", r"f\.yaml:1:1: no UTF-8 text \(byte 9\)"), (b"x" * 200_000, "at most 32768 are allowed")],
)
def test_a_file_that_is_no_text_or_too_long(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=problem):
        read_file(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"gone\.yaml: cannot be read: No such file"):
        read_file(tmp_path / "gone.yaml")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        read_file(tmp_path)


def test_a_spec_is_added_as_text_and_replaced() -> None:
    registry = Registry.shipped()
    added = registry.add(EVENING, "request")
    assert isinstance(added, SurfaceSpec)
    assert registry.surface("evening") is added
    assert registry.names() == sorted([*SHIPPED, "evening"])
    registry.add(EVENING.replace("k: 50", "k: 9"), "request")
    assert registry.surface("evening").sources[0].k == 9
    assert isinstance(registry.add(VIEWER, "request"), TrunkSpec)
    assert registry.trunk("viewer").step == 8
    registry.add(EVENING + "trunk: viewer\n", "request")
    assert registry.surface("evening").trunk == "viewer"


@pytest.mark.parametrize("wrong", [EVENING.replace("heads", "hads"), EVENING + "trunk: nobody\n", "surface: [", ""])
def test_a_wrong_addition_changes_nothing(wrong: str) -> None:
    registry = Registry.shipped()
    before = registry.add(EVENING, "request")
    with pytest.raises(SpecError, match=r"^request:"):
        registry.add(wrong, "request")
    assert registry.surface("evening") is before
    assert registry.names() == sorted([*SHIPPED, "evening"])


def test_adding_in_one_registry_leaves_others_alone() -> None:
    Registry.shipped().add(EVENING, "request")
    assert Registry.shipped().names() == SHIPPED


def test_additions_from_many_threads_are_all_kept() -> None:
    registry = Registry.shipped()

    def add(thread: int) -> None:
        for n in range(5):
            registry.add(EVENING.replace("evening", f"s{thread}-{n}"), "request")
            assert registry.surface("movies").surface == "movies"

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(registry.names()) == len(SHIPPED) + 20
