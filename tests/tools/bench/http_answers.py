"""A prototype: answers in ClickHouse's own formats, read through its HTTP interface.

Not part of the service; the reasons are in the manual's page `answers`.
"""

import json
from collections.abc import Callable, Mapping

import httpx

from octane_analytics.api.limits import ComplexityLimits
from octane_analytics.api.results.json_values import encode

FORMATS = {
    "json": "JSONEachRow",
    "ndjson": "JSONEachRow",
    "csv": "CSVWithNames",
    "parquet": "Parquet",
    "arrow": "ArrowStream",
}
SETTINGS: Mapping[str, object] = {
    "date_time_output_format": "iso",
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_decimals": 1,
    "output_format_json_validate_utf8": 1,
    "output_format_csv_crlf_end_of_line": 1,
    "output_format_arrow_string_as_string": 1,
    "output_format_parquet_string_as_string": 1,
    "cancel_http_readonly_queries_on_client_close": 1,
}
_DRIVER_ONLY = "use_client_time_zone"
_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"  # noqa: RUF001
_NUMBER = r"^[-+]?[0-9]+(\.[0-9]+)?$"


class HttpAnswers:
    def __init__(self, port: int, limits: ComplexityLimits, *, is_kept: bool) -> None:
        self._limits = limits
        self._is_kept = is_kept
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}/",
            headers={"Accept-Encoding": "identity"},
            timeout=120,
        )

    def close(self) -> None:
        self._client.close()

    def answer(self, sql: str, name: str, max_rows: int, put: Callable[[bytes], object]) -> None:
        """Raises RuntimeError for an error before the first byte, httpx's for one after it."""
        columns: list[tuple[str, str]] = []
        if self._is_kept:
            columns = self._columns(sql)
            if name == "csv":
                sql = _with_apostrophes(sql, columns)
        with self._client.stream(
            "POST",
            "/",
            params=self._parameters(FORMATS[name], max_rows + 1),
            content=sql,
        ) as response:
            if response.status_code != 200:
                raise RuntimeError(response.read().decode())
            chunks = response.iter_raw()
            if not self._is_kept:
                for chunk in chunks:
                    put(chunk)
                return
            if name == "json":
                described = [{"name": name, "type": kind} for name, kind in columns]
                put(encode({"template": "bench", "columns": described})[:-1] + b',"rows":[')
            count = 0
            separator = b"," if name == "json" else b"\n"
            for chunk in chunks:
                # Quoted line feeds of CSV would need a parser of quotes here.
                count += chunk.count(b"\n")
                if name == "json":
                    chunk = chunk.replace(b"\n", separator)
                put(chunk)
            if name == "json":
                put(b'null],"row_count":%d}' % count)

    def _columns(self, sql: str) -> list[tuple[str, str]]:
        response = self._client.post(
            "/", params=self._parameters("JSONCompactEachRow", 10_000), content=f"DESCRIBE ({sql})"
        )
        if response.status_code != 200:
            raise RuntimeError(response.text)
        rows = [json.loads(line) for line in response.text.splitlines()]
        return [(row[0], row[1]) for row in rows]

    def _parameters(self, output_format: str, limit: int) -> dict[str, str]:
        settings = {**self._limits.settings("bench"), **SETTINGS, "limit": limit}
        del settings[_DRIVER_ONLY]
        texts = {name: str(value) for name, value in settings.items()}
        return texts | {"default_format": output_format}


def _with_apostrophes(sql: str, columns: list[tuple[str, str]]) -> str:
    cells = [
        f"if(match(`{name}`, {_quoted(_FORMULA)}) AND NOT match(`{name}`, {_quoted(_NUMBER)}), "
        f"concat('''', `{name}`), `{name}`) AS `{name}`"
        if "String" in kind and "(" not in kind.replace("LowCardinality(", "")
        else f"`{name}`"
        for name, kind in columns
    ]
    return f"SELECT {', '.join(cells)} FROM ({sql})"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
