"""How pictures are stored in a prepared set: PNG, JPEG or WebP, at the size of the source where that is smaller.

A picture of fewer pixels than the model's input is stored as it is and made square where it is read, to the same bits
as if it had been enlarged before: pixels that say nothing new are not written.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ranjax.data.images.reading import encode_png, resize


class Storage(NamedTuple):
    """How pictures are stored.

    size, mode: of the square that the model sees, see `reading.resize`. codec: one of `CODECS`. quality: of JPEG and
      WebP, 1 to 100; 100 of WebP is lossless.
    """

    size: int
    mode: str = "crop"
    codec: str = "png"
    quality: int = 90

    @property
    def is_lossless(self) -> bool:
        return self.codec == "png" or (self.codec == "webp" and self.quality == 100)


def encode(picture: Image.Image, storage: Storage) -> tuple[bytes, UInt8[np.ndarray, "size size 1"]]:
    """Return a Pillow "L" picture as it is stored, and as `decode` gives it back: uint8[size, size, 1]."""
    square = resize(picture, storage.size, storage.mode)
    smaller = picture.width * picture.height < storage.size**2
    kept = np.asarray(picture, np.uint8)[:, :, None] if smaller else square
    if storage.codec == "png":
        return encode_png(kept), square
    buffer = io.BytesIO()
    lossless = {"lossless": True} if storage.codec == "webp" and storage.is_lossless else {}
    Image.fromarray(kept[:, :, 0]).save(buffer, storage.codec.upper(), quality=storage.quality, **lossless)
    data = buffer.getvalue()
    return data, square if storage.is_lossless else decode(data, storage.size, storage.mode)


def decode(data: bytes, size: int, mode: str) -> UInt8[np.ndarray, "size size 1"]:
    """Decode what `encode` stored to uint8[size, size, 1]."""
    with Image.open(io.BytesIO(data)) as image:
        return resize(image if image.mode == "L" else image.convert("L"), size, mode)
