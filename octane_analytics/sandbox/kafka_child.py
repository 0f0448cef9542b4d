"""Main program of the embedded Kafka process: `python -m ... BROKERS PORT PARENT_PID`.

Owns librdkafka's mock cluster through ctypes. Once it listens, it writes one JSON line to standard
output, `{"bootstrap_servers": ...}`. It then responds to each line of standard input, `{"id": n, "do":
name, "with": [arguments]}`, with one line: `{"id": n}` or `{"id": n, "error": "reason"}`. It ends when
standard input closes. With a PORT of 0 the kernel chooses the ports.

The functions are those of rdkafka_mock.h, which librdkafka documents as experimental.
"""

import ctypes
import importlib.util
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from ctypes import c_char_p, c_int, c_int16, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

from octane_analytics.sandbox.clickhouse_child import die_with

_HOST = "127.0.0.1"
_PRODUCER = 0
_NO_ERROR = 0

# name: (result type, argument types after the cluster's handle)
_FUNCTIONS: dict[str, tuple[type | None, list[type]]] = {
    "topic_create": (c_int, [c_char_p, c_int, c_int]),
    "topic_delete": (c_int, [c_char_p]),
    "partition_set_leader": (c_int, [c_char_p, c_int32, c_int32]),
    "partition_delete_records": (c_int, [c_char_p, c_int32, c_int64]),
    "coordinator_set": (c_int, [c_char_p, c_char_p, c_int32]),
    "broker_set_down": (c_int, [c_int32]),
    "broker_set_up": (c_int, [c_int32]),
    "broker_set_rtt": (c_int, [c_int32, c_int]),
    "broker_set_host_port": (None, [c_int32, c_char_p, c_int]),
    "set_controller_id": (None, [c_int32]),
    "group_initial_rebalance_delay_ms": (None, [c_int32]),
    "clear_request_errors": (None, [c_int16]),
    "push_request_errors_array": (None, [c_int16, c_size_t, c_void_p]),
    "cluster_bootstraps": (c_char_p, []),
}


def find_library() -> Path | None:
    """Return the path of the librdkafka in the confluent-kafka wheel, or None.

    Linux wheels keep it in `confluent_kafka.libs` next to the package, macOS wheels inside it.
    """
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(spec.submodule_search_locations[0])
    found = [
        *package.with_name("confluent_kafka.libs").glob("librdkafka*.so*"),
        *package.joinpath(".dylibs").glob("librdkafka*.dylib"),
    ]
    return min(found, default=None)


class MockCluster:
    """One mock cluster; method names and arguments are those of the C functions."""

    def __init__(self, library: ctypes.CDLL, brokers: int) -> None:
        self._library = library
        self._handle = c_void_p(_new_cluster(library, brokers))
        self._functions = {name: self._bind(name) for name in _FUNCTIONS}
        self._library.rd_kafka_err2str.restype = c_char_p

    def call(self, name: str, *arguments: object) -> object:
        """Call a function of `_FUNCTIONS`; raise OSError with librdkafka's text when it fails."""
        result = self._functions[name](*arguments)
        if _FUNCTIONS[name][0] is c_int and result != _NO_ERROR:
            raise OSError(self._library.rd_kafka_err2str(result).decode())
        return result

    def push_request_errors(self, api_key: int, errors: Sequence[int]) -> None:
        """Queue error codes for the next requests of a type."""
        array = (c_int * len(errors))(*errors)
        self.call("push_request_errors_array", api_key, len(errors), ctypes.byref(array))

    def _bind(self, name: str) -> Callable[..., object]:
        function = self._library[f"rd_kafka_mock_{name}"]
        function.restype, arguments = _FUNCTIONS[name]
        function.argtypes = [c_void_p, *arguments]

        def call(*given: object) -> object:
            encoded = (each.encode() if isinstance(each, str) else each for each in given)
            result: object = function(self._handle, *encoded)
            return result

        return call


def _new_cluster(library: ctypes.CDLL, brokers: int) -> int:
    reason = ctypes.create_string_buffer(512)
    library.rd_kafka_conf_new.restype = c_void_p
    library.rd_kafka_conf_set.argtypes = [c_void_p, c_char_p, c_char_p, c_char_p, c_size_t]
    library.rd_kafka_new.restype = c_void_p
    library.rd_kafka_new.argtypes = [c_int, c_void_p, c_char_p, c_size_t]
    library.rd_kafka_mock_cluster_new.restype = c_void_p
    library.rd_kafka_mock_cluster_new.argtypes = [c_void_p, c_int]
    configuration = library.rd_kafka_conf_new()
    # The client that every mock cluster requires has no servers, and would log a warning.
    library.rd_kafka_conf_set(configuration, b"log_level", b"3", reason, len(reason))
    client = library.rd_kafka_new(_PRODUCER, configuration, reason, len(reason))
    cluster: int | None = client and library.rd_kafka_mock_cluster_new(client, brokers)
    if not cluster:
        sys.exit(f"librdkafka did not create a mock cluster: {reason.value.decode()}")
    return cluster


class FixedPorts:
    """Assignment of fixed ports to the brokers: broker n listens on `first_port + n - 1`.

    librdkafka binds each broker to a port that the kernel chooses, and can only change the address
    that it advertises. It refers to its listening sockets by descriptor, so `dup2` can replace each of
    them by a socket on the wanted port.
    """

    def __init__(self, cluster: MockCluster, bound: Sequence[int], first_port: int) -> None:
        self._cluster = cluster
        self._bound = dict(enumerate(bound, start=1))
        self._first_port = first_port

    def apply(self) -> str:
        """Move all brokers that listen; return the bootstrap servers."""
        for broker, port in self._bound.items():
            wanted = self._first_port + broker - 1
            for descriptor in _listeners(port):
                with socket.create_server((_HOST, wanted), backlog=128) as replacement:
                    replacement.setblocking(os.get_blocking(descriptor))
                    os.dup2(replacement.fileno(), descriptor, inheritable=False)
            self._cluster.call("broker_set_host_port", broker, _HOST, wanted)
        return ",".join(f"{_HOST}:{self._first_port + broker - 1}" for broker in self._bound)


def _listeners(port: int) -> list[int]:
    """Return the descriptors of this process that listen on a TCP port of loopback."""
    found = []
    for descriptor in range(3, 1024):
        try:
            with socket.socket(fileno=os.dup(descriptor)) as probe:
                listening = probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                if listening and probe.getsockname()[1] == port:
                    found.append(descriptor)
        except OSError:
            continue
    return found


def main() -> None:
    """Serve until standard input closes. Exit non-zero with the reason on stderr if it cannot start."""
    brokers, port, parent_pid = (int(argument) for argument in sys.argv[1:])
    die_with(parent_pid)
    path = find_library()
    if path is None:
        sys.exit("librdkafka is not installed: pip install 'octane-analytics[embedded]'")
    cluster = MockCluster(ctypes.CDLL(str(path)), brokers)
    cluster.call("set_controller_id", 1)  # without a controller every admin request times out
    bootstrap_servers = bytes(cluster.call("cluster_bootstraps")).decode()  # type: ignore[call-overload]
    fixed = None
    if port:
        bound = [int(address.rpartition(":")[2]) for address in bootstrap_servers.split(",")]
        fixed = FixedPorts(cluster, bound, port)
        bootstrap_servers = fixed.apply()
    _answer({"bootstrap_servers": bootstrap_servers})
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"id": request["id"]}
        try:
            if request["do"] == "push_request_errors":
                cluster.push_request_errors(*request["with"])
            else:
                cluster.call(request["do"], *request["with"])
            if fixed and request["do"] == "broker_set_up":
                fixed.apply()
        except (OSError, KeyError, TypeError, ctypes.ArgumentError) as error:
            answer["error"] = str(error)
        _answer(answer)
    # No resource outlives the process, so an orderly shutdown is unnecessary.
    os._exit(0)


def _answer(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
