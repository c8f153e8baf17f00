"""Where a run of a sweep stands, read from its workdir alone."""

from __future__ import annotations

import fcntl
from pathlib import Path

DONE, RUNNING, UNFINISHED, ABSENT = "done", "running", "unfinished", "not started"


def state_of(workdir: Path) -> str:
    """ "done", "running" (a process on this machine holds the workdir's lock), "unfinished" or "not started"."""
    if (workdir / "report" / "manifest.json").exists():
        return DONE
    if not workdir.exists():
        return ABSENT
    return RUNNING if _held(workdir / "lock") else UNFINISHED


def _held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with open(lock, "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(handle, fcntl.LOCK_UN)
    return False
