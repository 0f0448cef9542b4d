"""Arguments of functions for function_growth.py: written down, and from ClickHouse's own examples."""

import itertools
import random
import re
from collections.abc import Iterator, Sequence

SIZED = {
    "text": "repeat('a', {n})",
    "words": "repeat('ab ', {n})",
    "digits": "repeat('1', {n})",
    "random text": "randomPrintableASCII({n})",
    "url": "repeat('/a.b?c=d&', {n})",
    "markup": "repeat('<a&amp;', {n})",
    "umlauts": "repeat('\u00e9a', {n})",
    "nested JSON": "repeat('[', {n}) || repeat(']', {n})",
    "JSON text": "'{{\"k' || arrayStringConcat(range({n}), '\":1,\"k') || '\":1}}'",
    "JSON": "CAST('{{\"k' || arrayStringConcat(range(least({n}, 900)), '\":1,\"k') || '\":1}}', 'JSON')",
    "integers": "range({n})",
    "equal integers": "arrayWithConstant({n}, 1)",
    "signed integers": "arrayMap(i -> toInt32(i % 1000) - 500, range({n}))",
    "bytes": "arrayMap(i -> toUInt8(i % 2), range({n}))",
    "floats": "arrayMap(i -> toFloat64(sipHash64(i) % 1000), range({n}))",
    "small floats": "arrayMap(i -> toFloat32(i / {n}), range({n}))",
    "texts": "arrayMap(i -> toString(i), range({n}))",
    "points": "arrayMap(i -> (toFloat64(i % 180), toFloat64(i % 90)), range({n}))",
    "polygon": "[arrayMap(i -> (cos(i * 6.28 / {n}), sin(i * 6.28 / {n})), range({n}))]",
    "polygons": "[[arrayMap(i -> (cos(i * 6.28 / {n}), sin(i * 6.28 / {n})), range({n}))]]",
    "arrays": "arrayMap(i -> [i, i + 1], range({n}))",
    "rows of floats": "arrayMap(i -> [toFloat64(i), 0.5], range({n}))",
    "times": "arrayMap(i -> toDateTime(i, 'UTC'), range({n}))",
    "dates": "arrayMap(i -> toDate(i % 60000), range({n}))",
    "maps": "arrayMap(i -> map(i, i), range({n}))",
    "bitmap": "bitmapBuild(range({n}))",
    "map": "mapFromArrays(range({n}), range({n}))",
    "text map": "mapFromArrays(arrayMap(i -> toString(i), range({n})), "
    "arrayMap(i -> toString(i), range({n})))",
    "array tuple": "(range({n}), range({n}))",
    "state": "arrayReduce('uniqExactState', range({n}))",
    "number": "toUInt64({n})",
    "short number": "toUInt16(least({n}, 65535))",
    "byte": "toUInt8(least({n}, 255))",
    "literal": "{n}",
    "signed number": "toInt32({n})",
    "float number": "toFloat64({n})",
    "big number": "toUInt256(pow(2, least({n}, 250)))",
    "decimal": "toDecimal256({n}, 2)",
}
"""Expressions of {n} elements."""
_VECTOR = "numericIndexedVectorBuild(mapFromArrays(range({n}), range({n})))"
SIZED["vector"] = _VECTOR
_WKT_POINTS = "arrayStringConcat(arrayMap(i -> '1 ' || toString(i), range({n})), ',')"
SIZED["WKT line"] = f"'LINESTRING (' || {_WKT_POINTS} || ')'"
SIZED["WKT polygon"] = f"'POLYGON ((' || {_WKT_POINTS} || ', 1 0))'"
SIZED["WKT lines"] = f"'MULTILINESTRING ((' || {_WKT_POINTS} || '))'"
SIZED["WKT polygons"] = f"'MULTIPOLYGON (((' || {_WKT_POINTS} || ', 1 0)))'"
SIZED["WKT points"] = f"'MULTIPOINT (' || {_WKT_POINTS} || ')'"
FIXED = [
    "1", "3", "-1", "0.5", "'a'", "','", "toDateTime(1700000000, 'UTC')", "toDate(19000)",
    "toDateTime64(1700000000, 3, 'UTC')", "'day'", "INTERVAL 1 SECOND", "[1, 2]", "['a', 'b']",
    "[0.5, 1.5]", "(1, 2)", "(0.5, 1.5, 2.5)", "true", "toUInt64(599686042433355775)",
    "'0123456789abcdef'", "'aes-128-ecb'", "'sha256'", "toIPv6('::1')", "generateUUIDv4()",
    "toDecimal64(1.5, 2)", "CAST(1, 'Dynamic')", "CAST('a', 'Enum8(\\'a\\' = 1)')",
]  # fmt: skip
LAMBDAS = [
    "x -> x", "x -> x % 2 = 0", "(x, y) -> x + y", "(k, v) -> v", "(k, v) -> (k, v)", "(a, x) -> a",
]  # fmt: skip
_KEY = "'0123456789abcdef'"
_CIPHERTEXT = f"encrypt('aes-128-ecb', repeat('a', {{n}}), {_KEY})"
KNOWN: dict[str, list[tuple[str, ...]]] = {
    "aes_encrypt_mysql": [("'aes-128-ecb'", "text", _KEY)],
    "aes_decrypt_mysql": [("'aes-128-ecb'", _CIPHERTEXT, _KEY)],
    "decrypt": [("'aes-128-ecb'", _CIPHERTEXT, _KEY)],
    "trydecrypt": [("'aes-128-ecb'", "text", _KEY)],
    "substringindex": [("url", "'/'", "number"), ("text", "'a'", "-1")],
    "substringindexutf8": [("url", "'/'", "number"), ("umlauts", "'a'", "-1")],
    "naivebayesngrams": [("words", "1", "'token'")],
    "convertcharset": [("text", "'utf-8'", "'utf-16'"), ("umlauts", "'utf-8'", "'utf-7'")],
    "conv": [("digits", "10", "16"), ("digits", "2", "36")],
    "timeslots": [("toDateTime(0, 'UTC')", "toUInt32({n})", "1")],
    "mapadd": [("map", "map")],
    "mapsubtract": [("map", "map")],
    "mapupdate": [("map", "map"), ("text map", "text map")],
    "subbitmap": [("bitmap", "1", "number")],
    "bitmapsubsetlimit": [("bitmap", "1", "number")],
    "bitmapsubsetinrange": [("bitmap", "1", "number")],
    "bitmaptransform": [("bitmap", "CAST([1], 'Array(UInt32)')", "CAST([2], 'Array(UInt32)')")],
    "isipaddressinrange": [("'127.0.0.1'", "'127.0.0.0/8'")],
    "datediff": [("'day'", "toDateTime(0, 'UTC')", "toDateTime(9, 'UTC')")],
    "base32decode": [("base32Encode(repeat('a', {n}))",)],
    "comparesubstrings": [("text", "text", "0", "0", "number")],
    "timeseriesrange": [("toDateTime(0, 'UTC')", "toDateTime({n}, 'UTC')", "1")],
    "timeseriesfromgrid": [
        ("toDateTime(0, 'UTC')", "toDateTime(99, 'UTC')", "1", "arrayWithConstant(100, 0.5)")
    ],
    "finalizeaggregation": [("arrayReduce('uniqExactState', range({n}))",)],
    "ipv6stringtonum": [("'::1'",)],
    "parsereadablesize": [("repeat('1', {n}) || ' KiB'",)],
    "initializeaggregation": [("'groupUniqArrayState'", "integers")],
    **{
        f"numericindexedvectorpointwise{name}": [("vector", "vector"), ("vector", "1")]
        for name in ["add", "greater", "greaterequal", "less", "multiply"]
    },
}
"""Arguments that neither random choice nor the examples give."""
ROWS = [
    "number", "number % 2", "toFloat64(sipHash64(number) % 1000)", "toDateTime(number, 'UTC')",
    "toString(number)", "[number, number + 1]", "[toFloat64(number)]", "map(number, number)",
    "toUInt8(number % 2)", "(number, number)", "number % 3 = 1", "number % 3 = 2",
    "toInt32(number % 100)", "CAST('{\"k' || toString(number) || '\":1}', 'JSON')",
    "bitmapBuild([number])", "([number], [number])",
]  # fmt: skip
"""Arguments of aggregate functions, over rows of `numbers`."""
PARAMETERS = [
    "", "(3)", "({n})", "(0.5)", "(10, 5)", "({n}, 0.5)", "(0.9, {n})", "(100)",
    "('(?1).*(?2).*(?1)')", "(0, {n}, 1)", "(0, 100000, 10, 30)", "(0, {n}, 1, {n})", "([1, 2])",
]  # fmt: skip
COMBINED = [
    (name, parameters.format(inner=inner, comma=", " if inner else ""), arguments)
    for base, inner in [
        ("sum", ""), ("uniqExact", ""), ("groupArray", ""), ("topK", "3"),
        ("quantileExactHigh", "0.5"), ("groupUniqArray", ""), ("anyHeavy", ""),
    ]
    for name, parameters, arguments in [
        (f"{base}If", "({inner})", ("number", "number % 2")),
        (f"{base}Array", "({inner})", ("[number, number + 1]",)),
        (f"{base}Distinct", "({inner})", ("number",)),
        (f"{base}ForEach", "({inner})", ("[number, number + 1]",)),
        (f"{base}ForEach", "({inner})", ("range(number % 100)",)),
        (f"{base}Map", "({inner})", ("map(number, number)",)),
        (f"{base}OrNull", "({inner})", ("number",)),
        (f"{base}OrDefault", "({inner})", ("number",)),
        (f"{base}State", "({inner})", ("number",)),
        (f"{base}Resample", "({inner}{comma}0, {{n}}, 1)", ("number", "number")),
        (f"{base}ArgMax", "({inner})", ("number", "number")),
        (f"{base}ResampleForEach", "({inner}{comma}0, 100, 1)", ("[number]", "[number]")),
    ]
]  # fmt: skip
"""Calls with combinators: functions, parameters and arguments."""

_QUERY = re.compile(r"```sql[^\n]*\n(.*?)```", re.DOTALL)
_MAX_PAIRS = 300
_MAX_LONGER = 100


def calls_in_examples(name: str, examples: str) -> list[list[tuple[str, ...]]]:
    """Return the calls of the function: for each the lists in parentheses that follow its name."""
    found = []
    for query in _QUERY.findall(examples):
        for match in re.finditer(rf"(?<![\w.`]){re.escape(name)}\s*(?=\()", query, re.IGNORECASE):
            lists, position = [], match.end()
            while query[position : position + 1] == "(":
                items, position = _items(query, position)
                if not position:
                    break
                lists.append(items)
            if lists and lists not in found:
                found.append(lists)
    return found


def _items(text: str, start: int) -> tuple[tuple[str, ...], int]:
    """Split at the commas within the parenthesis that opens at `start`; return its end too, or 0."""
    items, depth, begin, position = [], 0, start + 1, start
    while position < len(text):
        each = text[position]
        if each in "'\"`":
            position = _end_of_quoted(text, position)
        elif each in "([{":
            depth += 1
        elif each in ")]}":
            depth -= 1
            if depth == 0:
                items.append(text[begin:position].strip())
                return tuple(item for item in items if item), position + 1
        elif each == "," and depth == 1:
            items.append(text[begin:position].strip())
            begin = position + 1
        position += 1
    return (), 0


def _end_of_quoted(text: str, start: int) -> int:
    position = start + 1
    while position < len(text) and text[position] != text[start]:
        position += 2 if text[position] == "\\" else 1
    return position


def substitutes(arguments: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the arguments with a sized one in place of each."""
    for place, sized in itertools.product(range(len(arguments)), SIZED):
        if "->" not in arguments[place]:
            yield (*arguments[:place], sized, *arguments[place + 1 :])


def random_arguments(choose: random.Random) -> Iterator[tuple[str, ...]]:
    """Yield arguments to try, shorter lists first."""
    every = [*SIZED, *FIXED]
    yield ()
    yield from ((one,) for one in every)
    yield from choose.sample(list(itertools.product(every, repeat=2)), _MAX_PAIRS)
    for count, tries in ((3, _MAX_LONGER), (4, _MAX_LONGER // 2), (5, _MAX_LONGER // 3)):
        yield from (tuple(choose.choices(every, k=count)) for _ in range(tries))
    yield from itertools.product(LAMBDAS, SIZED)
    yield from itertools.product(LAMBDAS, ["integers", "floats", "map"], ["integers", "map", "3"])
