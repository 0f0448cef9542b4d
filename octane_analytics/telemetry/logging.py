"""Log lines: constant messages with fields, formatted as JSON objects or as text columns.

Variables go into fields: `log.info("batch inserted", extra=fields(rows=10, partition=3))`.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_FIELDS = "octane_fields"


def fields(**values: object) -> dict[str, Any]:
    """Return the value for a log call's `extra`."""
    return {_FIELDS: values}


def add_fields(record: logging.LogRecord, **values: object) -> None:
    """Add fields to a record that is being logged."""
    setattr(record, _FIELDS, {**getattr(record, _FIELDS, {}), **values})


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

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
        suffix = "".join(f"  {name}={value}" for name, value in values.items())
        line = f"{time} {record.levelname:<7} {self._process:<10} {record.getMessage()}{suffix}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _is_relevant(record: logging.LogRecord) -> bool:
    # Consumers and producers get one set of librdkafka properties, and each warns of the other's.
    return "property and will be ignored by this" not in record.getMessage()


def configure(level: str, style: str, process: str) -> None:
    """Send the process's log to standard error. `style` is the value of LOG_FORMAT.

    Call it again after a fork to change the process's name.
    """
    if style == "auto":
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process) if style == "json" else TextFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("librdkafka").addFilter(_is_relevant)
    logging.getLogger("tzlocal").setLevel(logging.WARNING)
    # It logs failed connections with a traceback; the caller reports each in one line.
    logging.getLogger("clickhouse_driver").setLevel(logging.CRITICAL)


def adopt(logger: logging.Logger) -> None:
    """Route a library's logger through the root logger, with the root logger's level."""
    logger.handlers[:] = []
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
