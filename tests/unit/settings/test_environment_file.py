"""Environment files, with the meaning that systemd gives them."""

from pathlib import Path

import pytest

from octane_analytics.errors import ConfigError
from octane_analytics.settings import environment_file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("", {}),
        ("# A=1\n ; B=2\n\n  \nC=3\n", {"C": "3"}),
        ("A=", {"A": ""}),
        ("A=1\nA=2", {"A": "2"}),
        (" A =  two words \t", {"A": "two words"}),
        ("A=a=b#c", {"A": "a=b#c"}),
        ("A='single $x \\n'", {"A": "single $x \\n"}),
        ('A="q\\"uote \\$ \\n"', {"A": 'q"uote $ \\n'}),
        ("A='one ' \"two\"", {"A": "one two"}),
        ("A='over\ntwo lines'\nB=2", {"A": "over\ntwo lines", "B": "2"}),
        ("A=joined \\\nlines\nB=2", {"A": "joined lines", "B": "2"}),
        ('A="joined \\\nlines"', {"A": "joined lines"}),
        ('A=it"s \\x', {"A": 'it"s x'}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ],
)
def test_file_is_parsed_as_by_systemd(text: str, expected: dict[str, str]) -> None:
    assert environment_file.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A=1\nnonsense", "line 2: not NAME=value: 'nonsense'"),
        ("export A=1", "line 1: not NAME=value: 'export A'"),
        ("1A=1", "line 1: not NAME=value: '1A'"),
        ("A='1\n2\nB=3", "line 1: a quote is not closed"),
        ('A=1\nB="2', "line 2: a quote is not closed"),
    ],
)
def test_line_without_assignment_is_reported(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "some.env"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        environment_file.read(path)
    assert str(raised.value) == f"{path}, {message}"


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    for path in (tmp_path / "none.env", tmp_path):
        with pytest.raises(ConfigError, match=f"^cannot read the environment file {path}: "):
            environment_file.read(path)
    (tmp_path / "latin.env").write_bytes(b"A=\xe9\n")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        environment_file.read(tmp_path / "latin.env")
