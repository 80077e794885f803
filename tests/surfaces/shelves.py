"""Ledgers for those who write surface files: jobs, songs without times, and texts that mean harm."""

from __future__ import annotations

import random
import time

from surfaces.authoring.advice import in_order
from surfaces.authoring.advice_file import of_file
from surfaces.authoring.advice_ledger import of_ledger
from surfaces.authoring.survey import kinds_of, survey
from surfaces.ledger.records import Event, Item, Member
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import read_spec

DAY = 86_400.0
HOSTILE = (
    "a\nsurface: stolen", "# no comment", 'say "hi" \\ and: go', "- {type: sql}", "\x07\x1b[31mred\x85line\u2028end",
    "{{ config }} {% for x in y %}", "\ufffe\U000e0041 tag \u202e turned", "'single' & *alias !!python/object", "😀 …",
)  # fmt: skip


def fill_jobs(ledger: Ledger, *, jobs: int = 60, members: int = 20) -> None:
    """Job postings that end in a month, with companies that post several, and members who look at them for weeks."""
    rng, now = random.Random(1), time.time()
    words = ("Nurse", "Welder", "Baker", "Pilot", "Editor")
    ledger.put_items(
        Item(
            f"j{n:03}",
            "job",
            {
                "title": f"{words[n % 5]} {n}",
                "company": f"Firm {n % 7}",
                "location": ("Linz", "Graz")[n % 2],
                "posted_at": now - n * DAY / 2,
                "expires_at": now + 30 * DAY,
                "remote": n % 3 == 0,
                "description": "We are looking for somebody who likes the work. " * 6,
                "url": f"https://example.com/{n}",
            },
        )
        for n in range(jobs)
    )
    ledger.put_members(Member(f"m{n:02}", {"age": 20 + n, "location": ("Linz", "Graz")[n % 2]}) for n in range(members))
    actions = ("apply", "save", "dismiss", "show", "show")
    ledger.add_events(
        Event(f"m{n:02}", f"j{job:03}", "jobs", rng.choice(actions), now - rng.random() * 60 * DAY)
        for n in range(members)
        for job in rng.sample(range(jobs), 12)
    )


def fill_songs(ledger: Ledger) -> None:
    """Songs in a ledger whose timestamps are positions; everybody did the one thing there is to do."""
    ledger.set_clock("order")
    ledger.put_items(Item(f"s{n}", "song", {"name": f"Song {n}", "artist": f"Band {n % 4}"}) for n in range(30))
    ledger.put_members(Member(f"m{n}", {}) for n in range(12))
    ledger.add_events(
        Event(f"m{n}", f"s{(3 * n + place) % 30}", "songs", "play", float(place))
        for n in range(12)
        for place in range(8)
    )


def fill_hostile(ledger: Ledger) -> None:
    """Values, names of attributes and actions that would break a file that took them as they are."""
    ledger.put_items(
        Item(f"h{n}", "thing", {"title": text, "for": "x", "a b": text, "#c: d": text, "naïve": text, "true": "y"})
        for n, text in enumerate(HOSTILE)
    )
    ledger.put_members([Member("m", {'say: "': HOSTILE[0]}), Member("n", {})])
    events = [Event(name, f"h{n}", "things", action, 1.0 * n) for name in "mn" for n, action in enumerate(ACTIONS)]
    ledger.add_events(events)


ACTIONS = ("Add To Cart", "none", "yes", "like", "show", "# x")


SHIPPED = Registry.shipped()


def surface(text: str) -> SurfaceSpec:
    spec = read_spec(text, "mine.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    return spec


def advice_of(text: str, ledger: Ledger) -> list[str]:
    """What is said of a file beside a ledger, a line each."""
    file, spec = read_spec(text, "mine.yaml"), surface(text)
    form = SHIPPED.trunk(spec.trunk)
    found = survey(ledger, spec.item_kind)
    return [one.line(file) for one in in_order([*of_file(spec), *of_ledger(spec, form, found, kinds_of(ledger))], file)]
