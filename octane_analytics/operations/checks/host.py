"""Checks of this host: the ports of worker and API, and the limit of open files."""

import contextlib
import errno
import http.client
import resource
import socket
from collections.abc import Callable

from octane_analytics.operations.checks.finding import Finding, fail, ok, warn

MIN_DESCRIPTORS = 1024
_REQUEST_SECONDS = 2.0
_REALM = 'realm="octane-analytics"'
"""Part of the WWW-Authenticate header of an API with tokens."""
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not listened on


def check_port(name: str, host: str, port: int) -> Finding:
    """Check that a port can be listened on, or that a running octane-analytics process holds it.

    `name` is the name of the setting. Blocks for up to two seconds.
    """
    if port == 0:
        return ok(name, "any free port")
    try:
        _try_to_listen(host, port)
    except socket.gaierror as error:
        return fail(name, f"{host} is not an address of this host: {error.strerror}")
    except PermissionError:
        return fail(name, f"{host}:{port} needs root: set a port of 1024 or higher")
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _is_ours(host, port):
            return ok(name, f"{host}:{port} is held by octane-analytics, which runs already")
        return fail(
            name,
            f"cannot listen on {host}:{port}: {error.strerror}; stop the process that listens there "
            "or set another port",
        )
    return ok(name, f"{host}:{port} is free")


def check_descriptors(
    limits: Callable[[], tuple[int, int]] = lambda: resource.getrlimit(resource.RLIMIT_NOFILE),
) -> Finding:
    soft, _ = limits()
    if soft != resource.RLIM_INFINITY and soft < MIN_DESCRIPTORS:
        return warn(
            "open files",
            f"limited to {soft} in each process: raise it to {MIN_DESCRIPTORS} or more "
            "(LimitNOFILE= in the unit, ulimit -n)",
        )
    return ok("open files", f"up to {soft} in each process" if soft > 0 else "without limit")


def _try_to_listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def _is_ours(host: str, port: int) -> bool:
    """Return whether the listener serves our metrics, or requests a token for our realm."""
    connection = http.client.HTTPConnection(
        _LOOPBACK.get(host, host), port, timeout=_REQUEST_SECONDS
    )
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/metrics")
            with connection.getresponse() as answer:
                if answer.status == http.client.UNAUTHORIZED:
                    return _REALM in answer.getheader("WWW-Authenticate", "")
                return answer.status == http.client.OK and b"analytics_" in answer.read(1 << 20)
        except (OSError, http.client.HTTPException):
            return False
