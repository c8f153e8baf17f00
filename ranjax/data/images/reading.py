"""Radiographs as files: decoding to 8-bit grey, resizing, and the reasons why an image cannot be used."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image, ImageOps

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.images import RESIZE_MODES

_COLOUR = ("RGB", "RGBA", "P", "CMYK", "YCbCr")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Raise DataError, with the reason, where Pillow cannot read an image inside the block."""
    try:
        yield
    except DataError:
        raise
    except UNREADABLE as error:
        raise DataError(f"the image is unreadable ({type(error).__name__}: {str(error)[:120]})") from error


def to_grey(image: Image.Image) -> Image.Image:
    """Convert a picture of any Pillow mode to 8-bit grey ("L").

    16-bit, 32-bit and float images are stretched from their own minimum and maximum to 0..255, because exports of 10 or
    12 significant bits in 16 are common and would come out near black otherwise. Transparency is dropped.
    """
    if image.mode in ("1", "L", "LA", *_COLOUR):
        return image.convert("L")
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("the image holds values that are not finite")
    low, high = values.min(), values.max()
    if high <= low:
        return Image.fromarray(np.zeros(values.shape, np.uint8))
    return Image.fromarray(np.round((values - low) * (255.0 / (high - low))).astype(np.uint8))


def resize(
    image: Image.Image, size: int, mode: str = "pad", method: Image.Resampling = Image.Resampling.BICUBIC
) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """Return a picture as uint8[size, size, C] of its mode: padded with black, centre-cropped, or stretched to the
    square."""
    if mode not in RESIZE_MODES:
        raise ConfigError("data.resize", mode, f"one of {', '.join(RESIZE_MODES)}")
    if image.size != (size, size):
        if mode == "pad":
            image = ImageOps.pad(image, (size, size), method=method, color=0)
        elif mode == "crop":
            image = ImageOps.fit(image, (size, size), method=method)
        else:
            image = image.resize((size, size), method)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def open_image(data: bytes | Path) -> Image.Image:
    """Open an image and decode its pixels in the mode that they are stored in.

    Raises:
      DataError: it cannot be read; the message says why.
    """
    with readable(), warnings.catch_warnings():
        # Pillow warns of sizes above 89 million pixels; a large film is no reason to stop a whole preparation.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data if isinstance(data, bytes) else data.read_bytes()))
        image.load()
    return image


def refuse_constant(grey: Image.Image) -> None:
    """Raise DataError for a picture of one grey, or one colour, which holds nothing to learn from."""
    found = grey.getextrema()
    if isinstance(found[0], tuple):
        if all(low == high for low, high in found):
            raise DataError(f"the image is constant (colour {tuple(low for low, _ in found)})")
        return
    low, high = found
    if low == high:
        raise DataError("the image is all black" if high == 0 else f"the image is constant (grey {high})")


def read_image(
    file: Path | bytes, size: int, mode: str = "pad", colour: bool = False
) -> UInt8[np.ndarray, "{size} {size} channels"]:
    """Read, check and resize one image to uint8[size, size, 1], or with `colour` to uint8[size, size, 3].

    Raises:
      DataError: the file is absent, empty, unreadable or of one constant grey; the message says which.
    """
    if isinstance(file, Path):
        if not file.is_file():
            raise DataError("the image file does not exist")
        if file.stat().st_size == 0:
            raise DataError("the image file is empty (0 bytes)")
    with open_image(file) as image, readable():
        read = image.convert("RGB") if colour and image.mode in _COLOUR else to_grey(image)
    refuse_constant(read)
    return resize(read.convert("RGB") if colour else read, size, mode)


def encode_png(image: UInt8[np.ndarray, "height width 1"]) -> bytes:
    """Encode uint8[H, W, 1] as lossless PNG bytes."""
    buffer = io.BytesIO()
    # Level 1: three times faster than the default for a few per cent more bytes.
    Image.fromarray(np.ascontiguousarray(image[:, :, 0])).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def encode_png16(pixels: UInt16[np.ndarray, "height width channels"]) -> bytes:
    """Encode uint16[H, W, 1] or [H, W, 3] as lossless 16-bit PNG bytes; Pillow itself writes no 16-bit colour.

    Source: Portable Network Graphics specification, third edition (W3C), sections 5, 9 and 11.
    """
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    # Each row begins with its filter: 0, none.
    body = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes(), 6)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(name + data))]
    return b"".join(parts)


def decode_png(data: bytes) -> UInt8[np.ndarray, "height width 1"]:
    """Decode PNG bytes to uint8[H, W, 1], the inverse of `encode_png`."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image, dtype=np.uint8)[:, :, None]
