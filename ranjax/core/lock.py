"""A lock that lets one process at a time work on a workdir, and names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ranjax.core.errors import ConfigError


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
        handle = open(workdir / "lock", "a+")  # noqa: SIM115 - held for the length of the run
    except OSError as error:
        raise ConfigError("--workdir", str(workdir), f"a folder that can be written ({error.strerror})") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "another process"
            raise ConfigError("--workdir", str(workdir), f"a folder that no other run uses; {owner} holds it") from None
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield
