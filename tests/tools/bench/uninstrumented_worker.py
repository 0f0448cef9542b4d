"""The command with a worker that has no metrics, for comparison; it still reports to its supervisor.

`python -m tests.tools.bench.uninstrumented_worker worker …`
"""

import sys
from collections.abc import Sequence
from typing import Any

from octane_analytics.__main__ import main
from octane_analytics.kafka.consumer import KafkaSource
from octane_analytics.types import InsertedBatch, RejectedRecord
from octane_analytics.worker import process
from octane_analytics.worker.slot_observer import SlotObserver


class _Blind(SlotObserver):
    def consumed(self, records: int) -> None: ...

    def rejected(self, rejected: Sequence[RejectedRecord]) -> None: ...

    def call_finished(self, call: str, seconds: float) -> None: ...

    def inserted(self, batch: InsertedBatch) -> None: ...


class _Mute(KafkaSource):
    """Kafka source without librdkafka's statistics."""

    def __init__(self, settings: Any, slot: int | None, **_: object) -> None:
        super().__init__(settings, slot)


class _Idle:
    """Substitute for the sampler that does nothing."""

    def __init__(self, *_: object) -> None: ...

    def __call__(self) -> None: ...


if __name__ == "__main__":
    for name, stand_in in (
        ("SlotObserver", _Blind),
        ("KafkaSource", _Mute),
        ("ProcessSampler", _Idle),
    ):
        setattr(process, name, stand_in)
    sys.exit(main())
