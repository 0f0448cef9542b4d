"""Refusal of calls that may search a long constant for each row.

ClickHouse looks at the limits of a query between blocks. A constant is stored once for all rows of a
block, so `indexOf(range(1000000), number)` uses little memory and keeps a thread for minutes after
`max_execution_time`. A value that depends on a column is copied for each row, which the limit of memory
bounds. Only types could show which constants are long, and the tree has none without its passes, which
would evaluate the constants. So a statement is refused if it has both

- a call, of a function whose work may grow with an argument, where two or more arguments are not short
  literals: then one may be a constant and another differ for each row; and
- an expression that may be a long constant: not of a fixed size, without a column, and not short.

It does not matter whether the call uses that expression: columns can be renamed in ways that the tree
does not show. Only the syntax tree shows `AS t(a, b)`; the names of a part of WITH are in neither.
Fails closed: a function that is not known to keep a column's rows counts as a constant.
"""

import re
from collections.abc import Callable

from octane_analytics.api.raw_sql.allowlists import HIGHER_ORDER, TABLE_SECTIONS
from octane_analytics.api.raw_sql.query_tree import Node
from octane_analytics.api.raw_sql.scopes import TooComplex

SHORT_CHARACTERS = 1024
"""Length of a literal in the text of the tree up to which it may be searched for each row."""
_MAX_STEPS = 300_000
_EXPRESSIONS = ("CONSTANT", "FUNCTION", "QUERY", "UNION", "IDENTIFIER")

_PLAIN = re.compile(
    r"_cast|array|tuple|map|cast|concat|lower|lowerutf8|upper|upperutf8|trim.*|reverse"
    r"|tostring|todate.*|totime.*|to[ui]*int\d+.*|tofloat\d+.*|tobool|tointerval\w+|touuid|toipv[46]"
)
"""Functions whose result, of literals, is about as long as these."""
_FIXED = re.compile(
    r"plus|minus|multiply|divide|int_?div\w*|modulo\w*|mod|positive_?modulo\w*|negate|abs|sign|sqrt|pow|power|exp\w*"
    r"|log\w*|ln|round|floor|ceil\w*|trunc\w*|is[a-z]*nan|isfinite|isinfinite"
    r"|equals|notequals|less\w*|greater|greaterorequals|isdistinctfrom|isnotdistinctfrom"
    r"|and|or|not|xor|isnull|isnotnull|iszeroornull|length|lengthutf8|empty|notempty|char_length"
    r"|(global)?(not)?(null)?in(ignoreset)?|exists"
    r"|now\w*|today|yesterday|date_?diff|date_?trunc|dateadd|datesub|age|timestamp|timezone\w*|utc_?timestamp"
    r"|(add|subtract)(years|quarters|months|weeks|days|hours|minutes|seconds|\w+seconds)|adddate|subdate"
    r"|makedate\w*|tostartof\w+|todayof\w+|tolastday\w+|tomonday|to(year|month|quarter|hour|minute|second|week|iso\w+|day\w*)"
    r"|toyyyymm\w*|torelative\w+num|tounixtimestamp\w*|fromunixtimestamp|year|month|day|hour|minute|second"
    r"|todate\w*|to[ui]*int\d+\w*|tofloat\d+\w*|tobool|tointerval\w+|touuid\w*|toipv[46]\w*"
    r"|parsedatetime\w*|rand|rand32|rand64|row_?number\w*|ignore|isconstant|version|currentdatabase"
    r"|cityhash64|siphash64|inthash\w+|xxhash\d+|farmhash64"
)
"""Functions whose result has a fixed size, and whose work does not grow with a constant argument."""
_BOUNDED = re.compile(
    r"_?cast|accuratecast\w*|array|tuple|map|concat\w*|tostring|if|multiif|casewith\w+|coalesce|ifnull|nullif"
    r"|assumenotnull|tonullable|materialize|identity|tupleelement|transform|range|tupleconcat"
    r"|arrayconcat|arrayjoin|arrayzip|arraypush\w+|formatdatetime|formatreadable\w+|bar|least|greatest|max2|min2|substring|substr|mid|left|right|\w+pad|repeat"
)
"""Functions whose work grows only with the bytes of their result, or with bytes copied for each row."""
_MEMBERSHIP = re.compile(r"(global)?(not)?(null)?in(ignoreset)?")
_CHOICES = re.compile(
    r"if|ifnotfinite|multiif|casewith\w+|coalesce|ifnull|nullif|and|or|xor|tupleelement|getsubcolumn|transform"
)
"""Functions whose result may be that of a constant argument alone."""
_CONSTANT = re.compile(
    r"ignore|indexhint|isconstant|isnull|isnotnull|isnullable|iszeroornull|totypename|tocolumntypename"
    r"|dumpcolumnstructure|getsizeofenumtype|defaultvalueofargumenttype|blocksize|tuplenames|exists"
    r"|(global)?(not)?(null)?inignoreset|firstnondefault|assumenotnull|randconstant|currentdatabase|version"
    r"|timezone|timezoneof|now|today|yesterday|bytesize"
)
"""Functions whose result may be constant although an argument is not."""
_COLUMN = "a constant column of a subquery"
_ROW_NUMBERS = re.compile(r"rand|rand32|rand64|row_?number\w*")


def objection(
    root: Node, is_aggregate: Callable[[str], bool], *, renames_columns: bool = True
) -> str | None:
    """Return why the statement is refused; None if it is allowed. Raises TooComplex.

    `renames_columns` is whether it may have aliases of tables with names of columns, `AS t(a, b)`.
    """
    try:
        return _Constants(root, is_aggregate, renames_columns).objection()
    except RecursionError as error:
        raise TooComplex from error


class _Constants:
    """Search for expressions of one query tree that may be long constants."""

    def __init__(
        self, root: Node, is_aggregate: Callable[[str], bool], renames_columns: bool
    ) -> None:
        self._root = root
        self._is_aggregate = is_aggregate
        self._renames_columns = renames_columns
        self._tables = {node.facts["cte_name"] for node in root.walk() if "cte_name" in node.facts}
        self._steps = 0
        self._aliases: dict[str, list[Node]] = {}
        self._constant_names: set[str] = set()
        self._has_constant_columns = False
        self._varying: dict[Node, bool] = {}

    def objection(self) -> str | None:
        calls = [call for call in self._root.walk() if self._is_search(call)]
        if not calls:
            return None
        for call in calls:
            for argument in call.list_of("ARGUMENTS"):
                if argument.kind == "CONSTANT" and not _is_short(argument):
                    return _refusal(call, "a long literal")
        self._find_names()
        found = [each for node in self._root.walk() if (each := self._long_constant(node))]
        # The last one is the innermost.
        return _refusal(calls[0], found[-1]) if found else None

    def _is_search(self, call: Node) -> bool:
        if call.kind != "FUNCTION":
            return False
        name = call.facts["function_name"].lower()
        if _MEMBERSHIP.fullmatch(name):
            return self._is_search_of_array(call)
        if (
            _FIXED.fullmatch(name)
            or _BOUNDED.fullmatch(name)
            or name in HIGHER_ORDER
            or self._is_aggregate(name)
        ):
            return False
        arguments = call.list_of("ARGUMENTS")
        others = [each for each in arguments if each.kind != "CONSTANT" and not _is_short(each)]
        is_long = any(each.kind == "CONSTANT" and not _is_short(each) for each in arguments)
        return len(others) > 1 or (len(others) == 1 and is_long)

    def _is_search_of_array(self, call: Node) -> bool:
        """Return whether IN may compare each element for each row, as it does with tuples and texts."""
        given = call.list_of("ARGUMENTS")
        sought = given[-1]
        if _is_short(given[0]):
            return False
        if sought.kind == "IDENTIFIER":
            name = sought.facts["identifier"]
            return name not in self._tables and not self._is_short_name(name)
        return sought.kind == "FUNCTION" and not _is_list(sought)

    def _is_short_name(self, name: str) -> bool:
        """Return whether the name is that of short literals, and of no renamed column."""
        nodes = list(self._root.walk())
        queries = (each for each in nodes if each.kind in ("QUERY", "UNION"))
        if any(map(self._can_be_renamed, queries)):
            return False
        named = [each for each in nodes if each.facts.get("alias") == name]
        return bool(named) and all(map(_is_short, named))

    def _find_names(self) -> None:
        for node in self._root.walk():
            alias = node.facts.get("alias")
            is_table = node.section in TABLE_SECTIONS
            if alias and node.kind in _EXPRESSIONS and not is_table:
                self._aliases.setdefault(alias, []).append(node)
        columns = [
            item
            for node in self._root.walk()
            if node.kind == "QUERY" and _is_source(node)
            for item in node.list_of("PROJECTION")
        ]
        while True:
            self._varying.clear()
            found = {
                name
                for name, nodes in self._aliases.items()
                if name not in self._constant_names
                and not all(self._varies(node) for node in nodes)
            }
            has_constant_columns = not all(map(self._varies, columns))
            if not found and has_constant_columns == self._has_constant_columns:
                return
            self._constant_names |= found
            self._has_constant_columns |= has_constant_columns

    def _varies(self, node: Node) -> bool:
        """Return whether the value certainly is a column's, and is thus copied for each row."""
        known = self._varying.get(node)
        if known is None:
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise TooComplex
            known = self._varying[node] = self._find_varies(node)
        return known

    def _find_varies(self, node: Node) -> bool:
        if node.kind == "MATCHER":
            # It may stand for any column, short constants too: range(COLUMNS('^i$') * 100000).
            return not self._has_constant_columns
        if node.kind == "IDENTIFIER":
            parts = node.facts["identifier"].split(".")
            # Virtual columns such as _table are constants.
            return not any(part in self._constant_names or part.startswith("_") for part in parts)
        if node.kind != "FUNCTION":
            return False
        name = node.facts["function_name"].lower()
        values = [each for each in node.list_of("ARGUMENTS") if each.kind != "LAMBDA"]
        if self._is_aggregate(name):
            return all(each.kind == "CONSTANT" or self._varies(each) for each in values)
        if name == "materialize" or _ROW_NUMBERS.fullmatch(name):
            return True
        if _CONSTANT.fullmatch(name) or len(values) <= name.startswith("concat"):
            return False
        varying = [self._varies(each) for each in values]
        if _CHOICES.fullmatch(name) or not any(varying):
            return all(varying)
        # A constant NULL makes the result of most functions constant.
        return all(
            varies or self._is_value(each) for varies, each in zip(varying, values, strict=True)
        )

    def _is_value(self, node: Node) -> bool:
        """Return whether the node is made of literals, and certainly not NULL."""
        if node.kind == "IDENTIFIER":
            name = node.facts["identifier"]
            named = [
                each
                for known in {name, name.rpartition(".")[2]}
                for each in self._aliases.get(known, [])
            ]
            return bool(named) and all(
                each.kind == "CONSTANT" and self._is_value(each) for each in named
            )
        if node.kind == "CONSTANT":
            return "null" not in node.facts["constant_value"].lower()
        if node.kind != "FUNCTION":
            return False
        name = node.facts["function_name"].lower()
        is_known = bool(_PLAIN.fullmatch(name) or _FIXED.fullmatch(name))
        return (
            is_known
            and not name.endswith("ornull")
            and all(self._is_value(each) for each in node.list_of("ARGUMENTS"))
        )

    def _long_constant(self, node: Node) -> str | None:
        """Return a description of the node if it may be a long constant, or the source of one."""
        if node.kind == "FUNCTION":
            name = node.facts["function_name"]
            is_fixed = _FIXED.fullmatch(name.lower()) or self._is_aggregate(name)
            is_source = not is_fixed and not _is_short(node) and not self._varies(node)
            return f"{name}(…)" if is_source and not (_is_list(node) and _is_set(node)) else None
        if node.kind in ("QUERY", "UNION") and _is_scalar(node):
            return "a scalar subquery"
        if node.kind == "CONSTANT" and node.facts.get("alias") and not _is_short(node):
            return "a long literal"
        if node.kind == "QUERY" and _is_source(node):
            items = node.list_of("PROJECTION")
            is_known = all(self._varies(each) or self._is_named(node, each) for each in items)
            return None if is_known else _COLUMN
        if node.kind == "APPLY COLUMN TRANSFORMER":
            return "APPLY"
        if node.kind == "REPLACE COLUMN TRANSFORMER":
            return None if all(map(self._varies, node.children)) else "a constant in REPLACE"
        return None

    def _is_named(self, query: Node, item: Node) -> bool:
        """Return whether other queries know the item, which is short, by its own name only."""
        if query.section not in TABLE_SECTIONS or self._can_be_renamed(query):
            return False
        return item.kind == "MATCHER" or ("alias" in item.facts and _is_short(item))

    def _can_be_renamed(self, query: Node) -> bool:
        """Return whether the columns may have other names outside, which this tree does not show."""
        return "cte_name" in query.facts or ("alias" in query.facts and self._renames_columns)


def _refusal(call: Node, constant: str) -> str:
    advice = f"write a literal of at most {SHORT_CHARACTERS} characters, or x IN (…)"
    if constant == _COLUMN:
        advice = (
            "write the constant itself where it is used, such as a[1], or let the subquery stand in "
            "FROM, not in WITH or UNION, and name the constant there: (SELECT 1 AS n, …) AS t"
        )
    return (
        f"the function {call.facts['function_name']} is not allowed together with {constant}, which may "
        f"be a long constant that it searches for each row: {advice}"
    )


def _is_short(node: Node) -> bool:
    """Return whether the node is made of literals that are short together."""
    length = _length(node)
    return length is not None and length <= SHORT_CHARACTERS


def _length(node: Node) -> int | None:
    if node.kind == "CONSTANT":
        return len(node.facts["constant_value"])
    if node.kind != "FUNCTION" or not _PLAIN.fullmatch(node.facts["function_name"].lower()):
        return None
    total = 1
    for argument in node.list_of("ARGUMENTS"):
        length = _length(argument)
        if length is None:
            return None
        total += length
    return total


def _is_set(node: Node) -> bool:
    """Return whether the node is the right side of IN."""
    call = node.parent.parent if node.parent else None
    if call is None or call.kind != "FUNCTION":
        return False
    siblings = call.list_of("ARGUMENTS")
    is_membership = _MEMBERSHIP.fullmatch(call.facts["function_name"].lower()) is not None
    return is_membership and siblings[-1] is node


def _is_list(node: Node) -> bool:
    """Return whether the statement writes the elements one by one."""
    return node.kind == "FUNCTION" and node.facts["function_name"] in ("tuple", "array")


def _is_scalar(node: Node) -> bool:
    """Return whether a query stands for a value."""
    above = node.parent
    if above is None or node.section in TABLE_SECTIONS or "cte_name" in node.facts:
        return False
    owner = above.parent if above.kind == "LIST" else above
    if owner is None or above.section == "QUERIES" or owner.kind == "TABLE_FUNCTION":
        return False
    if owner.kind == "FUNCTION" and "alias" not in node.facts:
        return not _FIXED.fullmatch(owner.facts["function_name"].lower())
    return True


def _is_source(node: Node) -> bool:
    """Return whether columns of the query have names in other queries."""
    above = node.parent
    while above is not None and above.section == "QUERIES" and above.parent is not None:
        node, above = above.parent, above.parent.parent
    return above is not None and not _is_set(node) and not _is_scalar(node)
