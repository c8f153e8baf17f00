"""The disk that a preparation needs, from a sample of its images, said and checked before any other is decoded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ranjax.core.errors import DataError
from ranjax.data.array_records import ROW
from ranjax.data.images import CODECS, codecs
from ranjax.data.images.loading import load
from ranjax.data.images.locations import Reference
from ranjax.data.space import require_space

Item = TypeVar("Item")

SAMPLE = 32
"""Images that are measured at most, and one in eight."""
_MARGIN = 1.05


def sample(rows: Sequence[Item]) -> list[Item]:
    """Return rows from all over the set."""
    count = max(1, min(SAMPLE, len(rows) // 8))
    return [rows[int(place)] for place in np.linspace(0, len(rows) - 1, count)]


def check(
    folder: Path,
    parts: Path,
    references: Sequence[Reference],
    rows: int,
    storage: codecs.Storage,
    say: Callable[[str], None],
) -> None:
    """Say what the disk must hold, while the set is prepared and when it is done, and what other codecs would take.

    Args:
      folder: where prepared sets are kept.
      parts: what of the set is there already.
      references: a sample of its images; those that cannot be read do not count.
      rows: of the whole set.
      storage: how pictures are stored.
      say: receives a line of text at a time.

    Raises:
      files.DiskFullError: the disk of `folder` has less space left.
    """
    others = {name: storage._replace(codec=name) for name in CODECS}
    sizes: dict[str, list[int]] = {name: [] for name in CODECS}
    for reference in references:
        try:
            picture = load(reference).picture
        except DataError:
            continue
        for name, other in others.items():
            sizes[name].append(len(codecs.encode(picture, other)[0]))
    if not sizes[storage.codec]:
        return
    each = {name: float(np.mean(found)) for name, found in sizes.items()}
    done = rows * (each[storage.codec] + ROW)
    # Pictures lie in their parts and in the shards until the set is whole.
    needed = int(_MARGIN * (done + rows * each[storage.codec]))
    there = sum(path.stat().st_size for path in parts.rglob("*") if path.is_file()) if parts.is_dir() else 0
    told = ", ".join(
        f"{size / 1e3:.1f} kB as {name}" + (f" of quality {storage.quality}" if name != "png" else "")
        for name, size in each.items()
    )
    free = shutil.disk_usage(folder).free
    say(
        f"disk: about {_size(needed)} while it is prepared and {_size(done)} when it is done, of which {_size(there)} "
        f"is there; {_size(free)} free. A picture takes {told}; this set takes {storage.codec}"
    )
    require_space(folder, max(0, needed - there))


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
