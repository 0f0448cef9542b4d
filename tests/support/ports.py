"""Free ports, of which no two processes of one test run are given the same one.

Between a look at a port and the server's bind seconds may pass, and a server that was killed wants its
port again. So each of pytest-xdist's processes has a part of the range to itself, one half of it for the
package's own engines, and hands out none twice before all were.
"""

import itertools
import os
import random
from collections.abc import Iterator

from octane_analytics.sandbox.engine import PORT_RANGE, is_free


def _share() -> range:
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % count
    size = len(PORT_RANGE) // count
    return PORT_RANGE[number * size : (number + 1) * size]


_SHARE = _share()
FOR_ENGINES = _SHARE[: len(_SHARE) // 2]


def _shuffled() -> Iterator[int]:
    own = _SHARE[len(_SHARE) // 2 :]
    return itertools.cycle(random.sample(own, len(own)))


_PORTS = _shuffled()


def free_port() -> int:
    """Return a free port below those of outgoing connections, where a client could meet itself."""
    return next(port for port in itertools.islice(_PORTS, len(_SHARE)) if is_free(port))
