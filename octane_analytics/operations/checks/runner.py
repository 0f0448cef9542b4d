"""Runs checks side by side, each group of them bounded in time."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from octane_analytics.operations.checks.finding import Finding, Level

Check = Callable[[], Iterator[Finding]]


def run_all(checks: Mapping[str, Check], seconds: float) -> tuple[list[Finding], bool]:
    """Runs each check in a thread of its own; answers what they found, in the order of `checks`.

    What has not ended after `seconds` is a failure of that name. The second answer is whether all
    have ended: a thread that has not cannot be stopped, and ends with the process.
    """
    found: queue.SimpleQueue[tuple[str, Finding | BaseException | None]] = queue.SimpleQueue()

    def run(name: str, check: Check) -> None:
        try:
            for finding in check():
                found.put((name, finding))
        except BaseException as error:
            found.put((name, error))
        else:
            found.put((name, None))

    for name, check in checks.items():
        threading.Thread(target=run, args=(name, check), daemon=True).start()
    results: dict[str, list[Finding]] = {name: [] for name in checks}
    waiting = set(checks)
    deadline = time.monotonic() + seconds
    while waiting:
        try:
            name, told = found.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(told, BaseException):
            raise told
        if told is None:
            waiting.discard(name)
        else:
            results[name].append(told)
    for name in waiting:
        late = f"not done after {seconds:g} s: does it answer at all?"
        results[name].append(Finding(Level.FAIL, name, late, may_pass=True))
    return [finding for listed in results.values() for finding in listed], not waiting


def downgrade_redundant_failures(findings: list[Finding], subjects: list[str]) -> list[Finding]:
    """Of servers that stand in for each other, one that is away is a warning while another serves."""
    failing = {f.subject for f in findings if f.level is Level.FAIL and f.may_pass}
    if not set(subjects) - failing:
        return findings
    return [
        replace(f, level=Level.WARN, message=f"{f.message} (another one serves)")
        if f.subject in subjects and f.level is Level.FAIL and f.may_pass
        else f
        for f in findings
    ]
