"""`prismrank surface`: init, check, preview, diff, list and schema, over ledgers of several shapes, by the real CLI."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation.engine.torch import TorchEngine
from serve.cli import main
from serve.pipeline import rank
from serve.schemas import RankReply, RankRequest
from serve.services import Services
from surfaces.ledger.records import Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry, read_file
from surfaces.spec import SurfaceSpec
from tests.surfaces.shelves import fill_hostile, fill_jobs, fill_songs
from tests.surfaces.world import fill

SHAPES = {"movie": fill, "job": fill_jobs, "song": fill_songs, "thing": fill_hostile}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A ledger of each shape, by the kind of its items; `none` is empty."""
    folder = tmp_path_factory.mktemp("ledgers")
    made = {name: f"sqlite:///{folder / name}.sqlite" for name in (*SHAPES, "none", "several")}
    for name, url in made.items():
        with Ledger.open(url) as ledger:
            SHAPES.get(name, _nothing)(ledger)
            if name == "several":
                ledger.put_items([Item("a", "ad", {"title": "An ad"}), *(Item(f"b{n}", "book", {}) for n in range(3))])
    return made


def _nothing(_: Ledger) -> None:
    """An empty ledger."""


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def surface(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `prismrank surface …`; returns the exit status, and what came out and on stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main(["surface", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return run


Run = Callable[..., tuple[int, str, str]]


def refused(found: tuple[int, str, str]) -> str:
    """The one line that is said to bad input."""
    status, out, err = found
    assert (status, out) == (2, "")
    assert err.count("\n") == 1, err
    assert err.startswith("prismrank: ")
    return err


FILMS = """\
surface: evening
description: Films for tonight
item_kind: movie
prompt:
  instruction: Which film tonight?
  context: "{% if mood %}In a {{ mood }} mood.{% endif %}"
  item: "{{ title }}"
sources: [{type: popular, k: 10}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
"""


@pytest.fixture
def films(tmp_path: Path) -> Path:
    path = tmp_path / "evening.yaml"
    path.write_text(FILMS)
    return path


# init


@pytest.mark.parametrize("kind", SHAPES)
def test_what_init_writes_is_checked_previewed_and_ranked(
    kind: str, urls: dict[str, str], model: str, tiny_engine: TorchEngine, tmp_path: Path, surface: Run
) -> None:
    ledger = ("--ledger", urls[kind], "--model", model)
    status, out, _ = surface("init", "mine", *ledger, "--out", tmp_path)
    path = tmp_path / "mine.yaml"
    assert status == 0
    assert out.startswith(f"{path}: ranks ")
    status, out, _ = surface("check", path, *ledger, "--members", 3)
    warned = [line for line in out.splitlines() if "warning:" in line]
    assert status == 0
    assert all("'bm25'" in line for line in warned), out  # nine things, and the members have seen those that are alike
    assert kind == "thing" or not warned, out
    with Ledger.open(urls[kind]) as opened:
        member = next(iter(opened.member_ids()))
        services = Services(opened, tiny_engine, Registry.shipped())
        served = services.add(path.read_text(encoding="utf-8"), "mine.yaml")
        reply = asyncio.run(_ranked(services, RankRequest(member_id=member, k=3, deadline_ms=20_000)))
        assert not reply.degraded
        assert set(reply.slate[0].heads) == {head.name for head in served.spec.heads}
    status, out, _ = surface("preview", path, *ledger, "--member", member, "-k", 3)
    assert status == 0
    order = [entry.item_id for entry in reply.slate]
    assert [line.split()[1] for line in out.splitlines() if line.split()[:1] in (["1"], ["2"], ["3"])][-3:] == order


async def _ranked(services: Services, request: RankRequest) -> RankReply:
    async with services.running():
        return await rank(request, "mine", services, asyncio.get_running_loop().time())


def test_init_writes_the_schema_that_the_first_line_names(
    urls: dict[str, str], model: str, tmp_path: Path, surface: Run
) -> None:
    path = tmp_path / "deep" / "here" / "jobs.yaml"
    status, out, _ = surface("init", "jobs", "--ledger", urls["job"], "--model", model, "--out", path)
    assert status == 0
    assert "A surface 'jobs' comes with prismrank" in out
    assert f"prismrank surface check {path} --ledger {urls['job']}" in out
    name = path.read_text().splitlines()[0].partition("$schema=")[2]
    schema = (path.parent / name).read_text()
    assert surface("schema")[1] == schema
    assert json.loads(schema)["title"] == "A surface file of prismrank"


def test_init_takes_what_it_is_told(urls: dict[str, str], model: str, tmp_path: Path, surface: Run) -> None:
    told = ("--kind", "job", "--heads", "save,-dismiss", "--description", 'Jobs: "new" # ones\nhere')
    assert surface("init", "mine", "--ledger", urls["job"], "--model", model, "--out", tmp_path, *told)[0] == 0
    spec = read_file(tmp_path / "mine.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    assert spec.description == 'Jobs: "new" # ones here'
    assert [(head.name, head.weight) for head in spec.heads] == [
        ("engage", 1.0),
        ("save", 0.0),
        ("dismiss", -0.01),
    ]


def test_init_takes_suggestions_and_never_overwrites(
    urls: dict[str, str], model: str, tmp_path: Path, surface: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("init", "--ledger", urls["several"], "--model", model, "--yes")
    assert surface(*arguments)[0] == 0
    path = tmp_path / "books.yaml"
    path.write_text("mine")
    line = refused(surface(*arguments))
    assert "books.yaml is there already; give --out another place, or write over it with --force" in line
    assert path.read_text() == "mine"
    assert surface(*arguments, "--force")[0] == 0
    assert "item_kind: book" in path.read_text()


@pytest.mark.parametrize(
    ("shape", "arguments", "words"),
    [
        ("none", ["mine"], "the ledger holds no items yet; bring some with: prismrank import FOLDER --ledger URL"),
        ("several", ["mine"], "--kind is missing; the ledger holds book (3), ad (1); or take the first with --yes"),
        ("movie", [], "NAME is missing; write it behind init, like: surface init movies"),
        ("movie", ["My Films"], "'my_films' would be right"),
        ("movie", ["mine", "--kind", "movy"], "no items of the kind 'movy'; did you mean 'movie'?"),
        ("movie", ["mine", "--heads", "lik"], "no event has the action 'lik'; did you mean 'like'?"),
        ("movie", ["mine", "--model", "/nowhere"], "no checkpoint '/nowhere'"),
    ],
)
def test_init_says_in_one_line_what_is_missing_or_wrong(
    shape: str, arguments: list[str], words: str, urls: dict[str, str], tmp_path: Path, surface: Run
) -> None:
    assert words in refused(surface("init", *arguments, "--ledger", urls[shape], "--out", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_init_asks_on_a_terminal(urls: dict[str, str], model: str, tmp_path: Path) -> None:
    """What is wrong is asked again; an empty answer takes the suggestion."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "serve.cli", "surface", "init", "--ledger", urls["several"], "--model", model]
    with subprocess.Popen([*command, "--out", str(tmp_path)], stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, b"ads\nad\nMy Ads\nmy_ads\n-Hide\nclick,-hide\n\n")
        said = _all_of(ours)
        assert process.wait(60) == 0, said
    os.close(ours)
    assert "Which kind of items? book (3), ad (1)" in said
    assert "no items of the kind 'ads'; did you mean 'ad'?" in said
    assert "'my_ads' would be right" in said
    spec = read_file(tmp_path / "my_ads.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    assert (spec.item_kind, [head.name for head in spec.heads]) == ("ad", ["engage", "click", "hide"])


def _all_of(descriptor: int) -> str:
    said = b""
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except OSError:  # the other end is closed
            return said.decode()
        if not part:
            return said.decode()
        said += part


# check


def test_check_alone_says_what_is_without_effect(films: Path, surface: Run) -> None:
    assert surface("check", films, "--model", "none", "--strict")[:2] == (
        0,
        f"{films}: right (version {_version(films)})\n",
    )
    films.write_text(FILMS.replace("{% if mood %}In a {{ mood }} mood.{% endif %}", "Only good ones."))
    status, out, _ = surface("check", films, "--model", "none")
    assert status == 0
    assert f"{films}:6:12: warning: this reads nothing of a request" in out
    assert surface("check", films, "--model", "none", "--strict")[0] == 1


def _version(path: Path) -> str:
    return Registry.shipped().plus(read_file(path)).declared("evening").version


def test_check_beside_a_ledger_ranks_for_members(films: Path, urls: dict[str, str], model: str, surface: Run) -> None:
    arguments = ("check", films, "--ledger", urls["movie"], "--model", model)
    status, out, _ = surface(*arguments)
    assert status == 0
    rows = [line.split() for line in out.splitlines() if line[:1] == "m" and line[1:3].isdigit()]
    assert len(rows) == 5
    assert {(row[1], row[2]) for row in rows} == {("12", "10")}
    assert "candidates by source, in the mean: popular 10" in out
    assert "warning" not in out
    others = [
        line.split()[0] for line in surface(*arguments, "--seed", 3)[1].splitlines() if line[:2] in {"m0", "m1", "m2"}
    ]
    assert others != [row[0] for row in rows]


def test_check_tries_the_members_that_it_is_told(films: Path, urls: dict[str, str], model: str, surface: Run) -> None:
    common = ("check", films, "--ledger", urls["movie"], "--model", model)
    out = surface(*common, "--member", "m03", "--member", "m07")[1]
    assert [line.split()[0] for line in out.splitlines() if line[:2] == "m0"] == ["m03", "m07"]
    assert "--member needs --ledger" in refused(surface("check", films, "--member", "m03"))
    assert "--member: the ledger knows no member 'nobody'" in refused(surface(*common, "--member", "nobody"))


def test_check_warns_with_line_and_column(films: Path, urls: dict[str, str], model: str, surface: Run) -> None:
    films.write_text(FILMS.replace("{{ title }}", "{{ titel }}").replace("k: 10", "k: 10, half_life: 99d"))
    common = ("check", films, "--ledger", urls["movie"])
    for chosen in (model, "none"):
        status, out, _ = surface(*common, "--model", chosen)
        assert status == 0
        assert f"{films}:7:13: warning: no movie has 'titel'; did you mean 'title'?" in out
        assert f"{films}:8:45: warning: 99d is longer than" in out
        assert surface(*common, "--model", chosen, "--strict")[0] == 1


def test_check_of_a_trunk_and_a_surface_that_uses_it(tmp_path: Path, films: Path, surface: Run) -> None:
    trunk = tmp_path / "short.yaml"
    trunk.write_text(
        'trunk: short\ndescription: Short\nprofile: "{{ age }}"\ntimeline: {events: {default: "{{ title }}"}}\n'
    )
    films.write_text(FILMS + "trunk: short\n")
    status, out, _ = surface("check", trunk, films, "--model", "none")
    assert (status, out.count(": right (version ")) == (0, 2)
    assert "no trunk is called 'short'" in refused(surface("check", films, "--model", "none"))


def test_check_beside_what_cannot_serve_it(films: Path, urls: dict[str, str], model: str, surface: Run) -> None:
    films.write_text(FILMS.replace("movie", "song").replace("k: 10", "k: 10, half_life: 3d"))
    line = refused(surface("check", films, "--ledger", urls["song"], "--model", model))
    assert "half_life needs times, but this ledger's clock is 'order'" in line
    out = surface("check", films, "--ledger", urls["none"], "--model", model)[1]
    assert f"{films}:3:12: warning: the ledger holds no item of the kind 'song'; import some first" in out


# preview


def test_preview_shows_text_slots_and_the_slate(films: Path, urls: dict[str, str], model: str, surface: Run) -> None:
    common = ("preview", films, "--ledger", urls["movie"], "--model", model, "--member", "m03", "-k", 2)
    status, out, _ = surface(*common, "--context", '{"mood": "good"}', "--query", "x")
    assert status == 0
    assert "12 of 12 events" in out
    assert "│ Member. 23 M writer" in out
    assert "│ In a good mood." in out
    leaves, _, slate = out.partition("leaves · 2 of 10")[2].partition("slate of 'evening'")
    assert leaves.count("│ Film ") == 2
    assert "answers │ yes, no" in leaves
    assert len([line for line in slate.splitlines() if "popular" in line]) == 2
    assert "In a" not in surface(*common)[1]


def test_preview_of_a_member_for_whom_nothing_is_left(
    films: Path, tmp_path: Path, urls: dict[str, str], model: str, surface: Run
) -> None:
    films.write_text(FILMS + "filters: [{type: where, keep: item.year > 3000}]\n")
    status, out, _ = surface("preview", films, "--ledger", urls["movie"], "--model", model, "--member", "m03")
    assert status == 0
    assert "leaves · 0 of 0" in out
    assert "No candidate: the sources bring nothing for this member, or the filters drop it all." in out


def test_preview_of_a_reciprocal_surface_shows_both_sides(
    films: Path, tmp_path: Path, model: str, surface: Run
) -> None:
    url = f"sqlite:///{tmp_path / 'people.sqlite'}"
    films.write_text(FILMS.replace("movie", "person").replace("watch", "meet") + "reciprocal: {top: 3}\n")
    with Ledger.open(url) as ledger:
        ledger.put_members(Member(f"m{n}", {"occupation": "cook"}) for n in range(6))
        ledger.put_items(Item(f"p{n}", "person", {"title": f"Person {n}"}, f"m{n}") for n in range(6))
    status, out, _ = surface("preview", films, "--ledger", url, "--model", model, "--member", "m0")
    assert status == 0
    assert "meet_back" in out
    assert surface("check", films, "--ledger", url, "--model", model)[0] == 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--member": "mx"}, "unknown member 'mx'"),
        ({"--context": "{"}, "--context: no JSON"),
        ({"--context": "[1]"}, "--context: should be a JSON object"),
        ({"--model": "/nowhere"}, "no checkpoint '/nowhere'"),
        ({"--ledger": "sqlite:////nowhere/x.sqlite"}, "no folder /nowhere"),
    ],
)
def test_preview_of_what_is_wrong_is_one_line(
    changed: dict[str, str], words: str, films: Path, urls: dict[str, str], model: str, surface: Run
) -> None:
    options = {"--ledger": urls["movie"], "--model": model, "--member": "m03", **changed}
    assert words in refused(surface("preview", films, *(word for pair in options.items() for word in pair)))


def test_preview_of_an_unknown_surface_or_file(urls: dict[str, str], tmp_path: Path, surface: Run) -> None:
    common = ("--ledger", urls["movie"], "--member", "m03")
    assert "did you mean 'movies'?" in refused(surface("preview", "movie", *common))
    assert "cannot be read" in refused(surface("preview", tmp_path / "none.yaml", *common))
    trunk = "surfaces/plugins/member.yaml"
    assert "this declares a trunk" in refused(surface("preview", trunk, *common))


# diff, list, schema


def test_diff_of_the_same_is_0_of_others_1(films: Path, tmp_path: Path, surface: Run) -> None:
    assert surface("diff", films, films) == (0, f"{films} and {films} say the same\n", "")
    assert surface("diff", "movies", "surfaces/plugins/movies.yaml")[0] == 0
    other = tmp_path / "other.yaml"
    other.write_text(FILMS.replace("tonight?", "now?").replace("k: 10", "k: 20, weight: 1.0") + "evidence: [popular]\n")
    status, out, _ = surface("diff", films, other)
    assert status == 1
    assert out.splitlines() == [
        f"--- {films}",
        f"+++ {other}",
        "~ prompt.instruction: Which film tonight? -> Which film now?",
        "~ sources.popular.k: 10 -> 20",
        "~ evidence: [] -> [popular]",
        "=> the stem changes: cached stems are computed again",
        "=> the candidates' texts change: leaves are never cached, so only the scores differ",
        "=> other candidates: the sources are fitted again when the file comes online",
    ]


def test_diff_of_a_name_against_a_file(films: Path, tmp_path: Path, surface: Run) -> None:
    mine = tmp_path / "elsewhere" / "mine.yaml"
    mine.parent.mkdir()
    template = "{{ title }}{{ ' (' ~ year ~ ')' if year }} {{ genres | join(', ') }}"
    changed = FILMS.replace("{{ title }}", template).replace("popular, k: 10", "recent, k: 5, by: year")
    mine.write_text(changed)
    status, out, _ = surface("diff", "evening", mine, "--surfaces", tmp_path)
    assert status == 1
    assert "- sources.popular: type popular, k 10, weight 1.0" in out
    assert f"    - {{{{ title }}}}\n    + {template}\n" in out
    assert surface("diff", "evening", films, "--surfaces", tmp_path)[0] == 0


def test_diff_of_what_cannot_be_compared(films: Path, tmp_path: Path, surface: Run) -> None:
    assert "one declares a surface, the other a trunk" in refused(
        surface("diff", films, "surfaces/plugins/member.yaml")
    )
    assert "did you mean 'movies'" in refused(surface("diff", "movie", films))
    broken = tmp_path / "broken.yaml"
    broken.write_text("surface: [")
    assert f"{broken}:1:" in refused(surface("diff", films, broken))


def test_diff_of_trunks(tmp_path: Path, surface: Run) -> None:
    text = Path("surfaces/plugins/member.yaml").read_text(encoding="utf-8")
    other = tmp_path / "member.yaml"
    other.write_text(text.replace("budget: 128", "budget: 256"))
    status, out, _ = surface("diff", "surfaces/plugins/member.yaml", other)
    assert status == 1
    assert "~ timeline.budget: 128 -> 256" in out
    assert "=> the trunk changes: every member's cached trunk is computed again, on all its surfaces" in out


def test_list_tells_version_evidence_and_policies(films: Path, surface: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    films.write_text(FILMS + "evidence: [popular, bm25]\npolicies: [{type: cap, by: studio, max: 2}]\n")
    status, out, _ = surface("list", "--surfaces", films.parent)
    assert status == 0
    _, _, mine = out.partition("\nevening ")
    words = ("Films for tonight", _version(films), "ranks    movie by watch (1)", "sources  popular 10")
    for word in (*words, "evidence popular, bm25", "policies cap"):
        assert word in mine.partition("\n\n")[0]


def test_the_schema_is_a_file_that_can_be_committed(surface: Run) -> None:
    for more in ([], ["--trunk"]):
        out = surface("schema", *more)[1]
        assert out == f"{json.dumps(json.loads(out), indent=2)}\n"
