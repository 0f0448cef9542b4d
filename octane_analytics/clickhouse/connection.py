"""Lazily opened connection with failover and translated errors."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping
from types import MappingProxyType

from clickhouse_driver import errors as driver_errors

from octane_analytics.clickhouse.error_codes import (
    CONNECTION_ERRORS,
    OPERATOR_ERRORS,
    error_name,
    plain_message,
)
from octane_analytics.clickhouse.failover import FailoverList
from octane_analytics.clickhouse.native_blocks import PackingClient
from octane_analytics.clickhouse.schema import TableName
from octane_analytics.errors import (
    Abandoned,
    NeedsOperator,
    OctaneError,
    StatementRejected,
    Unavailable,
)
from octane_analytics.runtime.closeable import Closeable
from octane_analytics.settings.connections import ClickHouseSettings
from octane_analytics.settings.topology import authority

CONNECT_SECONDS = 5.0
ALL_SHARDS: Mapping[str, object] = {
    # Subqueries and joins of the Distributed table read all shards, as with GLOBAL.
    "distributed_product_mode": "global",
    # Without these, a shard that is away or a replica that lags would change an answer silently.
    "skip_unavailable_shards": 0,
    "prefer_localhost_replica": 0,
}
"""Settings of queries that may read the Distributed table."""


class NativeConnection(Closeable):
    """Connection opened at the first call and after each failure, so that an object may be built before
    a fork if it is used after it only. Not thread-safe, except `abort`."""

    pinned_settings: Mapping[str, object] = MappingProxyType({})
    """Settings of each statement, whatever the user's profile has."""

    def __init__(
        self,
        settings: ClickHouseSettings,
        *,
        client_name: str,
        is_confined: bool = False,
        traceparent: Callable[[], str | None] | None = None,
        on_statement: Callable[[], None] = lambda: None,
    ) -> None:
        """`is_confined` is for a user whose profile may pin any setting: no setting is sent by default.

        `traceparent` returns the span of the next statement as a W3C header. `on_statement` is called
        before each statement, which may block for `patience_seconds`.
        """
        self._on_statement = on_statement
        self._traceparent = traceparent
        self._settings = settings
        self._is_confined = is_confined
        self._is_aborted = False
        self._client_name = client_name
        self._client: PackingClient | None = None
        self._failover = FailoverList(settings.hosts())

    @property
    def table(self) -> TableName:
        return TableName(self._settings.database, self._settings.table)

    @property
    def read_table(self) -> TableName:
        """Table with the rows of all shards; the same as `table` if there is one."""
        return TableName(self._settings.database, self._settings.read_table)

    def close(self) -> None:
        if self._client is not None:
            with contextlib.suppress(OSError, driver_errors.Error):
                self._client.disconnect()
            self._client = None

    def abort(self) -> None:
        """End this connection for good, from any thread: the current call and all later ones raise
        Abandoned. The server soon cancels the query, which requires no right."""
        self._is_aborted = True
        client = self._client
        if client is not None:
            # Not closed: another connection could get its descriptor before the other thread uses it.
            with contextlib.suppress(OSError, AttributeError):
                client.connection.socket.shutdown(socket.SHUT_RDWR)

    @property
    def patience_seconds(self) -> float:
        """Longest time for which one statement may block: a server may use nearly all of its time limits
        to answer a ping, to accept a new connection, to receive a block, and to acknowledge it."""
        seconds = self._settings.timeout_seconds
        short = min(CONNECT_SECONDS, seconds)
        return short + len(self._failover) * (short + seconds) + 2 * seconds

    def _connected(self) -> PackingClient:
        self._on_statement()
        if self._is_aborted:
            raise Abandoned("the connection was aborted")
        if self._client is None:
            settings = self._settings
            _check_ca_file(settings.ca_file)
            first, *others = self._failover.hosts
            compression: str | bool = settings.compression_method()
            session: dict[str, object] = {"server_side_params": True, **self.pinned_settings}
            if settings.topology().is_sharded and not self._is_confined:
                session |= ALL_SHARDS
            if self._is_confined:
                # `excerpt` counts decompressed bytes, whichever method the server chooses.
                compression = "lz4" if compression == "none" else compression
            elif compression == "none":
                compression = False
            else:
                # Without this setting the server chooses the method of its responses.
                session["network_compression_method"] = str(compression).upper()
            self._client = PackingClient(
                host=first[0],
                port=first[1],
                alt_hosts=",".join(authority(host, port) for host, port in others) or None,
                database=settings.database,
                user=settings.user,
                password=settings.password,
                secure=settings.is_secure,
                ca_certs=settings.ca_file,
                client_name=self._client_name,
                connect_timeout=min(CONNECT_SECONDS, settings.timeout_seconds),
                send_receive_timeout=settings.timeout_seconds,
                sync_request_timeout=min(CONNECT_SECONDS, settings.timeout_seconds),
                compression=compression,
                settings=session,
                # An unknown setting is an error: a server that does not know the deduplication
                # token would otherwise silently insert twice.
                settings_is_important=True,
                tcp_keepalive=True,
            )
        if self._traceparent is not None:
            trace = {"opentelemetry_traceparent": None, **trace_settings(self._traceparent())}
            self._client.client_settings.update(trace)
        return self._client

    def _statement_error(self, error: driver_errors.ServerException) -> OctaneError:
        message = plain_message(error)
        if error.code in CONNECTION_ERRORS:
            return self._server_unavailable(error.code, message)
        return StatementRejected(error.code, error_name(error.code), message)

    def _server_unavailable(self, code: int, message: str) -> Unavailable:
        self._fail_over()
        text = f"ClickHouse error {code}: {message.rstrip('. ')}"
        if code in OPERATOR_ERRORS:
            return NeedsOperator(f"{text}; {OPERATOR_ERRORS[code]}")
        return Unavailable(text)

    def _unavailable(self, error: BaseException) -> Unavailable:
        where = ", ".join(authority(host, port) for host, port in self._failover.hosts)
        self._fail_over()
        if isinstance(error, driver_errors.UnexpectedPacketFromServerError):
            return NeedsOperator(
                f"the server at {where} does not speak ClickHouse's native protocol: "
                "check CLICKHOUSE_HOST, CLICKHOUSE_PORT and CLICKHOUSE_SECURE"
            )
        message = getattr(error, "message", None) or str(error) or type(error).__name__
        return Unavailable(
            f"cannot talk to ClickHouse at {where}: {' '.join(message.split())}; "
            "check CLICKHOUSE_HOST, CLICKHOUSE_PORT and CLICKHOUSE_SECURE"
        )

    def _fail_over(self) -> None:
        """Close the connection; the next call starts with the next server of the list."""
        self.close()
        self._failover.fail_over()


def trace_settings(traceparent: str | None) -> dict[str, object]:
    """Return `settings` for a select whose server spans join the trace; empty for no trace.

    `traceparent` is a valid W3C header of version 00. The driver (0.2.11) writes the trace id with its
    halves swapped, so they are swapped here; a test against the server fails if that changes.
    """
    if traceparent is None:
        return {}
    version, trace, parent, flags = traceparent.split("-")
    swapped = "-".join((version, trace[16:] + trace[:16], parent, flags))
    return {"opentelemetry_traceparent": swapped}


def _check_ca_file(path: str | None) -> None:
    """Raise NeedsOperator for an unusable file; the driver's error would look like a connection's."""
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # ssl.SSLError is one
        reason = (
            "it holds no PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        )
        raise NeedsOperator(f"CLICKHOUSE_CA_FILE: cannot use {path}: {reason}") from error
