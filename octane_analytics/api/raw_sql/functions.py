"""Which functions raw SQL may call: an allow-list that ships as data (`functions.txt`).

An allow-list, because ClickHouse gains functions with every release and one of them may read a file.
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
    """Names in lower case: some of ClickHouse's are matched in any case."""

    ordinary: frozenset[str]
    aggregate: frozenset[str]

    def allow(self, name: str) -> bool:
        lowered = name.lower()
        return lowered in self.ordinary or self.allow_aggregate(lowered)

    def allow_aggregate(self, name: str) -> bool:
        """Whether it is an allowed aggregate function, combinators behind its name or not."""
        lowered = name.lower()
        if lowered in self.aggregate:
            return True
        return any(
            self.allow_aggregate(lowered.removesuffix(combinator))
            for combinator in _COMBINATORS
            if lowered.endswith(combinator)
        )


def load(extra: Collection[str] = ()) -> Functions:
    """The list of the package, and those the operator adds."""
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
