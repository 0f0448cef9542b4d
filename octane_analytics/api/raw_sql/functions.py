"""Allow-list of functions that raw SQL may call, read from `functions.txt`.

An allow-list, because every ClickHouse release adds functions, and a new one may read files.
"""

from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources

_COMBINATORS = tuple(
    name.lower()
    for name in [
        "ArgMax",
        "ArgMin",
        "Array",
        "Distinct",
        "ForEach",
        "If",
        "Map",
        "Merge",
        "Null",
        "OrDefault",
        "OrNull",
        "Resample",
        "SimpleState",
        "State",
        "Tuple",
    ]
)


@dataclass(frozen=True, slots=True)
class Functions:
    """Allowed names in lower case, since ClickHouse matches some names case-insensitively."""

    ordinary: frozenset[str]
    aggregate: frozenset[str]

    def allow(self, name: str) -> bool:
        """Return whether it is an allowed ordinary or aggregate function."""
        lowered = name.lower()
        return lowered in self.ordinary or self.allow_aggregate(lowered)

    def allow_aggregate(self, name: str) -> bool:
        """Return whether it is an allowed aggregate function, with or without combinator suffixes."""
        lowered = name.lower()
        if lowered in self.aggregate:
            return True
        return any(
            self.allow_aggregate(lowered.removesuffix(combinator))
            for combinator in _COMBINATORS
            if lowered.endswith(combinator)
        )


def load(extra: Collection[str] = ()) -> Functions:
    """Return the built-in list extended by the operator's names."""
    sections: dict[str, set[str]] = {"[ordinary]": set(), "[aggregate]": set()}
    names = sections["[ordinary]"]
    text = resources.files(__package__).joinpath("functions.txt").read_text("utf-8")
    for line in text.splitlines():
        if line in sections:
            names = sections[line]
        elif not line.startswith("#"):
            names.update(line.split())
    return Functions(
        ordinary=frozenset(sections["[ordinary]"] | {name.lower() for name in extra}),
        aggregate=frozenset(sections["[aggregate]"]),
    )
