"""Pairs whose pictures stay in image files and are decoded when they are read, for sets too large to prepare twice.

batches = Batches(FileSource(paths, reports, image_size=224), 64, seed=0, threads=2)
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ranjax.data.images import UNREADABLE, resize, to_grey
from ranjax.data.sources import Record, Source
from ranjax.errors import ConfigError, DataError


class FileSource(Source):
    """Records of image files with their reports.

    A large JPEG is decoded at the smallest of its own scales (1/2, 1/4, 1/8) that still has twice the pixels a side
    that are wanted, which is several times faster than to decode it whole and hardly differs from that.

    Args:
      paths: the files; the path is the id.
      reports: one per file.
      labels: class numbers, -1 for none.
      image_size, resize: see `images.resize`.
      class_count: length of `labels` in a record.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        reports: Sequence[str],
        labels: Sequence[int] = (),
        image_size: int = 224,
        resize: str = "crop",
        class_count: int = 0,
    ):
        if len(paths) != len(reports) or (labels and len(labels) != len(paths)):
            raise ConfigError("paths", len(paths), f"as many as reports ({len(reports)}) and labels ({len(labels)})")
        self._paths, self._reports, self._labels = list(paths), list(reports), list(labels) or [-1] * len(paths)
        self.image_size, self.resize, self.class_count = image_size, resize, class_count

    def __len__(self) -> int:
        return len(self._paths)

    def meta(self, index: int) -> Record:
        label = self._labels[index]
        labels = np.zeros(self.class_count, np.float32)
        if label >= 0:
            labels[label] = 1.0
        identity = str(self._paths[index])
        return {
            "id": identity,
            "report": self._reports[index],
            "label": label,
            "labels": labels,
            "patient": identity,
            "group": {},
        }

    def record(self, index: int) -> Record:
        """Raises DataError naming a file that cannot be read."""
        path = self._paths[index]
        try:
            with Image.open(io.BytesIO(path.read_bytes())) as image:
                # At least twice the target on the short side: what is left to the resampling still averages pixels.
                scale = min(image.size) / (2 * self.image_size)
                image.draft("L", tuple(int(side / scale) for side in image.size))
                image.load()
                grey = image if image.mode == "L" else to_grey(image)
                # Antialiased bilinear, as other trainers do it: half the time of bicubic.
                pixels = resize(grey, self.image_size, self.resize, Image.Resampling.BILINEAR)
        except UNREADABLE as error:
            raise DataError(f"{path} is unreadable ({type(error).__name__}: {error})") from error
        return {**self.meta(index), "image": pixels}
