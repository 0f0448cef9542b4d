"""What a statement of raw SQL may be made of: kinds of nodes, table functions, tables made of nothing.

Names as ClickHouse prints them; refuses to know how they are found in its output.
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
TABLE_PLACES = frozenset(
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
"""Made of nothing; `system.one` is what a SELECT without FROM reads."""

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
"""Functions whose first argument may be the name of a function: `arrayMap(file, paths)` calls `file`."""
