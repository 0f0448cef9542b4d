"""A real Prometheus on loopback, queried over its HTTP API. From Debian's package `prometheus`."""

import http.client
import json
import math
import shutil
import subprocess
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.support.leash import leashed
from tests.support.ports import free_port
from tests.tools.faults.audit import wait_until

RULES = Path(__file__).resolve().parents[3] / "conf" / "prometheus" / "alerts.yml"
_START_SECONDS = 30.0


def is_installed() -> bool:
    return shutil.which("prometheus") is not None


class Prometheus:
    """Scrapes each job's address (`host:port`), with this project's rules loaded.

    As a context manager: runs within the block, and keeps nothing. It ends with the thread that
    started it, even where that is killed.
    """

    def __init__(
        self, directory: Path, jobs: Mapping[str, str], *, scrape_seconds: float = 1.0
    ) -> None:
        self._directory = directory
        self._jobs = jobs
        self._scrape_seconds = scrape_seconds
        self._port = free_port()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        interval = f"{round(self._scrape_seconds * 1000)}ms"
        scrapes = [
            {"job_name": job, "static_configs": [{"targets": [address]}]}
            for job, address in self._jobs.items()
        ]
        config = self._directory / "prometheus.yml"
        # JSON is YAML too.
        config.write_text(
            json.dumps(
                {
                    "global": {
                        "scrape_interval": interval,
                        "scrape_timeout": interval,
                        "evaluation_interval": interval,
                    },
                    "rule_files": [str(RULES)],
                    "scrape_configs": scrapes,
                }
            )
        )
        program = shutil.which("prometheus")
        assert program is not None, "apt-get install prometheus"
        with (self._directory / "prometheus.log").open("wb") as log:
            self._child = subprocess.Popen(
                leashed(
                    [
                        program,
                        f"--config.file={config}",
                        f"--storage.tsdb.path={self._directory / 'data'}",
                        f"--web.listen-address=127.0.0.1:{self._port}",
                    ]
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The kernel shares the CPUs out by session, and it stands for another machine.
                start_new_session=True,
            )
        wait_until(self._is_ready, _START_SECONDS, "Prometheus")
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(10)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each series, now. Raise PromQLError for an invalid expression."""
        data = self._ask("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(found["metric"], float(found["value"][1])) for found in data["result"]]

    def value(self, expression: str) -> float:
        """Return the value of the only series; NaN without one."""
        found = self.query(expression)
        assert len(found) < 2, found
        return found[0][1] if found else math.nan

    def rules(self) -> dict[str, tuple[str, str]]:
        """Return state (inactive, pending, firing) and health of evaluation by alert."""
        groups = self._ask("rules")["groups"]
        return {
            rule["name"]: (rule["state"], rule["health"])
            for group in groups
            for rule in group["rules"]
        }

    def _is_ready(self) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            raise RuntimeError((self._directory / "prometheus.log").read_text())
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _ask(self, what: str, **parameters: object) -> Any:
        status, body = self._get(f"/api/v1/{what}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(body)
        if status != 200:
            raise PromQLError(f"{parameters}: {answer.get('error')}")
        return answer["data"]

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class PromQLError(ValueError):
    """Prometheus rejects the expression."""
