"""Disk space: checked before a large write, and named in the error where the array_record writer runs out of it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ranjax.core import files
from ranjax.core.files import DiskFullError

_SPARE = 1 << 20


def require_space(folder: Path, needed: int) -> None:
    """Raise files.DiskFullError if the disk of `folder` has less than `needed` bytes (and 1 MiB) left."""
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise DiskFullError(
            errno.ENOSPC,
            f"no space left below {folder}: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free; free some and run "
            "again",
        )


@contextmanager
def no_space(path: Path, needed: int | None = None) -> Iterator[None]:
    """Do as `files.no_space`, also for the array_record writer, whose error is a RuntimeError with the text of it."""
    with files.no_space(path, needed):
        try:
            yield
        except RuntimeError as error:
            number = next((n for n in files.FULL if os.strerror(n) in str(error)), None)
            if number is None:
                raise
            raise OSError(number, str(error)) from error
