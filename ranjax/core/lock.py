"""A lock that lets one process at a time work on a workdir, and names it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from ranjax.core.errors import ConfigError

T = TypeVar("T")
PATIENCE = "RANJAX_PATIENCE"
"""Seconds for which a run waits for a workdir that another one holds: on a cluster, one whose machine was lost."""


class InUseError(ConfigError):
    """Another run holds the workdir."""


def patiently(take: Callable[[], T]) -> T:
    """Return what `take` gives, called again each second while it raises InUseError, as long as `PATIENCE` says."""
    try:
        until = time.monotonic() + float(os.environ.get(PATIENCE) or 0)
    except ValueError:
        raise ConfigError(PATIENCE, os.environ[PATIENCE], "a number of seconds") from None
    while True:
        try:
            return take()
        except InUseError:
            if time.monotonic() >= until:
                raise
            time.sleep(1.0)


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Hold the workdir for this process; the lock goes with the process, however it ends.

    Raises:
      ConfigError: another process holds it (named by pid and host), or the folder cannot be written.
    """
    # Here, as Windows has no such module; reading a finished run needs none.
    import fcntl
    import socket

    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = open(workdir / "lock", "a+", encoding="utf-8")  # noqa: SIM115 - held for the length of the run
    except OSError as error:
        raise ConfigError("--workdir", str(workdir), f"a folder that can be written ({error.strerror})") from error
    with handle:

        def take() -> None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                handle.seek(0)
                owner = handle.read().strip() or "another process"
                expected = f"a folder that no other run uses; {owner} holds it"
                raise InUseError("--workdir", str(workdir), expected) from None

        patiently(take)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield
