"""Words that the prose of this project does not use, held over the files in `PROSE`.

To hold another kind of file against the rules, add its glob to `PROSE`. Of Markdown all text outside of
code is read, of Python docstrings, comments and string literals, of other files everything.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
PROSE = (
    "README.md",
    "CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    "tests/README.md",
    "octane_analytics/manual/*.md",
    "octane_analytics/cli/commands/manual.py",
    "conf/**/*.*",
    "systemd/*",
)


class Rule(NamedTuple):
    pattern: re.Pattern[str]
    advice: str


def _rule(pattern: str, advice: str) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), advice)


RULES = (
    _rule(r"\btold\b", "write: reported, returned, logged, printed"),
    _rule(r"\banew\b", "write: recreated, again, from the beginning"),
    _rule(r"\bwhoever\b", "name the thing of the code or the field"),
    _rule(r"\bmend(s|ed|ing)?\b", "write: fix"),
    _rule(r"\bis\s+no\b", "write: is not, does not exist, invalid"),
    _rule(r"(?<!dead-)\bletters?\b", "write: dead-letter message"),
    _rule(
        # Lag, or a proxy: how far, 3 records behind; falls behind; a lag behind; behind a proxy.
        r"(?<!far )(?<!\d messages )(?<!\d records )(?<!fall )(?<!falls )(?<!fell )(?<!fallen )"
        r"(?<!lag )(?<!lags )\bbehind\b(?!\s+(a|the|your)\s+(reverse\s+)?proxy)",
        "write: after, later, below; behind is for lag and proxies",
    ),
)


class Violation(NamedTuple):
    line: int
    text: str
    advice: str


def violations(prose: str, rules: tuple[Rule, ...] = RULES) -> list[Violation]:
    """Every match of a rule, by line; a match may extend over a line break."""
    return sorted(
        Violation(prose.count("\n", 0, match.start()) + 1, match[0], rule.advice)
        for rule in rules
        for match in rule.pattern.finditer(prose)
    )


def prose_of(name: str, text: str) -> str:
    """The text without code: as many lines as before, with blanks in place of the rest."""
    if name.endswith(".md"):
        return re.sub(r"^```.*?^```|`[^`]*`", _blank, text, flags=re.DOTALL | re.MULTILINE)
    if name.endswith(".py"):
        lines = [""] * (text.count("\n") + 2)
        for number, part in (*_literals(text), *_comments(text)):
            for offset, line in enumerate(part.splitlines()):
                lines[min(number + offset, len(lines)) - 1] += " " + line
        return re.sub(r"`[^`]*`", _blank, "\n".join(lines))
    return text


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _literals(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


FILES = sorted(path for glob in PROSE for path in ROOT.glob(glob) if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_prose_keeps_to_the_words_of_the_field(path: Path) -> None:
    found = violations(prose_of(path.name, path.read_text("utf-8")))
    shown = [f"{path.name}:{line}: {text!r}: {advice}" for line, text, advice in found]
    assert not shown, "\n".join(["", *shown])


def test_globs_find_files() -> None:
    for glob in PROSE:
        assert any(ROOT.glob(glob)), glob


@pytest.mark.parametrize(
    "text",
    [
        "the reason is told in the log",
        "the client is made anew",
        "Whoever owns the partition",
        "mend the producer",
        "it was mended",
        "what is no valid event",
        "a line break: it is\nno event",
        "1,207 letters in the topic",
        "a Letter",
        "offsets behind the range",
        "the port behind it",
    ],
)
def test_rules_find_banned_words(text: str) -> None:
    assert violations(text)


@pytest.mark.parametrize(
    "text",
    [
        "the dead-letter topic and dead-letter messages",
        "how far behind the group is",
        "19,000 messages behind, the oldest 4.2 s old",
        "partitions that fall behind",
        "the API runs behind a reverse proxy, or behind the proxy",
        "recommended, amended, untold",
        "there are no tokens; this is not one; is now",
    ],
)
def test_rules_let_plain_words_pass(text: str) -> None:
    assert violations(text) == []


def test_markdown_prose_is_what_stands_outside_of_code() -> None:
    text = "# told\n`told`\n```\ntold\n```\nso\ntold"
    assert [found.line for found in violations(prose_of("x.md", text))] == [1, 7]


def test_python_prose_is_docstrings_comments_and_strings() -> None:
    source = '"""Told."""\ntold = 1  # told\ncall(\n    "a "\n    f"told {told}",\n)\n# `told`\n'
    assert [found.line for found in violations(prose_of("x.py", source))] == [1, 2, 4]


@given(st.lists(st.sampled_from(["told", "`told`", "plain", "```\ntold\n```", "a `code` told"])))
def test_prose_keeps_the_lines_of_markdown(parts: list[str]) -> None:
    text = "\n".join(parts)
    assert prose_of("x.md", text).count("\n") == text.count("\n")
    expected = sum(part in ("told", "a `code` told") for part in parts)
    assert len(violations(prose_of("x.md", text))) == expected
