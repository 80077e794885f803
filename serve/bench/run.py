"""`prismrank bench serve`: a server on loopback under load, and whether it keeps what is promised.

The server is a process of its own; the generator is this one, and tells whether it kept up. Both share the machine.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from foundation.bench.machine import machine
from foundation.engine.heap import collecting_seldom
from foundation.wheels import cache_folder
from prompts.errors import ConfigError
from prompts.suggest import suggest
from serve.bench import clients, endings, flood, killed, loads, picture, soak, swap
from serve.bench.reading import Bound, Found, Row
from serve.bench.stage import CANDIDATES, Asked, Stage, Tell, Workload, copied
from serve.commands.parts import progress_bar, stepping
from serve.demo import LEDGER_FILE, movielens
from surfaces.ledger.store import Ledger


class How(NamedTuple):
    """What is asked for on the command line; without a ledger it is the demo's."""

    ledger: str | None
    model: str
    surface: str
    seconds: float | None = None
    rounds: int | None = None
    candidates: int = CANDIDATES


class Scenario(NamedTuple):
    """One kind of trouble; `usual`: it is part of a run that names none. `seconds` is about how long it takes."""

    run: Callable[[Stage], Awaitable[Found]]
    seconds: float
    usual: bool = False


SCENARIOS = {
    "curve": Scenario(loads.curve, 70, usual=True),
    "clients": Scenario(clients.clients, 60, usual=True),
    "flood": Scenario(flood.flood, 60, usual=True),
    "overload": Scenario(loads.overload, 190),
    "soak": Scenario(soak.soak, 620),
    "killed": Scenario(killed.killed, 250),
    "signals": Scenario(endings.signals, 500),
    "swap": Scenario(swap.swap, 300),
    "kill9": Scenario(endings.kill9, 900),
}
USUAL = ",".join(name for name, scenario in SCENARIOS.items() if scenario.usual)
START_S = 20.0
"""What a server takes until its trunks are warm."""


def named(names: str) -> list[str]:
    """Scenarios by their names, parted by commas. Raises ConfigError for one that there is not."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    for name in found:
        if name not in SCENARIOS:
            known = ", ".join(SCENARIOS)
            raise ConfigError(f"--only: no scenario is called '{name}'{suggest(name, SCENARIOS)}; there are {known}")
    if not found or len(set(found)) < len(found):
        raise ConfigError("--only: name one scenario or more, each once")
    return found


def budget(names: Sequence[str], seconds: float | None) -> str:
    """About how long it will take."""
    whole = START_S + sum(START_S + (seconds or SCENARIOS[name].seconds) for name in names)
    return f"{', '.join(names)}: about {math.ceil(whole / 60)} minutes"


def run(names: Sequence[str], how: How, json_out: Path | None = None, plot: Path | None = None) -> None:
    """Measures, prints the tables, and writes the figures where asked; `plot` needs the scenario `curve`.

    Raises ConfigError, LedgerError.
    """
    stderr = Console(stderr=True)
    stderr.print(budget(names, how.seconds), highlight=False)
    with TemporaryDirectory(prefix="prismrank-bench-") as made, progress_bar(stderr) as progress:
        url = copied(how.ledger or _films(stderr), Path(made))
        asked = Asked(url, how.model, how.surface, Path(made), how.seconds, how.rounds, how.candidates)
        found = measure(names, asked, stepping(progress))
    Console().print(*to_tables(found))
    told = to_json(found, asked)
    if json_out:
        json_out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    if plot:
        plot.write_bytes(picture.draw(told["scenarios"]["curve"]["rows"]))


def _films(console: Console) -> str:
    """The demo's ledger, brought there the first time."""
    movielens(console).close()
    return f"sqlite:///{cache_folder() / LEDGER_FILE}"


def measure(names: Sequence[str], asked: Asked, tell: Tell) -> dict[str, Found]:
    """What the scenarios found, by name. Raises ConfigError, LedgerError, CheckpointError."""
    with Ledger.open(asked.ledger, create=False) as ledger:
        workload = Workload(ledger, asked.surface, asked.candidates)
    with collecting_seldom():  # the generator must not stop for it
        return asyncio.run(_measured(names, Stage(asked, workload, tell)))


async def _measured(names: Sequence[str], stage: Stage) -> dict[str, Found]:
    try:
        return {name: await SCENARIOS[name].run(stage) for name in names}
    finally:
        await stage.close()


def to_json(found: dict[str, Found], asked: Asked) -> dict[str, Any]:
    """All of it as JSON holds it; a figure of nothing is null."""
    scenarios = {
        name: {
            "title": each.title,
            "rows": [{key: _plain(value) for key, value in row.items()} for row in each.rows],
            "bounds": [
                {**bound._asdict(), "measured": _plain(bound.measured), "kept": bound.kept} for bound in each.bounds
            ],
        }
        for name, each in found.items()
    }
    about = {"model": asked.model, "surface": asked.surface, "candidates": asked.candidates}
    return {"scenarios": scenarios, **about, "machine": machine()}


def _plain(value: float | str) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_tables(found: dict[str, Found]) -> list[Table]:
    """For people: a table a scenario, a column a run, and one of the promises."""
    shown = [_table(name, each) for name, each in found.items()]
    bounds = [bound for each in found.values() for bound in each.bounds]
    return [*shown, _promises(bounds)] if bounds else shown


def _table(name: str, found: Found) -> Table:
    """A row a figure: there are more figures than runs."""
    first = next(iter(found.rows[0]))
    figures = dict.fromkeys(key for row in found.rows for key in row if key != first)
    table = Table(title=f"{name}: {found.title}", caption=_caption(found.rows))
    table.add_column(first)
    for row in found.rows:
        table.add_column(_shown(row[first]), justify="right")
    for figure in figures:
        table.add_row(figure, *(_shown(row.get(figure, "")) for row in found.rows))
    return table


def _caption(rows: Sequence[Row]) -> str | None:
    late = any(row.get("kept_up") == "no" for row in rows)
    return "the generator itself was late in a run: its times are too long" if late else None


def _promises(bounds: Sequence[Bound]) -> Table:
    table = Table("promise", "measured", "asked", "kept", title="promises")
    for bound in bounds:
        sign = ">=" if bound.at_least else "<="
        table.add_row(
            bound.what, _shown(bound.measured), f"{sign} {_shown(bound.allowed)}", "yes" if bound.kept else "no"
        )
    return table


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return (
        f"{value:,.0f}" if abs(value) >= 100 or value == int(value if math.isfinite(value) else 1) else f"{value:.3g}"
    )
