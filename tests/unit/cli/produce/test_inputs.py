import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import click
import pytest

from octane_analytics.cli.produce import inputs
from octane_analytics.cli.produce.sender import SendStats
from octane_analytics.runtime.stop_signal import StopSignal


def test_moment_without_an_offset_is_utc() -> None:
    assert inputs.moment("2026-02-02T12:00:00") == datetime(2026, 2, 2, 12, tzinfo=UTC)
    assert inputs.moment("2026-02-02T12:00:00+02:00").tzinfo == timezone(timedelta(hours=2))


def test_moment_refuses_what_is_no_time() -> None:
    with pytest.raises(click.BadParameter, match="is no time"):
        inputs.moment("yesterday")


def test_made_up_events_are_counted() -> None:
    given = inputs.generated(3, seed=1, until=datetime(2026, 2, 2, tzinfo=UTC))
    assert given.total == len(list(given.lines)) == 3
    assert given.done(SendStats(sent=2, sent_bytes=999)) == 2


def test_file_is_measured_in_bytes_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"skipped\na\nb")
    with inputs.opened(str(path)) as descriptor, StopSignal() as stop:
        os.lseek(descriptor, 8, os.SEEK_SET)
        given = inputs.read(descriptor, stop)
        assert given.total == 3
        assert list(given.lines) == [b"a", b"b"]
    assert given.done(SendStats(sent=2, sent_bytes=999)) == 999


def test_nobody_knows_the_end_of_a_pipe() -> None:
    reading, writing = os.pipe()
    try:
        with StopSignal() as stop:
            assert inputs.read(reading, stop).total is None
    finally:
        os.close(reading)
        os.close(writing)


def test_file_that_cannot_be_read_is_an_error_of_usage(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="cannot read"), inputs.opened(str(tmp_path / "x")):
        pass
