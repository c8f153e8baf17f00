"""Pairs whose pictures stay in image files and are decoded when they are read, for sets too large to prepare twice.

batches = Batches(FileSource(paths, reports, image_size=224), 64, seed=0, threads=2)
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.images.reading import resize, to_grey
from ranjax.data.sources import Record, Source


class FileSource(Source):
    """Records of image files with their reports.

    A large JPEG is decoded at the smallest of its own scales (1/2, 1/4, 1/8) that still has `gap` times the pixels a
    side that are wanted. Its own scaling is a low-pass already: with a gap of 1, grainy pictures of 512 to 2048 pixels
    differ from wholly decoded ones by 0.4 to 0.6 of 255 on average, and are read 1.4 to 1.9 times as fast.

    Args:
      paths: the files; the path is the id.
      reports: one per file.
      labels: class numbers, -1 for none.
      image_size, resize: see `images.resize`.
      class_count: length of `labels` in a record.
      gap: see above; 2 halves the difference, a large number decodes everything whole.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        reports: Sequence[str],
        labels: Sequence[int] = (),
        image_size: int = 224,
        resize: str = "crop",
        class_count: int = 0,
        gap: float = 1.0,
    ):
        if gap < 1:
            raise ConfigError("gap", gap, "at least 1")
        if len(paths) != len(reports) or (labels and len(labels) != len(paths)):
            raise ConfigError("paths", len(paths), f"as many as reports ({len(reports)}) and labels ({len(labels)})")
        self._paths, self._reports, self._labels = list(paths), list(reports), list(labels) or [-1] * len(paths)
        self.image_size, self.resize, self.class_count, self.gap = image_size, resize, class_count, gap

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
                scale = min(image.size) / (self.gap * self.image_size)
                # Rounded up: one pixel below the target would be scaled up again.
                drafted = image.draft("L", tuple(math.ceil(side / scale) for side in image.size))
                image.load()
                grey = image if image.mode == "L" else to_grey(image)
                pixels = self._square(grey, drafted[1] if drafted else None)
        except Exception as error:  # Pillow raises errors of all kinds for bytes that are damaged
            raise DataError(f"{path} is unreadable ({type(error).__name__}: {error})") from error
        return {**self.meta(index), "image": pixels}

    def _square(self, grey: Image.Image, box: tuple[float, float, float, float] | None) -> np.ndarray:
        """Antialiased bilinear, as other trainers do it: half the time of bicubic.

        `box` is the part that the picture fills: JPEG's own scales round sizes up, and a crop must not move by that.
        """
        size = self.image_size
        if box is None or self.resize == "pad" or box[2:] == grey.size:
            return resize(grey, size, self.resize, Image.Resampling.BILINEAR)
        width, height = box[2:]
        if self.resize == "crop":
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            box = (left, top, left + side, top + side)
        return np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR, box=box), np.uint8)[:, :, None]
