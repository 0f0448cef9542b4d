"""Statements with their output of EXPLAIN AST, which an integration test compares with ClickHouse's."""

ALLOWED = {
    "SELECT 1": """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal UInt64_1""",
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x": """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 3)
   ExpressionList (children 1)
    WithElement (children 1)
     Subquery (children 1)
      SelectWithUnionQuery (children 1)
       ExpressionList (children 1)
        SelectQuery (children 1)
         ExpressionList (children 1)
          Literal UInt64_1 (alias a)
   ExpressionList (children 1)
    Identifier a
   TablesInSelectQuery (children 1)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      TableIdentifier x""",
    "SELECT 1 UNION ALL SELECT 2": """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 2)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal UInt64_1
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal UInt64_2""",
    "(SELECT 1);": """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal UInt64_1""",
    "SELECT 'DROP TABLE x; SYSTEM STOP MERGES' -- INSERT": """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal 'DROP TABLE x; SYSTEM STOP MERGES'""",
    "FROM numbers(2) SELECT number": """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 2)
   ExpressionList (children 1)
    Identifier number
   TablesInSelectQuery (children 1)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      Function numbers (children 1)
       ExpressionList (children 1)
        Literal UInt64_2""",
    "SELECT 'a\n Set'": """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal 'a\\n Set'""",
}

FORBIDDEN = {
    "INSERT INTO t VALUES (1)": (
        """\
InsertQuery   (children 1)
 Identifier t""",
        "this is InsertQuery",
    ),
    "SYSTEM STOP MERGES": (
        """\
SYSTEM query""",
        "this is SYSTEM",
    ),
    "KILL QUERY WHERE 1": (
        """\
KillQueryQuery Literal_UInt64_1 ASYNC (children 1)
 Literal UInt64_1""",
        "this is KillQueryQuery",
    ),
    "SET max_threads = 1": (
        """\
Set""",
        "this is Set",
    ),
    "USE system": (
        """\
UseQuery system (children 1)
 Identifier system""",
        "this is UseQuery",
    ),
    "SHOW TABLES": (
        """\
ShowTables""",
        "this is ShowTables",
    ),
    "DESCRIBE TABLE t": (
        """\
DescribeQuery (children 1)
 TableExpression (children 1)
  TableIdentifier t""",
        "unknown table t",
    ),
    "EXPLAIN SELECT 1": (
        """\
Explain EXPLAIN (children 1)
 SelectWithUnionQuery (children 1)
  ExpressionList (children 1)
   SelectQuery (children 1)
    ExpressionList (children 1)
     Literal UInt64_1""",
        "this is Explain",
    ),
    "CREATE TABLE x (a Int8) ENGINE = Memory": (
        """\
CreateQuery x (children 3)
 Identifier x
 Columns definition (children 1)
  ExpressionList (children 1)
   ColumnDeclaration a (children 1)
    DataType Int8
 Storage definition (children 1)
  Function Memory""",
        "this is CreateQuery",
    ),
    "DROP TABLE t": (
        """\
DropQuery  t (children 1)
 Identifier t""",
        "this is DropQuery",
    ),
    "SELECT 1 PARALLEL WITH SELECT 2": (
        """\
ParallelWithQuery 2 SelectWithUnionQuery (children 2)
 SelectWithUnionQuery (children 1)
  ExpressionList (children 1)
   SelectQuery (children 1)
    ExpressionList (children 1)
     Literal UInt64_1
 SelectWithUnionQuery (children 1)
  ExpressionList (children 1)
   SelectQuery (children 1)
    ExpressionList (children 1)
     Literal UInt64_2""",
        "this is ParallelWithQuery",
    ),
    "graph = 1 SELECT 1": (
        """\
digraph {
    rankdir="UD";
}""",
        "this is digraph",
    ),
    "SELECT 1 FORMAT CSV": (
        """\
SelectWithUnionQuery (children 2)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal UInt64_1
 Identifier CSV""",
        "INTO OUTFILE and FORMAT",
    ),
    "SELECT 1 INTO OUTFILE '/tmp/x'": (
        """\
SelectWithUnionQuery (children 2)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Literal UInt64_1
 Literal '/tmp/x'""",
        "INTO OUTFILE and FORMAT",
    ),
    "SELECT 1 SETTINGS max_threads = 1": (
        """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 2)
   ExpressionList (children 1)
    Literal UInt64_1
   Set""",
        "SETTINGS clause",
    ),
    "SELECT * FROM (SELECT 1 SETTINGS max_threads = 1)": (
        """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 2)
   ExpressionList (children 1)
    Asterisk
   TablesInSelectQuery (children 1)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      Subquery (children 1)
       SelectWithUnionQuery (children 1)
        ExpressionList (children 1)
         SelectQuery (children 2)
          ExpressionList (children 1)
           Literal UInt64_1
          Set""",
        "SETTINGS clause",
    ),
    "SELECT file('/etc/passwd')": (
        """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Function file (children 1)
     ExpressionList (children 1)
      Literal '/etc/passwd'""",
        "function file",
    ),
    "SELECT arrayMap(x -> `file`(x), ['/etc/passwd'])": (
        """\
SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 1)
   ExpressionList (children 1)
    Function arrayMap (children 1)
     ExpressionList (children 2)
      Function lambda (children 1)
       ExpressionList (children 2)
        Function tuple (children 1)
         ExpressionList (children 1)
          Identifier x
        Function file (children 1)
         ExpressionList (children 1)
          Identifier x
      Literal Array_['/etc/passwd']""",
        "function file",
    ),
}
