"""What can be seen in a surface file beside what the ledger holds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from prompts.render import Condition, Template
from prompts.suggest import suggest
from prompts.verbalize import TrunkForm
from surfaces.authoring.advice import Advice
from surfaces.authoring.quoting import shown
from surfaces.authoring.survey import Survey
from surfaces.authoring.wording import item_template
from surfaces.fields import as_duration
from surfaces.moments import moment
from surfaces.spec import SurfaceSpec
from surfaces.yaml_reader import Path

_BY = {"cap": "no item is dropped", "blocked": "only the blocked items themselves go", "freshness": "all are old"}
"""What an entry with `by` does when no item has that attribute."""
_AVAILABLE = {"flag": "flag", "start": "from", "until": "until", "stock": "stock"}


def of_ledger(spec: SurfaceSpec, form: TrunkForm, found: Survey, kinds: Collection[str]) -> Iterator[Advice]:
    """Names that nothing in the ledger has, and times that it does not reach."""
    if not found.items:
        known = suggest(spec.item_kind, kinds) or "; import some first"
        yield Advice(("item_kind",), f"the ledger holds no item of the kind '{spec.item_kind}'{known}")
        return
    yield from _templates(spec, found)
    yield from _attributes(spec, found)
    yield from _conditions(spec, found)
    yield from _actions(spec, found)
    yield from _times(spec, found)
    yield from _members(spec, found)
    yield from _trunk(spec, form, found)


def _templates(spec: SurfaceSpec, found: Survey) -> Iterator[Advice]:
    templates: dict[Path, Template | None] = {("prompt", "item"): spec.prompt.item}
    for name, words in spec.prompt.locales.items():
        templates["prompt", "locales", name, "item"] = words.item
    for path, template in templates.items():
        names = template.names if template else frozenset[str]()
        for name in sorted(names - {*found.columns, "item_id"}):
            yield Advice(path, _absent(name, found), word=name)


def _attributes(spec: SurfaceSpec, found: Survey) -> Iterator[Advice]:
    for place, head in enumerate(spec.heads):
        if head.times and not _has(head.times, found):
            text = _absent(head.times, found, "every candidate counts 0")
            yield Advice(("heads", place, "times"), text)
        elif head.times and head.times in found.columns and found.columns[head.times].type not in {"number", "time"}:
            kind = found.columns[head.times].type
            yield Advice(
                ("heads", place, "times"), f"'{head.times}' is a {kind}, no number: it counts 0; name a number"
            )
    for place, source in enumerate(spec.sources):
        by = getattr(source, "by", None)
        if isinstance(by, str):
            yield from _time(("sources", place, "by"), by, found)
    for place, policy in enumerate(spec.policies):
        yield from _by(("policies", place, "by"), policy, found)
    for place, each in enumerate(spec.filters):
        yield from _by(("filters", place, "by"), each, found)
        if each.type == "available":
            yield from _available(("filters", place), each, found)


def _by(path: Path, entry: object, found: Survey) -> Iterator[Advice]:
    kind, by = getattr(entry, "type", ""), getattr(entry, "by", None)
    if kind not in _BY or not isinstance(by, str):
        return
    if not _has(by, found):
        yield Advice(path, _absent(by, found, _BY[kind]))
    elif kind == "freshness":
        yield from _time(path, by, found)


def _time(path: Path, name: str, found: Survey) -> Iterator[Advice]:
    """An attribute that must hold times."""
    if not _has(name, found):
        yield Advice(path, _absent(name, found, "no item is known to be new"))
    elif not any(moment(item.attributes.get(name)) is not None for item in found.items):
        yield Advice(path, f"'{name}' holds no time; it should be seconds since 1970, or like 2026-01-31T09:30:00")


def _available(path: Path, entry: object, found: Survey) -> Iterator[Advice]:
    named = {key: getattr(entry, field) for field, key in _AVAILABLE.items() if getattr(entry, field)}
    if not any(_has(name, found) for name in named.values()):
        names = ", ".join(f"'{name}'" for name in named.values())
        yield Advice(
            path, f"no item has {names}: nothing is dropped; name the attribute with flag, from, until or stock"
        )
        return
    given: Collection[str] = getattr(entry, "model_fields_set", ())
    for field, key in _AVAILABLE.items():
        name = getattr(entry, field)
        if field in given and name and not _has(name, found):
            yield Advice((*path, key), _absent(name, found, "nothing is dropped by it"))


def _conditions(spec: SurfaceSpec, found: Survey) -> Iterator[Advice]:
    entries = [(("filters", place), each) for place, each in enumerate(spec.filters)]
    for path, entry in [*entries, *((("policies", place), each) for place, each in enumerate(spec.policies))]:
        for key in ("keep", "where"):
            condition = getattr(entry, key, None)
            if isinstance(condition, Condition):
                yield from _reads((*path, key), condition, found)


def _reads(path: Path, condition: Condition, found: Survey) -> Iterator[Advice]:
    for root, name in sorted(condition.reads):
        if root == "item" and name not in {*found.columns, "item_id", "kind"}:
            yield Advice(path, _absent(name, found), word=f"item.{name}")
        if root == "member" and name not in {*found.profile, "member_id"}:
            yield Advice(path, _no_member(name, found.profile), word=f"member.{name}")


def _actions(spec: SurfaceSpec, found: Survey) -> Iterator[Advice]:
    if not found.acts:
        text = f"no event with items of the kind '{spec.item_kind}' yet: sources that learn from events bring nothing"
        yield Advice(("item_kind",), f"{text}; import events, or list bm25, recent or popular")
        return
    for place, head in enumerate(spec.heads):
        yield from _unheard(("heads", place), head.actions, found, head.model_fields_set)
    for place, each in enumerate(spec.filters):
        actions: tuple[str, ...] = getattr(each, "actions", ())
        yield from _unheard(("filters", place), actions, found, each.model_fields_set)


def _unheard(entry: Path, actions: tuple[str, ...], found: Survey, given: Collection[str]) -> Iterator[Advice]:
    listed = "actions" in given
    for place, action in enumerate(actions):
        if action not in found.actions:
            path: Path = (*entry, "actions", place) if listed else (*entry, "name") if entry[0] == "heads" else entry
            other = "" if listed else " (where it is called otherwise, set 'actions')"
            text = f"no event with items of the kind '{found.kind}' has the action '{action}'{other}"
            yield Advice(path, f"{text}{suggest(action, found.actions)}")


def _times(spec: SurfaceSpec, found: Survey) -> Iterator[Advice]:
    for place, source in enumerate(spec.sources):
        yield from _longer(("sources", place, "half_life"), getattr(source, "half_life", None), found)
    for place, each in enumerate(spec.filters):
        within = getattr(each, "within", None)
        if within is not None and found.clock == "order":
            text = "this ledger's clock is 'order': its timestamps are no times; leave 'within' out"
            yield Advice(("filters", place, "within"), text)
        else:
            yield from _longer(("filters", place, "within"), within, found)


def _longer(path: Path, seconds: object, found: Survey) -> Iterator[Advice]:
    if isinstance(seconds, float) and found.acts and found.clock == "time" and seconds > found.span:
        unit = 86_400 if found.span >= 4 * 86_400 else 60
        short = as_duration(max(unit, found.span // 4 // unit * unit))
        text = f"{as_duration(seconds)} is longer than the {_days(found.span)} that the events span: it hardly matters"
        yield Advice(path, f"{text}; {short} would, or leave {path[-1]} out")


def _days(seconds: float) -> str:
    return f"{seconds / 86_400:.0f} days" if seconds >= 172_800 else f"{seconds / 3_600:.1f} hours"


def _members(spec: SurfaceSpec, found: Survey) -> Iterator[Advice]:
    for place, source in enumerate(spec.sources):
        segment = getattr(source, "segment", None)
        if isinstance(segment, str) and segment not in found.profile:
            yield Advice(("sources", place, "segment"), _no_member(segment, found.profile, "everyone's events count"))
    if spec.reciprocal is not None and not found.people:
        text = f"no item of the kind '{spec.item_kind}' is a member, so there is no other side; leave it out"
        yield Advice(("reciprocal",), f"{text}, or give items the member_id of the person that each is", key=True)


def _trunk(spec: SurfaceSpec, form: TrunkForm, found: Survey) -> Iterator[Advice]:
    """Whether the member's timeline says anything of such items."""
    template = form.events.get(spec.item_kind) or form.events["default"]
    if found.acts and not template.names & {*found.columns, "item_id"}:
        text = (
            f"the trunk '{spec.trunk}' tells of no {spec.item_kind} what it is: its events read none of the attributes"
        )
        line = f'{spec.item_kind}: "{{{{ action }}}} {item_template(found.columns)}"'
        yield Advice(("trunk",), f"{text}; in a trunk file of your own, under timeline.events, write {line}")


def _has(name: str, found: Survey) -> bool:
    return name in found.columns or name == "item_id"


def _absent(name: str, found: Survey, effect: str = "") -> str:
    many = "" if found.count == len(found.items) else f" of {len(found.items):,} looked at"
    return f"no {found.kind}{many} has '{shown(name, 40)}'{_so(effect)}{suggest(name, found.columns)}"


def _no_member(name: str, profile: Mapping[str, object], effect: str = "") -> str:
    return f"no member's profile has '{shown(name, 40)}'{_so(effect)}{suggest(name, profile)}"


def _so(effect: str) -> str:
    return f", so {effect}" if effect else ""
