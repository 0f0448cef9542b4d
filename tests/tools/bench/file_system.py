"""File system on which the engines of a benchmark keep their files: the one of TMPDIR.

ext4 without a journal passes, for each new file, all files that were deleted near it during the last
minutes (recently_deleted in fs/ext4/ialloc.c). An insert then costs up to three times as much, depending
on what earlier runs have deleted. ext4 with a journal and tmpfs do not search.
"""

import os
import tempfile
from pathlib import Path

_PROC, _SYSFS = Path("/proc"), Path("/sys")


def searches_deleted_files(directory: Path, proc: Path = _PROC, sysfs: Path = _SYSFS) -> bool:
    """Return whether the directory is on ext4 without a journal; False where that cannot be known."""
    status = directory.stat()
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    try:
        mounts = (proc / "self/mountinfo").read_text().splitlines()
        name = (sysfs / "dev/block" / device).resolve(strict=True).name
    except OSError:
        return False
    # proc_pid_mountinfo(5): the device is the third field, the type follows a lone hyphen.
    kinds = {line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == device}
    journals = proc / "fs/jbd2"
    return kinds == {"ext4"} and journals.is_dir() and not any(journals.glob(f"{name}-*"))


def file_system_remarks() -> list[str]:
    """Return a sentence if figures of this run depend on what was deleted before."""
    directory = Path(tempfile.gettempdir())
    if not searches_deleted_files(directory):
        return []
    return [
        f"{directory} is on ext4 without a journal, where each new file costs a search among the files "
        "deleted lately: TMPDIR=/dev/shm measures without that"
    ]
