"""Radiographs as files: decoding to 8-bit grey, resizing, and the reasons why an image cannot be used."""

from __future__ import annotations

import contextlib
import io
import re
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

_COLOUR = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBa")
_OWN_KEY, _OWN_TEXT = "Software", "ranjax: 16 bits from 0 (black) to 65535 (white)"
_SUBFILE, _PHOTOMETRIC, _WHITE_IS_ZERO = 254, 262, 0
_COLOURED = 24
"""Levels between a pixel's channels from which it counts as coloured."""


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Raise DataError, with the reason, where Pillow cannot read an image inside the block."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    # Pillow's readers raise errors of all kinds for bytes that are damaged.
    except Exception as error:
        raise DataError(f"the image is unreadable ({type(error).__name__}: {said(error)})") from error


def said(error: Exception) -> str:
    """Return an error's first words in one line, without addresses of memory, which differ from run to run."""
    return " ".join(re.sub(r"<[\w. ]* at 0x[0-9a-fA-F]+>", "of these bytes", str(error)).split())[:120]


def to_grey(image: Image.Image) -> Image.Image:
    """Convert a picture of any Pillow mode to 8-bit grey ("L").

    16-bit, 32-bit and float images are stretched from their own minimum and maximum to 0..255, because exports of 10 or
    12 significant bits in 16 are common and would come out near black otherwise. Transparency is dropped. What
    `open_image` found to count from white (TIFF's WhiteIsZero) is turned.
    """
    if image.mode in ("1", "L", "LA"):
        return image.convert("L")
    if image.mode in _COLOUR or len(image.getbands()) > 1:
        return (image if image.mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr") else image.convert("RGB")).convert("L")
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise DataError("the image holds values that are not finite")
    low, high = values.min(), values.max()
    if high <= low:
        return Image.fromarray(np.zeros(values.shape, np.uint8))
    unit = (values - low) / (high - low)
    return Image.fromarray(np.round(255.0 * (1.0 - unit if image.info.get("white_is_zero") else unit)).astype(np.uint8))


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
    """Open an image, decode its pixels in the mode that they are stored in, and turn it as its EXIF orientation says.

    What `encode_png16` wrote comes back on its own scale, as 8 bits.

    Raises:
      DataError: it cannot be read, or holds several pictures; the message says why.
    """
    with readable(), warnings.catch_warnings():
        # Pillow warns of sizes above 89 million pixels; a large film is no reason to stop a whole preparation.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        data = data if isinstance(data, bytes) else data.read_bytes()
        image = Image.open(io.BytesIO(data))
        _refuse_several(image)
        image.load()
        if image.info.get(_OWN_KEY) == _OWN_TEXT:
            return _own_eight_bits(data)
        white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        turned = image.getexif().get(0x0112, 1) not in (0, 1)
        image = ImageOps.exif_transpose(image)
        # Pillow itself turns WhiteIsZero of 1 to 8 bits, and no other.
        image.info.update(white_is_zero=white_is_zero and image.mode not in ("1", "L", "P"), turned=turned)
    return image


def _refuse_several(image: Image.Image) -> None:
    """Raise DataError for several pages or moving pictures; reduced copies of one picture do not count."""
    count = getattr(image, "n_frames", 1)
    if count == 1 or image.format not in ("TIFF", "GIF", "WEBP", "PNG"):
        return
    if image.format == "TIFF":
        count = 0
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            count += not (int(getattr(image, "tag_v2", {}).get(_SUBFILE, 0)) & 1 and page)
        image.seek(0)
    if count > 1:
        raise DataError(f"the image file holds {count} pictures, not one radiograph")


def _own_eight_bits(data: bytes) -> Image.Image:
    """Return what `encode_png16` wrote as 8 bits, rounded to the nearest."""
    pixels = decode_png16(data).astype(np.uint32)
    eight = ((pixels * 255 + 32767) // 65535).astype(np.uint8)
    return Image.fromarray(eight[:, :, 0] if eight.shape[2] == 1 else eight)


def marks_of(image: Image.Image) -> tuple[str, ...]:
    """Return what a reader of the set should know of an opened image: turned by EXIF, colour that is lost in grey."""
    found = ["turned by its EXIF orientation"] if image.info.get("turned") else []
    if image.mode in _COLOUR:
        values = np.asarray(image.convert("RGB"), np.int16)
        coloured = (values.max(axis=2) - values.min(axis=2)) > _COLOURED
        # Noise of compression reaches single pixels.
        if coloured.sum() > max(4, coloured.size // 20_000):
            found.append("coloured pixels (markers?), stored as grey")
    return tuple(found)


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

    A text chunk says that the values span black to white, so that no reader here stretches them again.

    Source: Portable Network Graphics specification, third edition (W3C), sections 5, 9 and 11.
    """
    height, width, channels = pixels.shape
    rows = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    # Each row begins with its filter: 0, none.
    body = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes(), 6)
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    text = f"{_OWN_KEY}\0{_OWN_TEXT}".encode()
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in ((b"IHDR", head), (b"tEXt", text), (b"IDAT", body), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(name + data))]
    return b"".join(parts)


def decode_png16(data: bytes) -> UInt16[np.ndarray, "height width channels"]:
    """Decode what `encode_png16` wrote, bit for bit. Raises DataError for another file."""
    chunks: dict[bytes, bytes] = {}
    place = 8
    while place + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        chunks[name] = chunks.get(name, b"") + data[place + 8 : place + 8 + size]
        place += size + 12
    try:
        width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
        channels, size = {0: 1, 2: 3}[kind], 2 * width * {0: 1, 2: 3}[kind] + 1
        body = zlib.decompressobj().decompress(chunks[b"IDAT"], height * size)
        rows = np.frombuffer(body, np.uint8).reshape(height, size)
    except (KeyError, ValueError, struct.error, zlib.error) as error:
        raise DataError("the file is no whole 16-bit PNG of ranjax") from error
    if depth != 16 or rows[:, 0].any():
        raise DataError("the file is no 16-bit PNG as ranjax writes it")
    return np.ascontiguousarray(rows[:, 1:]).view(">u2").astype(np.uint16).reshape(height, width, channels)


def decode_png(data: bytes) -> UInt8[np.ndarray, "height width 1"]:
    """Decode PNG bytes to uint8[H, W, 1], the inverse of `encode_png`."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image, dtype=np.uint8)[:, :, None]
