import http.server
import io
import json
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from octane_analytics.cli.sandbox.report_client import PrintedReport, fetch, table
from octane_analytics.errors import Unavailable


class _Api(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = request["template"] == "known"
        body = {
            "columns": [{"name": "n", "type": "UInt64"}],
            "rows": [{"n": request["params"].get("limit")}],
        }
        self.send_response(200 if is_known else 404)
        self.end_headers()
        self.wfile.write(json.dumps(body if is_known else {"error": "no such"}).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name of the base class)
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Api) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_report_is_fetched_with_its_parameters(url: str) -> None:
    assert fetch(url, "known", {"limit": 3}) == PrintedReport("known", ["n"], [{"n": 3}])


def test_error_response_is_quoted_in_the_exception(url: str) -> None:
    with pytest.raises(Unavailable, match=r"report unknown: the API returned 404: .*no such"):
        fetch(url, "unknown", {})


def test_unreachable_api_raises_unavailable() -> None:
    with pytest.raises(Unavailable, match="no response from"):
        fetch("http://127.0.0.1:1", "known", {})


def _drawn(report: PrintedReport) -> str:
    output = io.StringIO()
    Console(file=output, width=60).print(table(report))
    return output.getvalue()


def test_single_row_is_a_name_value_table() -> None:
    drawn = _drawn(PrintedReport("r", ["events", "share"], [{"events": 12345, "share": 0.5}]))
    assert drawn.splitlines()[2].replace("│", " ").split() == ["events", "12,345"]
    assert drawn.splitlines()[3].replace("│", " ").split() == ["share", "0.50"]


def test_rows_are_lines_and_markup_is_escaped() -> None:
    rows: list[dict[str, object]] = [{"query": "[bold]x", "n": 1}, {"query": None, "n": 2000}]
    drawn = _drawn(PrintedReport("r", ["query", "n"], rows))
    assert "[bold]x" in drawn
    assert "2,000" in drawn


def test_report_without_rows_shows_its_columns() -> None:
    assert "query" in _drawn(PrintedReport("r", ["query"], []))


WIDE = {f"a_column_of_the_report_{number}": 12_345_678 + number for number in range(6)}


def _drawn_at(width: int, limit: int | None) -> list[str]:
    output = io.StringIO()
    rows: list[dict[str, object]] = [dict(WIDE), dict(WIDE)]
    Console(file=output, width=width).print(table(PrintedReport("wide", list(WIDE), rows), limit))
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", [200, 80])
def test_rows_that_fit_keep_whole_numbers(width: int) -> None:
    rows = [line for line in _drawn_at(width, width) if "12,345,678" in line]
    assert len(rows) == 2
    assert all(f"{value:,}" in row for row in rows for value in WIDE.values())
    headings = "".join("".join(_drawn_at(width, width)[:6]).split())
    assert headings.count("report_") == len(WIDE)


def test_wide_rows_become_name_value_lines() -> None:
    lines = _drawn_at(50, 50)
    for column, value in WIDE.items():
        assert sum(column in line and f"{value:,}" in line for line in lines) == 2


def test_rows_without_a_width_are_one_table() -> None:
    (heading,) = [line for line in _drawn_at(1000, None) if "a_column_of_the_report_0" in line]
    assert "a_column_of_the_report_5" in heading
