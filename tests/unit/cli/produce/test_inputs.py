import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import click
import pytest

from octane_analytics.cli.produce import inputs
from octane_analytics.cli.produce.sender import SendStats
from octane_analytics.runtime.stop_signal import StopSignal


def test_time_without_an_offset_is_utc() -> None:
    assert inputs.parse_time("2026-02-02T12:00:00") == datetime(2026, 2, 2, 12, tzinfo=UTC)
    assert inputs.parse_time("2026-02-02T12:00:00+02:00").tzinfo == timezone(timedelta(hours=2))


def test_invalid_time_is_a_bad_parameter() -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        inputs.parse_time("yesterday")


def test_generated_events_are_counted() -> None:
    events = inputs.generated(3, seed=1, until=datetime(2026, 2, 2, tzinfo=UTC))
    assert events.total == len(list(events.lines)) == 3
    assert events.done(SendStats(sent=2, sent_bytes=999)) == 2


def test_file_total_is_bytes_from_current_position(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"skipped\na\nb")
    with inputs.opened(str(path)) as descriptor, StopSignal() as stop:
        os.lseek(descriptor, 8, os.SEEK_SET)
        events = inputs.read(descriptor, stop)
        assert events.total == 3
        assert list(events.lines) == [b"a", b"b"]
    assert events.done(SendStats(sent=2, sent_bytes=999)) == 999


def test_pipe_has_an_unknown_total() -> None:
    reading, writing = os.pipe()
    try:
        with StopSignal() as stop:
            assert inputs.read(reading, stop).total is None
    finally:
        os.close(reading)
        os.close(writing)


def test_unreadable_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="cannot read"), inputs.opened(str(tmp_path / "x")):
        pass
