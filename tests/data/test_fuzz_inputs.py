"""Generated and damaged tables, films, pictures, reports: each row is kept or left out with a reason, nothing else."""

import csv
import io
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fuzzing import check_line, fuzzed
from hypothesis import strategies as st
from PIL import Image
from publishers import ALL, film
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from small_data import public

from ranjax.core.errors import ConfigError, DataError
from ranjax.data import publisher_tables
from ranjax.data.images import locations
from ranjax.data.images.loading import FileRef, load
from ranjax.data.row_filters import select

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
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8)


def damaged(data, changes, cut):
    """Bytes with some exchanged, and the last ones cut off."""
    data = bytearray(data)
    for place, byte in changes:
        if data:
            data[int(place * (len(data) - 1))] = byte
    return bytes(data[: int(cut * len(data))])


def read_or_refused(path):
    try:
        assert load(FileRef(str(path))).picture.mode == "L"
    except DataError as error:
        check_line(error)


def selected(chosen, rows=None):
    """The selection of a set, of which every row is accounted for; None where the set is refused in one line."""
    try:
        found = select(chosen)
    except (ConfigError, DataError) as error:
        check_line(error)
        return None
    assert len(found.rows) + len(found.rejected) + found.undrawn == found.read
    if rows is not None:
        assert found.read == rows
    for item in found.rejected:
        check_line(item.reason)
    return found


@fuzzed(25, kind=st.sampled_from(sorted(FILES)), changes=CHANGES, cut=st.floats(0.1, 1.0))
def test_a_damaged_picture_is_read_or_refused_in_one_line(kind, changes, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{kind}"
        path.write_bytes(damaged(FILES[kind], changes, cut) or b"x")
        read_or_refused(path)


def test_what_the_fuzzers_found_stays_mended(tmp_path):
    # A TIFF without the tag of its width.
    lost = re.sub(rb"\x00\x01([\x03\x04])\x00", lambda found: b"\xfe\x00" + found[1] + b"\x00", FILES["tif"], count=1)
    assert lost != FILES["tif"]
    (tmp_path / "a.tif").write_bytes(lost)
    several = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    film(tmp_path / "b.dcm", GREY.astype(np.uint16), **several, PixelData=bytes(3 * GREY.size))
    odd = (tmp_path / "b.dcm").read_bytes().replace(b"\x28\x00\x04\x00CS", b"\x28\x00\x04\x00C\x00")
    (tmp_path / "c.dcm").write_bytes(odd)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DataError) as error:
            load(FileRef(str(path)))
        check_line(error.value)


NUMBERS = st.sampled_from([0, 1, -1, 8, 11, 12, 15, 16, 255, 4095, 65535])
REALS = st.sampled_from(["0", "1", "-1", "300", "1e-9", "1E+30", "-0.5", "2048", ""])
ELEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "BitsAllocated": st.sampled_from([1, 8, 16, 32, 64, 12, 0]),
        "BitsStored": st.sampled_from([0, 1, 8, 10, 12, 16, 17, 32]),
        "HighBit": st.sampled_from([0, 7, 11, 15, 16, 31]),
        "PixelRepresentation": st.sampled_from([0, 1, 2]),
        "SamplesPerPixel": st.sampled_from([0, 1, 2, 3, 4]),
        "PlanarConfiguration": st.sampled_from([0, 1, 2]),
        "PhotometricInterpretation": st.sampled_from(
            ["MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR", "ARGB", "", "x"]
        ),
        "NumberOfFrames": st.sampled_from(["0", "1", "2", "-1", ""]),
        "Rows": NUMBERS.filter(lambda n: n >= 0),
        "Columns": NUMBERS.filter(lambda n: n >= 0),
        "WindowCenter": st.one_of(REALS, st.lists(REALS, min_size=1, max_size=3)),
        "WindowWidth": st.one_of(REALS, st.lists(REALS, min_size=1, max_size=3)),
        "VOILUTFunction": st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "x", ""]),
        "RescaleSlope": REALS,
        "RescaleIntercept": REALS,
        "PixelPaddingValue": NUMBERS.filter(lambda n: n >= 0),
        "PixelPaddingRangeLimit": NUMBERS.filter(lambda n: n >= 0),
        "PatientOrientation": st.sampled_from([["L", "F"], ["R", "F"], ["P", "F"], ["x"], "", ["L"]]),
        "FieldOfViewHorizontalFlip": st.sampled_from(["YES", "NO", "x"]),
        "BurnedInAnnotation": st.sampled_from(["YES", "NO", ""]),
        "ViewPosition": st.sampled_from(["PA", "AP", "LL", "", "é", "XTABLE"]),
        "PatientID": st.sampled_from(["p1", "p2", "", "ANON", "7 ", "7", "007"]),
        "StudyInstanceUID": st.sampled_from(["1.2.3", "1.2.4", ""]),
        "SOPInstanceUID": st.sampled_from(["1.2.3.1", "1.2.3.2", "", "x"]),
        "Modality": st.sampled_from(["DX", "CR", "CT", "", "x"]),
        "PatientAge": st.sampled_from(["058Y", "3D", "", "?"]),
    },
)
SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
    JPEGBaseline8Bit, RLELossless,
)  # fmt: skip
PLAIN = film(Path(tempfile.mkdtemp()) / "plain.dcm", GREY.astype(np.uint16) * 16)
FILM = st.fixed_dictionaries(
    {
        "elements": ELEMENTS,
        "absent": st.lists(
            st.sampled_from(["Rows", "PixelData", "BitsStored", "PhotometricInterpretation"]), max_size=1
        ),
        "syntax": st.sampled_from(SYNTAXES),
        "pixels": st.sampled_from([b"", b"\0", bytes(range(256)) * 5, None, None, None]),
    }
)


def write_film(path, elements, absent, syntax, pixels):
    """Write a film with some elements of its own; half of one where pydicom itself refuses to write these."""
    data = dcmread(PLAIN)
    try:
        for name, value in elements.items():
            setattr(data, name, value)
        for name in absent:
            if name in data:
                delattr(data, name)
        if pixels is not None and "PixelData" in data:
            data.PixelData = pixels + b"\0" * (len(pixels) % 2)
        data.file_meta.TransferSyntaxUID = syntax
        little = syntax != ExplicitVRBigEndian
        data.save_as(
            path, little_endian=little, implicit_vr=syntax == ImplicitVRLittleEndian, enforce_file_format=False
        )
    except Exception:
        # What is no film begins to be one at least.
        path.write_bytes(b"\0" * 128 + b"DICM" + PLAIN.read_bytes()[132:600])


@fuzzed(25, film=FILM, changes=CHANGES, cut=st.sampled_from([1.0, 1.0, 1.0, 0.5, 0.97]))
def test_a_generated_film_is_read_or_refused_in_one_line(film, changes, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        write_film(path, **film)
        path.write_bytes(damaged(path.read_bytes(), changes[:2] if cut < 1 else [], cut))
        read_or_refused(path)


CELLS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=12),
    st.sampled_from(
        ["", "nan", "NULL", "1", "-1", "true", "a\nb", 'a "b"', "a,b", "No effusion.", "train", "../x.png"]
    ),
)


@fuzzed(
    15,
    films=st.lists(FILM, min_size=1, max_size=4),
    rows=st.one_of(
        st.none(), st.lists(st.tuples(st.sampled_from(["0.dcm", "1", "9.dcm", "", "1.2.3.1"]), CELLS), max_size=4)
    ),
)
def test_every_film_and_row_of_a_dicom_tree_is_kept_or_left_out_with_a_reason(films, rows):
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(films):
            write_film(Path(folder) / f"{number}.dcm", **one)
            (Path(folder) / f"{number}.txt").write_text(f"FINDINGS: Film {number} shows a mass.")
        if rows is not None:
            with (Path(folder) / "index.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("file", "report"), *rows])
        found = selected(public("dicom", folder, sections=()))
        if found is not None:
            # A film and the row that names it are one; what is left over of either is named.
            assert max(len(films), len(rows or ())) <= found.read <= len(films) + len(rows or ())


@fuzzed(
    25,
    rows=st.lists(st.tuples(st.sampled_from(["a.png", "b.png", "", "c d.png"]), CELLS, CELLS), min_size=1, max_size=6),
)
def test_every_row_of_a_table_is_kept_or_left_out_with_a_reason(rows):
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "index.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "report", "patient"), *rows])
        selected(public("table", folder, deidentify=True, options=()), len(rows))


SENTENCES = st.sampled_from(
    [
        "FINDINGS:", "IMPRESSION:", "LUNGS: Clear.", "Comparison: 12/03/2014.", "No effusion.", 
        "Dr. Miller, MRN 123456",
        "Herr Dr. Müller sah 3 mm.", "tel. 030-1234567", "C4-5-6", "at 10:30", "1.", "__", "\r\n", "\t",
        "\x0b", "\u2028", "\ufeff", "\u0301", "🩻", "sin hallazgos", "not unchanged", "doesn’t", "Addendum", "(", "[",
        "a@b.example",
        "%s", "{}", "<b>", "x" * 300,
    ]
)  # fmt: skip
REPORTS = st.one_of(
    st.lists(
        st.one_of(SENTENCES, st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)), max_size=8
    ).map(" ".join),
    st.lists(SENTENCES, max_size=8).map("\n".join),
)


@fuzzed(
    15,
    texts=st.lists(REPORTS, min_size=1, max_size=4),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "sections": st.sampled_from([(), ("findings",), ("findings", "impression")]),
            "label_reports": st.just(True),
            "deidentify": st.booleans(),
            "repeats": st.just("drop"),
            "language": st.sampled_from(["en", "de", "es"]),
            "uncertain": st.sampled_from(["ignore", "zero", "one", "exclude"]),
            "limit": st.just(2),
        },
    ),
)
def test_every_report_is_kept_or_left_out_with_a_reason(texts, changes):
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "index.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "report"), *((f"{i}.png", text) for i, text in enumerate(texts))])
        found = selected(public("table", folder, options=("patient=none",), **changes), len(texts))
        assert found is None or all(row.report.strip() for row in found.rows)


PICTURES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")


TREES = Path(tempfile.mkdtemp())


def tree(name):
    """The publisher's tree, made once, and its files that hold no pictures."""
    root = TREES / name
    if not root.is_dir():
        root.mkdir()
        ALL[name](root)
    return root, sorted(path for path in root.rglob("*") if path.is_file() and path.suffix not in PICTURES)


@fuzzed(
    25,
    name=st.sampled_from(sorted(ALL)),
    which=st.floats(0, 1),
    changes=CHANGES,
    cut=st.sampled_from([1.0, 1.0, 0.0, 0.4, 0.95]),
    more=st.sampled_from([b"", b"\n", b",,,\n", b'"', b"\xff\xfe", b"{}", b"x"]),
)
def test_a_damaged_file_of_a_publisher_ends_in_one_line_and_loses_no_row(name, which, changes, cut, more):
    root, files = tree(name)
    if not files:
        return
    path = files[int(which * (len(files) - 1))]
    data = path.read_bytes()
    for cache in (locations.read_table, locations.load_arrays, publisher_tables.files_below):
        cache.cache_clear()
    try:
        path.write_bytes(damaged(data, changes, cut) + more)
        selected(public(name, root, checksums=False, allow_shared_patients=True))
    finally:
        path.write_bytes(data)


def teardown_module():
    shutil.rmtree(TREES)
    shutil.rmtree(PLAIN.parent)
