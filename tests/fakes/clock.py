"""Clock advanced by tests."""


class FakeClock:
    """Implements `interfaces.Clock`."""

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self._now += seconds
