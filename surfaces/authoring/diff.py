"""What differs between two surface files in what they say, and what the difference costs.

Defaults are filled in on both sides, so that writing one out changes nothing. Entries of lists are matched by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from surfaces.registry import Declared
from surfaces.spec import SurfaceSpec, TrunkSpec

MISSING = object()
"""The value of a key that one of the files does not have."""
_ENTRIES = ("sources", "filters", "heads", "policies")
_STEM = ("locale", "prompt.instruction", "prompt.context", "prompt.examples")
_LEAF = ("item_kind", "prompt.item", "prompt.detail", "evidence")
_CHOICE = ("sources", "filters")


class Change(NamedTuple):
    """`path` leads to what changed: keys and names of entries. `old` or `new` is MISSING where only one has it."""

    path: tuple[str, ...]
    old: object
    new: object

    @property
    def key(self) -> str:
        """The path as a person writes it: sources.popular.half_life."""
        return ".".join(self.path)

    def under(self, *keys: str) -> bool:
        """Whether it is at or below one of the keys."""
        return any(f"{self.key}.".startswith(f"{key}.") for key in keys)


def changes(old: SurfaceSpec | TrunkSpec, new: SurfaceSpec | TrunkSpec) -> list[Change]:
    """What differs, in the order of the file's keys; nothing when both say the same."""
    before, after = _named(old), _named(new)
    return list(_compare((), before, after))


def costs(old: Declared, new: Declared, found: Sequence[Change]) -> list[str]:
    """What has to be computed again when the new file takes the old one's place, a line each."""
    spec, other = old.spec, new.spec
    lines = []
    if old.form != new.form:
        lines.append("the trunk changes: every member's cached trunk is computed again, and the stems below it")
    if _stem_changes(spec, found):
        lines.append("the stem changes: cached stems are computed again")
    if any(change.under(*_LEAF) or _words(change, "item") for change in found):
        lines.append("the candidates' texts change: leaves are never cached, so only the scores differ")
    if spec.answers != other.answers:
        said = f"{', '.join(spec.answers)} -> {', '.join(other.answers)}"
        lines.append(f"the answers change ({said}): a model that learned the old ones should be trained again")
    lines += _at_start(spec, other, found)
    same = "what the model reads stays the same: nothing cached is lost, and nothing is trained again"
    return lines or ([same] if found else [])


def costs_of_trunk(found: Sequence[Change]) -> list[str]:
    """The same for two trunks."""
    read = any(not change.under("trunk", "description") for change in found)
    return ["the trunk changes: every member's cached trunk is computed again, on all its surfaces"] if read else []


def _stem_changes(spec: SurfaceSpec, found: Sequence[Change]) -> bool:
    if spec.prompt.examples and any(change.under("prompt.item") for change in found):
        return True  # examples are told in the words of the item template
    return any(change.under(*_STEM) or _words(change, "instruction", "context") for change in found)


def _words(change: Change, *keys: str) -> bool:
    """Whether it is about these words in some language."""
    if change.path[:2] != ("prompt", "locales"):
        return False
    if len(change.path) > 3:
        return change.path[3] in keys
    values = [value for value in (change.old, change.new) if isinstance(value, Mapping)]
    return any(value.get(key) is not None for value in values for key in keys)


def _at_start(old: SurfaceSpec, new: SurfaceSpec, found: Sequence[Change]) -> Iterator[str]:
    """What is made when the new file comes online."""
    if any(change.under(*_CHOICE, "item_kind") for change in found):
        yield "other candidates: the sources are fitted again when the file comes online"
    needs = [_needs_vectors(spec) for spec in (old, new)]
    told = any(change.under("prompt.item", "item_kind") for change in found)
    if needs[1] and (told or not needs[0]):
        yield "the items' vectors are computed by the model when the file comes online"


def _needs_vectors(spec: SurfaceSpec) -> bool:
    return spec.reads_vectors or "embedding" in [*(source.type for source in spec.sources), *spec.evidence]


def _named(spec: SurfaceSpec | TrunkSpec) -> dict[str, Any]:
    """The spec as plain data, the entries of its lists under their names."""
    data = spec.model_dump(mode="json", by_alias=True)
    return {key: _by_name(value) if key in _ENTRIES else value for key, value in data.items()}


def _by_name(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seen, named = Counter[str](), dict[str, Any]()
    for entry in entries:
        name = str(entry.get("name") or entry["type"])
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} #{seen[name]}"] = dict(entry)
    return named


def _compare(path: tuple[str, ...], old: object, new: object) -> Iterator[Change]:
    if old == new and not (isinstance(old, dict) and isinstance(new, dict)):
        return
    if not isinstance(old, dict) or not isinstance(new, dict):
        yield Change(path, MISSING if old is None else old, MISSING if new is None else new)
        return
    for key in dict.fromkeys([*old, *new]):
        yield from _compare((*path, key), old.get(key), new.get(key))
    both = [key for key in old if key in new], [key for key in new if key in old]
    if path and path[0] in _ENTRIES and len(path) == 1 and both[0] != both[1]:
        yield Change((*path, "order"), both[0], both[1])
