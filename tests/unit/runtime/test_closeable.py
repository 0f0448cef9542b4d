"""Context managers that close themselves, whatever ends the block or the start."""

import pytest

from octane_analytics.runtime.closeable import Startable


class Recorded(Startable):
    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self._error = error

    def start(self) -> None:
        self.calls.append("start")
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.calls.append("close")


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_failed_start_is_closed(error: BaseException) -> None:
    found = Recorded(error)
    with pytest.raises(type(error)), found:
        raise AssertionError("the block must not run")
    assert found.calls == ["start", "close"]


def test_error_in_the_block_closes_once() -> None:
    found = Recorded()
    with pytest.raises(ValueError, match="of the block"), found:
        raise ValueError("of the block")
    assert found.calls == ["start", "close"]
