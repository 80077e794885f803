"""SQL that a stranger may write: one SELECT, checked part by part, and written anew for the ledger's database.

Nothing of the author's text reaches a database. It is parsed, every part of its syntax tree must stand in the tables
below, and what runs is written from that tree: how a database would read the text does not matter. A table's name
becomes a sub-select of this tenant's rows, so that there is no other row to name.

The query is in PostgreSQL's dialect. `->>` gives text, also of numbers; `CAST(… AS REAL)` gives NULL for what is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.helper import ensure_list

from prompts.errors import SpecError
from prompts.suggest import suggest
from surfaces.sources.sql_written import TABLES, low, rewritten

LENGTH_CAP, TABLES_CAP, NESTING_CAP, SELECTS_CAP = 4_000, 8, 32, 16
ROWS_CAP = 4_000
"""The highest LIMIT."""

_ONE, _TWO = frozenset({"this"}), frozenset({"this", "expression"})
_QUERY = frozenset({"distinct", "order", "limit", "offset"})
_ALLOWED: Final[Mapping[type[exp.Expr], frozenset[str]]] = {
    exp.Select: _QUERY | {"with_", "expressions", "from_", "joins", "where", "group", "having"},
    exp.Union: _QUERY | _TWO | {"with_"},
    exp.With: frozenset({"expressions"}),
    exp.CTE: frozenset({"this", "alias"}),
    exp.Subquery: frozenset({"this", "alias"}),
    exp.Table: frozenset({"this", "alias"}),
    exp.TableAlias: _ONE,
    exp.From: _ONE,
    exp.Join: frozenset({"this", "kind", "side", "on", "using"}),
    exp.Where: _ONE,
    exp.Group: frozenset({"expressions"}),
    exp.Having: _ONE,
    exp.Order: frozenset({"expressions"}),
    exp.Ordered: frozenset({"this", "desc", "nulls_first"}),
    exp.Limit: frozenset({"expression"}),
    exp.Offset: frozenset({"expression"}),
    exp.Distinct: frozenset({"expressions"}),
    exp.Column: frozenset({"this", "table"}),
    exp.Identifier: frozenset({"this", "quoted"}),
    exp.Alias: frozenset({"this", "alias"}),
    exp.Star: frozenset(),
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Null: frozenset(),
    exp.Boolean: _ONE,
    exp.Placeholder: _ONE,
    exp.Cast: frozenset({"this", "to"}),
    exp.DataType: _ONE,
    exp.JSONExtract: _TWO | {"only_json_types"},
    exp.JSONExtractScalar: _TWO | {"only_json_types"},
    exp.JSONPath: frozenset({"expressions"}),
    exp.JSONPathRoot: frozenset(),
    exp.JSONPathKey: _ONE,
    exp.In: frozenset({"this", "expressions", "query"}),
    exp.Between: frozenset({"this", "low", "high"}),
    exp.Is: _TWO | {"negate"},
    exp.Case: frozenset({"this", "ifs", "default"}),
    exp.If: frozenset({"this", "true"}),
    exp.Div: _TWO | {"typed", "safe"},
    exp.DPipe: _TWO | {"safe"},
    exp.Count: _ONE | {"big_int"},
    exp.Coalesce: frozenset({"this", "expressions"}),
    exp.Nullif: _TWO,
    exp.Substring: frozenset({"this", "start", "length"}),
    **dict.fromkeys((exp.And, exp.Or, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Like), _TWO),
    **dict.fromkeys((exp.Add, exp.Sub, exp.Mul), _TWO),
    **dict.fromkeys((exp.Not, exp.Neg, exp.Paren, exp.Exists), _ONE),
    **dict.fromkeys((exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Lower, exp.Upper, exp.Length, exp.Trim), _ONE),
    **dict.fromkeys((exp.Round, exp.Abs), _ONE),
}
"""What may stand in a query, and which parts of it."""
_TEXTS = (exp.Identifier, exp.Literal, exp.Placeholder, exp.Join, exp.JSONPathKey)
"""Nodes with a part that is text, not another node; each of these texts is checked."""
_NAMES: Final[Mapping[type[exp.Expr], str]] = {
    exp.Alias: "alias", exp.TableAlias: "this", exp.Column: "table", exp.Join: "using",
}  # fmt: skip
"""Where a name stands, and nothing else may: the parser would take a parameter."""

_PARTS: Final[Mapping[str, str]] = {
    "db": "a schema before a name",
    "recursive": "WITH RECURSIVE",
    "locks": "FOR UPDATE",
    "into": "INTO",
    "method": "NATURAL JOIN",
    "jdbc": "a parameter without a name",
}
"""What parts of nodes are called by those who write them."""

FUNCTIONS = (
    "count, sum, avg, min, max, coalesce, nullif, lower, upper, length, trim, substr, round, abs, cast, case, ->, ->>"
)
_TYPES = (exp.DType.TEXT, exp.DType.FLOAT, exp.DType.DOUBLE)
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,59}", re.ASCII)
_RESERVED = ("prismrank_", "pg_", "sqlite_", "own_")
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)
_KEY = re.compile(r"(profile|context)_([A-Za-z0-9_]{1,60})", re.ASCII)
PARAMETERS = ("member_id", "now", "k")
"""Named values of a visit; besides, there are `:profile_KEY` and `:context_KEY`, which are text."""


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query. `parameters` are the names that it reads, without the colon; `own` those of its WITH."""

    text: str
    parameters: frozenset[str]
    own: tuple[str, ...]
    _tree: exp.Query = field(repr=False, compare=False)

    def written(self, dialect: str, limit: int) -> str:
        """The query for `sqlite` or `postgresql`, with at most `limit` rows, over the rows of `:tenant`."""
        return rewritten(self._tree, self.own, "postgres" if dialect == "postgresql" else "sqlite", limit)


def checked(text: str) -> Query:
    """The query of a text. Raises SpecError that says what is not allowed, and what would be right."""
    if len(text) > LENGTH_CAP:
        raise SpecError(f"the query has {len(text)} characters; at most {LENGTH_CAP} are allowed")
    if _nesting(text) > NESTING_CAP:
        raise SpecError(f"the query has more than {NESTING_CAP} brackets within one another; write it flatter")
    try:
        tree = _parsed(text)
        check = _Check(tree)
        parameters = frozenset(str(node.this) for node in check.run() if isinstance(node, exp.Placeholder))
        query = Query(text, parameters, check.own, tree)
        for dialect in ("sqlite", "postgresql"):
            query.written(dialect, 1)
    except RecursionError:
        raise SpecError("the query is nested too deeply; write it flatter") from None
    return query


def _nesting(text: str) -> int:
    depth = deepest = 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        deepest = max(deepest, depth)
    return deepest


def _parsed(text: str) -> exp.Query:
    if not re.match(r"\s*(--[^\n]*\n\s*)*(select|with)\b", text, re.IGNORECASE):
        raise SpecError("a query begins with SELECT, or with WITH … SELECT")
    try:
        statements = [tree for tree in sqlglot.parse(text, dialect="postgres") if tree is not None]
    except SqlglotError as error:
        raise SpecError(f"no SQL that can be read: {_reason(error)}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise SpecError("a query is one SELECT; nothing else, and nothing behind it")
    return statements[0]


def _reason(error: SqlglotError) -> str:
    found = getattr(error, "errors", None)
    if not found:
        return str(error).partition("\n")[0][:200]
    first = found[0]
    return f"{str(first['description'])[:120].rstrip('.')} (line {first['line']}, column {first['col']})"


class _Check:
    """One way through a query's tree."""

    def __init__(self, tree: exp.Query) -> None:
        self.tree = tree
        self.ctes = tree.args["with_"].expressions if isinstance(tree.args.get("with_"), exp.With) else []
        self.own = tuple(low(cte.args["alias"].this) for cte in self.ctes)

    def run(self) -> Iterator[exp.Expr]:
        """Every node, after it was checked. Raises SpecError."""
        self._own_names()
        nodes = list(self._nodes())
        self.named = {low(node.this) for node in nodes if isinstance(node, exp.TableAlias)} | {*self.own, *TABLES}
        self.columns = {low(node.args["alias"]) for node in nodes if isinstance(node, exp.Alias)}
        self.columns |= {column for columns in TABLES.values() for column in columns}
        tables = sum(isinstance(node, exp.Table) for node in nodes)
        if tables > TABLES_CAP:
            raise SpecError(f"the query names {tables} tables; at most {TABLES_CAP} are allowed")
        if sum(isinstance(node, exp.Select) for node in nodes) > SELECTS_CAP:
            raise SpecError(f"the query has more than {SELECTS_CAP} SELECTs; that is too many")
        for node in nodes:
            special = _SPECIAL.get(type(node))
            if special is not None:
                special(self, node)
            yield node

    def _nodes(self) -> Iterator[exp.Expr]:
        for node in self.tree.walk():
            allowed = _ALLOWED.get(type(node))
            if allowed is None:
                raise SpecError(f"{_shown(node)} is not allowed; a query may use SELECT, WITH, joins, and {FUNCTIONS}")
            for name, part in node.args.items():
                if part and name not in allowed:
                    what = _PARTS.get(name, f"'{name.strip('_')}' in {_shown(node)}")
                    raise SpecError(f"{what} is not allowed; leave it out")
            if type(node) not in _TEXTS and any(isinstance(part, str) for part in node.args.values()):
                raise SpecError(f"{_shown(node)} is not allowed in this form")
            names = ensure_list(node.args.get(_NAMES.get(type(node), "")))
            if not all(isinstance(name, exp.Identifier) for name in names):
                raise SpecError(f"{_shown(names[0])} stands where a name should be")
            yield node

    def _own_names(self) -> None:
        for place, name in enumerate(self.own):
            if name in TABLES or name in self.own[:place]:
                raise SpecError(f"WITH {name}: this name is taken; choose another")

    def _select(self, node: exp.Select) -> None:
        if not node.expressions:
            raise SpecError("SELECT names no column; begin with SELECT item_id")

    def _if(self, node: exp.If) -> None:
        if not isinstance(node.parent, exp.Case):
            raise SpecError("the function 'if' is not allowed; write CASE WHEN … THEN … END")

    def _with(self, node: exp.With) -> None:
        if node.parent is not self.tree:
            raise SpecError("WITH is allowed at the beginning of the query only")

    def _set(self, node: exp.SetOperation) -> None:
        for side in (node.this, node.expression):
            plain = isinstance(side, exp.Select | exp.SetOperation)
            if not plain or any(side.args.get(key) for key in ("order", "limit", "offset", "with_")):
                raise SpecError("each part of a UNION is a plain SELECT; put ORDER BY and LIMIT behind the last one")

    def _table(self, node: exp.Table) -> None:
        if not isinstance(node.this, exp.Identifier):
            raise SpecError(f"{_shown(node.this)} is no table; there are {', '.join(TABLES)}")
        name, known = low(node.this), (*TABLES, *self._before(node))
        if name not in known:
            there = suggest(name, known) or f"; there are {', '.join(known)}"
            raise SpecError(f"no table is called '{name}'{there}")

    def _before(self, node: exp.Expr) -> tuple[str, ...]:
        """The names that WITH has given so far: elsewhere such a name would mean a table of the database."""
        inside = node.find_ancestor(exp.CTE)
        return self.own if inside is None else self.own[: self.ctes.index(inside)]

    def _subquery(self, node: exp.Subquery) -> None:
        if not isinstance(node.this, exp.Select | exp.SetOperation):
            raise SpecError("brackets around a table are not allowed; join tables one after the other")
        if isinstance(node.parent, exp.From | exp.Join) and not node.args.get("alias"):
            raise SpecError("a SELECT in FROM needs a name: (SELECT …) AS name")

    def _from(self, node: exp.From | exp.Join) -> None:
        if not isinstance(node.this, exp.Table | exp.Subquery):
            raise SpecError(f"{_shown(node.this)} stands where a table should be; there are {', '.join(TABLES)}")

    def _join(self, node: exp.Join) -> None:
        self._from(node)
        if node.side not in ("", "LEFT") or node.kind not in ("", "INNER", "CROSS", "OUTER"):
            raise SpecError(f"a {node.side or node.kind} JOIN is not allowed; use JOIN, LEFT JOIN or CROSS JOIN")

    def _column(self, node: exp.Column) -> None:
        table = node.args.get("table")
        if table is not None and low(table) not in self.named:
            raise SpecError(f"no table here is called '{low(table)}'{suggest(low(table), sorted(self.named))}")
        if isinstance(node.this, exp.Star):
            return
        if not isinstance(node.this, exp.Identifier):
            raise SpecError(f"{_shown(node.this)} stands where a column's name should be")
        name = low(node.this)
        if name not in self.columns:
            right = suggest(name, sorted(self.columns)) or "; of attributes write attributes ->> 'NAME'"
            raise SpecError(f"no column is called '{name}'{right}")

    def _identifier(self, node: exp.Identifier) -> None:
        name = low(node)
        if not _NAME.fullmatch(name) or name.startswith(_RESERVED):
            raise SpecError(f"the name '{name[:60]}' is not allowed; write small letters, digits and _")

    def _literal(self, node: exp.Literal) -> None:
        text = str(node.this)
        if node.is_string and not (text.isprintable() and "\\" not in text):
            raise SpecError("a text in quotes may hold no backslash and no control character")
        if not node.is_string and not _NUMBER.fullmatch(text):
            raise SpecError(f"the number {text[:40]} is not allowed; write plain digits, such as 12 or 0.5")

    def _placeholder(self, node: exp.Placeholder) -> None:
        name = str(node.this or "?")
        if name not in PARAMETERS and not _KEY.fullmatch(name):
            known = ", ".join(f":{name}" for name in PARAMETERS)
            raise SpecError(f"the parameter '{name[:80]}' is not known; there are {known}, :profile_KEY, :context_KEY")

    def _type(self, node: exp.DataType) -> None:
        if node.this not in _TYPES:
            raise SpecError("CAST gives TEXT or REAL here; choose one of these")

    def _path(self, node: exp.JSONExtract | exp.JSONExtractScalar) -> None:
        first, path = node.this, node.expression
        keys = path.expressions[1:] if isinstance(path, exp.JSONPath) else ()
        if len(keys) != 1 or not isinstance(keys[0], exp.JSONPathKey) or not _is_key(keys[0].this):
            raise SpecError("behind -> and ->> stands one attribute's name in quotes, such as attributes ->> 'city'")
        if not isinstance(first, exp.Column | exp.JSONExtract) or isinstance(first.this, exp.Star):
            raise SpecError("before -> and ->> stands attributes or profile, or one of these and a ->")
        if type(node) is exp.JSONExtract and not isinstance(node.parent, exp.JSONExtract | exp.JSONExtractScalar):
            raise SpecError("-> gives JSON, which nothing here works with; use ->> for the last name")

    def _limit(self, node: exp.Limit | exp.Offset) -> None:
        count = node.expression
        asked = isinstance(count, exp.Placeholder) and count.this == "k"
        if not asked and not (isinstance(count, exp.Literal) and count.is_int and int(count.this) <= ROWS_CAP):
            raise SpecError(f"LIMIT and OFFSET take :k or a number up to {ROWS_CAP}")


_SPECIAL: Final[Mapping[type[exp.Expr], Callable[[_Check, Any], None]]] = {
    exp.Select: _Check._select,
    exp.If: _Check._if,
    exp.With: _Check._with,
    exp.Union: _Check._set,
    exp.Table: _Check._table,
    exp.Subquery: _Check._subquery,
    exp.From: _Check._from,
    exp.Join: _Check._join,
    exp.Column: _Check._column,
    exp.Identifier: _Check._identifier,
    exp.Literal: _Check._literal,
    exp.Placeholder: _Check._placeholder,
    exp.DataType: _Check._type,
    exp.JSONExtract: _Check._path,
    exp.JSONExtractScalar: _Check._path,
    exp.Limit: _Check._limit,
    exp.Offset: _Check._limit,
}


def _is_key(key: object) -> bool:
    return isinstance(key, str) and 0 < len(key) <= 256 and key.isprintable() and not set(key) & {'"', "\\"}


def _shown(node: object) -> str:
    """A part of a query as its author may know it."""
    if isinstance(node, exp.Anonymous):
        return f"the function '{str(node.this)[:60]}'"
    if isinstance(node, exp.Func) and not isinstance(node, exp.Connector):
        return f"the function '{node.sql_name().lower()}'"
    return f"'{node.key}'" if isinstance(node, exp.Expr) else "this"
