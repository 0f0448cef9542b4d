"""What raw SQL may do: one SELECT over the events, of functions that only compute.

ClickHouse's own parser says what a statement is, so that the one that judges is the one that executes:
`EXPLAIN AST` shows the statement, `EXPLAIN QUERY TREE run_passes = 0` its names, and neither executes
anything. With its passes run, EXPLAIN QUERY TREE would evaluate scalar subqueries and fold constants,
which is why that form is not used. Everything is an allow-list. Owns the judgement; refuses to know
connections and who asks.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from octane_analytics.api import kinds, querytree, structures
from octane_analytics.api.functions import Functions
from octane_analytics.api.querytree import Node
from octane_analytics.errors import QueryError
from octane_analytics.schema import TableName

PROBE = (
    "SELECT toString(normalizedQueryHash({statement:String})), "
    "formatQuerySingleLine({statement:String}) = ''"
)
"""Parses the statement as a value, bound by the server, so that nothing of it can join the words before
it: what passes here is one whole statement by itself. Answers its fingerprint too."""
EXPLAIN_AST = "EXPLAIN AST "
EXPLAIN_TREE = "EXPLAIN QUERY TREE run_passes = 0 "
LOOK_UP = (
    "SELECT database, name FROM system.tables "
    "WHERE has({pairs:Array(String)}, concat(if(is_temporary, '', database), '.', name))"
)
"""Which of those names are tables that the user can see; those that it cannot see it cannot read."""

_ROOT = "SelectWithUnionQuery"
_OUTPUT = "INTO OUTFILE and FORMAT are not allowed: the request says `format`, or Accept"
_SETTINGS = "a SETTINGS clause is not allowed: the limits are the service's"
_MEMBERSHIP = re.compile(r"(global)?(not)?(null)?in(ignoreset)?\Z")
_TAKE_STRUCTURES = frozenset({"values", "null"})
_TAKE_AGGREGATES = frozenset({"arrayreduce", "arrayreduceinranges", "initializeaggregation"})

_ALIAS = r"(?:alias: [^,]+, )?"
_IDENTIFIER = re.compile(
    _ALIAS + r"identifier: (.+?)(?:, final: 1)?(?:, sample_size: [^,]*)?(?:, offset: [^,]*)?\Z"
)
_TABLE_FUNCTION = re.compile(_ALIAS + r"table_function_name: (\w+)(?:, .*)?\Z")
_FUNCTION = re.compile(_ALIAS + r"function_name: (\w+), function_type: \w+(?:, .*)?\Z")
_AST_FUNCTION = re.compile(r" *Function (\w+)")
_PLAIN_TABLE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)?\Z")
_WORD = re.compile(r"\w*\Z")
_PLAIN_COLUMN = re.compile(r"\w+(?:\.\w+)*\Z")
_TEXT = re.compile(_ALIAS + r"constant_value: '(.*)', constant_value_type: String\Z")
_NUMBER = r" *-?\d+(?:\.\d+)?(?:e-?\d+)? *"
_AGGREGATE_NAME = re.compile(rf"(\w+)(?:\({_NUMBER}(?:,{_NUMBER})*\))?\Z")
"""With numbers for parameters at most: ClickHouse evaluates whatever stands there, subqueries too."""
_ALIASED = re.compile(r"alias: ([^,]+), identifier: (.+)\Z")
_POSITION = re.compile(r"\bat position (\d+)")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one report may take of ClickHouse."""

    seconds: float
    result_rows: int
    result_bytes: int
    memory_bytes: int

    def settings(self, comment: str) -> Mapping[str, object]:
        """For `ClickHouse.select`. `comment` is what system.query_log will show of the query.

        One row more than allowed is asked for, which tells a cut answer from a whole one.
        """
        return {
            # 1 and not 2, which would let url() and remote() through and settings be changed.
            "readonly": 1,
            "limit": self.result_rows + 1,
            "max_result_bytes": self.result_bytes,
            "result_overflow_mode": "throw",
            "max_execution_time": self.seconds,
            "timeout_overflow_mode": "throw",
            "max_memory_usage": self.memory_bytes,
            "log_comment": comment,
            # The driver's own: a DateTime without a zone comes in local time with `fold` set, which
            # can be turned into UTC exactly; the server's zone could not.
            "use_client_time_zone": True,
        }


@dataclass(frozen=True, slots=True)
class Rules:
    """`readable` are further (database, table) pairs, the table `*` for all of a database; names in
    lower case where ClickHouse does not tell them apart is up to the operator."""

    table: TableName
    functions: Functions
    readable: Collection[tuple[str, str]] = ()

    def may_read(self, database: str, table: str) -> bool:
        pair = (database, table)
        return (
            pair == (self.table.database, self.table.table)
            or pair in kinds.ALWAYS_READABLE
            or pair in self.readable
            or (database, "*") in self.readable
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """What the names alone do not settle."""

    names: frozenset[str] = field(default_factory=frozenset)
    """Of subqueries, aliases or columns if all is well, which must not be tables': `name` or `a.b`."""


def check_ast(lines: Sequence[str], rules: Rules) -> None:
    """Raises QueryError (403) unless this output of `EXPLAIN AST` is that of one plain SELECT.

    Each line is one node, a space of indentation per level. Text of the query can break a line in two
    and so add nodes that are not there, never hide one.
    """
    if not lines or _kind(lines[0]) != _ROOT:
        what = _kind(lines[0]) if lines else "nothing"
        raise refused(f"only one SELECT is allowed, and this is {what}")
    for line in lines:
        kind = _kind(line)
        if kind == "Set":
            raise refused(_SETTINGS)
        if kind not in kinds.AST_NODES:
            raise refused(f"{kind} is not allowed")
        if kind == "Function":
            # The table functions are judged by the query tree, which knows one from the other.
            name = _AST_FUNCTION.match(line)
            if not name:
                raise refused("a function's name must be a plain one")
            if name[1].lower() not in kinds.TABLE_FUNCTIONS and not rules.functions.allow(name[1]):
                raise refused(f"the function {name[1]} is not allowed")
    # The list of SELECTs apart, a clause for the output is a child of the root.
    below = [line for line in lines if line.startswith(" ") and not line.startswith("  ")]
    if any(_kind(line) != "ExpressionList" for line in below) or len(below) != 1:
        raise refused(_OUTPUT)


def check_tree(lines: Sequence[str], rules: Rules) -> Findings:
    """Raises QueryError (403) unless all functions and tables in this output of `EXPLAIN QUERY TREE`
    are allowed; what is left to look up."""
    try:
        tree = querytree.parse(lines)
    except querytree.Forged as error:
        raise refused(f"a name in the statement imitates ClickHouse's output: {error}") from error
    if any(section.split(" ")[0] == "SETTINGS" for section in tree.sections):
        raise refused(_SETTINGS)
    names: set[str] = set()
    aliases = _aliases(tree.root)
    for node in tree.root.walk():
        if node.kind not in kinds.TREE_NODES:
            raise refused(f"{node.kind} is not allowed")
        if node.kind == "FUNCTION":
            names.update(_check_function(node, rules, aliases))
        elif node.kind == "TABLE_FUNCTION":
            _check_table_function(node)
        elif node.kind == "IDENTIFIER":
            name = _name(node)
            if node.section in kinds.TABLE_PLACES:
                for meant in _meant(name, aliases):
                    names.update(_check_table(meant, rules))
    return Findings(frozenset(names))


def check_tables(found: Sequence[tuple[str, str]], rules: Rules) -> None:
    """Raises QueryError (403) where a name that was looked up is that of a table not to be read."""
    for database, table in found:
        if not rules.may_read(database, table):
            raise refused(
                f"the table {table} is not allowed; a WITH part or alias needs another name"
            )


def pairs(findings: Findings, rules: Rules) -> list[str]:
    """For LOOK_UP: the names as `database.table`, an unqualified one in the connection's database and
    among temporary tables."""
    listed = []
    for name in sorted(findings.names):
        if "." in name:
            listed.append(name)
        else:
            listed += [f"{rules.table.database}.{name}", f".{name}"]
    return listed


def located(message: str, prefix: str) -> str:
    """The parser's message about an explained statement, with its positions as in the statement."""
    return _POSITION.sub(
        lambda found: f"at position {max(1, int(found[1]) - len(prefix))}", message
    )


def unprobed(message: str) -> str:
    """The parser's message about a probed statement without the probe."""
    return message.partition(": In scope SELECT toString(normalizedQueryHash(")[0]


def refused(message: str) -> QueryError:
    return QueryError(403, "forbidden_statement", message)


def _aliases(root: Node) -> dict[str, set[str]]:
    """Names that stand for other names: `WITH a AS b` has `x IN b` read the table `a`."""
    aliases: dict[str, set[str]] = {}
    for node in root.walk():
        # A name with a comma in it comes to nothing here, and is refused where it is used.
        if node.kind == "IDENTIFIER" and (found := _ALIASED.match(node.facts)):
            aliases.setdefault(found[1], set()).add(found[2])
    return aliases


def _meant(name: str, aliases: Mapping[str, set[str]]) -> set[str]:
    """The name and all that it may stand for, wherever in the statement that was said."""
    meant: set[str] = set()
    left = {name}
    while left:
        one = left.pop()
        if one not in meant:
            meant.add(one)
            left |= aliases.get(one, set()) | aliases.get(one.partition(".")[0], set())
    return meant


def _check_function(node: Node, rules: Rules, aliases: Mapping[str, set[str]]) -> Iterator[str]:
    found = _told(node, "function_name", _FUNCTION)
    if not found or not rules.functions.allow(found[1]):
        told = found[1] if found else "with such a name"
        raise refused(f"the function {told} is not allowed")
    name = found[1].lower()
    given = _arguments(node)
    if name in _TAKE_AGGREGATES:
        text = _text(given[0]) if given else None
        called = _AGGREGATE_NAME.match(text) if text else None
        if not called or not rules.functions.allow_aggregate(called[1]):
            raise refused(
                f"{found[1]} with such an aggregate function is not allowed; its name must be a "
                "literal, its parameters numbers"
            )
    if _MEMBERSHIP.match(name):
        if len(given) != 2:
            raise refused("a name in the statement imitates ClickHouse's output")
        # `x IN name` reads a table of that name.
        if given[1].kind == "IDENTIFIER":
            for meant in _meant(_name(given[1]), aliases):
                if _PLAIN_TABLE.match(meant):
                    if not _is_readable(meant, rules):
                        yield meant
                elif not _PLAIN_COLUMN.match(meant):
                    raise refused("what IN reads from must have a plain name")


def _check_table_function(node: Node) -> None:
    found = _told(node, "table_function_name", _TABLE_FUNCTION)
    if not found or found[1].lower() not in kinds.TABLE_FUNCTIONS:
        told = found[1] if found else "with such a name"
        raise refused(f"the table function {told} is not allowed")
    name = found[1].lower()
    if name not in _TAKE_STRUCTURES:
        return
    given = _arguments(node)
    text = _text(given[0]) if given else None
    is_fine = text is not None and structures.is_plain(text)
    if name == "values" and given and not is_fine:
        # Rows may stand there too. An alias may stand for a structure; one word is none.
        is_fine = bool(_WORD.match(text)) if text is not None else _is_row(given[0])
    if not is_fine:
        raise refused(
            f"{found[1]}() takes names and types alone for its structure, as a literal; or tuples"
        )


def _told(node: Node, key: str, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """What the pattern finds in the node's facts. An alias stands before them, as the client wrote it:
    one that says the key too would be taken for the fact."""
    if node.facts.count(f"{key}: ") != 1:
        return None
    return pattern.match(node.facts)


def _is_row(node: Node) -> bool:
    """Whether it is a tuple or a literal that is no string; an alias cannot imitate the end."""
    if node.kind == "FUNCTION":
        return node.facts.endswith("function_name: tuple, function_type: ordinary")
    return node.kind == "CONSTANT" and not node.facts.endswith("constant_value_type: String")


def _arguments(node: Node) -> list[Node]:
    arguments = next((child for child in node.children if child.section == "ARGUMENTS"), None)
    return arguments.children if arguments and arguments.kind == "LIST" else []


def _text(node: Node) -> str | None:
    """The string that the node is, with its quotes as they were; None if it is not a literal one."""
    found = _TEXT.match(node.facts) if node.kind == "CONSTANT" else None
    return found[1].replace("\\'", "'") if found else None


def _check_table(name: str, rules: Rules) -> Iterator[str]:
    if _is_readable(name, rules):
        return
    if not _PLAIN_TABLE.match(name):
        # clickhouse-local takes a table's name for a file's or a URL.
        raise refused("a table's name must be a plain one, not a path or a URL")
    if "." in name:
        raise refused(f"the table {name} is not allowed")
    yield name


def _is_readable(name: str, rules: Rules) -> bool:
    database, _, table = name.rpartition(".")
    return rules.may_read(database or rules.table.database, table)


def _name(node: Node) -> str:
    found = _told(node, "identifier", _IDENTIFIER)
    if not found:
        raise refused("an alias must not contain a comma or a line break")
    return found[1]


def _kind(line: str) -> str:
    words = line.split()
    return words[0] if words else "nothing"
