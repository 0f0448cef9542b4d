"""Rules of prose that a machine can hold, over every file that carries prose of the project.

Of Markdown all text outside of code is read, of Python docstrings, comments and string literals, of SQL
the comments, of other files everything. To add a kind of file, add its glob to `PROSE`.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
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
    "octane_analytics/**/*.py",
    "octane_analytics/**/*.sql",
    "octane_analytics/api/dashboard/static/*.*",
    "octane_analytics/api/dashboard/static/pages/*",
    "octane_analytics/api/docs/static/*",
    "bin/*",
    "conf/**/*.*",
    "systemd/*",
)
_NOT_YET_CLEAN: frozenset[str] = frozenset()
"""Packages (as in `octane_analytics/api/auth`) whose prose is still being rewritten."""

_LONG_TEST_NAMES: frozenset[str] = frozenset()
"""Directories of tests (as in `tests/unit/api`) whose tests are still being renamed."""

MAX_WORDS_OF_TEST_NAME = 8
NO_FIRST_WORDS = {
    *("answers", "are", "as", "for", "has", "how", "is", "knows", "of", "says", "so", "such"),
    *("tells", "that", "what", "where", "whether", "which", "who", "whoever"),
}
"""Words that begin a clause or speak in the third person: a docstring begins with a verb or a noun."""


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
    _rule(r"\bis\s+no\b|(?<!there )\bare\s+no\b", "write: is not, does not exist, invalid"),
    _rule(r"\btells\b(?!\s+apart)", "write: reports, returns, logs, prints"),
    _rule(r"\bwhence\b", "write: from where, or name the source"),
    _rule(r"\bwho\s+asks\b", "write: the caller"),
    _rule(r"\bof\s+(its|their)\s+own\s+accord\b", "write: by itself"),
    _rule(
        # Letters of an alphabet are meant where digits or a case stand beside them.
        r"(?<!dead-)(?<!dead )(?<!case )(?<!ascii )\bletters?\b(?!-spacing)(?!\s*(,|and|or)\s+digits)",
        "write: dead-letter message",
    ),
    _rule(
        # Lag, or a proxy: how far, 3 records behind; falls behind; a lag behind; behind a proxy.
        r"(?<!far )(?<!messages )(?<!nothing )(?<!\d records )(?<!fall )(?<!falls )(?<!fell )"
        r"(?<!fallen )(?<!lag )(?<!lags )\bbehind\b(?!\s+(a|the|your)\s+(reverse\s+)?prox(y|ies))",
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
    if name.endswith(".sql"):
        comments = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
        return _outside(comments, text)
    return text


def _outside(kept: re.Pattern[str], text: str) -> str:
    """The matches alone, with blanks in place of the rest."""
    shown, end = "", 0
    for match in kept.finditer(text):
        shown += re.sub(r"[^\n]", " ", text[end : match.start()]) + match[0]
        end = match.end()
    return shown + re.sub(r"[^\n]", " ", text[end:])


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


def first_words(source: str) -> Iterator[tuple[int, str]]:
    """Line and first word of the docstrings of the module, its classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body: Sequence[ast.stmt] = node.body
        for before, statement in zip([None, *body], body, strict=False):
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))) if before is None or isinstance(
                    before, ast.Assign | ast.AnnAssign
                ):
                    if words := re.findall(r"\S+", text):
                        yield statement.lineno, words[0]


def bad_first_words(source: str) -> list[Violation]:
    return [
        Violation(line, word, "begin with a verb or a noun of the field")
        for line, word in first_words(source)
        if word.lower().strip(",:;.") in NO_FIRST_WORDS
    ]


def bad_help_texts(source: str) -> list[Violation]:
    return [
        Violation(keyword.value.lineno, text[:40], "a help text begins with a capital")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "help"
        for text in _beginning(keyword.value)
        if not text[:1].isupper()
    ]


def _beginning(text: ast.expr) -> Iterator[str]:
    match text:
        case ast.Constant(value=str(value)) | ast.JoinedStr(values=[ast.Constant(str(value)), *_]):
            yield value


def long_test_names(source: str) -> list[Violation]:
    return [
        Violation(node.lineno, node.name, f"at most {MAX_WORDS_OF_TEST_NAME} words after test_")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len(node.name.split("_")) - 1 > MAX_WORDS_OF_TEST_NAME
    ]


def _shown(path: Path, found: list[Violation]) -> str:
    name = path.relative_to(ROOT)
    return "".join(f"\n{name}:{line}: {text!r}: {advice}" for line, text, advice in sorted(found))


def _by_directory(paths: set[Path], exempt: frozenset[str]) -> list[object]:
    """One parameter for each directory; the exempt ones may fail, so that the count is known."""
    directories: dict[str, list[Path]] = {}
    for path in sorted(path for path in paths if path.is_file()):
        directories.setdefault(str(path.parent.relative_to(ROOT)), []).append(path)
    return [
        pytest.param(
            files,
            id=name,
            marks=[pytest.mark.xfail(reason="rewriting", strict=False)] if name in exempt else [],
        )
        for name, files in directories.items()
    ]


FILES = {path for glob in PROSE for path in ROOT.glob(glob)}


@pytest.mark.parametrize("paths", _by_directory(FILES, _NOT_YET_CLEAN))
def test_prose_keeps_to_the_words_of_the_field(paths: list[Path]) -> None:
    shown = ""
    for path in paths:
        text = path.read_text("utf-8")
        found = violations(prose_of(path.name, text))
        if path.suffix == ".py":
            found += bad_first_words(text) + bad_help_texts(text)
        shown += _shown(path, found)
    assert not shown, shown


@pytest.mark.parametrize(
    "paths", _by_directory({*ROOT.glob("tests/**/test_*.py")}, _LONG_TEST_NAMES)
)
def test_test_names_are_short(paths: list[Path]) -> None:
    shown = "".join(_shown(path, long_test_names(path.read_text("utf-8"))) for path in paths)
    assert not shown, shown


def test_exemptions_name_directories() -> None:
    assert all((ROOT / name).is_dir() for name in _NOT_YET_CLEAN | _LONG_TEST_NAMES)


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
        "the log tells why",
        "events that are no JSON",
        "whence it came",
        "who asks is known by a token",
        "ends of its own accord",
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
        "tells apart two events",
        "letters, digits and underscores; lower-case letters; letter-spacing: 0",
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


def test_sql_prose_is_comments() -> None:
    text = "/* told\n told */\nSELECT 'told' -- told\nFROM told"
    assert [found.line for found in violations(prose_of("x.sql", text))] == [1, 2, 3]


def test_first_words_are_of_every_docstring() -> None:
    source = (
        '"""Of a module."""\nX = 1\n"""What it is."""\n"""What is a plain string."""\n'
        'class A:\n    """Who does it."""\n    x: int\n    """Whether, or not."""\n'
        '    async def f():\n        """Says why."""\n        """Of no importance."""\n'
        'def g():\n    """Return: what is asked for."""\n'
    )
    assert [(found.line, found.text) for found in bad_first_words(source)] == [
        (1, "Of"), (3, "What"), (6, "Who"), (8, "Whether,"), (10, "Says"),
    ]  # fmt: skip


def test_help_texts_begin_with_a_capital() -> None:
    source = "f(help='Wait.')\nf(help='wait.')\nf(help=f'wait {1}')\nf(help=f'{1} wait')\nf(help=x)"
    assert [found.line for found in bad_help_texts(source)] == [2, 3]


def test_long_names_are_counted_in_words() -> None:
    source = "def test_a_b_c_d_e_f_g_h(): ...\nasync def test_a_b_c_d_e_f_g_h_i(): ...\n"
    assert [found.line for found in long_test_names(source)] == [2]
