"""Reading radiographs: every pixel format to 8-bit grey, and a named reason for what cannot be used."""

import numpy as np
import pytest
from PIL import Image
from small_data import write_png

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import to_float
from ranjax.data.images.reading import decode_png, encode_png, read_image


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_eight_bit_modes_keep_their_grey_values(tmp_path, mode):
    grey = write_png(tmp_path / "a.png", mode=mode)
    image = read_image(tmp_path / "a.png", 20)
    assert image.shape == (20, 20, 1)
    assert image.dtype == np.uint8
    # A palette image has been through an adaptive palette when it was written.
    assert np.abs(image[:, :, 0].astype(int) - grey).max() <= (8 if mode == "P" else 1)


def test_sixteen_bit_images_are_stretched_from_their_own_range(tmp_path):
    grey = write_png(tmp_path / "a.png", mode="I;16")
    image = read_image(tmp_path / "a.png", 20)[:, :, 0]
    low, high = grey.min(), grey.max()
    expected = np.round((grey.astype(float) - low) * 255 / (high - low))
    np.testing.assert_allclose(image, expected, atol=1)
    assert image.min() == 0
    assert image.max() == 255


@pytest.mark.parametrize("mode", ["pad", "crop", "stretch"])
def test_an_oblong_image_becomes_square(tmp_path, mode):
    values = np.full((40, 20), 200, np.uint8)
    values[:, ::2] = 100
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", 20, mode)
    assert image.shape == (20, 20, 1)
    assert (image[:, 0] == 0).all() == (mode == "pad")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "does not exist"),
        (b"", "empty"),
        (b"not an image", "unreadable"),
        ("truncated", "unreadable"),
        (np.zeros((8, 8), np.uint8), "all black"),
        (np.full((8, 8), 7, np.uint8), "constant"),
        (np.full((8, 8), 700, np.uint16), "all black"),
    ],
)
def test_unusable_images_are_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "a.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        Image.fromarray(content).save(path)
    elif content == "truncated":
        write_png(path, 64)
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=reason):
        read_image(path, 16)


def test_resize_mode_is_checked(tmp_path):
    write_png(tmp_path / "a.png")
    with pytest.raises(ConfigError, match=r"data\.resize = 'squash'.*pad, crop, stretch"):
        read_image(tmp_path / "a.png", 16, "squash")


def test_png_is_lossless_and_floats_agree_between_8_and_16_bits():
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 1), dtype=np.uint8)
    np.testing.assert_array_equal(decode_png(encode_png(image)), image)
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_float(values), to_float(values.astype(np.uint16) * np.uint16(257)))
    with pytest.raises(ValueError, match="float32"):
        to_float(np.zeros(3, np.float32))
