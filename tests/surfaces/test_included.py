"""Texts beside a surface file: read where they should be, and nothing outside the folder is ever opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from prompts.errors import SpecError
from surfaces.included import PARTS_CAP, SIZE_CAP, Folder
from surfaces.registry import Registry, read_file, shipped_folder
from surfaces.spec import SurfaceSpec, TrunkSpec
from surfaces.spec_file import as_yaml, read_spec, resolved

SENTINEL = "do-not-tell-7f3a"
"""What stands in every file outside."""

SURFACE = """\
surface: films
description: Films
item_kind: movie
prompt:
  instruction: Films.
  context: "{{ query }}"
  item: "{{ title }}"
  examples: [{member: Likes films., item: {title: Heat}, answer: 'yes'}]
  locales:
    de: {instruction: Filme., context: "{{ query }}", item: "{{ titel }}"}
sources:
  - {type: popular, k: 20}
  - {type: sql, k: 20, query: SELECT item_id FROM items}
heads:
  - {name: watch, type: pointwise, weight: 1.0}
"""
TRUNK = """\
trunk: viewer
description: A viewer
profile: "{{ name }}"
timeline: {events: {default: "{{ title }}"}}
actions: {like: liked}
"""
PLACES = [
    (SURFACE, "description: Films", "description", "description"),
    (SURFACE, "instruction: Films.", "instruction", "prompt.instruction"),
    (SURFACE, '  context: "{{ query }}"\n', "  context", "prompt.context"),
    (SURFACE, 'item: "{{ title }}"', "item", "prompt.item"),
    (SURFACE, "member: Likes films.", "member", "prompt.examples[0].member"),
    (SURFACE, "instruction: Filme.", "instruction", "prompt.locales.de.instruction"),
    (SURFACE, 'context: "{{ query }}", item', "context", "prompt.locales.de.context"),
    (SURFACE, 'item: "{{ titel }}"', "item", "prompt.locales.de.item"),
    (SURFACE, "query: SELECT item_id FROM items", "query", "sources[1].query"),
    (TRUNK, "description: A viewer", "description", "description"),
    (TRUNK, 'profile: "{{ name }}"', "profile", "profile"),
    (TRUNK, 'default: "{{ title }}"', "default", "timeline.events.default"),
    (TRUNK, "like: liked", "like", "actions.like"),
]
"""Each value that may stand in a file of its own: a file, the words to replace, the key, its path."""


def naming(place: tuple[str, str, str, str], name: str) -> str:
    """A file that names another in that place."""
    text, words, key, _ = place
    assert text.count(words) == 1
    tail = ", item" if words.endswith(", item") else "\n" if words.endswith("\n") else ""
    return text.replace(words, f"{key}: {{file: {json.dumps(name)}}}{tail}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of surfaces, with traps in it, beside things that are nobody's business."""
    outside, inside = tmp_path / "outside", tmp_path / "surfaces"
    outside.mkdir()
    inside.mkdir()
    (outside / "secret.txt").write_text(SENTINEL)
    (tmp_path / "secret.txt").write_text(SENTINEL)
    (inside / "link.txt").symlink_to(outside / "secret.txt")
    (inside / "near.txt").symlink_to("good.txt")
    (inside / "linked").symlink_to(outside, target_is_directory=True)
    (inside / "up").symlink_to("..", target_is_directory=True)
    (inside / "loop").symlink_to("loop")
    (inside / "null").symlink_to("/dev/null")
    os.mkfifo(inside / "pipe")
    (inside / "texts").mkdir()
    (inside / "texts" / "link.txt").symlink_to("../../outside/secret.txt")
    (inside / "good.txt").write_text("SELECT item_id FROM items\n")
    (inside / "texts" / "good.txt").write_text("SELECT item_id FROM events\n")
    (inside / "large.txt").write_text("x" * (SIZE_CAP + 1))
    (inside / "bytes.txt").write_bytes(b"\xff\xfe\x00a")
    (inside / "empty.txt").write_text("")
    return inside


OUTSIDE = [
    "..", "../secret.txt", "../outside/secret.txt", "texts/../../secret.txt", "./../secret.txt", "texts/../good.txt",
    "/etc/passwd", "//etc/passwd", "/proc/self/environ", "/dev/zero", "file:///etc/passwd", "file://secret.txt",
    "http://localhost/secret.txt", "C:\\secret.txt", "..\\secret.txt", "~/secret.txt", "~root/secret.txt", "~",
    "good.txt\0", "good.txt\0../secret.txt", "..\n/secret.txt", "\x1b[31m", "%2e%2e/secret.txt", "..%2fsecret.txt",
    "..;/secret.txt", "．．/secret.txt", "..／secret.txt", "․․/secret.txt", "‥/secret.txt", "..∕secret.txt",
    "‮txt.terces/..", "link.txt", "near.txt", "linked/secret.txt", "up/secret.txt", "up/outside/secret.txt", "loop",
    "texts/link.txt", "null", "pipe", "texts", "texts/", "", ".", "./good.txt", "good.txt/", "good.txt/x", "no.txt",
    "/".join(["texts"] * (PARTS_CAP + 1)), "x" * 256, "large.txt", "bytes.txt", "$HOME/secret.txt", "*", "g?od.txt",
]  # fmt: skip
"""Names that lead out of the folder, to no plain text, or nowhere."""


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[3])
def test_a_name_that_is_not_right_is_refused_in_every_place(place: tuple[str, str, str, str], folder: Path) -> None:
    for name in OUTSIDE:
        with pytest.raises(SpecError) as raised:
            read_spec(naming(place, name), "f.yaml", Folder(folder))
        told = str(raised.value)
        assert SENTINEL not in told
        assert f": {place[3]}.file: " in told, (name, told)
        assert told.isprintable()
        assert str(folder) not in told
        assert len(told) < 600


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../secret.txt", "the path may not leave the surface's folder; name a file beside it, such as job.j2"),
        ("/etc/passwd", "an absolute path is not allowed; name a file beside the surface file, such as job.j2"),
        ("file:///etc/passwd", "a file's name may hold no ':', no backslash and no control character"),
        ("link.txt", "'link.txt' cannot be read: a link, which is never followed"),
        ("linked/secret.txt", "'linked/secret.txt' cannot be read: a link, which is never followed"),
        ("pipe", "'pipe': is no plain file"),
        ("texts", "'texts': is no plain file"),
        ("large.txt", f"'large.txt': is longer than {SIZE_CAP} bytes"),
        ("bytes.txt", "'bytes.txt': no UTF-8 text"),
        ("no.txt", "'no.txt' cannot be read: No such file or directory"),
        ("%2e%2e/secret.txt", "'%2e%2e/secret.txt' cannot be read: No such file or directory"),
        ("empty.txt", "is empty; write a few words"),
    ],
)
def test_the_error_says_what_would_be_right(name: str, problem: str, folder: Path) -> None:
    with pytest.raises(SpecError) as raised:
        read_spec(naming(PLACES[1], name), "f.yaml", Folder(folder))
    assert problem in str(raised.value)
    assert str(raised.value).startswith("f.yaml:5:")


@pytest.mark.parametrize("value", [None, 3, True, [], {}, ["good.txt"], {"file": "good.txt"}, b"good.txt", Path("x")])
def test_a_name_is_text(value: object, folder: Path) -> None:
    with pytest.raises(SpecError, match="should be the name of a file beside the surface file"):
        Folder(folder).read(value)


def test_nothing_stays_open(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for name in [*OUTSIDE, "good.txt", "texts/good.txt"]:
        with suppress(SpecError):
            Folder(folder).read(name)
    assert len(os.listdir("/proc/self/fd")) == before


SPY = """
import json, sys
from pathlib import Path
from prompts.errors import SpecError
from surfaces.included import Folder
from surfaces.spec_file import read_spec
root, texts = json.load(sys.stdin)
opened, listening = [], False
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if listening and event == "open" else None)
said = []
def read(text):
    try:
        return str(read_spec(text, "f.yaml", Folder(Path(root))).spec)
    except SpecError as error:
        return str(error)
for text in texts[:: len(texts) // 13]:
    read(text)
listening = True
said = [read(text) for text in texts]
listening = False
print(json.dumps([opened, said]))
"""


def test_nothing_outside_is_opened_not_even_for_a_moment(folder: Path) -> None:
    """Every file that the process opens is told by an audit hook: the folder, or one part of a path below it."""
    texts = [naming(place, name) for place in PLACES for name in [*OUTSIDE, "good.txt", "texts/good.txt"]]
    done = subprocess.run(
        [sys.executable, "-c", SPY], input=json.dumps([str(folder), texts]), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    opened, said = json.loads(done.stdout)
    assert SENTINEL not in done.stdout + done.stderr
    assert len(said) == len(texts)
    assert {"good.txt", "texts", "link.txt", "pipe", str(folder)} <= set(opened)
    for path in set(opened) - {str(folder)}:
        assert "/" not in path, path
        assert path not in {"", ".", ".."}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[3])
def test_a_text_of_no_folder_may_name_no_file(place: tuple[str, str, str, str]) -> None:
    why = "a file can only be named in a surface file that lies in a folder; write the text itself"
    for name in ("good.txt", "/etc/passwd", "../x"):
        with pytest.raises(SpecError) as raised:
            read_spec(naming(place, name), "request")
        assert f": {place[3]}.file: {why}" in str(raised.value)
    registry = Registry.shipped()
    with pytest.raises(SpecError, match="a file can only be named"):
        registry.add(naming(place, "good.txt"), "request")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[3])
@pytest.mark.parametrize("name", ["good.txt", "texts/good.txt"])
def test_a_good_file_is_as_if_its_text_stood_there(place: tuple[str, str, str, str], name: str, folder: Path) -> None:
    file = read_spec(naming(place, name), "f.yaml", Folder(folder))
    text, words, key, _ = place
    content = (folder / name).read_text().strip()
    tail = ", item" if words.endswith(", item") else "\n" if words.endswith("\n") else ""
    inline = read_spec(text.replace(words, f"{key}: {json.dumps(content)}{tail}"), "f.yaml")
    assert file.spec == inline.spec
    assert file.spec.version == inline.spec.version
    assert read_spec(resolved(file), "alone.yaml").spec == file.spec
    assert content in as_yaml(file.spec)


def test_the_content_decides_the_version(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    item, other, path = tmp_path / "deep" / "er" / "item.j2", tmp_path / "item.j2", tmp_path / "films.yaml"
    path.write_text(naming(PLACES[3], "deep/er/item.j2"))
    item.write_text("{{ title }}\n")
    first = read_file(path).spec
    assert isinstance(first, SurfaceSpec)
    assert first.prompt.wording().leaf({"title": "Heat"}) == "Heat"
    item.write_text("{{ title }} ({{ year }})\n")
    second = read_file(path).spec
    assert second.version != first.version
    item.write_text("{{ title }}")
    assert read_file(path).spec.version == first.version
    other.write_text("{{ title }}")
    path.write_text(naming(PLACES[3], "item.j2"))
    assert read_file(path).spec.version == first.version, "the name of the file does not count"


def test_a_whole_folder_of_surfaces_with_texts_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "viewer.yaml").write_text(naming(PLACES[10], "texts/profile.j2"))
    (tmp_path / "films.yaml").write_text(naming(PLACES[1], "texts/question.txt") + "trunk: viewer\n")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "profile.j2").write_text("Viewer {{ name }}\n")
    (tmp_path / "texts" / "question.txt").write_text("Which film, in\ntwo lines?\n")
    registry = Registry.load([shipped_folder(), tmp_path])
    assert registry.trunk("viewer").profile.render({"name": "Ann"}) == "Viewer Ann"
    assert registry.surface("films").prompt.instruction == "Which film, in two lines?"


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("file: good.txt, more: x", "should be text; put it in quotes"),
        ("fil: good.txt", "should be text; put it in quotes"),
        ("", "should be text; put it in quotes"),
    ],
)
def test_other_mappings_are_no_text(key: str, problem: str, folder: Path) -> None:
    text = SURFACE.replace('item: "{{ title }}"', f"item: {{{key}}}")
    with pytest.raises(SpecError, match=rf"^f\.yaml:7:9: prompt\.item: {problem}$"):
        read_spec(text, "f.yaml", Folder(folder))


def test_a_template_of_a_file_is_checked_like_any_other(folder: Path) -> None:
    (folder / "bad.j2").write_text("{{ title * 9 }}")
    with pytest.raises(SpecError, match=r"^f\.yaml:7:9: prompt\.item: arithmetic"):
        read_spec(naming(PLACES[3], "bad.j2"), "f.yaml", Folder(folder))
    (folder / "long.j2").write_text("x" * 5_000)
    with pytest.raises(SpecError, match="the template has 5000 characters"):
        read_spec(naming(PLACES[3], "long.j2"), "f.yaml", Folder(folder))


def swapped(swap: Callable[[], object], folder: Path) -> str:
    """What is read, or told, of a file that changes a moment before it is named again."""
    swap()
    try:
        return Folder(folder).read("texts/good.txt")
    except SpecError as error:
        return str(error)


def test_a_folder_that_becomes_a_link_is_not_followed(folder: Path) -> None:
    (folder.parent / "outside" / "good.txt").write_text(SENTINEL)
    assert "SELECT" in swapped(lambda: None, folder)
    (folder / "texts").rename(folder / "away")
    told = swapped(lambda: (folder / "texts").symlink_to(folder.parent / "outside"), folder)
    assert "a link, which is never followed" in told
    assert SENTINEL not in told


def test_trunk_files_may_keep_texts_beside_them_too(folder: Path) -> None:
    spec = read_spec(naming(PLACES[11], "good.txt"), "f.yaml", Folder(folder)).spec
    assert isinstance(spec, TrunkSpec)
    assert spec.form.events["default"].render({}) == "SELECT item_id FROM items"
