"""Measure functions whose cost is worse than linear against the limits of a query.

    python -m tests.tools.function_limits [FUNCTION ...]

Each statement runs alone against a ClickHouse of its own, with `max_execution_time` of SECONDS and
`max_memory_usage` of BYTES. A function outlives its limits where the statement ends more than a second
late or the server's memory grows by more than a tenth beyond its limit; its server is then killed.
Prints a table in Markdown. function_growth.py, beside this file, measures all others with generated
arguments. Such functions do not belong into functions.txt, unless raw SQL bounds their
patterns (`octane_analytics.api.raw_sql.patterns`) or linear_functions.txt, beside this file, says why
they stay. Other processes make single runs late: repeat what is late.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from octane_analytics.clickhouse.client import ClickHouse
from octane_analytics.errors import OctaneError
from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from octane_analytics.settings.connections import ClickHouseSettings

SECONDS = 1.0
BYTES = 512 << 20
GRACE_SECONDS = 1.0
GIVE_UP_SECONDS = 6.0
_LIMIT_ERRORS = {0: "gave up", 159: "TIMEOUT_EXCEEDED", 241: "MEMORY_LIMIT_EXCEEDED"}
"""Code of a connection that was closed before the statement had ended."""
_POLYGONS = (
    "[[arrayMap(i -> (cos(i*2.1), sin(i*2.1)), range(4000))]], "
    "[[arrayMap(i -> (cos(i*2.3), sin(i*2.3)), range(4000))]]"
)
_RING = "[arrayMap(i -> (cos(i*2.1), sin(i*2.1)), range(4000))]"
_SETS = (
    "polygonsIntersectionCartesian polygonsIntersectionSpherical polygonsUnionCartesian "
    "polygonsUnionSpherical polygonsSymDifferenceCartesian polygonsSymDifferenceSpherical "
    "polygonsDistanceCartesian polygonsDistanceSpherical polygonsWithinCartesian "
    "polygonsWithinSpherical polygonsEqualsCartesian polygonsIntersectCartesian "
    "polygonsIntersectSpherical geometryIntersectCartesian geometryIntersectSpherical"
)
_TEXTS = "repeat('abcdefgh', 8000), repeat('hgfedcba', 8000)"
"""Length just below the limit of these functions, 65,536 bytes; the cost is the product of both."""
_EDITS = (
    "editDistance editDistanceUTF8 damerauLevenshteinDistance jaroSimilarity "
    "jaroWinklerSimilarity stringJaccardIndex ngramDistance hasSubsequence byteHammingDistance"
)
_LONG = "materialize(repeat('a', 1000000))"
_COSTLY = {
    "hmac": "hmac('sha256', 'k', toString(x))",
    "sqidEncode": "sqidEncode(x)",
    "parseReadableSizeOrNull": "parseReadableSizeOrNull(toString(x))",
    "parseReadableSizeOrZero": "parseReadableSizeOrZero(toString(x))",
}
"""Calls that cost microseconds each: a lambda's elements are one block, whatever their number."""
_RANKED = "arrayMap(i -> (cos(i), sin(i)), range(64000))"
_ARRAYS = "arrayLevenshteinDistance arrayJaccardIndex arrayIntersect arraySymmetricDifference"
STATEMENTS = {
    **{name: f"SELECT {name}({_POLYGONS})" for name in _SETS.split()},
    "polygonConvexHullCartesian": f"SELECT length(polygonConvexHullCartesian([[{_RING[1:-1]}]]))",
    "pointInPolygon": "SELECT sum(pointInPolygon((number / 1e7, 0.1), [(0., 0.), (1., 0.), (1., 1.)])) "
    "FROM numbers(10000000)",
    **{name: f"SELECT {name}({_TEXTS})" for name in _EDITS.split()},
    **{name: f"SELECT {name}(range(100000), range(100000))" for name in _ARRAYS.split()},
    "arraySimilarity": "SELECT arraySimilarity(range(50000), range(50000), "
    "arrayMap(x -> 1., range(50000)), arrayMap(x -> 1., range(50000)))",
    "arrayLevenshteinDistanceWeighted": "SELECT arrayLevenshteinDistanceWeighted("
    "range(50000), range(50000), arrayMap(x -> 1., range(50000)), arrayMap(x -> 1., range(50000)))",
    "kolmogorovSmirnovTest": "SELECT kolmogorovSmirnovTest('two-sided', 'exact')"
    "(number, number % 2) FROM numbers(200000)",
    "mannWhitneyUTest": "SELECT mannWhitneyUTest('two-sided')(number, number % 2) "
    "FROM numbers(30000000)",
    "arrayMap": "SELECT sum(length(arrayMap(x -> length(arrayMap(y -> y + x, range(20000))), "
    "range(20000))))",
    "arrayFilter": "SELECT length(arrayFilter(x -> length(arrayFilter(y -> y = x, range(20000))) = 1, "
    "range(20000)))",
    "arrayFold": "SELECT arrayFold((a, x) -> a + arraySum(range(x)), range(40000), toUInt64(0))",
    "arrayFold (growing)": "SELECT length(arrayFold((a, x) -> arrayPushBack(a, x), range(30000), "
    "emptyArrayUInt64()))",
    "arrayAutocorrelation": "SELECT sum(length(arrayAutocorrelation("
    "arrayMap(x -> x + number, range(10000))))) FROM numbers(1000)",
    **{
        name: f"SELECT arraySum(arrayMap(x -> length(assumeNotNull(toString({call}))), range(1000000)))"
        for name, call in _COSTLY.items()
    },
    "arrayShingles": "SELECT length(arrayShingles(range(20000), 10000))",
    "arrayReduceInRanges": "SELECT length(arrayReduceInRanges('uniqExact', "
    "arrayMap(x -> (1, 20000), range(20000)), range(20000)))",
    "seriesDecomposeSTL": "SELECT length(seriesDecomposeSTL(range(300000), 1000))",
    "seriesOutliersDetectTukey": "SELECT length(seriesOutliersDetectTukey(range(3000000)))",
    "h3kRing": "SELECT length(h3kRing(644325529233966508, 3000))",
    "h3HexRing": "SELECT length(h3HexRing(644325529233966508, 30000))",
    "h3ToChildren": "SELECT length(h3ToChildren(577234808489377791, 9))",
    "h3Line": "SELECT length(h3Line(644325529233966508, 644325529233966999))",
    "geohashesInBox": "SELECT length(geohashesInBox(-180., -90., 180., 90., 4))",
    "isPrime": "SELECT sum(isPrime(toUInt64(18446744073709551557 - number))) FROM numbers(10000000)",
    "isProbablePrime": "SELECT sum(isProbablePrime(toUInt256(toUInt256("
    "'115792089237316195423570985008687907853269984665640564039457584007913129639747') - number))) "
    "FROM numbers(100000)",
    "randomHadamardTransform": "SELECT length(randomHadamardTransform("
    "arrayMap(x -> toFloat32(x), range(4000000)), 1))",
    "arrayTranspose": "SELECT length(arrayTranspose(arrayMap(x -> range(2000), range(2000))))",
    "sparseGrams": "SELECT length(sparseGrams(repeat('abcdefgh', 100000), 3, 10000))",
    "ngrams": "SELECT length(ngrams(repeat('abcdefgh', 100000), 50000))",
    "corrMatrix": "SELECT corrMatrix(number, number + 1, number * 2) FROM numbers(30000000)",
    "largestTriangleThreeBuckets": "SELECT length(largestTriangleThreeBuckets(100000)(number, number)) "
    "FROM numbers(20000000)",
    "groupArraySorted": "SELECT length(groupArraySorted(1000000)(number)) FROM numbers(20000000)",
    "groupArrayIntersect": "SELECT length(groupArrayIntersect(range(number % 20000))) "
    "FROM numbers(200000)",
    "groupArrayMovingSum": "SELECT length(groupArrayMovingSum(number)) FROM numbers(50000000)",
    "rankCorr": "SELECT rankCorr(number, number % 7) FROM numbers(30000000)",
    "studentTTest": "SELECT studentTTest(number, number % 2) FROM numbers(300000000)",
    "maxIntersections": "SELECT maxIntersections(number, number + 5) FROM numbers(30000000)",
    "sequenceMatch": "SELECT sequenceMatch('(?1).*(?2).*(?1).*(?2).*(?3)')(toDateTime(number), "
    "number % 2 = 0, number % 2 = 1, number = 9e9) FROM numbers(200000)",
    "sequenceCount": "SELECT sequenceCount('(?1).*(?2).*(?3)')(toDateTime(number), "
    "number % 2 = 0, number % 2 = 1, number = 9e9) FROM numbers(200000)",
    "sequenceNextNode": "SELECT sequenceNextNode('forward', 'head')(toDateTime(number), "
    "toString(number), 1, number % 2 = 0) FROM numbers(3000000)",
    "windowFunnel": "SELECT windowFunnel(1000000000, 'strict_once')(toDateTime(number), number % 2 = 0, "
    "number % 2 = 1) FROM numbers(300000)",
    "intervalLengthSum": "SELECT intervalLengthSum(number, number + 5) FROM numbers(30000000)",
    "medianExact": "SELECT medianExact(sipHash64(number)) FROM numbers(50000000)",
    "quantileGK": "SELECT quantileGK(1000000, 0.5)(sipHash64(number)) FROM numbers(5000000)",
    "quantileInterpolatedWeighted": "SELECT quantileInterpolatedWeighted(0.5)(number, 1) "
    "FROM numbers(10000000)",
    "exponentialMovingAverage": "SELECT exponentialMovingAverage(1)(number, number) "
    "FROM numbers(30000000)",
    "categoricalInformationValue": "SELECT categoricalInformationValue(number % 2, number % 3 = 0) "
    "FROM numbers(30000000)",
    "cramersV": "SELECT cramersV(number % 4000, number % 4001) FROM numbers(10000000)",
    "quantileExact": "SELECT quantileExact(sipHash64(number)) FROM numbers(50000000)",
    "quantilesExactExclusive": "SELECT quantilesExactExclusive(0.1, 0.5, 0.9)(sipHash64(number)) "
    "FROM numbers(50000000)",
    "sequenceMatchEvents": "SELECT sequenceMatchEvents('(?1).*(?2).*(?3)')(toDateTime(number), "
    "number % 2 = 0, number % 2 = 1, number = 9e9) FROM numbers(2000000)",
    "mergedJSONPatch": "SELECT length(toString(mergedJSONPatch(CAST('{\"a' || toString(number) || "
    "'\":1}', 'JSON'), number))) FROM numbers(1000000)",
    "wordShingleMinHashArg": "SELECT length(toString(wordShingleMinHashArg(materialize("
    "repeat('ab cd ', 1000000)), 25, 25)))",
    "ngramMinHashArg": "SELECT length(toString(ngramMinHashArg(materialize(repeat('abcd', 1000000)), "
    "25, 25)))",
    "arrayExcept": "SELECT length(arrayExcept(materialize(range(300000)), materialize(range(300000, "
    "600000))))",
    "arrayUnion": "SELECT length(arrayUnion(range(3000000), range(3000000, 6000000)))",
    **{
        name: f"SELECT length({name}([{_RANKED}], [{_RANKED}], 1))"
        for name in ["arrayEnumerateUniqRanked", "arrayEnumerateDenseRanked"]
    },
    "arraySort": "SELECT length(arraySort(x -> sipHash64(x), range(30000000)))",
    "arrayReduce": "SELECT arrayReduce('quantileExact(0.5)', range(30000000))",
    "arrayRandomSample": "SELECT length(arrayRandomSample(range(20000000), 20000000))",
    "hasSubstr": "SELECT hasSubstr(materialize(arrayWithConstant(400000, 1)), materialize("
    "arrayPushBack(arrayWithConstant(200000, 1), 2)))",
    "hasAny": "SELECT hasAny(materialize(range(100000)), materialize(range(200000, 300000)))",
    "hasAll": "SELECT hasAll(materialize(range(200000)), materialize(arrayReverse(range(200000))))",
    "indexOf": "SELECT sum(indexOf(range(20000), number)) FROM numbers(65536)",
    "countEqual": "SELECT sum(countEqual(range(20000), number)) FROM numbers(65536)",
    "position": f"SELECT position({_LONG}, repeat('a', 500000) || 'b')",
    "replaceAll": f"SELECT length(replaceAll({_LONG}, repeat('a', 500000) || 'b', 'x'))",
    "splitByString": f"SELECT length(splitByString(repeat('a', 500000) || 'b', {_LONG}))",
    **{
        name: f"SELECT {name}({_LONG}, 'a*?b|a')"
        for name in ["extract", "extractAll", "countMatches", "match"]
    },
    "splitByRegexp": f"SELECT length(splitByRegexp('a*?b|a', {_LONG}))",
    "replaceRegexpOne": f"SELECT length(replaceRegexpOne({_LONG}, 'a*?b|a', 'x'))",
    "like": f"SELECT {_LONG} LIKE repeat('%a', 127) || 'b'",
    "ilike": f"SELECT {_LONG} ILIKE '%' || repeat('a', 61) || 'b%'",
    "positionCaseInsensitiveUTF8": f"SELECT positionCaseInsensitiveUTF8({_LONG}, "
    "repeat('a', 63) || 'b')",
    "JSON_VALUE": "SELECT JSON_VALUE(materialize('[' || repeat('[1],', 200000) || '1]'), "
    "'$[*][*][5]')",
    "multiFuzzyMatchAny": "SELECT multiFuzzyMatchAny(repeat('ab', 400000), 3, ['a{200}b{200}'])",
    "replaceRegexpAll": "SELECT length(replaceRegexpAll(repeat('a', 1000000), 'a*?b|a', 'bb'))",
    "extractAllGroups": "SELECT length(extractAllGroups(repeat('ab', 400000), '(a)(b)'))",
    "encrypt": "SELECT sum(length(encrypt('aes-256-ecb', repeat('a', 1000000), repeat('k', 32)))) "
    "FROM numbers(10000)",
    "readWKT": f"SELECT wkt({_RING[1:-1]})",
}


def main(names: list[str]) -> int:
    print("| function | ended after | grew | verdict |\n|---|---|---|---|")
    outlived = 0
    for name, sql in STATEMENTS.items():
        if names and name not in names:
            continue
        seconds, grown, ended = measured(sql)
        is_late = seconds > SECONDS + GRACE_SECONDS
        is_large = grown > BYTES * 1.1
        outlived += is_late or is_large
        verdict = "outlives its limits" if is_late or is_large else "bounded"
        if ended.startswith("refused"):
            verdict = "refuses these arguments"
        took = f"> {GIVE_UP_SECONDS:g} s" if ended == "killed" else f"{seconds:.1f} s"
        print(f"| `{name}` | {took} ({ended}) | {grown >> 20} MiB | {verdict} |", flush=True)
    return outlived


def measured(sql: str) -> tuple[float, int, str]:
    """Return seconds, growth of the server's memory in bytes, and the outcome of the statement."""
    ours, theirs = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        process = multiprocessing.Process(target=_run, args=(sql, directory, theirs), daemon=False)
        os.environ.setdefault("TZ", "UTC")
        process.start()
        try:
            if not ours.poll(60):
                raise RuntimeError("ClickHouse did not start")
            server_pid = ours.recv()
            status = Path(f"/proc/{server_pid}/status")
            before = most = _resident(status)
            started = time.monotonic()
            while not ours.poll(0.02):
                most = max(most, _resident(status))
                if time.monotonic() - started > SECONDS + GIVE_UP_SECONDS:
                    os.kill(server_pid, signal.SIGKILL)
                    return time.monotonic() - started, most - before, "killed"
            ended = ours.recv()
            return time.monotonic() - started, max(most, _resident(status)) - before, ended
        finally:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def _run(sql: str, directory: str, pipe: Pipe) -> None:
    with EmbeddedClickHouse(Path(directory)) as engine:
        settings = ClickHouseSettings(
            host=engine.host, port=engine.tcp_port, timeout_seconds=GIVE_UP_SECONDS + SECONDS
        )
        with ClickHouse(settings, client_name="function_limits", is_confined=True) as connection:
            connection.select("SELECT 1")
            pipe.send(engine.pid)
            limits = {
                "max_execution_time": SECONDS,
                "max_memory_usage": BYTES,
                "max_threads": 2,
                "readonly": 1,
            }
            ended = "answered"
            try:
                connection.excerpt(sql, settings=limits, max_rows=10, max_bytes=64 << 20)
            except OctaneError as error:
                code = getattr(error, "code", 0)
                ended = f"error {code}" if code in _LIMIT_ERRORS else f"refused {code}"
                if code not in _LIMIT_ERRORS:
                    print(f"{sql[:60]}: {str(error)[:150]}", file=sys.stderr)
            pipe.send(ended)


def _resident(status: Path) -> int:
    with suppress(OSError):
        for line in status.read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) << 10
    return 0


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
