"""Last time at which a broker confirmed the identity of the topic, shared by the workers of a service.

The answer lists all partitions of the topic: with 128, it costs a worker as much CPU time as 1,000
events. So one answer counts for all workers of the service on this host, as long as it would count for
the worker that requested it.
"""

import hashlib
from typing import Protocol

from octane_analytics.types import LogIdentity

FRESH_SECONDS = 1.0
"""Age up to which an answer counts, whichever worker requested it."""
_BYTES = 8


class SharedWord(Protocol):
    """Word of 64 bits that several processes read and write as a whole."""

    value: int


class OwnWord:
    """Word of one process."""

    value = 0


class LogConfirmation:
    """Identity and time of the last answer, both in one word: no reader can see the time of one answer
    with the identity of another. Two identities differ in the word as their 64 bits of hash do."""

    def __init__(self, topic: str, word: SharedWord) -> None:
        self._topic = topic
        self._word = word

    def record(self, log: LogIdentity, asked_at: float) -> None:
        """Record an answer to a request sent at `asked_at`, in monotonic seconds of this host."""
        self._word.value = self._hash(log) ^ _milliseconds(asked_at)

    def is_fresh(self, log: LogIdentity, now: float) -> bool:
        """Return whether the last answer was this identity, and is not too old."""
        age = _milliseconds(now) - (self._word.value ^ self._hash(log))
        return 0 <= age < _milliseconds(FRESH_SECONDS)

    def _hash(self, log: LogIdentity) -> int:
        text = "\0".join((self._topic, *log)).encode(errors="surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=_BYTES).digest())


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
