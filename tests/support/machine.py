"""Virtual machine under a real systemd: namespaces over a copy-on-write view of this one's files.

Needs root, systemd, unshare and nsenter (util-linux), and a mounted cgroup2 that root may write. The
network is this machine's, so that what listens on loopback is there. Removes everything it created.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.support.command import wait_until

_BOOT = """
set -e
echo $$ >"$CGROUP/cgroup.procs"
exec unshare --pid --mount --ipc --uts --cgroup --fork --kill-child bash -ec '
mount --make-rprivate /
mount -t tmpfs none "$WORK"
cd "$WORK"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=$WORK/upper,workdir=$WORK/work root
cd root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none tmp
mount --rbind /dev dev
mkdir -p srv/checkout old
mount --bind "$CHECKOUT" srv/checkout
rm -f etc/systemd/system/*.wants/*
for unit in getty.target systemd-timesyncd systemd-resolved systemd-logind systemd-networkd \
    systemd-udevd systemd-udev-trigger systemd-firstboot systemd-remount-fs; do
    [[ $unit == *.target ]] || unit=$unit.service
    ln -sfn /dev/null "etc/systemd/system/$unit"
done
pivot_root . old # a chroot would not do: user namespaces (PrivateUsers=) are refused there
cd /
umount -l old
export container=octane
exec /lib/systemd/systemd --system --unit=basic.target --show-status=no'
"""
CHECKOUT = Path("/srv/checkout")
"""Path of the checkout inside the machine."""


class Machine:
    """Virtual machine; booted on entry and removed on exit."""

    def __init__(self, checkout: Path) -> None:
        self._checkout = checkout

    def __enter__(self) -> Self:
        self._work = Path(tempfile.mkdtemp(prefix="octane-machine-"))
        self._cgroup = _cgroup2() / f"octane-machine-{os.getpid()}"
        self._cgroup.mkdir()
        places = {"CGROUP": self._cgroup, "WORK": self._work, "CHECKOUT": self._checkout}
        self._child = subprocess.Popen(
            ["bash", "-c", _BOOT],
            env={"PATH": os.environ["PATH"], **{name: str(at) for name, at in places.items()}},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(
                lambda: self.run("systemctl", "is-system-running").stdout == "running\n", 30.0
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pid in _children(self._child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # its PID 1, and so all its processes
        self._child.kill()
        self._child.wait()
        events = self._cgroup / "cgroup.events"
        wait_until(lambda: "populated 0" in events.read_text(), 10.0)
        for directory, _directories, _files in os.walk(self._cgroup, topdown=False):
            Path(directory).rmdir()
        shutil.rmtree(self._work)

    def run(
        self, *command: str, given: str = "", timeout_seconds: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root to its end and accept any exit code."""
        pids = _children(self._child.pid)
        if not pids:
            time.sleep(0.1)
            return subprocess.CompletedProcess(command, 1, "", "not booted yet")
        names = ("--pid", "--mount", "--ipc", "--uts", "--cgroup")
        return subprocess.run(
            ["nsenter", "--target", str(pids[0]), *names, "--wdns=/", *command],
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )

    def show(self, unit: str, name: str) -> str:
        """Return systemd's value of a property of the unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()


def _cgroup2() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise OSError("no cgroup2 is mounted")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
