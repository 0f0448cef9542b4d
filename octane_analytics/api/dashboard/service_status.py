"""State of the whole service for its operators, as far as this process can see it.

The supervisor of the workers on this machine answers on its control socket, as to the command `status`.
The metrics process has all metrics, lag included; without it the metrics files of this process are read.
"""

import http.client
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from octane_analytics.supervisor.control_socket import request_status
from octane_analytics.telemetry import samples
from octane_analytics.telemetry.conditions import conditions
from octane_analytics.telemetry.logging import fields

TIMEOUT_SECONDS = 2.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_MAX_BYTES = 8 << 20

log = logging.getLogger(__name__)


class ServiceStatusSource:
    """Reads the state; each call blocks for at most some seconds."""

    def __init__(
        self,
        control_socket: Path | None,
        metrics_address: tuple[str, int] | None,
        exposition: Callable[[], bytes],
    ) -> None:
        """Without a `control_socket` or `metrics_address` that source is absent."""
        self._control_socket = control_socket
        self._metrics_address = metrics_address
        self._exposition = exposition

    def read(self) -> dict[str, Any]:
        """Return `supervisor` (its JSON; null if none answers), `has_lag`, `metrics` and their
        `conditions`."""
        found = list(samples.parse(self._exposition().decode()))
        names = {sample.name for sample in found}
        # The processes may share their files: a metric of both is the same number.
        found += [each for each in self._metrics_process() if each.name not in names]
        return {
            "supervisor": self._supervisor(),
            "has_lag": any(sample.name == "analytics_lag_messages" for sample in found),
            "metrics": [sample._asdict() for sample in found],
            "conditions": [asdict(each) for each in conditions(found, time.time())],
        }

    def _supervisor(self) -> dict[str, Any] | None:
        if self._control_socket is None:
            return None
        try:
            answer: dict[str, Any] = json.loads(
                request_status(self._control_socket, TIMEOUT_SECONDS)
            )
        except (OSError, ValueError) as error:
            log.debug("supervisor does not answer", extra=fields(error=str(error)))
            return None
        return answer

    def _metrics_process(self) -> list[samples.MetricSample]:
        if self._metrics_address is None:
            return []
        host, port = self._metrics_address
        connection = http.client.HTTPConnection(
            _EVERY_ADDRESS.get(host, host), port, timeout=TIMEOUT_SECONDS
        )
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read(_MAX_BYTES).decode()
            # Another program may listen on that port.
            if answer.status != 200 or "analytics_build_info" not in text:
                return []
            return list(samples.parse(text))
        except (OSError, ValueError, http.client.HTTPException) as error:
            log.debug("metrics process does not answer", extra=fields(error=str(error)))
            return []
        finally:
            connection.close()
