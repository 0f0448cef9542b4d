"""Control socket that answers as a supervisor would."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from octane_analytics.supervisor.control_socket import ControlSocket


@contextlib.contextmanager
def supervisor(path: Path, answer: str) -> Iterator[None]:
    control = ControlSocket(path)
    control.open()
    stop = threading.Event()

    def serve() -> None:
        now = 0.0
        while not stop.wait(0.005):
            now += 0.001
            control.serve_clients(now, lambda: answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        control.close()
