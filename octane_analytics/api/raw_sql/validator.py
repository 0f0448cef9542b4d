"""What raw SQL may do: one SELECT over the events, of functions that only compute.

ClickHouse's own parser says what a statement is, so that the one that judges is the one that executes:
`EXPLAIN AST` shows the statement, `EXPLAIN QUERY TREE run_passes = 0` its names, and neither executes
anything. With its passes run, EXPLAIN QUERY TREE would evaluate scalar subqueries and fold constants,
which is why that form is not used. Everything is an allow-list. Owns the judgement; refuses to know
connections and who asks.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from octane_analytics.api.raw_sql import (
    allowlists,
    column_definitions,
    patterns,
    query_tree,
    syntax_tree,
)
from octane_analytics.api.raw_sql.functions import Functions
from octane_analytics.api.raw_sql.query_tree import Node
from octane_analytics.api.raw_sql.scopes import Scopes, TooComplex
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import QueryError

EXPLAIN_AST = "EXPLAIN AST "
EXPLAIN_TREE = "EXPLAIN QUERY TREE run_passes = 0 "
LOOK_UP = (
    "SELECT database, name FROM system.tables "
    "WHERE has({pairs:Array(String)}, concat(if(is_temporary, '', database), '.', name))"
)
"""Which of those names are tables that the user can see. A second look only: some of what a user can
read is not listed, so nothing follows from the absence of a name."""
LOOK_UP_FUNCTIONS = (
    "SELECT name FROM system.functions WHERE has({names:Array(String)}, lower(name))"
)

_ROOT = "SelectWithUnionQuery"
_DESCRIPTION = [("DescribeQuery", 0), ("TableExpression", 1), ("TableIdentifier", 2)]
_OUTPUT = "INTO OUTFILE and FORMAT are not allowed: the request says `format`, or Accept"
_SETTINGS = "a SETTINGS clause is not allowed: the limits are the service's"
_MEMBERSHIP = re.compile(r"(global)?(not)?(null)?in(ignoreset)?\Z")
_TAKE_STRUCTURES = frozenset({"values", "null"})
_TAKE_AGGREGATES = frozenset({"arrayreduce", "arrayreduceinranges", "initializeaggregation"})

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_CHARACTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "0": "\0"}
"""Letters after a backslash in the tree's text of a string; any other stands for itself."""
_AST_FUNCTION = re.compile(r"(\w+)(?: \(alias (.*)\))?\Z")
_PLAIN_TABLE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)?\Z")
_WORD = re.compile(r"\w*\Z")
_NUMBER = r" *-?\d+(?:\.\d+)?(?:e-?\d+)? *"
_AGGREGATE_NAME = re.compile(rf"(\w+)(?:\({_NUMBER}(?:,{_NUMBER})*\))?\Z")
"""With numbers for parameters at most: ClickHouse evaluates whatever stands there, subqueries too."""
_POSITION = re.compile(r"\bat position (\d+)")


@dataclass(frozen=True, slots=True)
class AccessRules:
    """`readable` are further (database, table) pairs, the table `*` for all of a database; names in
    lower case where ClickHouse does not tell them apart is up to the operator."""

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
class Findings:
    """Names that the statement defines itself, in lower case for functions; they must not be names of
    anything that the server has."""

    tables: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()


def check_ast(lines: Sequence[str], rules: AccessRules) -> bool:
    """Whether this output of `EXPLAIN AST` is that of DESCRIBE of a readable table; else that of one
    plain SELECT. Raises QueryError (403) for anything else."""
    what = (lines[0].split() or ["nothing"])[0] if lines else "nothing"
    if what not in (_ROOT, _DESCRIPTION[0][0]):
        raise forbidden(f"only one SELECT, or DESCRIBE of a table, is allowed, and this is {what}")
    try:
        nodes = syntax_tree.parse(lines)
    except syntax_tree.MalformedTree as error:
        raise forbidden(f"a name in the statement imitates ClickHouse's output: {error}") from error
    if [(node.kind, node.depth) for node in nodes] == _DESCRIPTION:
        _check_described(nodes[-1].text, rules)
        return True
    if nodes[0].kind != _ROOT:
        raise forbidden("DESCRIBE takes the name of a table alone")
    lambdas = {
        found[2]
        for node in nodes
        if node.kind == "Function" and (found := _AST_FUNCTION.match(node.text))
        if found[1] == "lambda" and found[2]
    }
    for node in nodes:
        if node.kind == "Set":
            raise forbidden(_SETTINGS)
        if node.kind not in allowlists.AST_NODES:
            raise forbidden(f"{node.kind} is not allowed")
        if node.kind == "Function":
            _check_ast_function(node.text, rules, lambdas)
    # The list of SELECTs apart, a clause for the output is a child of the root.
    if [node.kind for node in nodes if node.depth == 1] != ["ExpressionList"]:
        raise forbidden(_OUTPUT)
    return False


def check_tree(lines: Sequence[str], rules: AccessRules, quoted: Collection[str] = ()) -> Findings:
    """Raises QueryError (403) unless all functions and tables in this output of `EXPLAIN QUERY TREE`
    are allowed; returns what is left to look up. `quoted` are the names that stand in quotes."""
    try:
        root = query_tree.parse(lines)
    except query_tree.UnknownKind as error:
        raise forbidden(f"{error} is not allowed") from error
    except syntax_tree.MalformedTree as error:
        raise forbidden(f"a name in the statement imitates ClickHouse's output: {error}") from error
    return _TreeCheck(root, rules, quoted).findings()


def check_tables(found: Sequence[tuple[str, str]], rules: AccessRules) -> None:
    """Raises QueryError (403) where a name that was looked up is that of a table not to be read."""
    for database, table in found:
        if not rules.may_read(database, table):
            raise forbidden(
                f"the table {table} is not allowed; a WITH part or alias needs another name"
            )


def check_functions(found: Sequence[str]) -> None:
    """Raises QueryError (403) where the alias of a lambda that is called is a function of the server."""
    if found:
        raise forbidden(f"a lambda must not have the name of the function {found[0]}")


def pairs(findings: Findings, rules: AccessRules) -> list[str]:
    """For LOOK_UP: the names in the connection's database and among temporary tables."""
    return [
        pair
        for name in sorted(findings.tables)
        for pair in (f"{rules.table.database}.{name}", f".{name}")
    ]


def located(message: str, prefix: str) -> str:
    """The parser's message about an explained statement, with its positions as in the statement."""
    return _POSITION.sub(
        lambda found: f"at position {max(1, int(found[1]) - len(prefix))}", message
    )


def forbidden(message: str) -> QueryError:
    return QueryError(403, "forbidden_statement", message)


def _check_described(text: str, rules: AccessRules) -> None:
    if not _PLAIN_TABLE.match(text) or not _is_readable(text, rules):
        raise forbidden(_unknown(text))


def _check_ast_function(text: str, rules: AccessRules, lambdas: Collection[str]) -> None:
    # The table functions are judged by the query tree, which knows one from the other.
    name = _AST_FUNCTION.match(text)
    if not name:
        raise forbidden("a function's name must be a plain one")
    is_known = name[1].lower() in allowlists.TABLE_FUNCTIONS or rules.functions.allow(name[1])
    if not is_known and name[1] not in lambdas:
        raise forbidden(f"the function {name[1]} is not allowed")


class _TreeCheck:
    """Judges all nodes of one query tree."""

    def __init__(self, root: Node, rules: AccessRules, quoted: Collection[str]) -> None:
        self._root = root
        self._rules = rules
        self._dotted = [name for name in quoted if "." in name]
        self._scopes = Scopes(root)
        self._tables: set[str] = set()
        self._functions: set[str] = set()

    def findings(self) -> Findings:
        try:
            for node in self._root.walk():
                if node.kind == "FUNCTION":
                    self._check_function(node)
                elif node.kind == "TABLE_FUNCTION":
                    _check_table_function(node)
                elif node.kind == "IDENTIFIER" and node.section in allowlists.TABLE_PLACES:
                    self._check_table(node)
        except TooComplex as error:
            raise forbidden("too many names stand for one another: write it simpler") from error
        except KeyError as error:
            raise forbidden(f"the tree has a node without {error}") from error
        return Findings(frozenset(self._tables), frozenset(self._functions))

    def _check_function(self, node: Node) -> None:
        name = node.facts["function_name"]
        if not self._rules.functions.allow(name):
            if not _WORD.match(name) or not self._scopes.is_lambda(node):
                raise forbidden(
                    f"the function {name} is not allowed here; a lambda can be called by the alias "
                    "that an earlier part of WITH gives it: WITH (x -> x * 2) AS f SELECT f(1)"
                )
            self._functions.add(name.lower())
        given = node.list_of("ARGUMENTS")
        if name.lower() in allowlists.HIGHER_ORDER and len(given) > 1:
            _check_reference(given[0], self._rules)
        if name.lower() in _TAKE_AGGREGATES:
            _check_aggregate_name(name, given, self._rules)
        _check_pattern(name, given)
        if _MEMBERSHIP.match(name.lower()):
            if len(given) != 2:
                raise forbidden("IN needs two arguments")
            # `x IN name` reads a table of that name.
            if given[1].kind == "IDENTIFIER":
                self._check_set(given[1])

    def _check_set(self, node: Node) -> None:
        """What IN reads from: a table as FROM reads it, or an expression that the statement names."""
        name = self._name(node)
        if self._may_read(name):
            return
        if "." in name or not self._is_defined(node, name, is_set=True):
            raise forbidden(
                f"{_unknown(name)}; for a column that holds an array write has({name}, …)"
            )
        self._tables.add(name)

    def _check_table(self, node: Node) -> None:
        name = self._name(node)
        if self._may_read(name):
            return
        if "." in name or not self._is_defined(node, name, is_set=False):
            if not _PLAIN_TABLE.match(name):
                # clickhouse-local takes a table's name for a file's or a URL.
                raise forbidden("a table's name must be a plain one, not a path or a URL")
            raise forbidden(_unknown(name))
        self._tables.add(name)

    def _name(self, node: Node) -> str:
        name = node.facts["identifier"]
        if self._scopes.is_synonym(name):
            raise forbidden(
                f"{name} is an alias of another name: write that name where a table stands"
            )
        return name

    def _may_read(self, name: str) -> bool:
        # `a.b` in quotes is one name, and the tree shows it as it shows a table of a database.
        if not _PLAIN_TABLE.match(name) or any(dotted in name for dotted in self._dotted):
            return False
        return _is_readable(name, self._rules)

    def _is_defined(self, node: Node, name: str, *, is_set: bool) -> bool:
        return self._scopes.is_part(node, name) or (is_set and self._scopes.is_set(node, name))


def _check_reference(node: Node, rules: AccessRules) -> None:
    """`arrayMap(f, …)` calls a function `f`, without a node for it in the tree."""
    if node.kind != "IDENTIFIER":
        return
    name = node.facts["identifier"]
    lowered = name.lower()
    is_special = (
        lowered in _TAKE_AGGREGATES
        or _MEMBERSHIP.match(lowered)
        or patterns.place(lowered) is not None
    )
    if is_special or not rules.functions.allow(name):
        raise forbidden(
            f"the function {name} is not allowed here; a lambda is written x -> {name}(x)"
        )


def _check_aggregate_name(name: str, given: Sequence[Node], rules: AccessRules) -> None:
    text = _text(given[0]) if given else None
    called = _AGGREGATE_NAME.match(text) if text else None
    if not called or not rules.functions.allow_aggregate(called[1]):
        raise forbidden(
            f"{name} with such an aggregate function is not allowed; its name must be a "
            "literal, its parameters numbers"
        )


def _check_pattern(name: str, given: Sequence[Node]) -> None:
    place = patterns.place(name)
    if place is None:
        return
    pattern = _unescaped(given[place]) if place < len(given) else None
    if objection := patterns.objection(name, pattern):
        raise forbidden(f"the function {name} is not allowed like this: {objection}")


def _check_table_function(node: Node) -> None:
    name = node.facts["table_function_name"]
    if name.lower() not in allowlists.TABLE_FUNCTIONS:
        raise forbidden(f"the table function {name} is not allowed")
    if name.lower() not in _TAKE_STRUCTURES:
        return
    given = node.list_of("ARGUMENTS")
    text = _text(given[0]) if given else None
    is_fine = text is not None and column_definitions.is_plain(text)
    if name.lower() == "values" and given and not is_fine:
        # Rows may stand there too. An alias may stand for a structure; one word is none.
        is_fine = bool(_WORD.match(text)) if text is not None else _is_row(given[0])
    if not is_fine:
        raise forbidden(
            f"{name}() takes names and types alone for its structure, as a literal; or tuples"
        )


def _is_row(node: Node) -> bool:
    """Whether it is a tuple or a literal that is not a string."""
    if node.kind == "FUNCTION":
        return node.facts["function_name"] == "tuple"
    return node.kind == "CONSTANT" and node.facts["constant_value_type"] != "String"


def _text(node: Node) -> str | None:
    """The string that the node is, with its quotes as they were; None if it is not a literal one."""
    if node.kind != "CONSTANT" or node.facts["constant_value_type"] != "String":
        return None
    return node.facts["constant_value"][1:-1].replace("\\'", "'")


def _unescaped(node: Node) -> str | None:
    """The string, or all strings of the array, that the node is; None if it is not a literal."""
    if node.kind == "FUNCTION" and node.facts["function_name"] == "array":
        items = [_unescaped(item) for item in node.list_of("ARGUMENTS")]
        return None if None in items else "".join(item or "" for item in items)
    if node.kind != "CONSTANT":
        return None
    kind, value = node.facts["constant_value_type"], node.facts["constant_value"]
    if kind == "Array(String)":
        return value
    return _ESCAPE.sub(_character, value[1:-1]) if kind == "String" else None


def _character(found: re.Match[str]) -> str:
    return _CHARACTERS.get(found[1], found[1])


def _is_readable(name: str, rules: AccessRules) -> bool:
    database, _, table = name.rpartition(".")
    return rules.may_read(database or rules.table.database, table)


def _unknown(name: str) -> str:
    return f"unknown table {name}: GET /schema lists the tables that raw SQL can read"
