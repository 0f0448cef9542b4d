"""The corpus of statements: files in this directory, whose format is described in their heads."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parent
DEFENCES = ("user", "validation", "limits")
_HEADER = re.compile(r"--- group: (?P<group>[^;]+)(?P<facts>(?:; [a-z]+: [^;]+)*)")


@dataclass(frozen=True, slots=True)
class Statement:
    group: str
    text: str
    """With placeholders in braces, see `filled`."""
    statuses: frozenset[int] = frozenset({200})
    claimed: frozenset[str] = frozenset()
    """Defences each of which stops it alone."""
    never_without: frozenset[str] = frozenset()
    """Defences without which it must not be run, because it would end an embedded server."""

    def filled(self, names: Mapping[str, object]) -> str:
        return self.text.format(**names)


def hostile() -> list[Statement]:
    return list(_read("hostile.sql"))


def legitimate() -> list[Statement]:
    return list(_read("legitimate.sql"))


def field_cases() -> list[Statement]:
    """Small inputs from the field; none has names to fill in."""
    return list(_read("field_cases.sql"))


def _read(name: str) -> Iterator[Statement]:
    group, facts = "", dict[str, list[str]]()
    for line in (DIRECTORY / name).read_text("utf-8").splitlines():
        if header := _HEADER.fullmatch(line):
            group = header["group"]
            pairs = (fact.split(": ") for fact in header["facts"].split("; ") if fact)
            facts = {key: value.split() for key, value in pairs}
        elif group and line:
            yield Statement(
                group,
                line.replace("⏎", "\n"),
                frozenset(map(int, facts.get("status", ["200"]))),
                frozenset(facts.get("claimed", [])),
                frozenset(facts.get("never", [])) & frozenset(DEFENCES),
            )
