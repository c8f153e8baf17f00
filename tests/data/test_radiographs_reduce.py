"""The script that made the shipped scan: its NIfTI reading and averaging, on volumes small enough to check by hand."""

import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments/data/reduce_ct.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reduce_ct", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def nifti(voxels, code, slope=1.0, intercept=0.0):
    header = bytearray(352)
    header[:4] = struct.pack("<i", 348)
    header[40:56] = struct.pack("<8h", 3, *voxels.shape, 1, 1, 1, 1)
    header[70:72] = struct.pack("<h", code)
    header[76:108] = struct.pack("<8f", 1, 0.5, 0.75, 2.5, 0, 0, 0, 0)
    header[108:120] = struct.pack("<3f", 352, slope, intercept)
    return gzip.compress(bytes(header) + voxels.tobytes(order="F"))


def test_nifti_is_read_in_its_own_order_and_units(script):
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    read, spacing = script.read_nifti(nifti(voxels, 4, slope=2.0, intercept=-1024.0))
    np.testing.assert_array_equal(read, voxels * 2.0 - 1024.0)
    np.testing.assert_allclose(spacing, [0.5, 0.75, 2.5])
    with pytest.raises(ValueError, match="data type 64"):
        script.read_nifti(nifti(voxels.astype(np.float64), 64))
    with pytest.raises(ValueError, match="NIfTI-1"):
        script.read_nifti(gzip.compress(bytes(400)))


def test_averages_and_contrast(script):
    volume = np.arange(4 * 4 * 3, dtype=np.float64).reshape(4, 4, 3)
    means = script.average(volume)
    assert means.shape == (1, 1, 2)
    np.testing.assert_allclose(means[0, 0], [volume[:, :, :2].mean(), volume[:, :, 2].mean()])
    hu, mask = np.full((12, 12, 12), 40), np.zeros((12, 12, 12), np.uint8)
    hu[2, 2, 2], mask[2, 2, 2] = 300, 51
    hu[9, 9, 9], mask[9, 9, 9] = 900, 92
    plain = script.without_contrast(hu, mask)
    assert plain[2, 2, 2] == 45
    assert plain[9, 9, 9] == 900
    assert (plain != hu).sum() == 1
