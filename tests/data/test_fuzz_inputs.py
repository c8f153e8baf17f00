"""Generated and damaged tables, films and pictures: each row is kept or left out with a reason, and nothing else."""

import csv
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from publishers import film

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.images.loading import FileRef, load
from ranjax.data.row_filters import select
from ranjax.data.set_settings import SetSettings

pytestmark = pytest.mark.slow
QUICK = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
GREY = np.add.outer(np.arange(24), np.arange(24)).astype(np.uint8)


def _files():
    found = {}
    for ending in ("png", "jpg", "tif", "webp", "bmp", "gif"):
        buffer = io.BytesIO()
        Image.fromarray(GREY).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper()))
        found[ending] = buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = film(Path(folder) / "a.dcm", GREY.astype(np.uint16) * 16, WindowCenter=300, WindowWidth=500)
        found["dcm"] = path.read_bytes()
    return found


FILES = _files()


@QUICK
@given(
    kind=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    cut=st.floats(0.1, 1.0),
)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_picture_is_read_or_refused_in_one_line(kind, changes, cut):
    data = bytearray(FILES[kind])
    for place, byte in changes:
        data[int(place * (len(data) - 1))] = byte
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}"
        path.write_bytes(bytes(data[: max(1, int(cut * len(data)))]))
        said = ""
        try:
            assert load(FileRef(str(path))).picture.mode == "L"
        except DataError as error:
            said = str(error)
        assert "\n" not in said
        assert "0x" not in said


CELLS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(
        ["", "nan", "NULL", "1", "-1", "true", "a\nb", 'a "b"', "a,b", "No effusion.", "train", "../x.png"]
    ),
)


@QUICK
@given(
    rows=st.lists(st.tuples(st.sampled_from(["a.png", "b.png", "", "c d.png"]), CELLS, CELLS), min_size=1, max_size=6)
)
def test_every_row_of_a_table_is_kept_or_left_out_with_a_reason(rows):
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "index.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "report", "patient"), *rows])
        try:
            found = select(SetSettings(name="table", data_dir=folder, patient_key="none"))
        except (ConfigError, DataError):
            return
        assert len(found.rows) + len(found.rejected) == len(rows)
        assert all(item.reason for item in found.rejected)
