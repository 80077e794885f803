"""What the occupations' texts mean: skills, sentences, vectors, and which occupations are alike.

Vectors are latent semantic analysis (Deerwester et al., "Indexing by latent semantic analysis", JASIS 41 (1990)): the
leading eigenvectors of the occupations' TF-IDF similarities, the major group counting as one more word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from surfaces.worlds.network.arrays import Floats, Ints, cumulative, pick, unit
from surfaces.worlds.network.onet import Occupation
from surfaces.worlds.network.words import COMMON, INDUSTRIES

SIZE = 16
"""Numbers in a vector."""

_TERMS = 10
_NEIGHBOURS = 12
_WARMTH = 0.15
_COMMON_SHARE = 0.08
_PIECE = re.compile(r"[a-z][a-z-]*[a-z]|[.,;:()]")
_SENTENCE = re.compile(r"(?<=[a-z)]\.) (?=[A-Z])")


@dataclass(frozen=True)
class Meaning:
    """The occupations of one network, and all that follows from their texts."""

    occupations: Sequence[Occupation]

    @cached_property
    def groups(self) -> list[str]:
        """The major groups that occur, in order."""
        return sorted({occupation.group for occupation in self.occupations})

    @cached_property
    def group_of(self) -> Ints:
        """For each occupation, the place of its major group in `groups`."""
        return np.array([self.groups.index(occupation.group) for occupation in self.occupations])

    @cached_property
    def industries(self) -> list[str]:
        """The groups' names."""
        return [INDUSTRIES[group] for group in self.groups]

    @cached_property
    def sentences(self) -> list[list[str]]:
        """For each occupation, the sentences of its description."""
        return [_SENTENCE.split(occupation.description) for occupation in self.occupations]

    @cached_property
    def skills(self) -> list[list[str]]:
        """For each occupation 10 phrases that tell it from others, the most telling first.

        Where its own text has fewer, those of the occupations that are most alike follow.
        """
        counts = [Counter(_terms(occupation)) for occupation in self.occupations]
        spread = Counter(term for count in counts for term in count)
        own = [_telling(count, spread, len(counts)) for count in counts]
        near, _ = self._near
        return [_first_distinct(own[other] for other in others) for others in near]

    @cached_property
    def vectors(self) -> Floats:
        """(occupations, SIZE), each of length 1; rounded, so that machines agree."""
        similar = _similarities(self.occupations)
        values, vectors = np.linalg.eigh(similar)
        leading, scale = vectors[:, -SIZE:], np.maximum(values[-SIZE:], 0.0) ** 0.25
        signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(SIZE)])
        return unit(np.round(leading * scale * signs, 4)).astype(np.float32)

    @cached_property
    def _near(self) -> tuple[Ints, Floats]:
        """(occupations, 12) of the nearest occupations, itself the first, and their cumulative shares."""
        alike = self.vectors @ self.vectors.T
        near = np.argsort(-alike, axis=1, kind="stable")[:, :_NEIGHBOURS]
        shares = np.exp(np.take_along_axis(alike, near, axis=1).astype(np.float64) / _WARMTH)
        return near, cumulative(shares)

    def near(self, occupations: Ints, draws: Floats) -> Ints:
        """For each occupation one that is alike, itself the likeliest; draws are uniform in 0 to 1, same shape."""
        near, shares = self._near
        return near[occupations, pick(shares[occupations], draws)]


def _terms(occupation: Occupation) -> Iterator[str]:
    """Every content word of the description, and every two that stand together."""
    before = ""
    for piece in _PIECE.findall(occupation.description.lower()):
        word = piece if _tells(piece) else ""
        if word:
            yield word
            if before:
                yield f"{before} {word}"
        before = word


def _telling(count: Counter[str], spread: Counter[str], total: int) -> list[str]:
    """The terms of one occupation by how much they tell; a word that a chosen phrase holds is not said again."""

    def weight(term: str) -> tuple[float, str]:
        phrase = 1.6 if " " in term and spread[term] > 1 else 1.2 if " " in term else 1.0
        often = 0.0 if spread[term] > _COMMON_SHARE * total else 1.0
        return -phrase * often * (1 + np.log(count[term])) * np.log(total / spread[term]), term

    chosen: list[str] = []
    for term in sorted(count, key=weight):
        taken = {word for other in chosen for word in other.split()}
        if taken.isdisjoint(term.split()):
            chosen.append(term)
    return chosen[:_TERMS]


def _first_distinct(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(term for terms in lists for term in terms))[:_TERMS]


def _similarities(occupations: Sequence[Occupation]) -> Floats:
    """(occupations, occupations) of centred cosines between TF-IDF rows."""
    texts = [Counter([*_words(occupation), f"group {occupation.group}"]) for occupation in occupations]
    spread = Counter(word for text in texts for word in text)
    column = {word: place for place, word in enumerate(sorted(word for word in spread if spread[word] > 1))}
    table = np.zeros((len(texts), len(column)))
    for row, text in enumerate(texts):
        for word, times in text.items():
            if word in column:
                table[row, column[word]] = (1 + np.log(times)) * np.log(len(texts) / spread[word])
    rows = unit(table)
    rows -= rows.mean(axis=0)
    return np.asarray(rows @ rows.T)


def _words(occupation: Occupation) -> Iterator[str]:
    """Every content word of title and description."""
    return filter(_tells, _PIECE.findall(f"{occupation.title}. {occupation.description}".lower()))


def _tells(piece: str) -> bool:
    return len(piece) > 3 and piece not in COMMON
