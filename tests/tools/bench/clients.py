"""Several clients at once, each asking one thing after the other; how long every request took."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Ask = Callable[[int], None]
"""Makes one request and waits for its whole answer; is told the number of the request, from 0 on."""


@dataclass(frozen=True)
class Took:
    """Of all requests of one kind in one round."""

    milliseconds: Sequence[float]
    wall_seconds: float

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.wall_seconds


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def at_once(clients: Sequence[Ask], requests: int, *, in_step: bool = False) -> Took:
    """How long it took the clients to make so many requests, the same number each.

    `in_step` has all of them make their first request at the same moment, then all their second, and
    so on. Blocks; raises what the first client that failed raised.
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
            pass  # another one failed
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
