"""Flag of the stop signals, with real signals to this process."""

import os
import signal

import pytest

from octane_analytics.runtime.exit_codes import Exit
from octane_analytics.runtime.stop_signal import StopSignal


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, Exit.INTERRUPTED), (signal.SIGTERM, Exit.TERMINATED)],
)
def test_signal_ends_a_wait(number: signal.Signals, code: Exit) -> None:
    with StopSignal() as stop:
        assert not stop.wait(0.0)
        signal.raise_signal(number)
        assert stop.is_set()
        assert stop.wait(60.0)
        assert stop.exit_code is code


def test_first_signal_determines_the_exit_code() -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.exit_code is Exit.TERMINATED


def test_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignal():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_wait_readable_distinguishes_data_from_signals() -> None:
    reading, writing = os.pipe()
    try:
        with StopSignal() as stop:
            assert not stop.wait_readable(reading, 0.0)
            os.write(writing, b"x")
            assert stop.wait_readable(reading, 60.0)
            os.read(reading, 1)
            signal.raise_signal(signal.SIGINT)
            assert not stop.wait_readable(reading, 60.0)
    finally:
        os.close(reading)
        os.close(writing)
