"""Augmentation of pairs in the loader: crop, flip, contrast, order of sentences.

What an example becomes depends on (seed, epoch, its id) alone: neither on its batch-mates nor on the number of
threads or processes, so a resumed run sees the same pictures.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float
from PIL import Image

from ranjax.attacks.text.constraints import names_side
from ranjax.core.errors import ConfigError
from ranjax.data.text.reports import sentences


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to a pair in training.

    Args:
      crop: least share of the side that a random square window keeps; 1.0 switches it off.
      flip: probability of a mirror image. A pair whose report names a side is never mirrored.
      contrast: greatest change c of contrast: deviations from the picture's mean are scaled by a factor drawn from
        [1 - c, 1 + c], clipped to [0, 1]; 0.0 switches it off.
      sentences: probability that the sentences of a report change places.

    Raises:
      ConfigError: a value outside its range.
    """

    crop: float = 1.0
    flip: float = 0.0
    contrast: float = 0.0
    sentences: float = 0.0

    def __post_init__(self) -> None:
        if not 0.1 <= self.crop <= 1.0:
            raise ConfigError("data.augment_crop", self.crop, "a share of the side from 0.1 to 1")
        for name in ("flip", "contrast", "sentences"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"data.augment_{name}", getattr(self, name), "from 0 to 1")

    @property
    def of_images(self) -> bool:
        """Whether pictures change."""
        return self.crop < 1.0 or self.flip > 0.0 or self.contrast > 0.0

    def image(
        self, image: Float[np.ndarray, "height width channels"], report: str, draw: np.random.Generator
    ) -> Float[np.ndarray, "height width channels"]:
        """Augment f32[H, W, C] in [0, 1]; the number of draws is the same whatever the settings are."""
        scale, top, left, mirror, factor = draw.random(5)
        height, width = image.shape[:2]
        if self.crop < 1.0:
            share = self.crop + (1.0 - self.crop) * scale
            h, w = share * height, share * width
            y, x = top * (height - h), left * (width - w)
            planes = [_window(image[:, :, c], (x, y, x + w, y + h)) for c in range(image.shape[2])]
            image = np.stack(planes, axis=2)
        if mirror < self.flip and not names_side(report):
            image = image[:, ::-1]
        if self.contrast > 0.0:
            mean = image.mean(dtype=np.float32)
            by = np.float32(1.0 + self.contrast * (2.0 * factor - 1.0))
            image = np.clip((image - mean) * by + mean, np.float32(0), np.float32(1))
        return np.ascontiguousarray(image)

    def report(self, report: str, draw: np.random.Generator) -> str:
        """Return the report with its sentences in another order, or as it is."""
        if self.sentences == 0.0 or draw.random() >= self.sentences:
            return report
        parts = sentences(report)
        return " ".join(parts[i] for i in draw.permutation(len(parts)))


def generator(seed: int, epoch: int, identity: str, what: str) -> np.random.Generator:
    """Return the random stream of one example in one epoch; `what` is "image" or "report"."""
    key = hashlib.blake2b(f"augment\x1f{what}\x1f{seed}\x1f{epoch}\x1f{identity}".encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(key, "little")))


def _window(plane: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    size = (plane.shape[1], plane.shape[0])
    resized = Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized, np.float32)
