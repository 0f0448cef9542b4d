"""The API with tokens of every kind, over scripted connections and without a server."""

from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from octane_analytics.api.auth.rate_limits import RateLimiter
from octane_analytics.api.auth.token_file import TokenFile
from octane_analytics.api.auth.tokens import digest_of
from octane_analytics.api.middleware.authorization import AccessPolicy
from octane_analytics.api.raw_sql.endpoint import RawSqlEndpoint
from octane_analytics.api.reports.library import load
from octane_analytics.api.server.app import create_app
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.telemetry.api_metrics import ApiMetrics
from tests.support.asgi_calls import LIMITS, NOW, QUERY_LIMITS, RULES, Script, call, pool

_FILE = "".join(
    f'[tokens.{name}]\nhash = "sha256:{digest_of(name).hex()}"\n{rest}\n'
    for name, rest in {
        "report": 'scopes = ["report"]',
        "query": 'scopes = ["query"]',
        "metrics": 'scopes = ["metrics"]',
        "bound": 'scopes = ["report", "query"]\nparameters = { app_id = "openstream" }',
        "tenant": 'scopes = ["report", "query"]\n'
        'filters = [{ property = "tenant", value = "acme" }]',
        "rival": 'scopes = ["report"]\nfilters = [{ property = "tenant", value = "other" }]',
        "past": 'scopes = ["report"]\nparameters = { to = "2026-02-01T00:00:00Z" }',
        "slow": 'scopes = ["report"]\nrate = "1/min"\nburst = 2',
        "single": 'scopes = ["report"]\nconcurrency = 1',
        "old": 'scopes = ["report"]\nexpires = 2020-01-01T00:00:00Z',
    }.items()
)


class TokenApp:
    """The application with tokens; `origins` are those of CORS."""

    def __init__(self, directory: Path, origins: tuple[str, ...] = ()) -> None:
        path = directory / "tokens.toml"
        path.write_text(_FILE)
        self.script = Script()
        self.registry = CollectorRegistry()
        self.policy = AccessPolicy(
            tokens=TokenFile(path), rate_limiter=RateLimiter(keys=16, processes=1)
        )
        self.app = create_app(
            templates=load(None).templates,
            table=TableName("db", "events"),
            limits=LIMITS,
            pool=pool(self.script),
            probes=pool(self.script),
            queries=RawSqlEndpoint(pool(self.script), RULES, QUERY_LIMITS, "analyst"),
            metrics=ApiMetrics(self.registry),
            exposition=lambda: b"# metrics\n",
            policy=self.policy,
            cache_bytes=1 << 20,
            cors_origins=origins,
            now=lambda: NOW,
        )

    def ask(self, token: str | None, method: str, path: str, **options: Any) -> httpx.Response:
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return call(self.app, method, path, headers=headers, **options)
