"""Options of URLs with any text: refused with a reason, never an internal error."""

import base64

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.asgi_calls import Script, app_over, call, result

ROW = result(("x", 1), content_id="String", watch_time="Float64")
NUMBERS = st.sampled_from(
    ["0", "-1", "4294967295", "4294967296", "1e308", "1e999", "nan", "now", "-7d", "-999999999w"]
)
TIMES = NUMBERS | st.datetimes().map(lambda each: each.isoformat() + "Z") | st.text(max_size=8)
CURSORS = st.tuples(st.integers() | st.none(), TIMES, TIMES).map(
    lambda each: base64.urlsafe_b64encode(repr(list(each)).replace("'", '"').encode()).decode()
)
OPERATORS = st.sampled_from(["gt", "lt", "in", "exists", "eq", "like"])
OPTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("filter"), st.text(max_size=20)),
        st.tuples(st.just("filter"), st.tuples(TIMES, OPERATORS, TIMES).map(":".join)),
        st.tuples(st.just("compare"), st.tuples(TIMES, TIMES).map("/".join) | st.text(max_size=9)),
        st.tuples(st.just("cursor"), CURSORS | st.text(max_size=30)),
        st.tuples(st.sampled_from(["from", "to"]), TIMES),
        st.tuples(st.sampled_from(["limit", "offset", "interval"]), NUMBERS),
        st.tuples(
            st.sampled_from(["totals", "integers", "format", "download", "csv_raw", "exact"]),
            st.sampled_from(["0", "1", "string", "csv", "json", "\x00"]) | st.text(max_size=5),
        ),
        st.tuples(st.text(max_size=5), st.text(max_size=5)),
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=50)
@given(OPTIONS, st.sampled_from(["GET", "HEAD"]))
@example([("compare", "0001-01-01T00:00:00Z/9999-12-31T23:59:59Z")], "GET")
@example([("from", "0001-01-01T00:00:00+23:59"), ("compare", "previous_year")], "GET")
@example([("to", "1970-06-01T00:00:00Z"), ("compare", "previous_year")], "GET")
@example([("to", "2106-02-07T06:28:15Z"), ("compare", "previous_period")], "GET")
def test_any_option_is_answered_or_refused(options: list[tuple[str, str]], method: str) -> None:
    app = app_over(Script(*[ROW] * 5))
    answer = call(app, method, "/report/top_content", params=options)
    assert answer.status_code in (200, 406, 422), (answer.status_code, answer.text)
    if method == "HEAD":
        assert answer.content == b"" or answer.status_code != 200
        answer = call(app_over(Script()), "HEAD", "/live/top_content", params=options)
        assert answer.status_code in (200, 422), (answer.status_code, answer.text)
