"""The benchmark's source of image files: decoded when they are read, at a scale that is enough."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from experiments.benchmarks.file_source import FileSource
from ranjax.core.errors import ConfigError, DataError
from ranjax.data.batches import Batches


def test_files_are_decoded_when_read(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 11), dtype=np.uint8))
    paths = []
    for i, size in enumerate([(70, 60), (400, 300), (31, 200)]):
        paths.append(tmp_path / f"{i}.jpg")
        small.resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=95)
    files = FileSource(paths, ["a", "b", "c"], [0, 1, -1], image_size=32, class_count=2)
    exact = FileSource(paths, ["a", "b", "c"], image_size=32, gap=100.0)
    for i, (record, whole) in enumerate(zip(files, exact)):
        with Image.open(paths[i]) as image:
            fitted = ImageOps.fit(image, (32, 32), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(whole["image"][:, :, 0], np.asarray(fitted))
        assert np.abs(record["image"].astype(int) - whole["image"].astype(int)).mean() < 2
    np.testing.assert_array_equal(files[0]["image"], exact[0]["image"])
    assert files[1]["labels"].tolist() == [0.0, 1.0]
    batch = Batches(files, 3, seed=0, threads=2, memory_limit=0)[0]
    assert sorted(batch["ids"]) == sorted(map(str, paths))
    paths[1].write_bytes(b"x")
    with pytest.raises(DataError, match=r"1\.jpg is unreadable"):
        files[1]
    with pytest.raises(ConfigError, match=r"gap = 0\.5"):
        FileSource(paths, ["a", "b", "c"], gap=0.5)
    with pytest.raises(ConfigError, match="paths = 3"):
        FileSource(paths, ["a"])
