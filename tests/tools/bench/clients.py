"""Concurrent clients, each sending one request after the other, and the duration of every request."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Ask = Callable[[int], None]
"""Function that sends one request and reads its whole response, given the request's index."""


@dataclass(frozen=True)
class Took:
    """Durations of all requests of one way in one round."""

    milliseconds: Sequence[float]
    wall_seconds: float

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.wall_seconds


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def at_once(clients: Sequence[Ask], requests: int, *, in_step: bool = False) -> Took:
    """Return the durations of the requests, an equal number for each client.

    With `in_step` all clients send their first request at the same moment, then all their second, and
    so on. Blocks; raises the error of the first client that failed.
    """
    each = math.ceil(requests / len(clients))
    start = threading.Barrier(len(clients) + 1)
    step = threading.Barrier(len(clients))
    failures: list[Exception] = []
    times: list[list[float]] = [[] for _ in clients]

    def run(ask: Ask, mine: list[float]) -> None:
        try:
            start.wait()
            for number in range(each):
                if in_step:
                    step.wait()
                began = time.perf_counter()
                ask(number)
                mine.append((time.perf_counter() - began) * 1000)
        except threading.BrokenBarrierError:
            pass  # another client failed
        except Exception as error:
            failures.append(error)
            step.abort()

    threads = [threading.Thread(target=run, args=pair) for pair in zip(clients, times, strict=True)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    wall_seconds = time.perf_counter() - began
    if failures:
        raise failures[0]
    return Took([one for mine in times for one in mine], wall_seconds)
