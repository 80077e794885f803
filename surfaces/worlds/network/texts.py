"""Words for the numbers of a simulated network."""

from __future__ import annotations

from collections.abc import Sequence

from surfaces.worlds.network.shelf import Shelf
from surfaces.worlds.network.words import (
    AD_OPENINGS,
    CITIES,
    COMPANY_FIRST,
    COMPANY_LAST,
    FIRST_NAMES,
    LAST_NAMES,
    LEVELS,
    POST_OPENINGS,
)
from surfaces.worlds.network.world import World

_SHUFFLE = 2_654_435_761  # odd, so that names of neighbours differ: Knuth's multiplicative hashing
_SECOND_SKILL = 3  # every third member has learned something of the second occupation


class Texts:
    """Titles, names, skills and sentences of one world."""

    def __init__(self, world: World) -> None:
        self._meaning = world.meaning
        self._seed = world.seed
        self._skills = world.meaning.skills
        self._sentences = world.meaning.sentences
        self.companies: Shelf = world.shelves["company"]

    def title(self, occupation: int) -> str:
        """O*NET's title of the occupation."""
        return self._meaning.occupations[occupation].title

    def industry(self, industry: int) -> str:
        return self._meaning.industries[industry]

    def city(self, city: int) -> str:
        return CITIES[city]

    def level(self, level: int) -> str:
        return LEVELS[level]

    def sentence(self, occupation: int, draw: int) -> str:
        """One sentence of O*NET's description."""
        return _of(self._sentences[occupation], draw)

    def skills(self, occupation: int, draws: list[int], second: int | None = None) -> list[str]:
        """3 to 6 skills of the occupation; for every third draw the last is the second occupation's."""
        chosen = _some(self._skills[occupation], 3 + draws[0] % 4, draws[1])
        other = _of(self._skills[second][:4], draws[3]) if second is not None else chosen[-1]
        if draws[2] % _SECOND_SKILL == 0 and other not in chosen:
            chosen[-1] = other
        return chosen

    def terms(self, occupation: int, draws: list[int], count: int = 2) -> list[str]:
        """Topics of a post or an ad about the occupation, of its 6 most telling skills."""
        return _some(self._skills[occupation][:6], count, draws[1])

    def opening(self, draw: int, term: str) -> str:
        return _of(POST_OPENINGS, draw).format(term=term)

    def slogan(self, draw: int, term: str) -> str:
        text = _of(AD_OPENINGS, draw).format(term=term)
        return text[:1].upper() + text[1:]

    def member(self, place: int) -> str:
        """A name; several members may share one."""
        number = (place + 1) * _SHUFFLE + self._seed
        return f"{_of(FIRST_NAMES, number >> 12)} {_of(LAST_NAMES, number >> 20)}"

    def company(self, place: int) -> str:
        """A name of its own: the first 630 are two words, later ones have a number."""
        number, rest = divmod(place, len(COMPANY_FIRST) * len(COMPANY_LAST))
        first, last = _of(COMPANY_FIRST, rest), _of(COMPANY_LAST, rest // len(COMPANY_FIRST) + rest)
        return f"{first} {last} {number + 1}" if number else f"{first} {last}"


def _of(words: Sequence[str], draw: int) -> str:
    return words[draw % len(words)]


def _some(words: Sequence[str], count: int, draw: int) -> list[str]:
    """So many that follow one another, the first by the draw."""
    return [words[(draw + place) % len(words)] for place in range(min(count, len(words)))]
