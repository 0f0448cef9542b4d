"""Allow-lists of raw SQL: node kinds, table functions, and tables without stored data.

Names are spelled as ClickHouse prints them. Does not depend on the format of its output.
"""

AST_NODES = frozenset(
    [
        "SelectWithUnionQuery",
        "SelectIntersectExceptQuery",
        "SelectQuery",
        "ExpressionList",
        "Literal",
        "Identifier",
        "TableIdentifier",
        "Function",
        "Asterisk",
        "QualifiedAsterisk",
        "TablesInSelectQuery",
        "TablesInSelectQueryElement",
        "TableExpression",
        "TableJoin",
        "ArrayJoin",
        "Subquery",
        "WithElement",
        "OrderByElement",
        "WindowDefinition",
        "WindowListElement",
        "InterpolateElement",
        "SampleRatio",
        "ColumnsTransformerList",
        "ColumnsApplyTransformer",
        "ColumnsExceptTransformer",
        "ColumnsReplaceTransformer",
        "ColumnsRegexpMatcher",
        "ColumnsListMatcher",
        "QualifiedColumnsRegexpMatcher",
        "QualifiedColumnsListMatcher",
        "ColumnsReplaceTransformer::Replacement",
        "StorageOrderByElement",
        "ExpressionElement",
        "NameTypePair",
        "DataType",
        "TupleDataType",
    ]
)
TABLE_SECTIONS = frozenset(
    {"JOIN TREE", "TABLE EXPRESSION", "LEFT TABLE EXPRESSION", "RIGHT TABLE EXPRESSION"}
)
TABLE_FUNCTIONS = frozenset(
    [
        "numbers",
        "numbers_mt",
        "zeros",
        "zeros_mt",
        "values",
        "generateseries",
        "generate_series",
        "null",
        "view",
    ]
)
ALWAYS_READABLE = frozenset(
    ("system", name) for name in ("one", "numbers", "numbers_mt", "zeros", "zeros_mt")
)
"""Tables without stored data; a SELECT without FROM reads `system.one`."""

HIGHER_ORDER = frozenset(
    [
        "arrayall",
        "arrayavg",
        "arraybottomk",
        "arraycompact",
        "arraycount",
        "arraycumsum",
        "arraycumsumnonnegative",
        "arraydifference",
        "arrayexists",
        "arrayfill",
        "arrayfilter",
        "arrayfirst",
        "arrayfirstindex",
        "arrayfirstornull",
        "arrayfold",
        "arraylast",
        "arraylastindex",
        "arraylastornull",
        "arraymap",
        "arraymax",
        "arraymin",
        "arraypartialreversesort",
        "arraypartialsort",
        "arrayproduct",
        "arrayreversefill",
        "arrayreversesort",
        "arrayreversesplit",
        "arraysort",
        "arraysplit",
        "arraysum",
        "arraytopk",
        "mapall",
        "mapapply",
        "mapexists",
        "mapfilter",
        "mappartialreversesort",
        "mappartialsort",
        "mapreversesort",
        "mapsort",
    ]
)
"""Functions whose first argument may be a function's name: `arrayMap(file, paths)` calls `file`."""
