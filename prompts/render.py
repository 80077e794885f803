"""Templates that a stranger may write: Jinja's syntax, cut down to what prompts need.

Jinja's sandbox stops escapes through attributes, but neither `'a' * 10**9` nor loops within loops. So a template is
parsed, its syntax tree checked against an allow-list, and rewritten: every access, comparison and loop becomes a call
of a total and capped function (filters.py). What is left can neither fail on odd data nor run away.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TypeVar, cast

import jinja2
from jinja2 import nodes
from jinja2.lexer import describe_token
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from prompts.errors import TemplateError
from prompts.filters import BUDGET, FILTERS, INTERNAL, LOOP_CAP, TESTS
from prompts.suggest import suggest
from prompts.values import as_text, clean

SOURCE_CAP = 4_000
"""Characters of a template."""
OUTPUT_CAP = 4_000
"""Characters of what a template renders."""
LOOPS_CAP = 2
"""Loops within one another."""
DEPTH_CAP = 40
"""Brackets, filters, blocks within one another."""
KEPT, KEPT_CAP = 16_384, 256
"""So many texts are kept for `recall`, of values of so many characters."""
_PLAIN = frozenset({int, float, bool, type(None)})

ROOTS = ("item", "member", "context")
"""What a condition reads entries of."""
_ENTRIES = {"item": "title", "member": "city", "context": "query"}
_LIKE = "like item.price < 100"

Built = TypeVar("Built")

_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For,
    nodes.Name, nodes.Const, nodes.List, nodes.Tuple, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.Filter, nodes.Keyword, nodes.Test, nodes.Compare, nodes.Operand,
    nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.CondExpr, nodes.Concat,
)  # fmt: skip

_WORDS: dict[type[nodes.Node], str] = {
    nodes.Call: "calling a function",
    nodes.Mul: "arithmetic ('*')",
    nodes.Pow: "arithmetic ('**')",
    nodes.Add: "arithmetic ('+'; join texts with '~')",
    nodes.Sub: "arithmetic ('-')",
    nodes.Mod: "arithmetic ('%')",
    nodes.Div: "arithmetic ('/')",
    nodes.FloorDiv: "arithmetic ('//')",
    nodes.Assign: "'set'",
    nodes.AssignBlock: "'set'",
    nodes.FromImport: "'import'",
    nodes.FilterBlock: "a filter block",
    nodes.CallBlock: "'call'",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template. `names` are the variables that it reads."""

    source: str
    names: frozenset[str]
    _program: jinja2.Template = field(repr=False, compare=False)

    def render(self, values: Mapping[str, object]) -> str:
        """The text, at most OUTPUT_CAP characters. What is absent renders as nothing; no data makes it raise."""
        seen = {name: value for name in self.names if (value := clean(values.get(name))) is not None}
        context = self._program.new_context({**seen, BUDGET: [LOOP_CAP]})
        chunks, size = [], 0
        for chunk in self._program.root_render_func(context):
            chunks.append(chunk)
            size += len(chunk)
            if size > 2 * OUTPUT_CAP:
                break
        return _tidy("".join(chunks)[: 2 * OUTPUT_CAP])[:OUTPUT_CAP].rstrip()

    def recall(self, values: Mapping[str, object]) -> str:
        """As `render`, for what is told again and again, such as an item: texts of plain, short values are kept."""
        try:
            key = tuple([(name, *_keyed(values.get(name))) for name in self.names])
        except _NotPlainError:
            return self.render(values)
        return _recalled(self, key)


class _NotPlainError(Exception):
    """A value that is no key."""


def _keyed(value: object) -> tuple[type, object]:
    """A value with its type, since 1, 1.0 and True are equal. Raises _NotPlainError."""
    kind = type(value)
    if kind is str and len(cast("str", value)) <= KEPT_CAP:
        return kind, value
    if kind is list:
        entries = tuple(cast("list[object]", value)[: KEPT_CAP + 1])
        if all(type(each) is str for each in entries) and sum(map(len, cast("tuple[str]", entries))) <= KEPT_CAP:
            return kind, entries
    elif kind in _PLAIN:
        return kind, value
    raise _NotPlainError


@lru_cache(maxsize=KEPT)
def _recalled(template: Template, key: tuple[tuple[str, type, object], ...]) -> str:
    return template.render({name: value for name, _, value in key})


def forget() -> None:
    """Drops every text that is kept."""
    _recalled.cache_clear()


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked expression that holds or does not. `names` are those of `ROOTS` that it reads, `reads` what of them."""

    source: str
    names: frozenset[str]
    reads: frozenset[tuple[str, str]]
    _program: jinja2.Template = field(repr=False, compare=False)

    def holds(self, values: Mapping[str, Mapping[str, object]]) -> bool:
        """Whether it is so of `{"item": {…}, "member": {…}, "context": {…}}`. No data makes it raise.

        A comparison with what is absent is false, apart from `!=` and `not in`.
        """
        seen: dict[str, dict[str, object]] = {name: {} for name in self.names}
        for name, key in self.reads:
            if (value := clean(values.get(name, {}).get(key))) is not None:
                seen[name][key] = value
        context = self._program.new_context({**seen, BUDGET: [LOOP_CAP]})
        return any(self._program.root_render_func(context))


def compile_template(source: str, *, where: str) -> Template:
    """A template from its text. Raises TemplateError that begins with `where` and says what would be right."""
    return _compile(source, _template, where)


def compile_condition(source: str, *, where: str) -> Condition:
    """A condition from an expression like `item.city == member.city and item.price < 100`.

    Raises TemplateError that begins with `where` and says what would be right.
    """
    return _compile(source, _condition, where)


def _compile(source: str, build: Callable[[str], Built], where: str) -> Built:
    try:
        return _guarded(source, build)
    except TemplateError as error:
        problem = str(error) if "\n" in source.strip() else str(error).removeprefix("line 1: ")
        raise TemplateError(f"{where}: {problem}" if where else problem) from None


def _guarded(source: str, build: Callable[[str], Built]) -> Built:
    if len(source) > SOURCE_CAP:
        raise TemplateError(f"the template has {len(source)} characters; at most {SOURCE_CAP} are allowed")
    if not _is_text(source):
        raise TemplateError("the template holds a character that is no text (a lone surrogate or NUL)")
    try:
        return build(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"line {error.lineno}: {error.message}") from None
    except (RecursionError, MemoryError, SyntaxError):
        raise TemplateError("the template is nested too deeply") from None


def _template(source: str) -> Template:
    tree = _allowed(_environment().parse(source))
    names = frozenset(_names(tree, frozenset()))
    return Template(source, names, _program(tree))


def _condition(source: str) -> Condition:
    """The expression as the template that says something where it holds, and nothing where it does not."""
    delimiter = next((found for found in ("{%", "{{", "%}", "}}") if found in source), None)
    if delimiter is not None:
        raise TemplateError(f"'{delimiter}' does not belong in a condition; write the expression alone, {_LIKE}")
    if not source.strip():
        raise TemplateError(f"a condition cannot be empty; write an expression, {_LIKE}")
    test = _expression(source)
    said = nodes.Output([nodes.TemplateData("yes")], lineno=1)
    tree = _allowed(nodes.Template([nodes.If(test, [said], [], [], lineno=1)], lineno=1))
    reads = frozenset(_reads(test))
    return Condition(source, frozenset(name for name, _ in reads), reads, _program(tree))


def _expression(source: str) -> nodes.Expr:
    parser = Parser(_environment(), source, state="variable")
    expression = parser.parse_expression()
    if not parser.stream.eos:
        line, left = parser.stream.current.lineno, describe_token(parser.stream.current)
        raise TemplateError(f"line {line}: the expression ends before '{left}'; a condition is one expression, {_LIKE}")
    return expression


def _reads(node: nodes.Node) -> Iterator[tuple[str, str]]:
    """Which entry of which root is read. Raises TemplateError for what is no entry of a root."""
    key = _key(node)
    if isinstance(node, nodes.Getattr | nodes.Getitem) and isinstance(node.node, nodes.Name) and key is not None:
        if node.node.name not in ROOTS:
            raise _refuse(node, f"unknown name '{node.node.name}'{suggest(node.node.name, ROOTS)}")
        yield node.node.name, key
        return
    if isinstance(node, nodes.Name):
        raise _refuse(node, _alone(node.name))
    for child in node.iter_child_nodes():
        yield from _reads(child)


def _key(node: nodes.Node) -> str | None:
    """The `b` of `a.b` and of `a['b']`."""
    if isinstance(node, nodes.Getattr):
        return node.attr
    argument = node.arg if isinstance(node, nodes.Getitem) else None
    return argument.value if isinstance(argument, nodes.Const) and isinstance(argument.value, str) else None


def _alone(name: str) -> str:
    if name in ROOTS:
        return f"'{name}' alone says nothing; name one of its entries, like {name}.{_ENTRIES[name]}"
    return f"unknown name '{name}'{suggest(name, ROOTS)}"


def _allowed(tree: nodes.Template) -> nodes.Template:
    for node in tree.find_all(nodes.Node):
        _check(node)
    _check_nesting(tree, 0, 0)
    return tree


def _program(tree: nodes.Template) -> jinja2.Template:
    return _environment().from_string(_Rewriter().visit(tree))


def _is_text(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" or letter == "\0" for letter in text)


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=as_text, optimized=False
    )
    environment.globals.clear()
    environment.filters = {**FILTERS, **INTERNAL}
    environment.tests = dict(TESTS)
    return environment


def _refuse(node: nodes.Node, why: str) -> TemplateError:
    return TemplateError(f"line {node.lineno}: {why}")


def _check(node: nodes.Node) -> None:
    if not isinstance(node, _ALLOWED):
        what = _WORDS.get(type(node), f"'{type(node).__name__.lower()}'")
        raise _refuse(node, f"{what} is not allowed; use names, a.b, if, for, comparisons and filters")
    special = _SPECIAL.get(type(node))
    if special is not None:
        special(node)


def _check_name(node: nodes.Name) -> None:
    if node.name.startswith("_") or node.name == "self":
        raise _refuse(node, f"the name '{node.name}' is not allowed; names begin with a letter")


def _check_getattr(node: nodes.Getattr) -> None:
    if node.attr.startswith("_"):
        raise _refuse(node, f"the name '{node.attr}' is not allowed; names begin with a letter")


def _check_filter(node: nodes.Filter) -> None:
    known = FILTERS.get(node.name)
    if known is None:
        raise _refuse(node, f"unknown filter '{node.name}'{suggest(node.name, FILTERS)}")
    if node.node is None or node.dyn_args is not None or node.dyn_kwargs is not None:
        raise _refuse(node, f"the filter '{node.name}' takes plain arguments only")
    try:
        inspect.signature(known).bind(None, *node.args, **{str(pair.key): pair.value for pair in node.kwargs})
    except TypeError as error:
        raise _refuse(node, f"filter '{node.name}': {error}") from None


def _check_test(node: nodes.Test) -> None:
    if node.name not in TESTS:
        raise _refuse(node, f"unknown test '{node.name}'{suggest(node.name, TESTS)}")
    if node.args or node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
        raise _refuse(node, f"the test '{node.name}' takes no arguments")


def _check_compare(node: nodes.Compare) -> None:
    if len(node.ops) > 1:
        raise _refuse(node, "a chain of comparisons is not allowed; write 'a < b and b < c'")


def _check_const(node: nodes.Const) -> None:
    if isinstance(node.value, int) and abs(node.value) >= 1 << 63:
        raise _refuse(node, "a number this large is not allowed")
    if isinstance(node.value, str) and not _is_text(node.value):
        raise _refuse(node, "a text in quotes holds a character that is no text (a lone surrogate or NUL)")


def _check_for(node: nodes.For) -> None:
    if node.recursive or not isinstance(node.target, nodes.Name):
        raise _refuse(node, "a loop is 'for NAME in LIST'; unpacking and 'recursive' are not allowed")


def _check_slice(node: nodes.Slice) -> None:
    if node.step is not None:
        raise _refuse(node, "a slice is [start:stop]; a step is not allowed")


def _check_neg(node: nodes.Neg) -> None:
    if not (isinstance(node.node, nodes.Const) and isinstance(node.node.value, int | float)):
        raise _refuse(node, "'-' is allowed before a number only")


_SPECIAL: dict[type[nodes.Node], Callable[..., None]] = {
    nodes.Name: _check_name,
    nodes.Getattr: _check_getattr,
    nodes.Filter: _check_filter,
    nodes.Test: _check_test,
    nodes.Compare: _check_compare,
    nodes.Const: _check_const,
    nodes.For: _check_for,
    nodes.Slice: _check_slice,
    nodes.Neg: _check_neg,
}


def _check_nesting(node: nodes.Node, depth: int, loops: int) -> None:
    if depth > DEPTH_CAP:
        raise _refuse(node, "the template is nested too deeply")
    for child in node.iter_child_nodes():
        inner = loops + isinstance(child, nodes.For)
        if inner > LOOPS_CAP:
            raise _refuse(child, f"loops may be nested {LOOPS_CAP} deep")
        _check_nesting(child, depth + 1, inner)


def _names(node: nodes.Node, bound: frozenset[str]) -> Iterator[str]:
    """Variables that are read and not bound by a loop around them."""
    if isinstance(node, nodes.Name) and node.ctx == "load" and node.name not in bound:
        yield node.name
    for field_name, child in _children(node):
        inside = isinstance(node, nodes.For) and field_name in {"body", "test"}
        yield from _names(child, bound | _targets(node) if inside else bound)


def _targets(loop: nodes.Node) -> frozenset[str]:
    target = getattr(loop, "target", None)
    return frozenset({target.name, "loop"} if isinstance(target, nodes.Name) else ())


def _children(node: nodes.Node) -> Iterator[tuple[str, nodes.Node]]:
    for field_name, value in node.iter_fields():
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, nodes.Node):
                yield field_name, child


class _Rewriter(NodeTransformer):
    """Puts a total function in the place of whatever could fail, or run long, on odd data."""

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        """`true` and `false` as `clean` has them, so that `item.open == true` is what it says."""
        return nodes.Const(as_text(node.value), lineno=node.lineno) if isinstance(node.value, bool) else node

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        return _call("_item", self.visit(node.node), nodes.Const(node.attr))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        value = self.visit(node.node)
        if not isinstance(node.arg, nodes.Slice):
            return _call("_item", value, self.visit(node.arg))
        ends = (nodes.Const(None) if end is None else self.visit(end) for end in (node.arg.start, node.arg.stop))
        return _call("_part", value, *ends)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        (operand,) = node.ops
        return _call("_compare", self.visit(node.expr), nodes.Const(operand.op), self.visit(operand.expr))

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return _call("_concat", *(self.visit(part) for part in node.nodes))

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return nodes.List([self.visit(entry) for entry in node.items], lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _call("_each", node.iter)
        return node


def _call(name: str, value: nodes.Node, *more: nodes.Node) -> nodes.Filter:
    return nodes.Filter(value, name, list(more), [], None, None, lineno=value.lineno)


def _tidy(text: str) -> str:
    """Runs of spaces folded, lines kept."""
    return "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
