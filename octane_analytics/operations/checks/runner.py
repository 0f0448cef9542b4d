"""Runs checks in parallel, with one time limit."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from octane_analytics.operations.checks.finding import Finding, Level

Check = Callable[[], Iterator[Finding]]


def run_all(checks: Mapping[str, Check], seconds: float) -> tuple[list[Finding], bool]:
    """Run each check in its own thread; return the findings in the order of `checks`.

    A check that has not ended after `seconds` is a failure with its name as the subject. The second
    value is True if all checks have ended; a thread still running cannot be stopped, and ends with the
    process.
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
            name, result = found.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(result, BaseException):
            raise result
        if result is None:
            waiting.discard(name)
        else:
            results[name].append(result)
    for name in waiting:
        late = f"not done after {seconds:g} s: check that the server answers"
        results[name].append(Finding(Level.FAIL, name, late, may_pass=True))
    return [finding for listed in results.values() for finding in listed], not waiting


def downgrade_redundant_failures(findings: list[Finding], subjects: list[str]) -> list[Finding]:
    """Turn failures of unreachable servers into warnings while another of the `subjects` serves."""
    failing = {f.subject for f in findings if f.level is Level.FAIL and f.may_pass}
    if not set(subjects) - failing:
        return findings
    return [
        replace(f, level=Level.WARN, message=f"{f.message} (another one serves)")
        if f.subject in subjects and f.level is Level.FAIL and f.may_pass
        else f
        for f in findings
    ]
