"""Hundreds of files that are wrong in one place, and files made to do harm.

Never a traceback, always a place, and no file keeps the reader busy.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from prompts.errors import SpecError
from prompts.render import OUTPUT_CAP
from surfaces.registry import read_file, shipped_folder
from surfaces.spec import SurfaceSpec
from surfaces.spec_file import SHOWN, read_spec
from tests.surfaces.mutations import Mutation, Mutator

EACH = 4
"""Mutations of each sort and file."""
ENOUGH = 0.95
AT_ONCE_S, BUSY = 0.1, 5
"""What a refusal may take, and how much slower a machine may be that does other things beside."""

SHIPPED = sorted(shipped_folder().glob("*.yaml"))
LINE = re.compile(r"wrong\.yaml:(\d+):(\d+): (?:[\w.\[\]-]+: )?\S.*|and \d+ more")


def mutations() -> list[Mutation]:
    return [
        mutation
        for path in SHIPPED
        for mutation in Mutator(path.read_text(encoding="utf-8"), f"seed 1 {path.name}").draw(EACH)
    ]


def told(mutation: Mutation, folder: Path) -> list[str]:
    """The lines of the error; none for a file that is right after all."""
    (folder / "wrong.yaml").write_bytes(mutation.content)
    try:
        read_file(folder / "wrong.yaml")
    except SpecError as error:
        return str(error).replace(f"{folder}/", "").split("\n")
    return []


def test_wrong_files_are_told_with_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, right, wrong = mutations(), Counter[str](), list[str]()
    located = Counter(mutation.sort for mutation in found if mutation.lines)
    for mutation in found:
        lines = told(mutation, tmp_path)
        assert all(LINE.fullmatch(line) for line in lines), (mutation.sort, lines)
        if not mutation.lines:
            continue
        match = LINE.fullmatch(lines[0]) if lines else None
        if match and int(match[1]) in mutation.lines and mutation.hint in lines[0]:
            right[mutation.sort] += 1
        else:
            wrong.append(f"{mutation.sort}: {sorted(mutation.lines)} {mutation.hint} {lines[:1]}")
    share = right.total() / located.total()
    with capsys.disabled():
        print(f"\n{len(found)} wrong files; of {located.total()} with one wrong place, {share:.1%} told with its line")
    assert len(found) >= 200
    assert share >= ENOUGH, "\n".join(wrong)


def test_the_same_seed_makes_the_same_files() -> None:
    text = SHIPPED[0].read_text(encoding="utf-8")
    one, other = (list(Mutator(text, "seed").draw(2)) for _ in range(2))
    assert one == other
    assert one != list(Mutator(text, "another").draw(2))
    assert len({mutation.sort for mutation in one}) >= 18


# ---------------------------------------------------------------- files made to do harm

SURFACE = """\
surface: films
description: Films for a member
item_kind: movie
prompt:
  instruction: Films.
  item: "{{ title }}"
sources:
  - {type: popular, k: 20}
heads:
  - {name: watch, type: pointwise, weight: 1.0}
"""


def template(text: str) -> str:
    return SURFACE.replace("{{ title }}", text)


def condition(text: str) -> str:
    return SURFACE + f'filters:\n  - {{type: where, keep: "{text}"}}\n'


def loops(depth: int) -> str:
    opened = "".join(f"{{% for a{n} in b %}}" for n in range(depth))
    return f"{opened}x{'{% endfor %}' * depth}"


HOSTILE = {
    "billion laughs": "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40)),
    "an alias within": SURFACE.replace("movie", "&a movie\ntrunk: *a"),
    "an endless alias": SURFACE + "x: &a [*a]\n",
    "a merge": SURFACE + "x: {<<: {a: 1}}\n",
    "a call": SURFACE.replace("movie", "!!python/object/apply:os.system ['id']"),
    "a class": SURFACE.replace("movie", "!!python/name:os.system x"),
    "a key twice": SURFACE + "surface: other\n",
    "deep [": SURFACE + "x: " + "[" * 30_000,
    "deep {": SURFACE + "x: " + "{a: " * 10_000,
    "deep [a,": SURFACE + "x: " + "[a," * 15_000,
    "deep -": SURFACE + "x:\n  " + "- " * 20_000,
    "deep ?": SURFACE + "x:\n  " + "? " * 20_000,
    "deep keys": SURFACE + "x:\n" + "".join(" " * (n + 1) + "a:\n" for n in range(300)),
    "a long text": template("{{ 'a' * 10**9 }}"),
    "a power": template("{{ 9**9**9**9 }}"),
    "three loops": template(loops(3)),
    "forty loops": template(loops(40)),
    "a range": template("{% for a in range(10**9) %}{% for b in range(10**9) %}x{% endfor %}{% endfor %}"),
    "recursion": template("{% for a in b recursive %}{{ loop(a) }}{% endfor %}"),
    "a macro": template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    "an include": template("{% include '/etc/passwd' %}"),
    "a way out": template("{{ ''.__class__.__mro__[1].__subclasses__() }}"),
    "a huge template": template("x" * 60_000),
    "a chain of filters": template("{{ 'a'" + "|replace('a','aaaa')" * 150 + " }}"),
    "brackets": template("{{ " + "(" * 1_900 + "x" + ")" * 1_900 + " }}"),
    "nots": template("{{ " + "not " * 900 + "x }}"),
    "attributes": template("{{ x" + ".a" * 1_900 + " }}"),
    "ternaries": template("{{ " + "x if y else " * 300 + "z }}"),
    "a number in a template": template("{{ " + "9" * 3_900 + " }}"),
    "ifs": template("{% if x %}" * 180 + "{% endif %}" * 180),
    "a long condition": condition(" and ".join(["item.a"] * 400)),
    "a deep condition": condition("(" * 1_900 + "item.a" + ")" * 1_900),
    "many alternatives": condition(" or ".join(["item.a == 1"] * 260)),
    "a condition that calls": condition("item.a.b() == 1"),
    "a number": SURFACE.replace("20", "9" * 60_000),
    "a number in hex": SURFACE.replace("20", "0x" + "f" * 50_000),
    "a number in octal": SURFACE.replace("20", "0o" + "7" * 50_000),
    "a fraction": SURFACE.replace("1.0", "1." + "0" * 60_000),
    "an exponent": SURFACE.replace("1.0", "1e" + "9" * 50_000),
    "underscores": SURFACE.replace("20", "1" + "_" * 60_000),
    "NUL": SURFACE.replace("movie", "mo\0vie"),
    "NUL in quotes": SURFACE.replace("movie", '"mo\\0vie"'),
    "NUL in a template": template("\\0"),
    "half a character": SURFACE.replace("movie", "mo\ud800vie"),
    "half a character in quotes": SURFACE.replace("movie", '"mo\\ud800vie"'),
    "half a character in a template": template("\\ud800"),
    "a line break in a key": SURFACE + '"a\\nb\\e[31m": 1\n',
    "a line break in a word": SURFACE + 'fallback: {order: ["a\\nb\\e[31m"]}\n',
    "a line break in a type": SURFACE.replace("popular", '"a\\nb"'),
    "a line break that nobody sees": SURFACE.replace("movie", "movie # \u2028evidence: [popular]"),
    "a key of 60,000": SURFACE + f'? "{"x" * 60_000}"\n: 1\n',
    "a word of 60,000": SURFACE + f"fallback: {{order: [{'x' * 60_000}]}}\n",
    "a tag of 60,000": SURFACE + "x: " + "!" * 60_000,
    "an anchor of 60,000": SURFACE + "x: " + "&" * 60_000,
    "a megabyte": "x" * 1_000_000,
    "a megabyte of remarks": SURFACE + "#" * 1_000_000,
    "a long list": SURFACE + "x: [" + "a," * 32_000 + "]",
    "a list down the page": SURFACE + "x:\n" + "- a\n" * 15_000,
    "many keys": SURFACE + "".join(f"a{n}: 1\n" for n in range(5_000)),
    "many heads": SURFACE + "  - {name: a, type: choice}\n" * 600,
    "many documents": "---\n" * 15_000 + SURFACE,
    "percents": "%" * 65_000,
    "nothing": "",
}


def test_files_made_to_do_harm_are_refused_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    read_spec(SURFACE, "wrong.yaml")
    took: dict[str, float] = {}
    for name, text in HOSTILE.items():
        start = time.perf_counter()
        with pytest.raises(SpecError) as raised:
            read_spec(text, "wrong.yaml")
        took[name] = time.perf_counter() - start
        lines = str(raised.value).split("\n")
        assert len(lines) <= SHOWN + 1, name
        for line in lines:
            assert LINE.fullmatch(line), (name, line)
            assert line.isprintable(), name
            assert len(line) < 1_000, name
    slowest = max(took, key=lambda name: took[name])
    with capsys.disabled():
        print(
            f"\n{len(took)} hostile files refused: median {1_000 * median(took.values()):.1f} ms, "
            f"at most {1_000 * took[slowest]:.0f} ms ({slowest})"
        )
    assert took[slowest] < AT_ONCE_S * BUSY, slowest


LARGE: dict[str, object] = {
    "text": "ab" * 5_000_000,
    "list": ["x" * 100_000] * 1_000,
    "deep": [[["x" * 1_000] * 20] * 20] * 20,
    "map": {f"k{n}": "y" * 1_000 for n in range(10_000)},
    "number": 10**400,
    "odd": [float("nan"), float("inf"), b"bytes", object(), None, "\ud800\0\u202e", -0.0],
}
ALLOWED = [
    "{{ text }}" * 390,
    "{{ list }}{{ deep }}{{ map }}{{ number }}{{ odd }}",
    "{% for a in list %}{% for b in list %}{{ a }}{{ b }}{% endfor %}{% endfor %}",
    "{% for a in deep %}{% for b in a %}{{ b | join(text) | upper }}{% endfor %}{% endfor %}",
    "{% for a in list %}{{ a }}{% endfor %}" * 90,
    "{{ text" + " | replace('a', 'aaaa')" * 15 + " }}",
    "{{ text" + " | replace('b', text)" * 15 + " }}",
    "{{ " + " ~ ".join(["list"] * 500) + " }}",
    "{% if text in list %}a{% else %}{{ list | join(list | join(text)) }}{% endif %}",
    "{{ map.k1 | truncate(number) }}{{ text[number:3] }}{{ deep[0][0][0] | length }}",
]


@pytest.mark.parametrize("text", ALLOWED, ids=range(len(ALLOWED)))
def test_templates_that_are_allowed_stay_small_and_quick_whatever_they_are_given(text: str) -> None:
    spec = read_spec(template(text), "wrong.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    start = time.perf_counter()
    said = spec.prompt.wording().leaf(LARGE)
    assert time.perf_counter() - start < AT_ONCE_S * BUSY
    assert len(said) <= OUTPUT_CAP
    said.encode()


def test_conditions_that_are_allowed_are_quick_whatever_they_are_given() -> None:
    asked = " and ".join(["item.text in item.list", "not item.deep == item.map", "item.text < context.text"] * 10)
    spec = read_spec(condition(asked), "wrong.yaml").spec
    assert isinstance(spec, SurfaceSpec)
    (where,) = spec.filters
    start = time.perf_counter()
    where.keep.holds({"item": LARGE, "context": LARGE, "member": LARGE})  # type: ignore[attr-defined]
    assert time.perf_counter() - start < AT_ONCE_S * BUSY
