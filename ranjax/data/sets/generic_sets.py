"""Layouts that are nobody's in particular: a table with images, DICOM trees, tar shards, Hugging Face sets on disk.

The user names columns by options: ``--option report=Report --option label=Finding``.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.images import dicom
from ranjax.data.images.locations import MEMBER_LIMIT, CellRef, FileRef, RecordRef, SliceRef, open_records, read_table
from ranjax.data.sets.publisher_tables import decode, find, inside, load_json, needed, rows, safe_member, text
from ranjax.data.sets.spec import PRESENT, UNCERTAIN, Entry, Options, Rejected, Spec

COLUMNS = {
    "image": "column with the image's file, below the table's folder or --option images=FOLDER; default file",
    "report": "column with the report; default report",
    "label": "column with the label or labels",
    "labels": "columns with one class each (1, 0, -1), comma-separated",
    "separator": "what separates several labels in a cell; default |",
    "patient": "column with the patient; default patient",
    "split": "column with the split; default split",
    "id": "column with the id; default: the file",
    "view": "column with the view (PA, AP, frontal, lateral)",
}
_SPLITS = {
    "train": "train", "training": "train", "adapt": "adapt", "val": "validation", "valid": "validation",
    "validate": "validation", "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
    "ood_test": "ood_test",
}  # fmt: skip
_VIEWS = {"pa": "frontal", "ap": "frontal", "frontal": "frontal", "lateral": "lateral", "ll": "lateral", "l": "lateral"}
_IMAGES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")


def from_row(row: Mapping[str, Any], values: Mapping[str, str], image: Any, identity: str, split: str = "") -> Entry:
    """An entry of a row whose columns the options name; columns that the row does not have are left out.

    Raises:
      ConfigError: a column that the user named and the row lacks.
    """
    for option in ("report", "label", "patient", "split", "id", "view"):
        if option in values and values[option] not in row:
            name = values[option]
            raise ConfigError(f"option {option}", name, f"one of {', '.join(row)}", nearest(name, row))

    def cell(option: str, default: str = "") -> str:
        value = row.get(values.get(option, default))
        return "" if value is None else " ".join(str(value).split()) if option != "report" else str(value)

    labels: dict[str, float] = {}
    for name in filter(None, values.get("labels", "").split(",")):
        if name not in row:
            raise ConfigError("option labels", name, f"one of {', '.join(row)}", nearest(name, row))
        if (mark := str(row[name]).strip()) in ("1", "1.0", "True", "true", "0", "0.0", "-1", "-1.0"):
            labels[name] = {"1": PRESENT, "T": PRESENT, "t": PRESENT, "-": UNCERTAIN}.get(mark[0], 0.0)
    if "label" in values:
        given = row[values["label"]]
        parts = given if isinstance(given, list) else cell("label").split(values.get("separator", "|"))
        labels |= {str(part).strip(): PRESENT for part in parts if str(part).strip()}
    stated = cell("split", "split").lower()
    used = {values.get(o, o) for o in ("image", "file", "report", "patient", "split", "id")} | {values.get("label", "")}
    used |= set(labels)
    group = {k: v for k, v in row.items() if k not in used and isinstance(v, str | int | float | bool)}
    return Entry(
        cell("id") or identity, image, cell("report", "report"), labels, cell("patient", "patient"),
        _SPLITS.get(stated, stated) or split, _VIEWS.get(cell("view").lower(), ""), group,
    )  # fmt: skip


def _table(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    values = dict(options.values)
    name = values.pop("table", "")
    table = needed(root, name) if name else needed(root, "index.csv", "*.csv", "*.jsonl", "*.tsv")
    if not table.suffix.startswith((".csv", ".tsv", ".json", ".gz")):
        raise ConfigError("option table", name, "a .csv, .csv.gz, .tsv, .jsonl or .json file")
    folder = root / values.pop("images") if "images" in values else table.parent
    column = values.get("image", "file")
    content = load_json(table) if ".json" in table.name else rows(table, (column,), _delimiter(table))
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict) or not row.get(column):
            yield Rejected(f"row {number}", "", f"column {column!r} is empty")
            continue
        try:
            file = inside(folder, str(row[column]))
        except DataError as error:
            yield Rejected(f"row {number}", "", str(error))
            continue
        if not file.exists() and (folder / "images").is_dir():
            file = inside(folder / "images", str(row[column]))
        yield from_row(row, values, FileRef(str(file)), str(row[column]))


def _delimiter(table: Path) -> str:
    """What separates the columns of the header: spreadsheets of many countries write semicolons."""
    header = text(table).partition("\n")[0]
    return max((",", ";", "\t"), key=header.count)


def _dicom(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """Every DICOM file below the folder; report and labels from a table (by path, file name or SOPInstanceUID), or from
    a text file beside the film (film.txt), else none."""
    values = dict(options.values)
    name = values.pop("table", "")
    table = needed(root, name) if name else find(root, "index.csv", "*.csv", needed=False)
    column = values.get("image", "file")
    known = {row[column]: row for row in rows(table, (column,))} if table else {}
    for path in _dicom_files(root):
        relative = path.relative_to(root).as_posix()
        try:
            header = dicom.read_header(path)
        except DataError as error:
            yield Rejected(relative, "", str(error))
            continue
        if header["Modality"] and header["Modality"] not in ("CR", "DX", "RG", "DR", "XR", "OT"):
            yield Rejected(relative, "", f"the modality is {header['Modality']}, not a radiograph")
            continue
        identity = header["SOPInstanceUID"] or relative
        row = next((known[k] for k in (relative, path.name, path.stem, identity) if k in known), None)
        if row is None and table:
            yield Rejected(identity, "", f"the table {table.name} does not name the film")
            continue
        entry = from_row(row or {}, values if row else {}, FileRef(str(path)), identity)
        beside = path.with_suffix(".txt")
        if not entry.report and beside.is_file():
            entry = entry._replace(report=text(beside))
        group = {"view": header["ViewPosition"], "sex": header["PatientSex"], "age": header["PatientAge"]}
        yield entry._replace(
            patient=entry.patient or header["PatientID"],
            view=entry.view or _VIEWS.get(header["ViewPosition"].lower(), ""),
            group={**group, **entry.group},
        )


def _dicom_files(root: Path) -> Iterator[Path]:
    """Files that end as DICOM files do, and files without an ending that begin as they do (exports have none)."""
    if not root.is_dir():
        raise DataError(f"The folder {root} does not exist.")
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.name.startswith(".") or path.name == "DICOMDIR":
            continue
        if path.suffix.lower() in (".dcm", ".dicom"):
            yield path
        elif not path.suffix or re.fullmatch(r"\.\d+", path.suffix):
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    yield path


def _webdataset(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """Tar shards of samples that share a name up to the first dot of its last part: image, .txt and .json."""
    pattern = options.values.get("pattern", "*.tar")
    shards = sorted(root.glob(pattern)) or sorted(root.glob(f"*/{pattern}"))
    if not shards:
        raise DataError(f"No shard {pattern} lies in {root}.")
    for shard in shards:
        parts = reversed(shard.relative_to(root).parts)
        split = next(
            (own for part in parts for word, own in _SPLITS.items() if re.match(rf"{word}([-_.]|$)", part)), ""
        )
        try:
            yield from _shard(shard, split, options.values)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"The shard {shard} cannot be read: {error}") from error


def _shard(shard: Path, split: str, values: Mapping[str, str]) -> Iterator[Entry | Rejected]:
    # Only uncompressed tars: their members have a place, and cannot inflate.
    with tarfile.open(shard, "r:") as archive:
        sample: dict[str, Any] = {}
        current = None
        for member in archive:
            if member.isdir():
                continue
            if reason := safe_member(member, MEMBER_LIMIT):
                yield Rejected(f"{shard.name}/{member.name}", split, reason)
                continue
            path = PurePosixPath(member.name)
            stem, _, ending = path.name.partition(".")
            key = str(path.with_name(stem))
            if key != current:
                yield from _sample(shard, current, sample, split, values)
                current, sample = key, {}
            ending = f".{ending.lower()}"
            if ending in _IMAGES:
                sample["image"] = SliceRef(str(shard), member.offset_data, member.size)
            elif ending in (".txt", ".json", ".cls") and member.size <= 1 << 20:
                opened = archive.extractfile(member)
                sample[ending] = decode(opened.read()) if opened else ""
        yield from _sample(shard, current, sample, split, values)


def _sample(
    shard: Path, key: str | None, sample: Mapping[str, Any], split: str, values: Mapping[str, str]
) -> Iterator[Entry | Rejected]:
    if key is None:
        return
    identity = f"{shard.stem}/{key}"
    if "image" not in sample:
        yield Rejected(identity, split, "the sample has no image")
        return
    try:
        row = json.loads(sample[".json"]) if ".json" in sample else {}
    except ValueError as error:
        yield Rejected(identity, split, f"the sample's JSON is not valid ({error})")
        return
    row = dict(row) if isinstance(row, dict) else {}
    if ".txt" in sample:
        row.setdefault(values.get("report", "report"), sample[".txt"])
    if ".cls" in sample:
        row.setdefault(values.get("label", "label"), sample[".cls"].strip())
    named = {name: column for name, column in values.items() if name != "pattern"}
    if ".cls" in sample:
        named.setdefault("label", "label")
    yield from_row(row, named, sample["image"], identity, split)


def _huggingface(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """A set that `datasets` saved to disk (Arrow files by split), or a folder of Parquet files named by split."""
    values = dict(options.values)
    column = values.get("image", "image")
    found = sorted(p for p in root.rglob("*") if p.suffix in (".arrow", ".parquet") and not p.name.startswith("cache-"))
    if not found:
        raise DataError(f"No .arrow or .parquet file lies in {root}.")
    for file in found:
        relative = file.relative_to(root)
        words = [*relative.parts[:-1], file.name.split("-")[0]]
        split = next((_SPLITS[word.lower()] for word in words if word.lower() in _SPLITS), "")
        table = read_table(str(file))
        if column not in table.column_names:
            raise ConfigError("option image", column, f"one of {', '.join(table.column_names)}")
        names = _class_names(file, table, values.get("label", ""))
        plain = table.select([c for c in table.column_names if c != column])
        for index, row in enumerate(row for batch in plain.to_batches() for row in batch.to_pylist()):
            if names and isinstance(row[values["label"]], int):
                row[values["label"]] = names[row[values["label"]]]
            image = CellRef(str(file), column, index)
            yield from_row(row, values, image, f"{relative.with_suffix('')}/{index}", split)


def _class_names(file: Path, table: Any, label: str) -> list[str]:
    """Names of a ClassLabel column: from dataset_info.json beside the file, or from the table's own metadata."""
    beside = file.parent / "dataset_info.json"
    features = load_json(beside).get("features") or {} if beside.is_file() else {}
    if not features and b"huggingface" in (table.schema.metadata or {}):
        features = json.loads(table.schema.metadata[b"huggingface"]).get("info", {}).get("features", {})
    return list((features.get(label) or {}).get("names") or ())


def _tfds(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """Any set that tensorflow-datasets prepared as array_record."""
    from ranjax.data.sources import tfds_builder

    values = dict(options.values)
    builder = tfds_builder(values.pop("name", ""), root)
    features, column = builder.info.features, values.get("image", "image")
    for name in [column, *(values[o] for o in ("report", "label", "patient", "id") if o in values)]:
        if name not in features:
            raise ConfigError("option", name, f"one of the features {', '.join(features)}", nearest(name, features))
    label = values.get("label", "")
    names = (getattr(features[label], "names", None) if label else None) or ()
    for own in builder.info.splits:
        split = _SPLITS.get(own.lower(), "")
        if not split and len(builder.info.splits) > 1:
            yield Rejected(f"{own}/*", "", f"the set's split {own!r} is none of {', '.join(sorted(set(_SPLITS)))}")
            continue
        for index, stored in enumerate(open_records(str(builder.data_dir), own, column)):
            row = {k: decode(v) if isinstance(v, bytes) else v for k, v in stored.items() if k != column}
            row = {k: v.item() if hasattr(v, "item") and getattr(v, "ndim", 1) == 0 else v for k, v in row.items()}
            if names and row.get(values["label"], -1) >= 0:
                row[values["label"]] = names[row[values["label"]]]
            image = RecordRef(str(builder.data_dir), own, column, index)
            yield from_row(row, values, image, f"{own}/{index}", split)


_OWN = "as stated in your files"
SPECS = (
    Spec("table", "Images with a CSV or JSON-lines table", "image-text", _table, licence=_OWN, reports=_OWN,
         instructions="A folder with a .csv, .tsv or .jsonl table and the images that it names.",
         options={"table": "name of the table; default index.csv, else the first", "images": "folder of the images",
                  **COLUMNS}),
    Spec("dicom", "A tree of DICOM radiographs", "image-text", _dicom, licence=_OWN, reports=_OWN,
         instructions="A folder with DICOM files at any depth, with film.txt beside film.dcm, or a table of reports "
         "and "
         "labels that names films by path, file name or SOPInstanceUID.",
         options={"table": "name of the table; default: a .csv in the folder, where one lies there", **COLUMNS}),
    Spec("webdataset", "Webdataset tar shards", "image-text", _webdataset, licence=_OWN, reports=_OWN,
         instructions="Uncompressed .tar shards whose samples hold an image and .txt, .json or .cls.",
         options={"pattern": "names of the shards; default *.tar", **COLUMNS}),
    Spec("huggingface", "A Hugging Face set on disk", "image-text", _huggingface, licence=_OWN, reports=_OWN,
         instructions="The folder of save_to_disk (Arrow), or a folder of Parquet files whose names begin with the "
         "split.",
         options=COLUMNS),
    Spec("tfds", "A prepared tensorflow-datasets set", "image-text", _tfds, licence=_OWN, reports=_OWN,
         instructions="The TFDS data folder of a set in the array_record format, with --option name=NAME, or the "
         "folder of one version.",
         options={"name": "name, name/config or name/config:version", **COLUMNS}),
)  # fmt: skip
