"""A real ClickHouse in a child process, for development and tests.

Owns the child's directory and configuration. Does not depend on any table, nor on a client library:
it uses HTTP only to detect that the server is up.

The server is clickhouse-local from the chdb-core wheel, which listens after `SYSTEM START LISTEN`
(ClickHouse #101143). Visible differences from clickhouse-server:

- There is nowhere to store users, roles and quotas created by SQL (`CREATE USER` raises
  ACCESS_STORAGE_FOR_INSERTION_NOT_FOUND); users are given to the constructor.
- `file()` reads any file that the process may read: `user_files_path` does not confine it.
- Any process that can reach the loopback interface can connect as `default`, without a password.
"""

import http.client
import importlib.util
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from octane_analytics.sandbox.engine import HOST, Engine, EngineError, free_port, is_free

_CHILD = "octane_analytics.sandbox.clickhouse_child"
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 4096
_CONFIG = """\
<clickhouse>
  <listen_host>{host}</listen_host>
  <tcp_port>{tcp_port}</tcp_port>
  <http_port>{http_port}</http_port>
  <display_name>{identity}</display_name>
  <path>{data}/</path>
  <users_config>users.xml</users_config>
  <!-- clickhouse-local reads log-level where the server reads logger.level -->
  <log-level>{log_level}</log-level>
  <logger><log>{log}</log><size>16M</size><count>1</count><async>false</async></logger>
  <max_server_memory_usage>{max_memory_bytes}</max_server_memory_usage>
  <!-- longer periods, so that an idle server uses little CPU -->
  <memory_worker_period_ms>1000</memory_worker_period_ms>
  <asynchronous_metrics_update_period_s>60</asynchronous_metrics_update_period_s>
  <!-- as clickhouse-server's own config.xml has it -->
  <access_control_improvements>
    <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
  </access_control_improvements>{macros}{keeper}{system_logs}
</clickhouse>
"""
_KEEPER = """
  <zookeeper><implementation>testkeeper</implementation></zookeeper>"""
_SYSTEM_LOGS = """
  <query_log><database>system</database><table>query_log</table>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds></query_log>
  <opentelemetry_span_log><database>system</database><table>opentelemetry_span_log</table>
    <engine>ENGINE MergeTree ORDER BY (finish_date, finish_time_us, trace_id)</engine>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds></opentelemetry_span_log>"""


_USERS = """\
<clickhouse>
  <profiles>{profiles}</profiles>
  <users>
    <default>
      <password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile>
      <quota>default</quota><access_management>1</access_management>
    </default>{users}
  </users>
  <quotas><default/></quotas>
</clickhouse>
"""
_USER = """
    <{name}>
      <password>{password}</password><networks><ip>127.0.0.1</ip></networks>
      <profile>{name}</profile><quota>default</quota>{grants}
    </{name}>"""
# Seconds until an idle connection notices a shutdown, which waits for it. ClickHouse's default is 10.
_DEFAULT_PROFILE: dict[str, str | int] = {"poll_interval": 1}


@dataclass(frozen=True, slots=True)
class User:
    """One user in addition to `default`, which may connect from loopback.

    `grants` are whole statements such as `GRANT SELECT ON default.*`; None allows everything.
    `settings` become the user's profile; no query may change those named in `readonly_settings`.
    """

    name: str
    password: str = ""
    grants: Sequence[str] | None = None
    settings: Mapping[str, str | int] = field(default_factory=dict)
    readonly_settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in (self.name, *self.settings, *self.readonly_settings):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} cannot be the name of an element in users.xml")


class EmbeddedClickHouse(Engine):
    """One server over one directory.

    The directory is created if missing (mode 0700). Its data survives restarts and `kill`. A port of 0
    is chosen at the first start and kept from then on. The server ends with this process, however that
    ends; if the main thread started it, even while paused.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tcp_port: int = 0,
        http_port: int = 0,
        users: Sequence[User] = (),
        users_files: Mapping[str, str] | None = None,
        max_memory_bytes: int = 2 << 30,
        system_logs: bool = False,
        has_keeper: bool = False,
        macros: Mapping[str, str] | None = None,
        log_level: str = "warning",
    ) -> None:
        """Configure the server without starting it. `users_files` are files for users.d, by name.

        `system_logs` turns on `system.query_log` and `system.opentelemetry_span_log`. `has_keeper`
        allows replicated tables, whose coordination is lost with the process. `macros` are the server's
        substitutions by name, such as `shard`."""
        super().__init__()
        self._directory = directory.absolute()
        self._tcp_port = tcp_port
        self._http_port = http_port
        self._users = tuple(users)
        self._users_files = dict(users_files or {})
        self._max_memory_bytes = max_memory_bytes
        self._system_logs = system_logs
        self._has_keeper = has_keeper
        self._macros = dict(macros or {})
        self._log_level = log_level

    @property
    def host(self) -> str:
        """Address that the server listens on."""
        return HOST

    @property
    def tcp_port(self) -> int:
        """Port of the native protocol; 0 until the first start if it was not given."""
        return self._tcp_port

    @property
    def http_port(self) -> int:
        """Port of the HTTP interface; 0 until the first start if it was not given."""
        return self._http_port

    @property
    def log_path(self) -> Path:
        """The log of all starts over this directory, oldest first."""
        return self._directory / "server.log"

    def start(self, timeout_seconds: float = 30.0) -> None:
        """Start the server and block until it answers a query, or raise EngineError."""
        deadline = time.monotonic() + timeout_seconds
        if self.pid is not None:
            raise EngineError(f"already running over {self._directory}")
        self.kill()  # reaps a server that ended by itself
        if importlib.util.find_spec("chdb") is None:
            raise EngineError(
                "chdb-core is not installed: pip install 'octane-analytics[embedded]'"
            )
        self._tcp_port = self._tcp_port or free_port(self._http_port)
        self._http_port = self._http_port or free_port(self._tcp_port)
        for port in (self._tcp_port, self._http_port):
            if not is_free(port):
                raise EngineError(f"port {port} on {HOST} is in use: choose another")
        # A unique name, so that a response proves that it comes from this child.
        identity = f"embedded-{secrets.token_hex(8)}"
        try:
            self._write_configuration(identity)
            log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
            with self.log_path.open("ab") as log:
                self._spawn(self._program(), str(self._directory), stdout=log, stderr=log)
        except OSError as error:
            raise EngineError(f"cannot run in {self._directory}: {error}") from error
        try:
            self._wait_until_up(identity, deadline, log_start)
        except BaseException:
            self.kill()
            raise

    def _program(self) -> str:
        """Return the module that the child process runs."""
        return _CHILD

    def _write_configuration(self, identity: str) -> None:
        data = self._directory / "data"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.mkdir(mode=0o700, exist_ok=True)
        config = _CONFIG.format(
            host=HOST,
            tcp_port=self._tcp_port,
            http_port=self._http_port,
            identity=identity,
            data=escape(str(data)),
            log=escape(str(self.log_path)),
            log_level=escape(self._log_level),
            max_memory_bytes=self._max_memory_bytes,
            macros=_macros_xml(self._macros),
            keeper=_KEEPER if self._has_keeper else "",
            system_logs=_SYSTEM_LOGS if self._system_logs else "",
        )
        users = _USERS.format(
            profiles="".join(map(_profile_xml, (User("default"), *self._users))),
            users="".join(map(_user_xml, self._users)),
        )
        (self._directory / "users.d").mkdir(mode=0o700, exist_ok=True)
        added = {f"users.d/{name}": content for name, content in self._users_files.items()}
        for name, content in {"config.xml": config, "users.xml": users, **added}.items():
            path = self._directory / name
            path.touch(mode=0o600)
            path.write_text(content)

    def _wait_until_up(self, identity: str, deadline: float, log_start: int) -> None:
        while not self._is_answering(identity):
            if self.pid is None:
                reason = "ended before it was up"
            elif time.monotonic() > deadline:
                reason = "did not answer in time"
            else:
                time.sleep(_POLL_SECONDS)
                continue
            raise EngineError(
                f"ClickHouse over {self._directory} {reason}\n{self._log_tail(log_start)}"
            )

    def _is_answering(self, identity: str) -> bool:
        connection = http.client.HTTPConnection(HOST, self._http_port, timeout=1.0)
        try:
            connection.request("GET", "/?query=SELECT%201")
            answer = connection.getresponse()
            return answer.getheader("X-ClickHouse-Server-Display-Name") == identity
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _log_tail(self, log_start: int) -> str:
        with self.log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(min(log_start, end), end - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()


def _macros_xml(macros: Mapping[str, str]) -> str:
    texts = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in macros.items())
    return f"\n  <macros>{texts}</macros>" if texts else ""


def _profile_xml(user: User) -> str:
    settings = "".join(
        f"<{name}>{escape(str(value))}</{name}>"
        for name, value in (_DEFAULT_PROFILE | dict(user.settings)).items()
    )
    constraints = "".join(f"<{name}><const/></{name}>" for name in user.readonly_settings)
    if constraints:
        constraints = f"<constraints>{constraints}</constraints>"
    return f"<{user.name}>{settings}{constraints}</{user.name}>"


def _user_xml(user: User) -> str:
    grants = ""
    if user.grants is not None:
        statements = "".join(f"<query>{escape(grant)}</query>" for grant in user.grants)
        grants = f"<grants>{statements}</grants>"
    return _USER.format(name=user.name, password=escape(user.password), grants=grants)
