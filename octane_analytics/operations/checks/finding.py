"""Findings of a check: a level, a subject and one line of text each."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from octane_analytics.errors import ConfigError, NeedsOperator, OctaneError, Unavailable


class Level(IntEnum):
    OK = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Finding:
    level: Level
    subject: str
    message: str
    """Result, and the fix if the level is not OK."""
    may_pass: bool = False
    """True for a failure that may end by itself: a server cannot be reached."""


def ok(subject: str, message: str) -> Finding:
    return Finding(Level.OK, subject, message)


def warn(subject: str, message: str) -> Finding:
    return Finding(Level.WARN, subject, message)


def fail(subject: str, message: str) -> Finding:
    return Finding(Level.FAIL, subject, message)


def failed(subject: str, error: OctaneError) -> Finding:
    """Return the failure for an exception."""
    may_pass = isinstance(error, Unavailable) and not isinstance(error, NeedsOperator | ConfigError)
    return Finding(Level.FAIL, subject, str(error), may_pass)


def worst(findings: Iterable[Finding]) -> Level:
    return max((finding.level for finding in findings), default=Level.OK)
