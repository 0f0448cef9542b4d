"""Time zones and names of types, which ClickHouse resolves while it analyses a statement.

A time zone `file:PATH` opens that file of the server; a named pipe then holds the lock of all time zones
for good: no limit of a query ends that, and every report needs a time zone. A type may hold a zone, a
regular expression (`JSON(SKIP REGEXP …)`) or an aggregate function, whose state ClickHouse reads from
any text without checks. Does not depend on the query tree.
"""

import re
from collections.abc import Mapping

from octane_analytics.api.timestamps import timezones

LAST = -1
MAX_DEPTH = 100

_PARAMETRIC = frozenset(
    [
        "array",
        "binary",
        "char",
        "character",
        "datetime",
        "datetime32",
        "datetime64",
        "dec",
        "decimal",
        "decimal32",
        "decimal64",
        "decimal128",
        "decimal256",
        "dynamic",
        "enum",
        "enum8",
        "enum16",
        "fixed",
        "fixedstring",
        "int",
        "int1",
        "integer",
        "json",
        "lowcardinality",
        "map",
        "mediumint",
        "nchar",
        "nested",
        "nullable",
        "numeric",
        "qbit",
        "smallint",
        "time",
        "time64",
        "timestamp",
        "tinyint",
        "tuple",
        "varbinary",
        "varchar",
        "variant",
        "bigint",
    ]
)
"""Names that may precede a parenthesis. Without `AggregateFunction` and `SimpleAggregateFunction`."""
_ENUMS = frozenset({"enum", "enum8", "enum16"})
_ZONED = frozenset({"datetime", "datetime32", "datetime64", "timestamp"})
_TOKEN = re.compile(
    r"""\s*(?:(?P<word>\w+)|(?P<text>'(?:[^'\\]|\\.)*')|(?P<other>`[^`\\]*`|"[^"\\]*"|-?\d+|[(),=.]))"""
)
_TYPE_IN_NAME = re.compile(r"(date|time)\w*\s*\(.*['\"]", re.IGNORECASE | re.DOTALL)
_ZONE = "its time zone must be an IANA name such as 'Europe/Berlin', as a literal or a parameter"
_TYPE = "its type must be a literal"

_ZONES: Mapping[int, str] = {
    0: "current_timestamp localtimestamp now nowinblock",
    1: (
        "date day dayofmonth dayofyear from_utc_timestamp fromunixtimestamp64micro "
        "fromunixtimestamp64milli fromunixtimestamp64nano fromunixtimestamp64second "
        "fromutctimestamp hour last_day microsecond millisecond minute month nanosecond now64 "
        "nowinblock64 parsedatetime32besteffort parsedatetime32besteffortornull "
        "parsedatetime32besteffortorzero parsedatetimebesteffort parsedatetimebesteffortornull "
        "parsedatetimebesteffortorzero parsedatetimebesteffortus parsedatetimebesteffortusornull "
        "parsedatetimebesteffortusorzero quarter second timeslot timezoneoffset to_days "
        "to_utc_timestamp todate todate32 todatetime todatetime32 todatetimeordefault "
        "todatetimeornull todatetimeorzero todayofmonth todayofyear todaysinmonth "
        "todayssinceyearzero tohour toisoweek toisoyear tolastdayofmonth tomicrosecond "
        "tomillisecond tominute tomonday tomonth tomonthnumsinceepoch tonanosecond toquarter "
        "torelativedaynum torelativehournum torelativeminutenum torelativemonthnum "
        "torelativequarternum torelativesecondnum torelativeweeknum torelativeyearnum tosecond "
        "tostartofday tostartoffifteenminutes tostartoffiveminute tostartoffiveminutes "
        "tostartofhour tostartofisoyear tostartofmicrosecond tostartofmillisecond tostartofminute "
        "tostartofmonth tostartofnanosecond tostartofquarter tostartofsecond tostartoftenminutes "
        "tostartofyear tostring totimewithfixeddate totimezone tounixtimestamp toutctimestamp "
        "toyear toyearnumsinceepoch toyyyymm toyyyymmdd toyyyymmddhhmmss uuidv7todatetime year "
        "yyyymmddhhmmsstodatetime"
    ),
    2: (
        "adddays addhours addmicroseconds addmilliseconds addminutes addmonths addnanoseconds "
        "addquarters addseconds addweeks addyears date_bin date_format date_trunc datename "
        "datetrunc dayofweek formatdatetime formatdatetimeinjodasyntax from_unixtime "
        "fromunixtimestamp fromunixtimestampinjodasyntax parsedatetime parsedatetime64 "
        "parsedatetime64besteffort parsedatetime64besteffortornull parsedatetime64besteffortorzero "
        "parsedatetime64besteffortus parsedatetime64besteffortusornull "
        "parsedatetime64besteffortusorzero parsedatetime64injodasyntax "
        "parsedatetime64injodasyntaxornull parsedatetime64injodasyntaxorzero parsedatetime64ornull "
        "parsedatetime64orzero parsedatetimebesteffort parsedatetimebesteffortornull "
        "parsedatetimebesteffortorzero parsedatetimeinjodasyntax parsedatetimeinjodasyntaxornull "
        "parsedatetimeinjodasyntaxorzero parsedatetimeornull parsedatetimeorzero "
        "snowflakeidtodatetime snowflakeidtodatetime64 str_to_date subtractdays subtracthours "
        "subtractmicroseconds subtractmilliseconds subtractminutes subtractmonths "
        "subtractnanoseconds subtractquarters subtractseconds subtractweeks subtractyears "
        "time_bucket to_unixtime todatetime todatetime64 todatetime64ordefault todatetime64ornull "
        "todatetime64orzero todatetimeordefault todayofweek tostartofinterval toweek toyearweek "
        "tumble tumbleend tumblestart week yearweek yyyymmddhhmmsstodatetime64"
    ),
    3: (
        "age date_bin date_diff datediff hop hopend hopstart time_bucket timestamp_diff "
        "timestampdiff tostartofinterval"
    ),
    6: "makedatetime",
    8: "makedatetime64",
}
"""Functions with a time zone at an index; tests/integration/test_raw_sql_types.py finds them all."""
_ZONE_PLACES: Mapping[str, frozenset[int]] = {
    name: frozenset(place for place, names in _ZONES.items() if name in names.split())
    for name in " ".join(_ZONES.values()).split()
}
_JODA = frozenset(
    f"parsedatetime{precision}injodasyntax{suffix}"
    for precision in ("", "64")
    for suffix in ("", "ornull", "orzero")
)
_TYPE_PLACES: Mapping[str, int] = {
    **dict.fromkeys(
        [
            "_cast",
            "accuratecast",
            "accuratecastordefault",
            "accuratecastornull",
            "cast",
            "dynamicelement",
            "getsubcolumn",
            "reinterpret",
            "tupleelement",
            "variantelement",
        ],
        1,
    ),
    **dict.fromkeys(
        [
            "jsonextract",
            "jsonextractcaseinsensitive",
            "jsonextractkeysandvalues",
            "jsonextractkeysandvaluescaseinsensitive",
        ],
        LAST,
    ),
    "defaultvalueoftypename": 0,
}
_PATHS = frozenset({"getsubcolumn", "tupleelement", "variantelement"})
"""Functions whose text is the name of an element or a path, of which a type may be a part."""


def is_type(text: str) -> bool:
    """Return whether the text is built of plain types, with known time zones."""
    owners: list[str] = []
    word, position, end = "", 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if not match:
            return False
        position = match.end()
        sign = match["other"]
        if sign == "(":
            owners.append(word)
            if word not in _PARAMETRIC or len(owners) > MAX_DEPTH:
                return False
        elif sign == ")":
            if not owners:
                return False
            owners.pop()
        elif match["text"] and not _is_text(match["text"][1:-1], owners[-1] if owners else ""):
            return False
        word = (match["word"] or "").lower()
    return not owners


def objection_to_name(name: str) -> str | None:
    """Return what is wrong with a quoted name: the path of a JSON value may end with a type."""
    if not _TYPE_IN_NAME.search(name):
        return None
    return "looks like a type with a time zone"


def is_special(function: str) -> bool:
    """Return whether an argument of the function, in lower case, is restricted."""
    return function in _TYPE_PLACES or function in _ZONE_PLACES or function in _JODA


def places(function: str, count: int) -> list[int]:
    """Indexes of the restricted arguments of a call with `count` arguments."""
    found = set()
    name = function.lower()
    if name in _TYPE_PLACES:
        found.add(_TYPE_PLACES[name] % count if count else 0)
    found |= _ZONE_PLACES.get(name, frozenset())
    if name in _JODA:
        found.add(1)
    return sorted(place for place in found if place < count)


def objection(function: str, place: int, text: str | None, *, is_number: bool) -> str | None:
    """Return what is wrong with the argument at that place; None if it is allowed.

    `text` is None if the argument is not a literal string; `is_number` if it is another literal.
    """
    name = function.lower()
    if name in _JODA and place == 1:
        # A `z` reads the name of a time zone from the value.
        is_plain = text is not None and "z" not in text
        return None if is_plain else "its format must be a literal without `z`"
    if name in _TYPE_PLACES:
        if is_number and name in _PATHS:
            return None
        if text is None:
            return f"{_TYPE}, not an expression"
        if name in _PATHS:
            return None if "'" not in text and '"' not in text else f"{_TYPE} without quotes"
        return None if is_type(text) else f"{text[:80]!r} is not a plain type with known time zones"
    if is_number or (text is not None and text in timezones()):
        return None
    return _ZONE


def _is_text(text: str, owner: str) -> bool:
    if owner in _ENUMS:
        return True
    return owner in _ZONED and text in timezones()
