"""The simulated network as a ledger's tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prompts.errors import ConfigError
from surfaces.ledger.tables import Progress, Table, Tables
from surfaces.worlds.network.calibration import calibrated
from surfaces.worlds.network.ceiling import Ceiling, ceiling
from surfaces.worlds.network.onet import load_occupations
from surfaces.worlds.network.rows import (
    EVENT_COLUMNS,
    ITEM_COLUMNS,
    MEMBER_COLUMNS,
    Stream,
    event_rows,
    item_rows,
    member_rows,
)
from surfaces.worlds.network.shelf import LAST, START
from surfaces.worlds.network.world import World, build_world

SMALLEST, LARGEST = 100, 1_000_000


class Network:
    """A professional network of simulated members, who see posts, jobs, ads and people, and act on some.

    Nobody in it is real: names, companies and all that they do are drawn at random from the seed. Only the occupations'
    titles and descriptions are real, and come from O*NET (CC BY 4.0, see `onet`). The same members and seed give the
    same network; on another kind of processor a few draws may differ, for its linear algebra rounds otherwise.

    Jobs are a quarter of the members (at least 200), posts as many as the members (at least 500), ads a twentieth (at
    least 60), companies a twenty-fifth (at least 30); every member is a person item too. Events are about 100 a member.
    """

    def __init__(self, members: int = 1_000, seed: int = 0) -> None:
        """Raises ConfigError for other than 100 to 1,000,000 members, and for a seed below 0."""
        if not _whole(members) or not SMALLEST <= members <= LARGEST:
            raise ConfigError(f"members: {members!r}; a simulated network has {SMALLEST} to {LARGEST} members")
        if not _whole(seed) or seed < 0:
            raise ConfigError(f"seed: {seed!r}; a seed is a whole number, 0 or more")
        self.members, self.seed = members, seed
        self._world: World | None = None

    def world(self, cache: Path | None = None, progress: Progress | None = None) -> World:
        """The members and items as numbers, made at the first call: about 0.3 kB for each member.

        Raises DownloadError when O*NET's package is neither in the cache nor to be had.
        """
        if self._world is None:
            self._world = calibrated(build_world(self.seed, self.members, load_occupations(cache, progress)))
        return self._world

    def tables(self, cache: Path | None = None, progress: Progress | None = None) -> Tables:
        """Items, members and events, ready for `import_tables`; rows are made while they are read, block by block.

        Timestamps are whole seconds since 1970, over 120 days from 2026-01-01 UTC. The propensity of an event is the
        probability with which the logging policy put the item at its position, given the session's pool of candidates
        and the items above (see `policy`). The ledger's present is the end of the last session. Raises DownloadError as
        `world` does.
        """
        world = self.world(cache, progress)
        return Tables(
            _table("items", ITEM_COLUMNS, Stream(partial(item_rows, world))),
            _table("members", MEMBER_COLUMNS, Stream(partial(member_rows, world))),
            _table("events", EVENT_COLUMNS, Stream(partial(event_rows, world))),
            fingerprint=f"network {self.members} {self.seed}",
            now=START + LAST + 1,
            note="simulated: a made-up network, nobody in it is real",
        )

    def ceiling(self) -> list[Ceiling]:
        """For each surface, NDCG@10 of the shown slates by the simulator's truth and by three other orders.

        Over the slates of the first 10,240 members. Raises DownloadError as `world` does.
        """
        return ceiling(self.world())


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _table(name: str, columns: tuple[str, ...], rows: Stream) -> Table:
    return Table(f"simulated network {name}", columns, rows)
