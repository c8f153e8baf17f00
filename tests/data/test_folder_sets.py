"""Images in folders, a class a folder."""

import numpy as np
import pytest
from PIL import Image

from ranjax.core.errors import DataError
from ranjax.data.row_filters import select
from ranjax.data.set_settings import SetSettings


def draw(place, count):
    place.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8), 8 * i, np.uint8)).save(place / f"{i}.png")


def settings(root, **more):
    return SetSettings(name="class_folders", data_dir=str(root), patient_key="none", **more)


def test_a_class_a_folder_is_read_and_cut_by_a_hash(tmp_path):
    draw(tmp_path / "ill", 30)
    draw(tmp_path / "well", 30)
    (tmp_path / "ill" / "notes.txt").write_text("no image")
    selection = select(settings(tmp_path, adapt=0.0, validation=0.2, test=0.3))
    assert selection.classes == ("ill", "well")
    assert {row.split for row in selection.rows} == {"train", "validation", "test"}
    assert [(item.id, item.reason) for item in selection.rejected] == [("ill/notes.txt", ".txt is no image")]
    assert all(selection.classes[row.label] == row.id.partition("/")[0] for row in selection.rows)


def test_folders_of_splits_stay_as_they_are_and_are_not_mixed_with_others(tmp_path):
    for split in ("train", "val", "test"):
        for kind in ("ill", "well"):
            draw(tmp_path / split / kind, 3)
    selection = select(settings(tmp_path, adapt=0.0))
    counts = {split: sum(row.split == split for row in selection.rows) for split in ("train", "validation", "test")}
    assert counts == {"train": 6, "validation": 6, "test": 6}
    draw(tmp_path / "other", 1)
    with pytest.raises(DataError, match="beside other"):
        select(settings(tmp_path))
    with pytest.raises(DataError, match="no folder of a class"):
        select(settings(tmp_path / "other"))
