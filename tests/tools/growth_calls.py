"""Calls of functions whose arguments have a given size, for function_growth.py, as statements."""

from dataclasses import dataclass

from tests.tools.growth_arguments import SIZED

SMALL_SIZE = 4
WINDOWS = {
    "whole": "ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    "running": "ORDER BY number",
    "sliding": "ORDER BY number ROWS BETWEEN 100 PRECEDING AND CURRENT ROW",
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call with arguments: names of SIZED, or expressions; columns unless `is_constant`."""

    function: str
    arguments: tuple[str, ...]
    is_constant: bool = False

    @property
    def has_size(self) -> bool:
        return any(map(_has_size, self.arguments))

    def sql(self, size: int) -> str:
        columns, given = [], []
        for index, argument in enumerate(self.arguments):
            text = _expression(argument, size)
            if _has_size(argument) and not self.is_constant:
                columns.append(f"materialize({text}) AS c{index}")
                text = f"c{index}"
            given.append(text)
        return (
            f"SELECT ignore(`{self.function}`({', '.join(given)})) "
            f"FROM (SELECT {', '.join([*columns, '1 AS one'])})"
        )


@dataclass(frozen=True, slots=True)
class ElementCall:
    """A call for each of `size` elements of a lambda; the arguments at `copied` are no constants."""

    function: str
    arguments: tuple[str, ...]
    copied: frozenset[int]

    def sql(self, size: int) -> str:
        given = [
            f"materialize({text})" if index in self.copied else text
            for index, argument in enumerate(self.arguments)
            for text in [_expression(argument, SMALL_SIZE)]
        ]
        called = f"`{self.function}`({', '.join(given)})"
        return f"SELECT ignore(arrayMap(element -> {called}, range({size})))"


@dataclass(frozen=True, slots=True)
class AggregateCall:
    """A call over `size` rows, as an aggregate, or over one of WINDOWS."""

    function: str
    parameters: str
    arguments: tuple[str, ...]
    window: str = ""

    def sql(self, size: int) -> str:
        parameters = self.parameters.replace("{n}", str(size))
        call = f"`{self.function}`{parameters}({', '.join(self.arguments)})"
        if self.window:
            rows = f"SELECT {call} OVER ({WINDOWS[self.window]}) AS a FROM numbers({size})"
            return f"SELECT count(ignore(a)) FROM ({rows})"
        return f"SELECT ignore({call}) FROM numbers({size})"


AnyCall = Call | ElementCall | AggregateCall


def _has_size(argument: str) -> bool:
    return argument in SIZED or "{n}" in argument


def _expression(argument: str, size: int) -> str:
    return SIZED.get(argument, argument).format(n=size) if _has_size(argument) else argument
