"""Room on the disk, asked for before a large write: the array_record writer does not say why it failed."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from ranjax.files import DiskFullError

_SPARE = 1 << 20


def require_space(folder: Path, needed: int) -> None:
    """Raises files.DiskFullError if the disk of `folder` has less than `needed` bytes (and 1 MiB) left."""
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise DiskFullError(
            errno.ENOSPC,
            f"no space left below {folder}: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free; free some and run "
            "again",
        )
