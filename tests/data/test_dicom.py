"""DICOM films: windows in closed form and against pydicom, inversion, padding, orientation, and refusals."""

import zlib

import numpy as np
import pydicom
import pytest
from publishers import film
from pydicom.pixels import apply_windowing

from ranjax.core.errors import DataError
from ranjax.data.images import dicom

RAMP = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24)


def read(path):
    picture, _ = dicom.read_dicom(path)
    return np.asarray(picture)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(288.0, 200.0), (100.5, 33.0), (40.0, 1000.0)])
def test_windows_agree_with_pydicom(tmp_path, function, center, width):
    film(tmp_path / "a.dcm", RAMP, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
    data = pydicom.dcmread(tmp_path / "a.dcm")
    theirs = apply_windowing(RAMP, data) / 4095.0
    np.testing.assert_allclose(dicom.window(RAMP.astype(np.float64), center, width, function), theirs, atol=1e-6)


def test_a_linear_window_is_the_standards_formula():
    # PS3.3, C.11.2.1.2.1, at c = 2048, w = 4096: -0 and below black, 4095 and above white.
    values = np.array([[-1.0, 0.0, 2047.5, 4095.0, 5000.0]])
    np.testing.assert_allclose(dicom.window(values, 2048, 4096), [[0.0, 0.0, 0.5, 1.0, 1.0]], atol=1e-12)
    assert dicom.window(np.array([[1.4, 1.6]]), 2.0, 1.0).tolist() == [[0.0, 1.0]]
    for width, function in ((0.5, "LINEAR"), (0.0, "LINEAR_EXACT"), (0.0, "SIGMOID"), (1.0, "GAMMA")):
        with pytest.raises(ValueError, match=r"width|GAMMA"):
            dicom.window(values, 0.0, width, function)


def test_rescale_comes_before_the_window(tmp_path):
    plain = film(tmp_path / "a.dcm", RAMP, WindowCenter=288, WindowWidth=576)
    scaled = film(tmp_path / "b.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=476, WindowWidth=1152)
    np.testing.assert_allclose(read(plain).astype(int), read(scaled).astype(int), atol=1)


def test_without_a_window_the_range_of_the_values_counts(tmp_path):
    picture = read(film(tmp_path / "a.dcm", RAMP + 500))
    assert (picture.min(), picture.max()) == (0, 255)
    assert (np.diff(picture.ravel().astype(int)) >= 0).all()


def test_monochrome1_is_a_negative(tmp_path):
    positive = read(film(tmp_path / "a.dcm", RAMP))
    negative = read(film(tmp_path / "b.dcm", RAMP, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(negative, 255 - positive)


def test_padding_is_black_and_does_not_set_the_range(tmp_path):
    pixels = RAMP + 100
    pixels[:, :4] = 4000
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        picture = read(film(tmp_path / f"{kind}.dcm", pixels, PixelPaddingValue=4000, PhotometricInterpretation=kind))
        assert (picture[:, :4] == 0).all()
        assert picture[:, 4:].max() == 255


def test_a_voi_lut_stands_before_the_window(tmp_path):
    item = pydicom.Dataset()
    item.LUTDescriptor = [576, 0, 8]
    item.LUTData = [255 - (i * 255) // 575 for i in range(576)]
    item["LUTData"].VR = "US"
    picture = read(film(tmp_path / "a.dcm", RAMP, VOILUTSequence=[item], WindowCenter=1, WindowWidth=2))
    assert (picture[0, 0], picture[-1, -1]) == (255, 0)


def test_the_patients_right_comes_to_the_left(tmp_path):
    upright = read(film(tmp_path / "a.dcm", RAMP, PatientOrientation=["L", "F"]))
    np.testing.assert_array_equal(read(film(tmp_path / "b.dcm", RAMP, PatientOrientation=["R", "F"])), upright[:, ::-1])
    np.testing.assert_array_equal(read(film(tmp_path / "c.dcm", RAMP, PatientOrientation=["L", "H"])), upright[::-1])
    np.testing.assert_array_equal(read(film(tmp_path / "d.dcm", RAMP)), upright)


# As the film was taken, the patient's right on the left and the head on top; and how a file may hold it.
SEEN = np.add.outer(100 * np.arange(24), np.arange(24)).astype(np.uint16)


@pytest.mark.parametrize(
    ("stored", "orientation"),
    [
        (SEEN.T, ["F", "L"]), (SEEN.T[:, ::-1], ["H", "L"]), (SEEN.T[::-1], ["F", "R"]), (SEEN[::-1, ::-1], ["R", "H"]),
        (SEEN[:, ::-1], ["RF", "FL"]), (SEEN[::-1], ["A", "H"]), (SEEN.T[:, ::-1], ["H", "P"]), (SEEN, ["P", "F"]),
    ],
)  # fmt: skip
def test_the_head_is_above_and_the_right_is_on_the_left_of_a_turned_film_too(tmp_path, stored, orientation):
    plain = read(film(tmp_path / "a.dcm", SEEN))
    turned = film(tmp_path / "b.dcm", np.ascontiguousarray(stored), PatientOrientation=orientation)
    np.testing.assert_array_equal(read(turned), plain)


def test_what_a_device_did_before_it_stored_a_film_is_not_done_again(tmp_path):
    done = {"FieldOfViewHorizontalFlip": "YES", "FieldOfViewRotation": 180, "FieldOfViewOrigin": [0, 0]}
    given = film(tmp_path / "b.dcm", SEEN, **done)
    np.testing.assert_array_equal(read(given), read(film(tmp_path / "a.dcm", SEEN)))
    assert dicom.marks_of(dicom.read_header(given)) == ()


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"ImageHorizontalFlip": "Y", "ImageRotation": 0}, "presentation state"),
        ({"ImageRotation": 90, "ImageHorizontalFlip": "N"}, "presentation state"),
        ({"ImageRotation": 0, "ImageHorizontalFlip": "N"}, ""),
        ({"PatientOrientation": ["L", "R"]}, "names no two axes"),
        ({"PatientOrientation": ["X", "F"]}, "names no two axes"),
        ({"PatientOrientation": "L"}, "names no two axes"),
        ({"PatientOrientation": ["F", "L"]}, ""),
        ({"PatientOrientation": ""}, ""),
    ],
)
def test_turns_that_are_not_followed_are_counted_by_their_reason(tmp_path, stated, words):
    given = film(tmp_path / "a.dcm", SEEN, **stated)
    marks = dicom.marks_of(dicom.read_header(given))
    assert len(marks) == bool(words)
    assert words in "".join(marks)
    np.testing.assert_array_equal(read(given).shape, SEEN.shape)


def test_headers_are_text(tmp_path):
    header = dicom.read_header(film(tmp_path / "a.dcm", RAMP, PatientID="p 1", ViewPosition="AP"))
    assert (header["PatientID"], header["ViewPosition"], header["PatientAge"]) == ("p 1", "AP", "")


def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path, monkeypatch):
    good = film(tmp_path / "a.dcm", RAMP).read_bytes()
    cases = {
        "no readable DICOM": b"x" * 400,
        "cannot be decoded": good[:-200],
        "frames": film(tmp_path / "f.dcm", RAMP, NumberOfFrames=3).read_bytes(),
        "million pixels": film(tmp_path / "b.dcm", RAMP, Rows=60000, Columns=60000).read_bytes(),
        "deflated": good.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99\0\0"[:20]),
    }
    bomb = b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99" + zlib.compress(b"\0" * 10_000_000)
    cases["deflated"] = bomb
    for reason, data in cases.items():
        with pytest.raises(DataError, match=reason):
            dicom.read_dicom(data)
    with pytest.raises(DataError, match="does not exist"):
        dicom.read_dicom(tmp_path / "nowhere.dcm")
    monkeypatch.setattr(dicom, "FILE_LIMIT", 100)
    with pytest.raises(DataError, match="over the limit"):
        dicom.read_dicom(good)
    monkeypatch.setattr(dicom, "FILE_LIMIT", 1 << 20)
    monkeypatch.setattr(dicom, "HEADER_LIMIT", 100)
    with pytest.raises(DataError, match="header has more than"):
        dicom.read_dicom(good)


def test_colour_films_become_grey(tmp_path):
    red = np.zeros((24, 24, 3), np.uint8)
    red[..., 0] = np.arange(24)[None] * 10
    path = film(
        tmp_path / "a.dcm", RAMP, PhotometricInterpretation="RGB", SamplesPerPixel=3, PlanarConfiguration=0,
        BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=red.tobytes(),
    )  # fmt: skip
    np.testing.assert_allclose(read(path)[0].astype(int), np.round(red[0, :, 0] * 0.299), atol=1)
