import pytest

from octane_analytics.cli.progress import reporter


def test_lines_come_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    with reporter("to a [bold] topic", 200, lambda: now) as shown:
        shown.update(10, "too early")
        now = 105.0
        shown.update(50, "50 delivered")
        now = 106.0
        shown.update(60, "too early again")
    assert capsys.readouterr().err == "to a [bold] topic 25%: 50 delivered\n"


def test_lines_show_no_share_of_an_unknown_total(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    with reporter("to t", None, lambda: now) as shown:
        now = 105.0
        shown.update(50, "50 delivered")
    assert capsys.readouterr().err == "to t: 50 delivered\n"
