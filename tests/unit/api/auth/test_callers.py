"""Authentication of callers, scopes and fixed parameters."""

from datetime import UTC, datetime

import pytest
from starlette.datastructures import Headers

from octane_analytics.api.auth.callers import (
    ANONYMOUS,
    AccessDenied,
    Caller,
    anonymous_caller,
    apply_bound_parameters,
    authenticate,
    is_loopback,
    partition,
    require_scope,
)
from octane_analytics.api.auth.tokens import Token, Tokens, digest_of
from octane_analytics.errors import QueryError

NOW = datetime(2026, 2, 2, tzinfo=UTC)
TOKENS = Tokens(
    [
        Token("dash", digest_of("secret"), frozenset({"report"})),
        Token("old", digest_of("stale"), frozenset({"report"}), expires=NOW),
    ]
)
BOUND = Caller("dash", frozenset({"report"}), {"app_id": "openstream", "limit": 5})
LOCAL = {"Host": "localhost:8001"}


def headers(*values: str) -> Headers:
    return Headers(raw=[(b"authorization", value.encode("latin-1")) for value in values])


@pytest.mark.parametrize("value", ["Bearer secret", "bearer secret", "BEARER  secret "])
def test_bearer_token_returns_its_caller(value: str) -> None:
    caller = authenticate(headers(value), TOKENS, NOW)
    assert (caller.name, set(caller.scopes)) == ("dash", {"report"})


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ((), 401, "token_missing"),
        (("",), 401, "token_missing"),
        (("Bearer",), 401, "token_missing"),
        (("Bearer ",), 401, "token_missing"),
        (("secret",), 401, "token_missing"),
        (("Basic c2VjcmV0",), 401, "token_missing"),
        (("Bearer Secret",), 401, "token_unknown"),
        (("Bearer secret, Bearer secret",), 401, "token_unknown"),
        (("Bearer secret\x00",), 401, "token_unknown"),
        (("Bearer s\xe9cret",), 401, "token_unknown"),
        (("Bearer stale",), 401, "token_expired"),
        (("Bearer secret", "Bearer secret"), 400, "bad_request"),
        (("Bearer nonsense", "Bearer secret"), 400, "bad_request"),
    ],
)
def test_request_without_valid_token_is_refused(
    values: tuple[str, ...], status: int, code: str
) -> None:
    with pytest.raises(AccessDenied) as caught:
        authenticate(headers(*values), TOKENS, NOW)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert ("WWW-Authenticate" in caught.value.headers) == (status == 401)
    for value in values:
        shown = value.removeprefix("Bearer ").strip()
        assert not shown or shown == "Bearer" or shown not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8001",
        "LOCALHOST",
        "127.0.0.1:8001",
        "[::1]:8001",
        "192.0.2.7",
    ],
)
def test_local_client_without_configured_tokens_is_anonymous(host: str) -> None:
    caller = anonymous_caller(Headers({"Host": host}), "127.0.0.1", allow_anonymous=False)
    assert caller.name == ANONYMOUS
    assert caller.scopes == {"report", "query", "metrics"}


@pytest.mark.parametrize(
    ("peer", "given"),
    [
        ("192.0.2.1", LOCAL),
        ("::ffff:192.0.2.1", LOCAL),
        (None, LOCAL),
        ("testclient", LOCAL),
        ("127.0.0.1", LOCAL | {"X-Forwarded-For": "127.0.0.1"}),
        ("127.0.0.1", LOCAL | {"Forwarded": "for=127.0.0.1"}),
        ("127.0.0.1", LOCAL | {"X-Real-IP": "127.0.0.1"}),
        ("127.0.0.1", LOCAL | {"Via": "1.1 proxy"}),
        ("127.0.0.1", LOCAL | {"X-Forwarded-Proto": "https"}),
        ("127.0.0.1", LOCAL | {"X-Forwarded-Server": "proxy"}),
        ("127.0.0.1", LOCAL | {"X-Original-URL": "/"}),
        ("127.0.0.1", LOCAL | {"CF-Connecting-IP": "127.0.0.1"}),
        ("127.0.0.1", LOCAL | {"True-Client-IP": "127.0.0.1"}),
        ("127.0.0.1", LOCAL | {"X-Client-IP": "127.0.0.1"}),
        ("127.0.0.1", LOCAL | {"CDN-Loop": "cdn"}),
        ("127.0.0.1", {"Host": "evil.example"}),
        ("127.0.0.1", {"Host": "evil.example:8001"}),
        ("127.0.0.1", {"Host": "localhost.evil.example"}),
        ("127.0.0.1", {"Host": "localhost@evil.example"}),
        ("127.0.0.1", {"Host": "127.0.0.1.evil.example"}),
        ("127.0.0.1", {"Host": "localhost:80\N{ARABIC-INDIC DIGIT ONE}1"}),
        ("127.0.0.1", {"Host": "1\N{DEVANAGARI DIGIT TWO}7.0.0.1"}),
        ("127.0.0.1", {"Host": "[::1"}),
        ("127.0.0.1", {"Host": ""}),
        ("127.0.0.1", {}),
    ],
)
def test_remote_client_without_configured_tokens_is_refused(
    peer: str | None, given: dict[str, str]
) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in given.items()]
    with pytest.raises(AccessDenied) as caught:
        anonymous_caller(Headers(raw=raw), peer, allow_anonymous=False)
    assert caught.value.status == 403
    opened = anonymous_caller(Headers(raw=raw), peer, allow_anonymous=True)
    assert opened.scopes == {"report"}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback_is_distinguished_from_other_addresses(
    address: str | None, expected: bool
) -> None:
    assert is_loopback(address) == expected


def test_missing_scope_is_refused() -> None:
    token = Token("dash", b"", frozenset({"report"}))
    caller = Caller("dash", token.scopes, {}, token)
    require_scope(caller, "report")
    with pytest.raises(AccessDenied, match="does not have the scope query") as caught:
        require_scope(caller, "query")
    assert "insufficient_scope" in caught.value.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "given",
    [{}, {"app_id": None}, {"app_id": "openstream"}, {"limit": "5"}, {"limit": 5, "from": "x"}],
)
def test_fixed_parameters_are_filled_in(given: dict[str, object]) -> None:
    found = apply_bound_parameters(BOUND, ["app_id", "limit", "from"], given)
    assert (found["app_id"], found["limit"]) == ("openstream", 5)
    assert found.get("from") == given.get("from")


@pytest.mark.parametrize(
    "value", ["other", "", "openstream ", "OPENSTREAM", ["openstream"], {"a": 1}, 1, True]
)
def test_value_other_than_the_fixed_one_is_refused(value: object) -> None:
    with pytest.raises(QueryError) as caught:
        apply_bound_parameters(BOUND, ["app_id", "limit"], {"app_id": value})
    assert (caught.value.status, caught.value.code) == (403, "parameter_fixed")


def test_report_without_the_fixed_parameter_is_refused() -> None:
    with pytest.raises(QueryError) as caught:
        apply_bound_parameters(BOUND, ["limit"], {})
    assert caught.value.status == 403


def test_each_token_has_its_own_partition() -> None:
    token = Token("dash", b"", frozenset())
    assert partition(Caller("dash", frozenset(), {}, token)) == "dash"
    assert partition(Caller(ANONYMOUS, frozenset())) == ""
