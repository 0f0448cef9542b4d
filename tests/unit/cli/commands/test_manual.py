import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from octane_analytics.cli.commands.manual import PAGES, description, formatted, read_page
from octane_analytics.cli.main import main
from octane_analytics.runtime.exit_codes import Exit

COMMAND = str(Path(sys.executable).with_name("octane-analytics"))
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def test_manual_without_page_lists_pages_in_eighty_columns() -> None:
    result = CliRunner().invoke(main, ["manual"])
    assert result.exit_code == Exit.OK
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines] == list(PAGES)
    for name, line in zip(PAGES, lines, strict=True):
        assert line.endswith(f"  {description(name)}")
        assert len(line) <= 80


@pytest.mark.parametrize("name", PAGES)
def test_page_into_a_pipe_is_plain_markdown(name: str) -> None:
    result = CliRunner().invoke(main, ["manual", name])
    assert result.exit_code == Exit.OK
    assert result.output == read_page(name)
    assert "\x1b" not in result.output


@given(st.sampled_from([name for name in PAGES if len(name) > 3]), st.data())
def test_page_with_a_typo_suggests_the_nearest(name: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(name) - 1))
    typo = data.draw(st.sampled_from([name[:at] + name[at + 1 :], name[:at] + "x" + name[at:]]))
    result = CliRunner().invoke(main, ["manual", typo])
    assert result.exit_code == Exit.USAGE
    assert result.stderr.count("\n") == 1
    assert f"does not have a page {typo!r}; did you mean {name}?" in result.stderr


@pytest.mark.parametrize("name", ["qqq", "../delivery", "/etc/passwd", ""])
def test_page_unlike_any_other_refers_to_the_list(name: str) -> None:
    result = CliRunner().invoke(main, ["manual", name])
    assert result.exit_code == Exit.USAGE
    assert "`octane-analytics manual` lists all pages" in result.stderr or "did you mean" in (
        result.stderr
    )


@pytest.mark.parametrize("columns", [40, 80, 100])
@pytest.mark.parametrize("name", PAGES)
def test_formatted_page_fits_and_keeps_its_text(name: str, columns: int) -> None:
    output = _ANSI.sub("", formatted(read_page(name), columns))
    code = re.findall(r"^```.*?\n(.*?)^```", read_page(name), re.DOTALL | re.MULTILINE)
    for block in code:
        for line in block.splitlines():
            assert f"  {line}".rstrip() in output
    quoted = {f"  {line}" for block in code for line in block.splitlines()}
    formed = [line.rstrip() for line in output.splitlines() if line.rstrip() not in quoted]
    assert all(len(line) <= columns for line in formed)
    assert output.count("…") == read_page(name).count("…")
    assert ".md" not in re.sub(r"\S+\.md", "", output)


def test_links_to_pages_become_their_text() -> None:
    output = formatted("ranges [a, b) as in [delivery](delivery.md#the-guarantee)\n", 80)
    assert _ANSI.sub("", output).rstrip() == "ranges [a, b) as in delivery"


def test_page_on_a_terminal_opens_in_the_pager(tmp_path: Path) -> None:
    pager = tmp_path / "pager"
    paged = tmp_path / "paged"
    pager.write_text(f"#!/bin/sh\ncat > {paged}\n")
    pager.chmod(0o755)
    controller, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    done = subprocess.run(
        [COMMAND, "manual", "delivery"],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env=environment | {"PAGER": str(pager), "TERM": "xterm"},
        timeout=30,
    )
    os.close(terminal)
    os.close(controller)
    assert done.returncode == 0, done.stderr
    text = _ANSI.sub("", paged.read_text())
    assert text.splitlines()[0].strip() == "Delivery"
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 60


def test_page_names_are_completed_with_descriptions() -> None:
    done = subprocess.run(
        [COMMAND],
        env=os.environ
        | {
            "_OCTANE_ANALYTICS_COMPLETE": "zsh_complete",
            "COMP_WORDS": "octane-analytics manual set",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = done.stdout.splitlines()
    assert lines[1::3] == ["settings", "settings-api"]
    assert lines[2::3] == [description("settings"), description("settings-api")]


@pytest.mark.parametrize("name", PAGES)
def test_table_at_eighty_columns_breaks_no_name(name: str) -> None:
    output = _ANSI.sub("", formatted(read_page(name), 80))
    rows = re.findall(r"^\|.*\|$", read_page(name), re.MULTILINE)
    for row in rows:
        text = re.sub(r"\[([^\[\]]+)\]\([\w-]+\.md[^)]*\)|`|\*\*", r"\1", row)
        for word in text.replace("|", " ").split():
            assert word in output or word.startswith("--"), word


@given(
    st.lists(
        st.lists(
            st.from_regex(r"[a-z]{1,20}( [a-z]{1,9}){0,9}", fullmatch=True), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(30, 120),
)
def test_table_fits_and_keeps_words_if_they_fit(rows: list[list[str]], columns: int) -> None:
    lines = ["| a | b | c |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    output = _ANSI.sub("", formatted("\n".join(lines), columns))
    assert all(len(line.rstrip()) <= columns for line in output.splitlines())
    longest = [max(len(word) for row in rows for word in row[at].split()) for at in range(3)]
    if sum(longest) + 2 * 3 <= columns:
        assert set(output.split()) >= {
            word for row in rows for cell in row for word in cell.split()
        }
