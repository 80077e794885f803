"""The story that `make demo` tells: real members, real films, one model, over real HTTP."""

from __future__ import annotations

import json
import random
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table

from foundation.engine.base import Engine
from foundation.wheels import cache_folder
from serve.commands.parts import SHIPPED_MODEL, open_calibrations, open_engine, progress_bar
from serve.server import bind, serving
from serve.services import Services
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.method import FromSource, Method
from surfaces.evaluation.protocols import leave_one_out
from surfaces.evaluation.report import Report
from surfaces.evaluation.run import rank
from surfaces.ledger.records import Item
from surfaces.ledger.store import Ledger
from surfaces.ledger.tables import import_tables
from surfaces.registry import Registry
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.popular import Popular
from surfaces.worlds.movielens import load_movielens

SEED = 7
MEMBERS = 3
SURFACE = "movies"
WIDTH = 100
LEDGER_FILE = "movielens-100k.sqlite"
SOURCES = {"co_visitation": "co-visits", "popular": "popular", "embedding": "text"}

FAMILY = """\
surface: family_evening
description: Films for an evening with the children
item_kind: movie
prompt:
  instruction: Films for a family evening. Which one do parents and children watch?
  context: "Only Children's, Animation, Comedy."
  item: "{{ title }} ({{ year }}) {{ genres | join(', ') }}"
evidence: [popular, co_visitation]
sources: [{type: popular, k: 400}]
heads: [{name: watch, type: pointwise, weight: 1.0}]
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the acts share."""

    console: Console
    services: Services
    url: str

    @property
    def ledger(self) -> Ledger:
        return self.services.ledger

    def rank(self, surface: str, **body: object) -> dict[str, Any]:
        """One request over HTTP."""
        request = urllib.request.Request(  # noqa: S310 - the server of this process
            f"{self.url}/v1/surfaces/{surface}/rank", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=90) as response:  # noqa: S310
            return cast(dict[str, Any], json.load(response))

    def tell(self, *parts: RenderableType) -> None:
        """Paragraphs and tables, a line apart."""
        for number, part in enumerate(parts):
            self.console.print(Padding(part, (min(number, 1), 0, 0, 0)))

    def act(self, title: str) -> None:
        """A new heading."""
        self.console.print(Padding(Rule(f"[bold]{title}[/]", align="left"), (1, 0, 1, 0)))


def run(model: str, port: int) -> None:
    """Tells the story; with a terminal, serves on until Ctrl-C."""
    console = Console(width=min(WIDTH, Console().width) if sys.stdout.isatty() else WIDTH)
    with bind("127.0.0.1", port) as bound, movielens(console) as ledger:
        with console.status("loading the model …") as status:
            engine = open_engine(model)
            services = Services.open(
                ledger, engine, Registry.shipped(), lambda step: status.update(f"{step} …"), open_calibrations(model)
            )
        with serving(services, bound) as url:
            stage = Stage(console, services, url)
            _wait_until_ready(stage)
            _opening(stage)
            members = random.Random(SEED).sample(ledger.member_ids(), MEMBERS)
            for member_id in members:
                _slate(stage, member_id)
            _fallback(stage, members[0])
            _zero_shot(stage, members[1])
            _held_out(stage, engine)
            _closing(stage, members[0])


def movielens(console: Console) -> Ledger:
    """MovieLens in a ledger of the cache folder; brought there the first time."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(f"sqlite:///{cache / LEDGER_FILE}")
    if not ledger.counts().events:
        with console.status("fetching MovieLens-100K …") as status:
            import_tables(load_movielens(cache, lambda step: status.update(f"{step} …")), ledger)
    return ledger


def _wait_until_ready(stage: Stage) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"{stage.url}/readyz", timeout=10):  # noqa: S310
                return
        except OSError:
            time.sleep(0.1)


def _opening(stage: Stage) -> None:
    counts, version = stage.ledger.counts(), stage.services.engine.model_version
    stage.act("prismrank · films for three members of MovieLens-100K")
    stage.tell(
        f"The ledger holds {counts.items:,} films, {counts.members:,} members and {counts.events:,} ratings. The model "
        f"is [bold]{version}[/], one small mixture-of-experts decoder. {_schooling(version)} The server runs at "
        f"{stage.url}; every slate below came over HTTP.",
        "The columns watch, like and dislike are the model's probabilities; the slate is ordered by watch. Found by: "
        "films watched by the same people (co-visits), films that many watched (popular), films alike in text, by "
        "vectors of the model (text).",
    )


def _schooling(version: str) -> str:
    if version.partition("@")[0] != SHIPPED_MODEL:
        return "What it was trained on is for its maker to say."
    return "It was trained on these members' ratings, with the last two films of each held out."


def _slate(stage: Stage, member_id: str) -> None:
    """A member's latest events, and what the model ranks for them."""
    told = ", ".join(str(value) for value in stage.ledger.member(member_id).profile.values())
    stage.act(f"member {member_id} · {told}")
    latest = stage.ledger.timeline(member_id)[-6:]
    films = _films(stage, [event.item_id for event in latest])
    words = stage.services.surface(SURFACE).form.actions
    table = _table(("rated on", 10), ("and", 8), ("film", 46), ("genres", 30))
    for event in latest:
        day = datetime.fromtimestamp(event.timestamp, UTC).date().isoformat()
        table.add_row(day, words.get(event.action, event.action), *films[event.item_id], style="dim")
    reply = stage.rank(SURFACE, member_id=member_id, k=8, deadline_ms=10_000)
    stage.tell(table, _slate_table(stage, reply), _timing(reply))


def _slate_table(stage: Stage, reply: Mapping[str, Any]) -> Table:
    films = _films(stage, [entry["item_id"] for entry in reply["slate"]])
    heads = [head.name for head in stage.services.surface(reply["surface"]).spec.heads]
    columns = [(head, max(4, len(head))) for head in heads]
    table = _table(("", 2), ("film", 30), ("genres", 16), *columns, ("found by", 24))
    for entry in reply["slate"]:
        shown = [_share(entry["heads"][head]) if entry["heads"] else "–" for head in heads]
        found_by = ", ".join(SOURCES.get(source, source) for source in entry["sources"])
        table.add_row(str(entry["rank"]), *films[entry["item_id"]], *shown, found_by)
    return table


def _share(probability: float) -> str:
    return f"{probability:.3f}".removeprefix("0")


def _table(*columns: tuple[str, int]) -> Table:
    """A plain table of columns (header, width) that never wraps."""
    table = Table(box=None, pad_edge=False)
    for header, width in columns:
        table.add_column(header, width=width, no_wrap=True)
    return table


def _timing(reply: Mapping[str, Any]) -> str:
    parts = " · ".join(f"{name} {ms:.0f}" for name, ms in reply["timing_ms"].items())
    mark = f"[yellow]degraded: {reply['reason']}[/]" if reply["degraded"] else "[green]ranked by the model[/]"
    return f"{mark}   [dim]{parts} ms[/]"


def _fallback(stage: Stage, member_id: str) -> None:
    stage.act("the same request with a deadline of 1 ms")
    reply = stage.rank(SURFACE, member_id=member_id, k=5, deadline_ms=1)
    stage.tell(
        "The model cannot answer in a millisecond. The caller still gets a slate: the order in which the sources "
        "retrieved the films, marked as degraded.",
        _slate_table(stage, reply),
        _timing(reply),
    )


def _zero_shot(stage: Stage, member_id: str) -> None:
    """A surface that nothing was trained for, beside the order of the surface that it was trained for."""
    stage.act("a new surface, written on the spot")
    stage.tell(
        "These ten lines declare a surface that the model never saw. It is live at once, over the same ledger, without "
        f"any training on it. Member {member_id} asks:",
        Padding(Syntax(FAMILY, "yaml", background_color="default"), (0, 2)),
    )
    stage.services.add(FAMILY, "family_evening.yaml")
    reply = stage.rank("family_evening", member_id=member_id, k=1000, deadline_ms=10_000)
    same = [entry["item_id"] for entry in reply["slate"]]
    usual = stage.rank(SURFACE, member_id=member_id, k=1000, candidates=same, deadline_ms=10_000)
    places = {entry["item_id"]: entry["rank"] for entry in usual["slate"]}
    films = _films(stage, same[:8])
    table = _table(("", 2), ("film", 44), ("genres", 30), ("watch", 5), (f"on '{SURFACE}'", 11))
    for entry in reply["slate"][:8]:
        name = entry["item_id"]
        table.add_row(str(entry["rank"]), *films[name], _share(entry["heads"]["watch"]), str(places[name]))
    stage.tell(
        table,
        f"{_timing(reply)}\n"
        f"[dim]The last column is the film's place on '{SURFACE}', among the same {len(same)} candidates.[/]",
    )


def _held_out(stage: Stage, engine: Engine) -> None:
    """A small comparison on held-out events, computed now."""
    stage.act("held-out films: the next film of 50 members among 100 candidates")
    registry, served = stage.services.registry, stage.services.surface(SURFACE).spec
    # `sasrec` takes a minute to learn anew from what is left for learning here; the others take seconds.
    spec = served.model_copy(update={"evidence": tuple(name for name in served.evidence if name != "sasrec")})
    split = leave_one_out(stage.ledger, spec, members=50, seed=SEED, candidates=100)
    form = registry.trunk(spec.trunk)
    foundation = FoundationMethod(spec, form, stage.ledger, engine, split.train)
    popular = FromSource("popular", Popular(), split.train)
    methods: list[Method] = [foundation, popular, FromSource("co_visitation", CoVisitation(), split.train)]
    with progress_bar(stage.console) as progress:
        bar = progress.add_task("ranking", total=len(split.cases))
        results = rank(split, methods, stage.ledger, progress=lambda done, _: progress.update(bar, completed=done))
    report = Report(SURFACE, split, results)
    stage.tell(
        _figures(report),
        "[dim]Each member's last rated film stands among 99 films drawn from those they have not rated. The sources "
        "did not learn from it, nor did the shipped model in its training; `sasrec` is not asked here. Mean over "
        "members [95% interval]. Fifty members say little: `prismrank evaluate movies` takes them all, over the full "
        "catalogue.[/]",
    )


def _figures(report: Report) -> Table:
    labels = {"foundation": "model"}
    table = _table(("method", 15), ("NDCG@10", 20), ("hit rate@10", 20), ("MRR", 20))
    for method in report.results:
        found = [report.figure(method, metric) for metric in ("ndcg@10", "hr@10", "mrr")]
        shown = [f"{value:.3f} [dim]\\[{low:.2f}, {high:.2f}][/]" for value, low, high in found]
        table.add_row(labels.get(method, method), *shown)
    return table


def _closing(stage: Stage, member_id: str) -> None:
    """With a terminal, serves on."""
    body = json.dumps({"member_id": member_id, "k": 5, "explain": True})
    call = f"curl -s {stage.url}/v1/surfaces/{SURFACE}/rank \\\n  -H 'Content-Type: application/json' -d '{body}'"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    stage.act("the server goes on")
    stage.console.print(call, markup=False, highlight=False, soft_wrap=True)
    stage.tell("", f"The API's pages: {stage.url}/docs. Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _films(stage: Stage, ids: list[str]) -> dict[str, tuple[str, str]]:
    """Title with year, and genres, by id."""
    return {item.item_id: (_title(item), _genres(item)) for item in stage.ledger.items(ids).values()}


def _title(item: Item) -> str:
    year = item.attributes.get("year")
    return f"{item.attributes.get('title')} ({year})" if year else str(item.attributes.get("title"))


def _genres(item: Item) -> str:
    genres = item.attributes.get("genres")
    return ", ".join(genres) if isinstance(genres, list) else ""
