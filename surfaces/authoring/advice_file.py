"""What can be seen in a surface file alone."""

from __future__ import annotations

from collections.abc import Iterator

from surfaces.authoring.advice import Advice
from surfaces.spec import SurfaceSpec

_FORCES = {"diversity": "strength", "freshness": "strength", "boost": "strength", "explore": "rate"}
"""Policies that do nothing at 0, and the key that says how much they do."""


def of_file(spec: SurfaceSpec) -> Iterator[Advice]:
    """Options without effect."""
    yield from _heads(spec)
    yield from _context(spec)
    yield from _policies(spec)
    yield from _order(spec)
    yield from _locales(spec)


def _heads(spec: SurfaceSpec) -> Iterator[Advice]:
    for place, head in enumerate(spec.heads):
        if head.weight == 0 and head.type == "choice":
            yield Advice(
                ("heads", place), f"'{head.name}' has weight 0: only reported, as one answer of the choice", note=True
            )
        elif head.weight == 0:
            advice = "give it a weight, or leave it out"
            yield Advice(("heads", place), f"'{head.name}' has weight 0: only reported, it ranks nothing; {advice}")


def _context(spec: SurfaceSpec) -> Iterator[Advice]:
    context = spec.prompt.context
    if context is not None and not context.names:
        advice = "say it in 'instruction', or read a key, like {% if query %}Searching for {{ query }}.{% endif %}"
        yield Advice(("prompt", "context"), f"this reads nothing of a request, so it says the same to all; {advice}")


def _policies(spec: SurfaceSpec) -> Iterator[Advice]:
    for place, policy in enumerate(spec.policies):
        key = _FORCES.get(policy.type)
        if key and getattr(policy, key) == 0:
            text = f"'{policy.type}' with {key} 0 changes nothing; raise it, or leave the policy out"
            yield Advice(("policies", place, key), text)


def _order(spec: SurfaceSpec) -> Iterator[Advice]:
    left = [source.called for source in spec.sources if source.called not in spec.fallback.order]
    if left:
        text = f"without the model, what only {' or '.join(left)} brings comes last"
        advice = f"add {', '.join(left)} to 'order', or leave 'order' out: then the sources' own order holds"
        yield Advice(("fallback", "order"), f"{text}; {advice}")


def _locales(spec: SurfaceSpec) -> Iterator[Advice]:
    for name, words in spec.prompt.locales.items():
        path = ("prompt", "locales", name)
        if words.instruction is None and words.context is None and words.item is None:
            yield Advice(
                path, f"'{name}' changes no words; write its instruction, context or item, or leave it out", True
            )
        elif name == spec.locale:
            text = f"the file's own words are '{name}' already; put these in their place, or set 'locale' right"
            yield Advice(path, text, key=True)
        elif name != _written(name):
            text = f"'{name}' is not chosen by a request for '{_written(name)}', as that is written"
            yield Advice(path, f"{text}; write '{_written(name)}'", key=True)


def _written(locale: str) -> str:
    """A language tag as BCP 47 writes it: de, pt-BR, zh-Hant-TW."""
    first, *rest = locale.split("-")
    cased = (part.upper() if len(part) == 2 else part.title() if len(part) == 4 else part for part in rest)
    return "-".join([first, *cased])
