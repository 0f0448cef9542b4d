"""Statements from public bug reports against the real API: what each must give, and what it may take."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from octane_analytics.clickhouse.client import ClickHouse
from tests.integration.test_api_server import Server, children, wait_until
from tests.support.raw_sql import CANARY, PASSWORD, Target, target
from tests.support.sql import corpus

CASES = corpus.field_cases()
SLOW_CASES = [case for case in CASES if 504 in case.statuses]
FAST_CASES = [case for case in CASES if 504 not in case.statuses]
SLOW_SECONDS, FAST_SECONDS = 1.0, 5.0
"""Time limits of statements that may meet it (504), and of those that must end before: a second is too
short for an answer of 60 MB on a busy machine."""
LIMIT_BYTES = 64 << 20
MEMORY_BYTES = 512 << 20
SERVER_BYTES = 256 << 20
"""What ClickHouse may keep after all cases so far: caches, and threads' own buffers."""
TRACKED = "SELECT value FROM system.metrics WHERE metric = 'MemoryTracking'"
HEALTH_SECONDS = 0.2
ATTEMPTS = 3
"""A machine with other work to do makes single measurements late: one of three must be in time."""


class Api(Server):
    """The API as it runs in production, with one process."""

    limit_seconds: float
    worker_pid: int
    tracked_bytes: int
    """Memory of ClickHouse before the first case."""

    def growth(self, statement: str) -> tuple[httpx.Response, float, float, int]:
        """The answer, its seconds, the longest wait for /healthz and the growth of the process."""
        Path(f"/proc/{self.worker_pid}/clear_refs").write_text("5")
        before = memory(self.worker_pid, "VmRSS")
        with Health(self.url) as health:
            started = time.monotonic()
            answer = self.query(statement)
            seconds = time.monotonic() - started
        return answer, seconds, health.longest, memory(self.worker_pid, "VmHWM") - before


class Health(threading.Thread):
    """Asks /healthz every 20 ms."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.longest = 0.0
        self._url = url
        self._is_over = threading.Event()

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._is_over.wait(0.02):
                started = time.monotonic()
                client.get("/healthz")
                self.longest = max(self.longest, time.monotonic() - started)

    def __enter__(self) -> "Health":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()


def memory(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def tracked_bytes(at: Target) -> int:
    return int(str(at.select(TRACKED)[0][0]))


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("field_cases")) as opened:
        with ClickHouse(opened.settings, client_name="tests") as connection:
            connection.execute("CREATE DATABASE vault")
            for table in ("vault.canary", "vault.`dot.ted`", "default.`dot.ted`"):
                connection.execute(
                    f"CREATE TABLE {table} (secret String) ENGINE = MergeTree ORDER BY secret"
                )
                connection.execute(f"INSERT INTO {table} SELECT '{CANARY}'")
        yield opened


@pytest.fixture(scope="module")
def slow_api(at: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    yield from _api(at, tmp_path_factory.mktemp("slow"), SLOW_SECONDS)


@pytest.fixture(scope="module")
def fast_api(at: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    yield from _api(at, tmp_path_factory.mktemp("fast"), FAST_SECONDS)


def _api(at: Target, directory: Path, limit_seconds: float) -> Iterator[Api]:
    server = Api(at.settings, directory)
    server.limit_seconds = limit_seconds
    server.environment |= {
        "API_WORKERS": "1",
        "API_QUERY_TIMEOUT": f"{limit_seconds:g}",
        "API_MAX_RESULT_BYTES": str(LIMIT_BYTES),
        "API_MAX_MEMORY_BYTES": str(MEMORY_BYTES),
        "API_QUERY_FUNCTIONS": "",
        "CLICKHOUSE_QUERY_USER": at.query_settings.user,
        "CLICKHOUSE_QUERY_PASSWORD": PASSWORD,
    }
    with server.start() as process:
        try:
            wait_until(server.is_up)
            (server.worker_pid,) = children(process.pid)
            assert server.query("SELECT 1").status_code == 200
            server.tracked_bytes = tracked_bytes(at)
            yield server
        finally:
            process.kill()
            print(server.log.read_text()[-5000:])


def by_case(cases: Sequence[corpus.Statement]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", cases, ids=lambda case: f"{case.group}: {case.text[:60]}"
    )


@by_case(FAST_CASES)
def test_field_case_gives_its_status(at: Target, fast_api: Api, case: corpus.Statement) -> None:
    assert_bounded(at, fast_api, case)


@by_case(SLOW_CASES)
def test_slow_field_case_ends_in_time(at: Target, slow_api: Api, case: corpus.Statement) -> None:
    assert_bounded(at, slow_api, case)


def assert_bounded(at: Target, api: Api, case: corpus.Statement) -> None:
    """The status is one of the case's, and time and memory stay within the limits."""
    problems = []
    for _ in range(ATTEMPTS):
        answer, seconds, longest_wait, grown = api.growth(case.text)
        assert answer.status_code in case.statuses, answer.text[:300]
        assert CANARY not in answer.text
        assert grown <= 2 * LIMIT_BYTES, grown
        problems = [
            *([f"answered after {seconds:.1f} s"] if seconds > api.limit_seconds + 1 else []),
            *([f"/healthz waited {longest_wait:.2f} s"] if longest_wait > HEALTH_SECONDS else []),
        ]
        if not problems:
            break
    assert not problems, problems
    if case.group.endswith("hint"):
        assert "WHERE cityHash64(user_id) % 10 = 0" in answer.text
    running = "SELECT count() FROM system.processes WHERE user = 'octane_query'"
    wait_until(lambda: at.select(running) == [(0,)], 2.0)
    # ClickHouse releases the memory of a query after its end, and corrects the figure once a second.
    limit = api.tracked_bytes + SERVER_BYTES
    wait_until(lambda: tracked_bytes(at) <= limit, 5.0)
