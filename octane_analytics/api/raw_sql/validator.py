"""Rules of raw SQL: one SELECT from allowed tables, of functions that only compute.

The parser that validates a statement is the one that executes it, ClickHouse's own: `EXPLAIN AST`
shows the statement, `EXPLAIN QUERY TREE run_passes = 0` its names, and neither executes anything.
With its passes, EXPLAIN QUERY TREE would evaluate scalar subqueries and fold constants; that form
is therefore not used. All rules are allow-lists. Does not depend on connections or callers.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from octane_analytics.api.raw_sql import (
    allowlists,
    column_definitions,
    computed_constants,
    literals,
    memberships,
    patterns,
    query_tree,
    syntax_tree,
    type_names,
    windows,
)
from octane_analytics.api.raw_sql.errors import forbidden
from octane_analytics.api.raw_sql.functions import Functions
from octane_analytics.api.raw_sql.query_tree import Node
from octane_analytics.api.raw_sql.scopes import Scopes, TooComplex
from octane_analytics.api.raw_sql.syntax_tree import Syntax
from octane_analytics.clickhouse.schema import TableName

EXPLAIN_AST = "EXPLAIN AST "
EXPLAIN_TREE = "EXPLAIN QUERY TREE run_passes = 0 "
SELECT_TABLES = (
    "SELECT database, name FROM system.tables "
    "WHERE has({pairs:Array(String)}, concat(if(is_temporary, '', database), '.', name))"
)
"""Tables of these names that are visible to the user. A second check only: some tables that a user can
read are not listed, so the absence of a name proves nothing."""
SELECT_FUNCTIONS = "SELECT name FROM system.functions WHERE has({names:Array(String)}, lower(name))"

_ROOT = "SelectWithUnionQuery"
_DESCRIBE = [("DescribeQuery", 0), ("TableExpression", 1), ("TableIdentifier", 2)]
_OUTPUT = "INTO OUTFILE and FORMAT are not allowed: set `format` in the request, or Accept"
_SETTINGS = "a SETTINGS clause is not allowed: the service sets the limits"
_TAKE_COLUMN_DEFINITIONS = frozenset({"values", "null"})
_TAKE_AGGREGATES = frozenset({"arrayreduce", "arrayreduceinranges", "initializeaggregation"})

_AST_FUNCTION = re.compile(r"(\w+)(?: \(alias (.*)\))?\Z")
_PLAIN_TABLE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)?\Z")
_WORD = re.compile(r"\w*\Z")
_NUMBER = r" *-?\d+(?:\.\d+)?(?:e-?\d+)? *"
_AGGREGATE_NAME = re.compile(rf"(\w+)(?:\({_NUMBER}(?:,{_NUMBER})*\))?\Z")
"""Parameters must be numbers: ClickHouse evaluates any expression among them, even subqueries."""
_POSITION = re.compile(r"\bat position (\d+)")


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Tables and functions that raw SQL may use.

    `readable` holds further (database, table) pairs; the table `*` stands for a whole database.
    Names are case-sensitive; where ClickHouse's are not, the operator lists each spelling.
    """

    table: TableName
    functions: Functions
    readable: Collection[tuple[str, str]] = ()

    def may_read(self, database: str, table: str) -> bool:
        pair = (database, table)
        return (
            pair == (self.table.database, self.table.table)
            or pair in allowlists.ALWAYS_READABLE
            or pair in self.readable
            or (database, "*") in self.readable
        )


@dataclass(frozen=True, slots=True)
class LookupNames:
    """Names defined by the statement, functions in lower case, that the server must not have."""

    tables: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()


def check_ast(lines: Sequence[str], rules: AccessRules) -> Syntax:
    """Return the syntax of DESCRIBE of a readable table, or of a single plain SELECT.

    `lines` are the output of `EXPLAIN AST`. Raises QueryError (403) for any other statement.
    """
    kind = (lines[0].split() or ["nothing"])[0] if lines else "nothing"
    if kind not in (_ROOT, _DESCRIBE[0][0]):
        raise forbidden(f"only one SELECT, or DESCRIBE of a table, is allowed, and this is {kind}")
    try:
        nodes = syntax_tree.parse(lines)
    except syntax_tree.MalformedTree as error:
        raise forbidden(f"a name in the statement imitates ClickHouse's output: {error}") from error
    if [(node.kind, node.depth) for node in nodes] == _DESCRIBE:
        _check_described(nodes[-1].text, rules)
        return Syntax(is_description=True)
    if nodes[0].kind != _ROOT:
        raise forbidden("DESCRIBE takes only the name of a table")
    lambdas = {
        match[2]
        for node in nodes
        if node.kind == "Function" and (match := _AST_FUNCTION.match(node.text))
        if match[1] == "lambda" and match[2]
    }
    for node in nodes:
        if node.kind == "Set":
            raise forbidden(_SETTINGS)
        if node.kind not in allowlists.AST_NODES:
            raise forbidden(f"{node.kind} is not allowed")
        if node.kind == "Function":
            _check_ast_function(node.text, rules, lambdas)
    # An output clause is a child of the root besides the list of SELECTs.
    if [node.kind for node in nodes if node.depth == 1] != ["ExpressionList"]:
        raise forbidden(_OUTPUT)
    return Syntax(is_description=False, renames_columns=syntax_tree.renames_columns(nodes))


def check_tree(
    lines: Sequence[str],
    rules: AccessRules,
    quoted: Collection[str] = (),
    *,
    renames_columns: bool = True,
) -> LookupNames:
    """Return the names to look up, if the statement is allowed otherwise.

    `lines` are the output of `EXPLAIN QUERY TREE`, `quoted` the quoted names of the statement. Raises
    QueryError (403) for a function or table that is not allowed.
    """
    try:
        root = query_tree.parse(lines)
    except query_tree.UnknownKind as error:
        raise forbidden(f"{error} is not allowed") from error
    except syntax_tree.MalformedTree as error:
        raise forbidden(f"a name in the statement imitates ClickHouse's output: {error}") from error
    return _TreeCheck(root, rules, quoted, renames_columns).run()


def check_tables(found: Sequence[tuple[str, str]], rules: AccessRules) -> None:
    """Raise QueryError (403) if a found table is not allowed."""
    for database, table in found:
        if not rules.may_read(database, table):
            raise forbidden(
                f"the table {table} is not allowed; a WITH item or alias needs another name"
            )


def check_functions(found: Sequence[str]) -> None:
    """Raise QueryError (403) if the alias of a called lambda is a function of the server."""
    if found:
        raise forbidden(f"a lambda must not have the name of the function {found[0]}")


def qualified_names(lookup: LookupNames, rules: AccessRules) -> list[str]:
    """Return the names for SELECT_TABLES: in the events table's database, and as temporary tables."""
    return [
        qualified
        for name in sorted(lookup.tables)
        for qualified in (f"{rules.table.database}.{name}", f".{name}")
    ]


def relocate(message: str, prefix: str) -> str:
    """Correct the positions in a parser's message about an explained statement for the EXPLAIN."""
    return _POSITION.sub(
        lambda match: f"at position {max(1, int(match[1]) - len(prefix))}", message
    )


def _check_described(text: str, rules: AccessRules) -> None:
    if not _PLAIN_TABLE.match(text) or not _is_readable(text, rules):
        raise forbidden(_unknown_table(text))


def _check_ast_function(text: str, rules: AccessRules, lambdas: Collection[str]) -> None:
    # EXPLAIN AST does not distinguish table functions; the query tree does and is checked for them.
    name = _AST_FUNCTION.match(text)
    if not name:
        raise forbidden("a function's name must be a plain identifier")
    is_known = name[1].lower() in allowlists.TABLE_FUNCTIONS or rules.functions.allow(name[1])
    if not is_known and name[1] not in lambdas:
        raise forbidden(f"the function {name[1]} is not allowed")


class _TreeCheck:
    """Check of all nodes of one query tree."""

    def __init__(
        self, root: Node, rules: AccessRules, quoted: Collection[str], renames_columns: bool
    ) -> None:
        self._root = root
        self._renames_columns = renames_columns
        self._rules = rules
        self._dotted = [name for name in quoted if "." in name]
        self._scopes = Scopes(root)
        self._tables: set[str] = set()
        self._functions: set[str] = set()

    def run(self) -> LookupNames:
        try:
            for node in self._root.walk():
                if node.kind == "FUNCTION":
                    self._check_function(node)
                elif node.kind == "TABLE_FUNCTION":
                    _check_table_function(node)
                elif node.kind == "IDENTIFIER" and node.section in allowlists.TABLE_SECTIONS:
                    self._check_table(node)
            is_aggregate = self._rules.functions.allow_aggregate
            objection = (
                memberships.objection(self._root)
                or windows.objection(self._root)
                or computed_constants.objection(
                    self._root, is_aggregate, renames_columns=self._renames_columns
                )
            )
        except TooComplex as error:
            raise forbidden(
                "too many aliases refer to each other: simplify the statement"
            ) from error
        except KeyError as error:
            raise forbidden(f"the tree has a node without {error}") from error
        if objection:
            raise forbidden(objection)
        return LookupNames(frozenset(self._tables), frozenset(self._functions))

    def _check_function(self, node: Node) -> None:
        name = node.facts["function_name"]
        if not self._rules.functions.allow(name):
            if not _WORD.match(name) or not self._scopes.is_lambda(node):
                raise forbidden(
                    f"the function {name} is not allowed here; a lambda can be called by the alias "
                    "that an earlier part of WITH gives it: WITH (x -> x * 2) AS f SELECT f(1)"
                )
            self._functions.add(name.lower())
        arguments = node.list_of("ARGUMENTS")
        if name.lower() in allowlists.HIGHER_ORDER and len(arguments) > 1:
            _check_function_reference(arguments[0], len(arguments), self._rules)
        if name.lower() in _TAKE_AGGREGATES:
            _check_aggregate_name(name, arguments, self._rules)
        _check_pattern(name, arguments)
        _check_types(name, arguments)
        if memberships.FUNCTION.match(name.lower()):
            if len(arguments) != 2:
                raise forbidden("IN needs two arguments")
            # `x IN name` reads a table of that name.
            if arguments[1].kind == "IDENTIFIER":
                self._check_set(arguments[1])

    def _check_set(self, node: Node) -> None:
        """Check the right side of IN: a table, or an expression that the statement defines."""
        name = self._name(node)
        if self._may_read(name):
            return
        if "." in name or not self._is_defined(node, name, is_set=True):
            raise forbidden(
                f"{_unknown_table(name)}; for a column that holds an array write has({name}, …)"
            )
        self._tables.add(name)

    def _check_table(self, node: Node) -> None:
        name = self._name(node)
        if self._may_read(name):
            return
        if "." in name or not self._is_defined(node, name, is_set=False):
            if not _PLAIN_TABLE.match(name):
                # clickhouse-local reads a file or URL of the table's name.
                raise forbidden("a table's name must be a plain identifier, not a path or a URL")
            raise forbidden(_unknown_table(name))
        self._tables.add(name)

    def _name(self, node: Node) -> str:
        name = node.facts["identifier"]
        if self._scopes.is_synonym(name):
            raise forbidden(f"{name} is an alias of another name: use that name as the table")
        return name

    def _may_read(self, name: str) -> bool:
        # The tree shows the quoted name `a.b` in the same way as the table b of the database a.
        if not _PLAIN_TABLE.match(name) or any(dotted in name for dotted in self._dotted):
            return False
        return _is_readable(name, self._rules)

    def _is_defined(self, node: Node, name: str, *, is_set: bool) -> bool:
        return self._scopes.is_cte(node, name) or (is_set and self._scopes.is_set(node, name))


def _check_function_reference(node: Node, count: int, rules: AccessRules) -> None:
    """Check `f` in `arrayMap(f, …)`, a call without a function node in the tree."""
    if node.kind != "IDENTIFIER":
        return
    name = node.facts["identifier"]
    lowered = name.lower()
    is_special = (
        lowered in _TAKE_AGGREGATES
        or memberships.FUNCTION.match(lowered)
        or patterns.place(lowered) is not None
        or (type_names.is_special(lowered) and count > 2)
    )
    if is_special or not rules.functions.allow(name):
        raise forbidden(f"the function {name} is not allowed here; write a lambda: x -> {name}(x)")


def _check_aggregate_name(name: str, arguments: Sequence[Node], rules: AccessRules) -> None:
    text = literals.text(arguments[0]) if arguments else None
    called = _AGGREGATE_NAME.match(text) if text else None
    if not called or not rules.functions.allow_aggregate(called[1]):
        raise forbidden(
            f"{name} with this aggregate function is not allowed; its name must be a literal, and "
            "its parameters numbers"
        )


def _check_pattern(name: str, given: Sequence[Node]) -> None:
    place = patterns.place(name)
    if place is None:
        return
    pattern = literals.unescaped(given[place]) if place < len(given) else None
    if objection := patterns.objection(name, pattern):
        raise forbidden(f"the function {name} is not allowed like this: {objection}")


def _check_types(name: str, given: Sequence[Node]) -> None:
    for place in type_names.places(name, len(given)):
        node = given[place]
        problem = type_names.objection(
            name,
            place,
            literals.unescaped(node),
            is_number=literals.is_number(node) or literals.is_time(node),
        )
        if problem:
            raise forbidden(f"the function {name} is not allowed like this: {problem}")


def _check_table_function(node: Node) -> None:
    name = node.facts["table_function_name"]
    if name.lower() not in allowlists.TABLE_FUNCTIONS:
        raise forbidden(f"the table function {name} is not allowed")
    if name.lower() not in _TAKE_COLUMN_DEFINITIONS:
        return
    arguments = node.list_of("ARGUMENTS")
    text = literals.text(arguments[0]) if arguments else None
    is_allowed = text is not None and column_definitions.is_plain(text)
    if name.lower() == "values" and arguments and not is_allowed:
        # The first argument may also be a row. An alias could refer to column definitions; a literal of
        # one word cannot be such.
        is_allowed = bool(_WORD.match(text)) if text is not None else literals.is_row(arguments[0])
    if not is_allowed:
        raise forbidden(
            f"the structure of {name}() must be a literal of names and types; or pass tuples"
        )


def _is_readable(name: str, rules: AccessRules) -> bool:
    database, _, table = name.rpartition(".")
    return rules.may_read(database or rules.table.database, table)


def _unknown_table(name: str) -> str:
    return f"unknown table {name}: GET /schema lists the tables that raw SQL can read"
