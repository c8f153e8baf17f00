"""DICOM radiographs as 8-bit grey: rescale, VOI LUT or window, MONOCHROME1, colour, orientation, and limits.

    image, header = read_dicom(Path("film.dcm"))

What is applied, in the standard's order (PS3.3, C.11.1 and C.11.2): the modality LUT or rescale slope and intercept;
the VOI LUT or the first window (LINEAR, LINEAR_EXACT or SIGMOID), or, where the file states neither, the range of its
own values; inversion of MONOCHROME1; then the head is put above and the patient's right on the left where
PatientOrientation says that they are not, of a quarter turn too. FieldOfViewRotation and FieldOfViewHorizontalFlip
tell what a device did before it stored the pixels (C.8.11.4), so nothing is left to do. ImageRotation and
ImageHorizontalFlip belong to presentation states (C.10.6): where an image holds them they are counted, not applied.
Nothing is executed and nothing is fetched; a file beyond the limits is refused before its pixels are decoded.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from ranjax.core.errors import DataError
from ranjax.data.images.reading import said

Header = Any
"""A `pydicom.Dataset`, whose attributes are the elements of a file."""

FILE_LIMIT = 512 << 20
"""Bytes of a file at most."""
HEADER_LIMIT = 16 << 20
"""Bytes before the pixel data at most: a radiograph's header has a few thousand."""
PIXEL_LIMIT = 100_000_000
"""Pixels at most, as the header states them."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_HEADER_TAGS = (
    "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality", "ViewPosition", "PatientSex",
    "PatientAge", "PhotometricInterpretation", "Rows", "Columns", "BitsStored", "BodyPartExamined",
    "BurnedInAnnotation", "PresentationLUTShape", "PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing",
    "PatientOrientation", "ImageRotation", "ImageHorizontalFlip",
)  # fmt: skip


def read_header(file: Path | bytes) -> dict[str, str]:
    """Return the header's fields that prepared sets use, as text; absent ones are empty.

    Raises:
      DataError: no DICOM file, or one beyond the limits.
    """
    return _fields(_parse(file, pixels=False))


def read_dicom(file: Path | bytes) -> tuple[Image.Image, dict[str, str]]:
    """Return the picture as Pillow "L", and the header's fields.

    Raises:
      DataError: unreadable, without pixels, of several frames, beyond the limits, or compressed in a way that no
        installed decoder reads (the message names the transfer syntax).
    """
    data = _parse(file, pixels=True)
    fields = _fields(data)
    stated = _text(data, "NumberOfFrames") or "1"
    if not re.fullmatch(r"\d+", stated):
        raise DataError(f"the DICOM header states {stated[:20]!r} frames")
    if (frames := int(stated)) != 1:
        raise DataError(f"the DICOM file has {frames} frames, not one radiograph")
    if "PixelData" not in data:
        raise DataError("the DICOM file has no pixel data")
    try:
        with warnings.catch_warnings():
            # pydicom warns of padding bytes and odd value representations, which are common and harmless here.
            warnings.simplefilter("ignore")
            grey = _upright(_grey(data), data)
    # pydicom and its decoders raise errors of all kinds, also where an element is first looked at.
    except Exception as error:
        syntax = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
        name = " ".join(str(getattr(syntax, "name", syntax)).split())
        raise DataError(f"the DICOM pixels cannot be decoded ({name}: {said(error)})") from error
    if grey.ndim != 2:
        raise DataError(f"the DICOM pixels are {list(grey.shape)}, not rows and columns")
    return Image.fromarray(grey), fields


def window(
    values: Float[np.ndarray, "*shape"], center: int | float, width: int | float, function: str = "LINEAR"
) -> Float[np.ndarray, "*shape"]:
    """Map values f64[H, W] through a window to [0, 1] (PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Raises:
      ValueError: a width that the function does not allow, or an unknown function.
    """
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"VOI LUT function {function!r}; expected LINEAR, LINEAR_EXACT or SIGMOID")
    if width < 1 if function == "LINEAR" else width <= 0:
        least = "at least 1" if function == "LINEAR" else "more than 0"
        raise ValueError(f"window width {width}; {function} needs {least}")
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -60.0, 60.0)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _parse(file: Path | bytes, pixels: bool) -> Header:
    import pydicom

    size = len(file) if isinstance(file, bytes) else file.stat().st_size if file.is_file() else -1
    if size < 0:
        raise DataError("the image file does not exist")
    if size > FILE_LIMIT:
        raise DataError(f"the DICOM file has {size / 1e6:.0f} MB, over the limit of {FILE_LIMIT / 1e6:.0f} MB")
    try:
        with warnings.catch_warnings(), io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as stream:
            warnings.simplefilter("ignore")
            # Looked for before it is parsed: a deflated body would be inflated whole, however large it becomes. The
            # transfer syntax stands in the first few hundred bytes.
            if _DEFLATED in stream.read(2048)[128:]:
                raise DataError("the DICOM file is deflated, which is not read (it may inflate without bound)")
            stream.seek(0)
            header = pydicom.dcmread(stream, stop_before_pixels=True, defer_size=HEADER_LIMIT)
            if stream.tell() > HEADER_LIMIT:
                raise DataError(f"the DICOM header has more than {HEADER_LIMIT >> 20} MiB")
            stated = int(header.get("Rows", 0) or 0) * int(header.get("Columns", 0) or 0)
            if stated > PIXEL_LIMIT:
                raise DataError(f"the DICOM header states {stated / 1e6:.0f} million pixels, over the limit")
            if not pixels:
                return header
            stream.seek(0)
            return pydicom.dcmread(stream)
    except DataError:
        raise
    # As of pixels: pydicom raises errors of all kinds.
    except Exception as error:
        raise DataError(f"the file is no readable DICOM ({type(error).__name__}: {said(error)})") from error


def marks_of(header: Mapping[str, str]) -> tuple[str, ...]:
    """Return what a reader of a film should know that its pixels do not show, in words.

    Args:
      header: as of `read_header`.
    """
    found = []
    if header["BurnedInAnnotation"].upper() == "YES":
        found.append("annotation burned in, as the DICOM header says")
    # The standard pairs MONOCHROME1 with INVERSE; viewers differ where a file pairs them otherwise.
    shapes = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}
    wanted = shapes.get(header["PhotometricInterpretation"], "")
    if wanted and header["PresentationLUTShape"].upper() in set(shapes.values()) - {wanted}:
        found.append("PresentationLUTShape contradicts the photometric interpretation, which is followed")
    sides = [re.findall(r"[\d.]+", header[name]) for name in ("PixelAspectRatio", "ImagerPixelSpacing", "PixelSpacing")]
    if any(len(pair) == 2 and pair[0] != pair[1] for pair in sides):
        found.append("pixels that are not square, which are shown as squares")
    if "?" in _axes(re.findall(r"[A-Za-z]+", header["PatientOrientation"])):
        found.append("a PatientOrientation that names no two axes, which is not followed")
    if header["ImageRotation"] not in ("", "0") or header["ImageHorizontalFlip"].upper() == "Y":
        found.append("a rotation or flip of a presentation state inside the image, which is not applied")
    return tuple(found)


def _fields(data: Header) -> dict[str, str]:
    return {name: _text(data, name) for name in _HEADER_TAGS}


def _text(data: Header, name: str) -> str:
    try:
        return str(data.get(name, "") or "").strip()
    # An element is parsed where it is first looked at.
    except Exception as error:
        raise DataError(f"the file is no readable DICOM ({type(error).__name__}: {said(error)})") from error


def _grey(data: Header) -> np.ndarray:
    """Return uint8[H, W] for display: 0 is black."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    kind = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        # pydicom turns YBR into RGB as it decodes.
        stored = _samples(data)
        values = apply_color_lut(stored, data) if kind == "PALETTE COLOR" else stored
        bits = 8 * values.dtype.itemsize if kind == "PALETTE COLOR" else int(data.BitsStored)
        eight = np.round(np.clip(values * (255.0 / (2.0**bits - 1.0)), 0.0, 255.0)).astype(np.uint8)
        return np.asarray(Image.fromarray(eight).convert("L"))
    stored = _samples(data)
    valid = _not_padding(stored, data)
    values = np.asarray(apply_modality_lut(stored, data), np.float64)
    if data.get("VOILUTSequence"):
        unit = _through_lut(values, data.VOILUTSequence[0])
    elif data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        function = str(data.get("VOILUTFunction", "") or "LINEAR")
        unit = window(values, _first(data.WindowCenter), _first(data.WindowWidth), function)
    else:
        # No statement at all: the range of the values that are not padding, the usual reading of raw exports.
        inside = values[valid] if valid.any() else values
        low, high = inside.min(), inside.max()
        unit = np.clip((values - low) / (high - low), 0.0, 1.0) if high > low else np.zeros(values.shape)
    if kind == "MONOCHROME1":
        unit = 1.0 - unit
    if not np.isfinite(unit).all():
        raise ValueError("values that are not finite")
    unit = np.where(valid, unit, 0.0)
    return np.round(255.0 * np.clip(unit, 0.0, 1.0)).astype(np.uint8)


def _samples(data: Header) -> np.ndarray:
    """Return the samples as pydicom decodes them, with those that lie in upper bits shifted down (PS3.5, 8.1.1).

    Before 2014 the standard let the stored bits end anywhere in their cell (HighBit); archives hold such films.

    Raises:
      ValueError: a HighBit that no cell has, or one of compressed pixels, whose meaning is open.
    """
    allocated, stored = int(data.BitsAllocated), int(data.BitsStored)
    high = int(data.get("HighBit", stored - 1))
    if high == stored - 1:
        return np.asarray(data.pixel_array)
    if not stored - 1 < high < allocated or data.file_meta.TransferSyntaxUID.is_compressed:
        raise ValueError(f"HighBit {high} of {stored} bits stored in {allocated}")
    # Read as if the bits below were stored too: pydicom then keeps the upper ones, with their sign.
    data.BitsStored = high + 1
    samples = np.asarray(data.pixel_array)
    data.BitsStored = stored
    return samples >> np.asarray(high + 1 - stored, samples.dtype)


def _of_sign(value: object, data: Header) -> int:
    """Return an element that is of the pixels' sign, whichever sign it was written in ("US or SS" in PS3.6)."""
    bits, is_signed = int(data.BitsAllocated), bool(data.get("PixelRepresentation", 0))
    number = int.from_bytes(value, "little") if isinstance(value, bytes) else int(str(value))
    if is_signed and number >= 1 << (bits - 1):
        return number - (1 << bits)
    return number + (1 << bits) if not is_signed and number < 0 else number


def _through_lut(values: np.ndarray, item: Any) -> np.ndarray:
    """Map values through a VOI LUT to [0, 1] (C.11.2.1.1); values outside of it take its first or last entry.

    Here and not by pydicom 3.0, whose index wraps at 256 in tables of 8 bits.
    """
    count, first, bits = (int(entry) for entry in item.LUTDescriptor)
    count = count or 1 << 16
    if first >= 1 << 15 and values.min() < 0:
        first -= 1 << 16
    table: Any = item.LUTData
    if isinstance(table, bytes):
        table = np.frombuffer(table, np.uint8 if len(table) < 2 * count else "<u2")
    table = np.asarray(table, np.float64)[:count]
    if not len(table) or not 8 <= bits <= 16:
        raise ValueError(f"a VOI LUT of {len(table)} entries of {bits} bits")
    place = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    return table[place] / (2.0**bits - 1.0)


def _not_padding(stored: np.ndarray, data: Header) -> np.ndarray:
    """Return False where the detector saw nothing (PixelPaddingValue), which would set the range and shine in
    MONOCHROME1."""
    value = data.get("PixelPaddingValue")
    if value is None:
        return np.ones(stored.shape, bool)
    low, high = sorted(_of_sign(found, data) for found in (value, data.get("PixelPaddingRangeLimit", value)))
    return (stored < low) | (stored > high)


def _first(value: Any) -> float:
    """Return a multi-valued element's first entry: the standard's default presentation."""
    return float(value[0]) if isinstance(value, list | tuple) or hasattr(value, "append") else float(value)


_AXES = {"L": "x", "R": "x", "H": "z", "F": "z", "A": "y", "P": "y"}


def _axes(stated: Sequence[str]) -> str:
    """Return the body's axes along rows and columns, by the first letters of PatientOrientation.

    Two of x, y and z; "" where none is stated, "?" for what cannot be.
    """
    if not any(stated):
        return ""
    axes = "".join(_AXES.get(str(value)[:1].upper(), "?") for value in stated)
    return axes if len(axes) == 2 and len(set(axes)) == 2 else "?"


def _upright(grey: np.ndarray, data: Header) -> np.ndarray:
    """Turn the head to the top and the patient's right to the left, where the file says otherwise (C.7.6.1.1.1)."""
    given = data.get("PatientOrientation", None) or []
    stated = [given] if isinstance(given, str) else [str(value) for value in given]
    axes = _axes(stated)
    if axes in ("", "?"):
        return np.ascontiguousarray(grey)
    across, down = (value[0].upper() for value in stated)
    if axes[0] == "z":  # rows run along the body
        grey, across, down = grey.T, down, across
    if across == "R":
        grey = grey[:, ::-1]
    if down == "H":
        grey = grey[::-1]
    return np.ascontiguousarray(grey)
