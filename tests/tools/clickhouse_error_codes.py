"""Cause the errors of ClickHouse that a row can raise in a column's default, a constraint or a cast.

    python -m tests.tools.clickhouse_error_codes

Prints each with its code and what a worker does about it: `data` sends the row to the dead-letter topic,
`wait` repeats the insert. Run it with a new version of ClickHouse and look at what waits.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse import schema
from octane_analytics.clickhouse.inserts import ClickHouseSink
from octane_analytics.errors import DataRejected, OctaneError, StatementRejected
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings


class Case(NamedTuple):
    expression: str
    """Expression over the row's `user_id`."""
    kind: str
    """Type of the column with this default; empty for a constraint."""
    text: str = "x"
    is_quotable: bool = True
    """True if any other text with this prefix fails in the same way."""


DATA_CASES = (
    Case("toUInt64(user_id)", "UInt64"),
    Case("toUInt64(user_id)", "UInt64", "-1", is_quotable=False),
    Case("toFloat64(user_id)", "Float64"),
    Case("toDecimal32(user_id, 2)", "Decimal32(2)"),
    Case("toDecimal32(user_id, 2)", "Decimal32(2)", "9" * 20, is_quotable=False),
    Case("toDate(user_id)", "Date"),
    Case("toDateTime(user_id)", "DateTime"),
    Case("toDateTime64(user_id, 3)", "DateTime64(3)"),
    Case("parseDateTimeBestEffort(user_id)", "DateTime"),
    Case("parseDateTime(user_id, '%Y')", "DateTime"),
    Case("toUUID(user_id)", "UUID"),
    Case("toIPv4(user_id)", "IPv4"),
    Case("toIPv6(user_id)", "IPv6"),
    Case("CAST(user_id AS Bool)", "Bool"),
    Case("CAST(user_id AS Array(UInt8))", "Array(UInt8)"),
    Case("CAST(user_id AS Array(UInt8))", "Array(UInt8)", "[", is_quotable=False),
    Case("CAST(user_id AS Tuple(UInt8, UInt8))", "Tuple(UInt8, UInt8)"),
    Case("CAST(user_id AS Tuple(UInt8, UInt8))", "Tuple(UInt8, UInt8)", "(", is_quotable=False),
    Case("CAST(user_id AS Enum8('a' = 1))", "Enum8('a' = 1)"),
    Case("CAST(user_id AS JSON)", "JSON"),
    Case("CAST(user_id AS Variant(UInt8, Array(UInt8)))", "Variant(UInt8, Array(UInt8))"),
    Case("toFixedString(user_id, 2)", "FixedString(2)", "abc"),
    Case("base64Decode(user_id)", "String", "!"),
    Case("base58Decode(user_id)", "String", "-"),
    Case("decrypt('aes-128-ecb', user_id, '1234567890123456')", "String", is_quotable=False),
    Case("match('a', user_id)", "UInt8", "*"),
    Case("accurateCast(length(user_id) * 1000, 'UInt8')", "UInt8"),
    Case("CAST(nullIf(user_id, user_id) AS String)", "String"),
    Case("intDiv(1, length(user_id) - length(user_id))", "UInt8"),
    Case("throwIf(user_id != '')", "UInt8"),
    Case("bitTest(length(user_id), 700)", "UInt8"),
    Case("arrayDotProduct([1, 2], range(length(user_id)))", "UInt64", is_quotable=False),
    Case("arrayResize(['a'], 2000000000 * length(user_id))", "Array(String)", is_quotable=False),
    Case("range(1000000000 * length(user_id))", "Array(UInt64)", is_quotable=False),
    Case("toDecimal64(10000000, 10) * toDecimal64(length(user_id) * 1000000, 8)", "Decimal64(18)",
         is_quotable=False),
    Case("user_id = ''", ""),
    Case("lower(user_id) = 'nobody'", ""),
)  # fmt: skip
"""Errors of the value, independent of the table's definition for other values."""
UNDECIDED_CASES = (
    Case("readWKT(user_id)", "Geometry"),
    Case("replaceRegexpAll('a', user_id, 'b')", "String", "["),
    Case("stringToH3(user_id)", "UInt64"),
    Case("printf(user_id, 1)", "String"),
    Case("dateName(user_id, timestamp)", "String"),
    Case("toUInt64(file(user_id))", "UInt64"),
)
"""Errors whose codes also mean a wrong definition, which no row causes: the worker waits."""


class Provoked(NamedTuple):
    case: Case
    code: int
    kind: str
    """`data`, `wait`, or `stored` where nothing failed."""
    message: str


class Bench:
    """The table of events, redefined for each case. Not thread-safe."""

    def __init__(self, sink: ClickHouseSink) -> None:
        self._sink = sink
        self._constraints: set[Case] = set()
        sink.execute(schema.create_table(sink.table))

    def define(self, case: Case) -> bool:
        """Return whether this version of ClickHouse accepts the definition."""
        table = self._sink.table
        statement = f"ADD COLUMN provoked {case.kind} DEFAULT {case.expression}"
        if not case.kind:
            statement = f"ADD CONSTRAINT provoked CHECK {case.expression}"
        try:
            self._sink.execute(f"ALTER TABLE {table} {statement}")
        except StatementRejected:
            return False
        return True

    def undefine(self, case: Case) -> None:
        what = "COLUMN" if case.kind else "CONSTRAINT"
        self._sink.execute(f"ALTER TABLE {self._sink.table} DROP {what} provoked")

    def insert(self, case: Case, text: str | None = None) -> Provoked:
        user = case.text if text is None else text
        row = ([int(time.time())], ["app"], ["event"], [user], [b"{}"])
        try:
            self._sink.insert_block(row, "token", None)
        except OctaneError as error:
            cause = error.__cause__
            code = cause.code if isinstance(cause, driver_errors.ServerException) else 0
            kind = "data" if isinstance(error, DataRejected) else "wait"
            return Provoked(case, code or 0, kind, str(error))
        return Provoked(case, 0, "stored", "")


def provoke(sink: ClickHouseSink, cases: Sequence[Case]) -> Iterator[Provoked]:
    """Yield the outcome of each case that this version of ClickHouse supports."""
    bench = Bench(sink)
    for case in cases:
        if bench.define(case):
            yield bench.insert(case)
            bench.undefine(case)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, EmbeddedClickHouse(Path(directory)) as engine:
        settings = ClickHouseSettings(host=engine.host, port=engine.tcp_port)
        with ClickHouseSink(settings, client_name="error codes") as sink:
            for found in provoke(sink, DATA_CASES + UNDECIDED_CASES):
                name = sink.select("SELECT errorCodeToName({n:Int32})", {"n": found.code}).rows[0][
                    0
                ]
                print(f"{found.kind:<6} {found.code:>4} {name:<38} {found.case.expression}")


if __name__ == "__main__":
    main()
