import pytest

from octane_analytics.cli.output.progress import fitted, reporter

NOTE = "123,456 of 1,000,000 events, 123,456 events/s, 1,234 s left"


def test_progress_lines_are_printed_every_five_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    with reporter("to a [bold] topic", 200, lambda: now) as progress:
        progress.update(10, "too early")
        now = 105.0
        progress.update(50, "50 delivered")
        now = 106.0
        progress.update(60, "too early again")
    assert capsys.readouterr().err == "to a [bold] topic 25%: 50 delivered\n"


def test_progress_line_omits_share_of_unknown_total(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    with reporter("to t", None, lambda: now) as progress:
        now = 105.0
        progress.update(50, "50 delivered")
    assert capsys.readouterr().err == "to t: 50 delivered\n"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, f"reading octane.events {'━' * 4}{'─' * 29}  12% {NOTE}"),
        (90, f"reading octane.events  12% {NOTE}"),
        (72, f"reading  12% {NOTE}"),
        (58, "reading  12% 123,456 of 1,000,000 events, 1,234 s left"),
        (45, "reading  12% 123,456 of 1,000,000 events"),
    ],
)
def test_bar_omits_whole_parts_on_narrow_terminal(width: int, expected: str) -> None:
    assert fitted("reading octane.events", 0.123456, NOTE, width) == expected


def test_bar_omits_share_of_unknown_total() -> None:
    assert fitted("comparing with t", None, "a month", 70) == "comparing with t a month"
