"""Log lines: constant messages with fields, as JSON objects or as columns for a person.

What varies goes into fields: `log.info("batch inserted", extra=fields(rows=10, partition=3))`.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_FIELDS = "octane_fields"


def fields(**values: object) -> dict[str, Any]:
    """What goes into `extra`."""
    return {_FIELDS: values}


def add_fields(record: logging.LogRecord, **values: object) -> None:
    """More fields for a line that is being written."""
    setattr(record, _FIELDS, {**getattr(record, _FIELDS, {}), **values})


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, _FIELDS, {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Columns: time, level, process, message, then the fields."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        values = getattr(record, _FIELDS, {})
        told = "".join(f"  {name}={value}" for name, value in values.items())
        line = f"{time} {record.levelname:<7} {self._process:<10} {record.getMessage()}{told}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    # One set of librdkafka properties serves consumers and producers; each warns of the other's.
    return "property and will be ignored by this" not in record.getMessage()


def configure(level: str, style: str, process: str) -> None:
    """Sends the process's log to standard error. `style` is LOG_FORMAT's value.

    May be called again, after a fork, to give the process another name.
    """
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if style == "json" else TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("librdkafka").addFilter(_is_worth_a_line)
    logging.getLogger("tzlocal").setLevel(logging.WARNING)
    # It logs each failed connection with a trace, which the caller reports in one line anyway.
    logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)


def adopt(logger: logging.Logger) -> None:
    """Has a library's logger write where all others do, and no more than they do."""
    logger.handlers[:] = []
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
