"""Cheap execution of many statements, most of which ClickHouse refuses.

Over HTTP the connection survives an error; the driver of the native protocol opens a new one.
"""

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

from octane_analytics.sandbox.engine import HOST

SETTINGS: Mapping[str, object] = {
    # Costs more than the analysis of a short statement.
    "calculate_text_stack_trace": 0,
    "log_queries": 0,
    "max_threads": 1,
}
_WRONG_COUNTS = frozenset({34, 35, 42})
"""TOO_MANY_ARGUMENTS, TOO_FEW_ARGUMENTS and NUMBER_OF_ARGUMENTS_DOESNT_MATCH."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Lines of the result if `code` is 0, otherwise of the error."""

    code: int
    lines: list[str]

    @property
    def is_wrong_count(self) -> bool:
        """Return whether the function never takes that many arguments, whatever their types."""
        return self.code in _WRONG_COUNTS


class Statements:
    """Statements over one connection, as the user `default`."""

    def __init__(
        self, port: int, settings: Mapping[str, object] = SETTINGS, timeout_seconds: float = 60
    ) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=timeout_seconds)
        self._path = f"/?{urlencode(settings)}"

    def answer(self, sql: str) -> Answer:
        self._connection.request("POST", self._path, body=f"{sql} FORMAT TSVRaw".encode())
        response = self._connection.getresponse()
        lines = response.read().decode("utf-8", "replace").splitlines()
        return Answer(int(response.headers.get("X-ClickHouse-Exception-Code", 0)), lines)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def statements(port: int) -> Iterator[Statements]:
    connection = Statements(port)
    try:
        yield connection
    finally:
        connection.close()
