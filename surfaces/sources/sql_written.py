"""A checked query as SQL of one database: the same meaning in SQLite and in PostgreSQL, over one tenant's rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

from sqlglot import exp
from sqlglot.errors import ErrorLevel

TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "items": ("item_id", "kind", "attributes", "member_id"),
    "members": ("member_id", "profile"),
    "events": ("member_id", "item_id", "surface", "action", "timestamp", "value", "position", "propensity"),
}
"""What a query sees of the ledger. `attributes` and `profile` are JSON."""
JSON = frozenset({"attributes", "profile"})
TENANT, NUMBER = "tenant", "prismrank_number"
"""The parameter that every table is narrowed by, and a function of SQLite's connection: `number`."""

TEXT_CAP = 10_000
"""Characters of what || makes: without a limit, a few lines of SQL would fill the memory."""
_DIGITS = "^[+-]?[0-9]{1,30}(?:[.][0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?$"
_TYPES: Final[Mapping[str, str]] = {"now": "DOUBLE", "k": "BIGINT"}
_OPERATORS = (
    exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Like, exp.Is, exp.In, exp.Between,
    exp.Add, exp.Sub, exp.Mul, exp.Div, exp.DPipe, exp.Neg,
)  # fmt: skip

Rewrite: TypeAlias = Callable[[exp.Expr], exp.Expr]


def low(name: exp.Expr) -> str:
    """An identifier in small letters."""
    return str(name.this).lower()


def rewritten(tree: exp.Query, own: Collection[str], dialect: str, limit: int) -> str:
    """The SQL of a checked tree for `sqlite` or `postgres`, with at most `limit` rows; `own` are the names of its WITH.

    Parameters are named as the driver wants them. Every operand that could be read in two ways stands in brackets.
    """
    whole = exp.Paren(this=_limited(tree.copy(), limit))
    rules = _Rules(own, postgres=dialect == "postgres")
    for node in reversed(list(whole.walk())):
        if node is not whole:
            node.replace(_bracketed(rules.of(node)))
    for node in whole.find_all(exp.Literal):
        if node.is_string and rules.postgres:
            node.set("this", str(node.this).replace("%", "%%"))  # the driver reads % as a parameter's beginning
    return str(whole.this.sql(dialect=dialect, comments=False, unsupported_level=ErrorLevel.RAISE))


def _limited(tree: exp.Query, limit: int) -> exp.Query:
    found = tree.args.get("limit")
    if found is None or (isinstance(found.expression, exp.Literal) and int(found.expression.this) > limit):
        tree.set("limit", exp.Limit(expression=exp.Literal.number(limit)))
    return tree


def _bracketed(node: exp.Expr) -> exp.Expr:
    """Databases differ in what binds closer, || or +: brackets leave no question."""
    if isinstance(node, _OPERATORS):
        for key, part in node.args.items():
            if isinstance(part, _OPERATORS) and type(part) is not type(node):
                node.set(key, exp.Paren(this=part))
    return node


class _Rules:
    """What takes a node's place, once the nodes below it are done."""

    def __init__(self, own: Collection[str], *, postgres: bool) -> None:
        self.own, self.postgres = own, postgres
        self._rules: dict[type[exp.Expr], Rewrite] = {
            exp.Identifier: lambda node: exp.to_identifier(low(node), quoted=True),
            exp.Select: self._apart,
            exp.Union: self._apart,
            exp.Table: self._table,
            exp.CTE: self._cte,
            exp.Placeholder: lambda node: exp.cast(node.copy(), _TYPES.get(str(node.this), "TEXT")),
            exp.Cast: self._cast,
            exp.Div: _safe_division,
            exp.DPipe: _short_text,
            exp.JSONExtractScalar: self._json,
        }

    def of(self, node: exp.Expr) -> exp.Expr:
        """The node, or what replaces it."""
        rule = self._rules.get(type(node))
        return rule(node) if rule else node

    def _apart(self, node: exp.Expr) -> exp.Expr:
        """Keeps a SELECT in FROM or WITH apart, by a LIMIT that takes all.

        A planner that put it into the query around would write its expressions once for each time they are named:
        a few of such SELECTs within one another would fill the memory before any row is read.
        """
        within = node.parent.parent if isinstance(node.parent, exp.Subquery) else node.parent
        if isinstance(within, exp.From | exp.Join | exp.CTE):
            if self.postgres and not node.args.get("offset"):
                node.set("offset", exp.Offset(expression=exp.Literal.number(0)))
            if not self.postgres and not node.args.get("limit"):
                node.set("limit", exp.Limit(expression=exp.Literal.number(-1)))
        return node

    def _table(self, node: exp.Expr) -> exp.Expr:
        name, alias = low(node.this), node.args.get("alias")
        called = alias.this if alias else exp.to_identifier(name, quoted=True)
        if name in self.own:
            return exp.Table(this=_own(name), alias=exp.TableAlias(this=called))
        return exp.Subquery(this=self._rows(name), alias=exp.TableAlias(this=called))

    def _rows(self, name: str) -> exp.Select:
        """This tenant's rows of a table."""
        columns = [self._stored(column) for column in TABLES[name]]
        mine = exp.EQ(this=_column("tenant"), expression=exp.Placeholder(this=TENANT))
        return exp.select(*columns).from_(exp.to_identifier(f"prismrank_{name}", quoted=True)).where(mine)

    def _stored(self, name: str) -> exp.Expr:
        """A column; PostgreSQL is given JSON to look into, without the character NUL, which it does not know."""
        if name not in JSON or not self.postgres:
            return _column(name)
        parts = [_column(name), exp.Literal.string("\\u0000"), exp.Literal.string("\\ufffd")]
        return exp.alias_(exp.cast(exp.Anonymous(this="REPLACE", expressions=parts), "JSONB"), name, quoted=True)

    def _cte(self, node: exp.Expr) -> exp.Expr:
        return exp.CTE(this=node.this, alias=exp.TableAlias(this=_own(low(node.args["alias"].this))))

    def _cast(self, node: exp.Expr) -> exp.Expr:
        """As text, or as a number that is NULL for what is none."""
        if node.args["to"].this is exp.DType.TEXT:
            return exp.cast(node.this, "TEXT")
        if not self.postgres:
            return exp.Anonymous(this=NUMBER, expressions=[node.this])
        found = [exp.cast(node.this, "TEXT"), exp.Literal.string(_DIGITS)]
        return exp.cast(exp.Anonymous(this="SUBSTRING", expressions=found), "DOUBLE")

    def _json(self, node: exp.Expr) -> exp.Expr:
        """The text of a value in JSON, in both databases: SQLite would give numbers as numbers and true as 1."""
        keys, inner = [node.expression.expressions[1].this], node.this
        while isinstance(inner, exp.JSONExtract):
            keys, inner = [inner.expression.expressions[1].this, *keys], inner.this
        if self.postgres:
            return exp.Anonymous(this="JSONB_EXTRACT_PATH_TEXT", expressions=[inner, *map(exp.Literal.string, keys)])
        path = exp.Literal.string("$" + "".join(f'."{key}"' for key in keys))
        kind, value = (
            exp.Anonymous(this=name, expressions=[inner.copy(), path.copy()]) for name in ("JSON_TYPE", "JSON_EXTRACT")
        )
        words = [exp.If(this=exp.Literal.string(word), true=exp.Literal.string(word)) for word in ("true", "false")]
        return exp.Case(this=kind, ifs=words, default=exp.cast(value, "TEXT"))


def _safe_division(node: exp.Expr) -> exp.Expr:
    """NULL where PostgreSQL would fail."""
    zero = exp.Nullif(this=node.expression, expression=exp.Literal.number(0))
    return exp.Div(this=node.this, expression=zero, typed=True, safe=False)


def _short_text(node: exp.Expr) -> exp.Expr:
    """A text of bounded length: the whole of a || b || c at once."""
    if isinstance(node.parent, exp.DPipe) and node.arg_key == "this":
        return node
    whole = _bracketed(exp.DPipe(this=node.this, expression=node.expression, safe=True))
    return exp.Substring(this=whole, start=exp.Literal.number(1), length=exp.Literal.number(TEXT_CAP))


def _own(name: str) -> exp.Identifier:
    """A name of WITH, as no table of a database is called."""
    return exp.to_identifier(f"own_{name}", quoted=True)


def _column(name: str) -> exp.Column:
    return exp.column(exp.to_identifier(name, quoted=True))
