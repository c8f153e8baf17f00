"""Pictures as their publishers mean them: pydicom's own files through its pipeline, every format of Pillow."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from publishers import film
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from ranjax.core.errors import DataError
from ranjax.data.images import dicom, reading
from ranjax.data.images.loading import FileRef, load
from ranjax.data.sets.views import view_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
GREY = np.tile(np.linspace(10, 240, 60).astype(np.uint8), (40, 1))
GREY[:20] //= 2
RAMP = np.tile(np.linspace(0, 4095, 64).astype(np.uint16), (64, 1))


def independent(path):
    """The grey picture of a file by pydicom alone, as f64 in [0, 1]; None where it has no window and no one reading."""
    data = pydicom.dcmread(path)
    values = np.asarray(apply_modality_lut(data.pixel_array, data), np.float64)
    if data.get("WindowCenter") is not None:
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
        low = -(2 ** (data.BitsStored - 1)) if data.PixelRepresentation else 0
        ends = sorted(slope * value + intercept for value in (low, low + 2**data.BitsStored - 1))
        unit = (apply_voi_lut(values, data) - ends[0]) / (ends[1] - ends[0])
    else:
        seen = values
        if "PixelPaddingValue" in data:
            seen = values[data.pixel_array != data.PixelPaddingValue]
        unit = np.clip((values - seen.min()) / (seen.max() - seen.min()), 0, 1)
    unit = 1 - unit if data.PhotometricInterpretation == "MONOCHROME1" else unit
    if "PixelPaddingValue" in data:
        unit = np.where(data.pixel_array == data.PixelPaddingValue, 0, unit)
    return unit


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_pydicoms_own_files_agree_with_its_pipeline_or_are_refused_in_words(path):
    try:
        picture, header = dicom.read_dicom(path)
    except DataError as error:
        said = str(error)
        picture = None
    if picture is None:
        assert "\n" not in said
        assert " at 0x" not in said
        return
    found = np.asarray(picture, np.float64) / 255
    if header["PhotometricInterpretation"].startswith("MONOCHROME"):
        np.testing.assert_allclose(found, independent(path), atol=0.51 / 255)
    elif header["PhotometricInterpretation"] == "RGB":
        values = pydicom.dcmread(path).pixel_array
        grey = (values / (2.0 ** (8 * values.dtype.itemsize) - 1)) @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(found, grey, atol=1.6 / 255)


def test_most_of_pydicoms_pictures_are_read():
    read = 0
    for path in FILES:
        try:
            dicom.read_dicom(path)
        except DataError:
            continue
        read += 1
    assert read >= 20


@pytest.mark.parametrize("high", [11, 12, 14, 15])
@pytest.mark.parametrize("signed", [0, 1])
def test_samples_in_the_upper_bits_are_shifted_down_with_their_sign(tmp_path, high, signed):
    values = RAMP.astype(np.int32) - 2048 * signed
    plain = film(
        tmp_path / "a.dcm", (values & 0xFFF).astype(np.uint16), PixelRepresentation=signed, BitsStored=12, HighBit=11
    )
    cells = ((values & 0xFFF) << (high - 11)).astype(np.uint16) | np.uint16(1 if high > 11 else 0)
    upper = film(tmp_path / "b.dcm", cells, PixelRepresentation=signed, BitsStored=12, HighBit=high)
    np.testing.assert_array_equal(np.asarray(dicom.read_dicom(plain)[0]), np.asarray(dicom.read_dicom(upper)[0]))
    assert (np.diff(np.asarray(dicom.read_dicom(upper)[0])[0].astype(int)) >= 0).all()


def test_a_high_bit_that_no_cell_has_is_refused(tmp_path):
    with pytest.raises(DataError, match="HighBit 16 of 12 bits stored in 16"):
        dicom.read_dicom(film(tmp_path / "a.dcm", RAMP, BitsStored=12, HighBit=16))


def test_padding_has_the_sign_of_the_pixels_whichever_it_was_written_in(tmp_path):
    values = (RAMP.astype(np.int16) - 1000).copy()
    values[:, :4] = -2000
    path = tmp_path / "a.dcm"
    film(path, values.view(np.uint16), PixelRepresentation=1, BitsStored=16, HighBit=15)
    data = pydicom.dcmread(path)
    data.add_new("PixelPaddingValue", "US", 65536 - 2000)
    data.save_as(path)
    picture = np.asarray(dicom.read_dicom(path)[0])
    assert (picture[:, :4] == 0).all()
    # The padding does not set the range: the least value beside it is black too.
    assert picture[0, 4] <= 20
    assert picture.max() == 255


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"PresentationLUTShape": "INVERSE"}, "PresentationLUTShape contradicts"),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"}, "contradicts"),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, ""),
        ({"PresentationLUTShape": "IDENTITY", "PixelAspectRatio": [1, 1]}, ""),
        ({"PixelAspectRatio": [2, 1]}, "not square"),
        ({"ImagerPixelSpacing": [0.1, 0.3]}, "not square"),
        ({"PixelSpacing": [0.14, 0.14]}, ""),
    ],
)
def test_what_a_header_says_against_its_pixels_is_noted(tmp_path, stated, words):
    marks = load(FileRef(str(film(tmp_path / "a.dcm", RAMP, **stated)))).marks
    assert len(marks) == bool(words)
    assert words in "".join(marks)


def test_a_burned_in_annotation_is_noted(tmp_path):
    film(tmp_path / "a.dcm", RAMP, BurnedInAnnotation="YES")
    film(tmp_path / "b.dcm", RAMP, BurnedInAnnotation="NO")
    assert load(FileRef(str(tmp_path / "a.dcm"))).marks == ("annotation burned in, as the DICOM header says",)
    assert load(FileRef(str(tmp_path / "b.dcm"))).marks == ()


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16")
UNTURN = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].T, 8: lambda a: np.rot90(a),
}  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
def test_every_exif_orientation_is_undone_in_every_format(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(ending, {})
    Image.fromarray(GREY).save(path, exif=exif, **options)
    loaded = load(FileRef(str(path)))
    expected = UNTURN[orientation](GREY)
    assert loaded.size == expected.shape
    np.testing.assert_allclose(np.asarray(loaded.picture).astype(int), expected.astype(int), atol=3)


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_white_is_zero_is_a_negative_at_every_depth(tmp_path, depth):
    found = []
    for kind in (0, 1):
        source = {
            1: Image.fromarray(GREY > 100), 8: Image.fromarray(GREY), 16: Image.fromarray(GREY.astype(np.uint16) * 200),
        }[depth]  # fmt: skip
        source.save(tmp_path / "a.tif")
        data = bytearray((tmp_path / "a.tif").read_bytes())
        # The entry of PhotometricInterpretation (262, SHORT, 1): Pillow writes 1, BlackIsZero.
        place = data.index(b"\x06\x01\x03\x00\x01\x00\x00\x00")
        assert data[place + 8] == 1
        data[place + 8] = kind
        found.append(np.asarray(reading.to_grey(reading.open_image(bytes(data)))).astype(int))
    white_is_zero, black_is_zero = found
    np.testing.assert_allclose(white_is_zero, 255 - black_is_zero, atol=1)
    assert black_is_zero.std() > 10


@settings(max_examples=40, deadline=None)
@given(
    pixels=st.sampled_from([1, 3]).flatmap(
        lambda channels: arrays.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(channels)))
    )
)
def test_what_the_attack_writes_comes_back_bit_for_bit(pixels):
    data = reading.encode_png16(pixels)
    np.testing.assert_array_equal(reading.decode_png16(data), pixels)
    eight = np.asarray(reading.open_image(data))
    expected = np.round(pixels.astype(np.float64) / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(eight.reshape(pixels.shape), expected)
    if pixels.shape[2] == 1:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels[:, :, 0])


def test_what_the_attack_writes_is_cut_off_in_words():
    whole = reading.encode_png16(np.arange(300, dtype=np.uint16).reshape(10, 10, 3))
    for size in (60, 90, len(whole) - 30):
        with pytest.raises(DataError):
            reading.decode_png16(whole[:size])


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_becomes_grey_or_is_refused(mode):
    source = Image.fromarray(GREY)
    if mode == "I;16":
        picture = Image.fromarray(GREY.astype(np.uint16) * 257)
    else:
        picture = source.convert("RGB").convert(mode) if mode in ("HSV", "CMYK", "YCbCr") else None
        if mode == "LAB":
            picture = Image.merge("LAB", (source, Image.new("L", source.size, 128), Image.new("L", source.size, 128)))
        elif picture is None:
            picture = source.convert(mode)
    try:
        grey = np.asarray(reading.to_grey(picture)).astype(int)
    except ValueError:
        assert mode == "LAB"
        return
    assert grey.shape == GREY.shape
    if mode not in ("1", "I", "F", "I;16"):
        np.testing.assert_allclose(grey, GREY.astype(int), atol=9)


def test_coloured_marks_are_noted_and_grey_in_three_channels_is_not(tmp_path):
    colour = np.stack([GREY] * 3, axis=2)
    Image.fromarray(colour).save(tmp_path / "grey.png")
    Image.fromarray(colour).save(tmp_path / "grey.jpg", quality=80)
    colour[5:9, 5:20] = (255, 0, 0)
    Image.fromarray(colour).save(tmp_path / "marked.png")
    assert load(FileRef(str(tmp_path / "grey.png"))).marks == ()
    assert load(FileRef(str(tmp_path / "grey.jpg"))).marks == ()
    assert load(FileRef(str(tmp_path / "marked.png"))).marks == ("coloured pixels (markers?), stored as grey",)


@pytest.mark.parametrize("ending", ["tif", "gif", "webp", "png"])
def test_several_pictures_in_one_file_are_refused_by_their_number(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    frames = [Image.fromarray(np.roll(GREY, shift, 1)) for shift in (0, 9, 18)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="holds 3 pictures"):
        load(FileRef(str(path)))


def test_a_reason_is_the_same_words_each_time(tmp_path):
    (tmp_path / "a.png").write_bytes(b"<html>404</html>")
    reasons = set()
    for _ in range(3):
        with pytest.raises(DataError) as caught:
            load(FileRef(str(tmp_path / "a.png")))
        reasons.add(str(caught.value))
    assert len(reasons) == 1
    assert "0x" not in reasons.pop()


@pytest.mark.parametrize(
    ("code", "view"),
    [("PA", "frontal"), (" ap ", "frontal"), ("AP_horizontal", "frontal"), ("LATERAL", "lateral"), ("LL", "lateral"),
     ("XTABLE LATERAL", "lateral"), ("", ""), ("nan", ""), ("LAO", "LAO"), ("SWIMMERS", "SWIMMERS")],
)  # fmt: skip
def test_views_are_those_of_their_publishers_codes(code, view):
    assert view_of(code) == view
