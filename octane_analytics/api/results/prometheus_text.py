"""Results as Prometheus text: a gauge for each numeric column, with the others as labels."""

import re
from collections.abc import Sequence
from typing import Any

from octane_analytics.api.results.json_values import encode, plain_columns, unique
from octane_analytics.clickhouse.results import ResultColumn
from octane_analytics.errors import QueryError

_NUMERIC = re.compile(r"(Nullable\()?(LowCardinality\()?(U?Int|Float|Decimal)")
_INVALID_IN_NAME = re.compile(r"[^a-zA-Z0-9_]")


class PrometheusWriter:
    """A `formats.Writer` of the text format 0.0.4.

    The format groups lines by metric, so all rows are kept in memory.
    """

    def __init__(self, columns: Sequence[ResultColumn], report: str) -> None:
        names = [
            _INVALID_IN_NAME.sub("_", name) for name in unique([column.name for column in columns])
        ]
        numeric = [bool(_NUMERIC.match(column.type)) for column in columns]
        self._columns = columns
        self._labels = [(i, name) for i, name in enumerate(names) if not numeric[i]]
        self._gauges = [
            (i, f"octane_{_INVALID_IN_NAME.sub('_', report)}_{name}")
            for i, name in enumerate(names)
            if numeric[i]
        ]
        if not self._gauges:
            raise QueryError(
                406,
                "not_acceptable",
                "no column is a number, which the Prometheus text format needs",
            )
        self._lines: dict[int, list[str]] = {i: [] for i, _ in self._gauges}

    def begin(self) -> bytes:
        return b""

    def rows(self, block: list[tuple[Any, ...]]) -> bytes:
        for row in zip(*plain_columns(self._columns, block), strict=True):
            labels = ",".join(f'{name}="{_label(row[i])}"' for i, name in self._labels)
            label_set = f"{{{labels}}}" if labels else ""
            for i, gauge in self._gauges:
                if row[i] is not None:
                    self._lines[i].append(f"{gauge}{label_set} {row[i]}\n")
        return b""

    def end(self) -> bytes:
        parts = []
        for i, gauge in self._gauges:
            parts.append(f"# TYPE {gauge} gauge\n")
            parts += self._lines[i]
        return "".join(parts).encode()


def _label(value: object) -> str:
    text = "" if value is None else value if isinstance(value, str) else encode(value).decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
