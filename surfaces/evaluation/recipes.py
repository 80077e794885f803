"""The classical methods that a model is compared with, and the settings that each is tuned over.

Spaces are small, so that a budget of 8 trials finds settings within noise of the best on films, products, music and
books. The first value of each setting is its default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from foundation.wheels import cache_folder
from prompts.errors import ConfigError
from surfaces.sources.als import Als
from surfaces.sources.base import Materials, Source
from surfaces.sources.bm25 import Bm25
from surfaces.sources.co_visitation import CoVisitation
from surfaces.sources.ease import Ease
from surfaces.sources.itemknn import ItemKnn
from surfaces.sources.popular import Popular
from surfaces.sources.sasrec import SasRec
from surfaces.sources.slist import Slist

WEEK = 7 * 86_400.0

Space = Mapping[str, Sequence[object]]
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A method by name: `space` holds the values of each setting, `make` gives the source, not yet fitted.

    `make` raises ConfigError where a package that it needs is missing or a setting makes no sense.
    """

    name: str
    space: Space
    make: Callable[[Materials, Settings], Source]


def recipes() -> Mapping[str, Recipe]:
    """Every method that learns from a ledger alone or reads its texts, by name, the simple ones first."""
    return MappingProxyType({recipe.name: recipe for recipe in _ALL})


def trials(recipe: Recipe, budget: int, seed: int) -> list[dict[str, object]]:
    """The defaults, then other points of the grid as `seed` draws them, each once; `budget` of them at most.

    Bergstra and Bengio, "Random search for hyper-parameter optimization", JMLR 13 (2012), without replacement. Raises
    ConfigError for a budget below 1.
    """
    if budget < 1:
        raise ConfigError(f"budget: {budget}; every method needs 1 trial or more")
    sizes = [len(values) for values in recipe.space.values()]
    others = 1 + np.random.default_rng(seed).permutation(prod(sizes) - 1)[: budget - 1]
    points = [np.unravel_index(int(number), sizes) if sizes else () for number in (0, *others)]
    return [
        {name: values[int(place)] for (name, values), place in zip(recipe.space.items(), point, strict=True)}
        for point in points
    ]


def _bpr(_: Materials, settings: Settings) -> Source:
    from surfaces.evaluation.baselines.factors import Bpr

    return Bpr(**settings)


def _blend(_: Materials, settings: Settings) -> Source:
    from surfaces.evaluation.baselines.blend import Blend

    share = settings["share"]
    sasrec = SasRec(cache=cache_folder() / "sasrec")  # so that another share costs no other training
    return Blend([Ease(), sasrec], [share, 1 - share])


def _equal(materials: Materials, _: Settings) -> Source:
    from surfaces.evaluation.baselines.blend import Blend

    parts: list[Source] = [Popular(), CoVisitation(), Bm25(materials.words), _text_embedding(materials, {})]
    return Blend(parts, [1.0] * len(parts))


def _text_embedding(materials: Materials, settings: Settings) -> Source:
    """The vectors are in the cache after the first time."""
    from surfaces.evaluation.baselines.text import TextEmbedding, text_vectors

    return TextEmbedding(text_vectors(materials.texts), **settings)


_ALL = (
    Recipe("popular", {}, lambda _, settings: Popular(**settings)),
    Recipe("popular_7d", {}, lambda _, settings: Popular(window=WEEK, **settings)),
    Recipe(
        "co_visitation",
        {"decay": (0.8, 0.6, 0.9, 1.0), "recent": (20, 200), "neighbours": (200, 1_000)},
        lambda _, settings: CoVisitation(**settings),
    ),
    Recipe(
        "itemknn",
        {"neighbours": (1_000, 100), "shrink": (10.0, 0.0), "weighting": ("none", "tf-idf"), "decay": (0.9, 1.0)},
        lambda _, settings: ItemKnn(**settings),
    ),
    Recipe("ease", {"l2": (200.0, 500.0, 50.0, 10.0), "decay": (0.9, 1.0)}, lambda _, settings: Ease(**settings)),
    Recipe("slist", {"l2": (500.0, 100.0, 2_000.0), "decay": (0.9, 0.8)}, lambda _, settings: Slist(**settings)),
    Recipe(
        "als",
        {"factors": (64, 128), "regularization": (30.0, 10.0), "alpha": (16.0, 8.0), "decay": (0.9, 1.0)},
        lambda _, settings: Als(**settings),
    ),
    Recipe("bpr", {"factors": (64, 32, 128), "regularization": (0.03, 0.01), "iterations": (200, 100)}, _bpr),
    Recipe(
        "sasrec",
        {"dropout": (0.3, 0.5), "layers": (2, 1), "max_length": (100, 50)},
        lambda _, settings: SasRec(**settings),
    ),
    Recipe("blend", {"share": (0.5, 0.2, 0.8, 0.1, 0.3, 0.4, 0.6, 0.7)}, _blend),
    Recipe("bm25", {}, lambda materials, settings: Bm25(materials.words, **settings)),
    Recipe("text_embedding", {"half_life": (1.0, 0.5, 2.0, 5.0, 20.0)}, _text_embedding),
    Recipe("equal", {}, _equal),
)
