"""Layouts that are nobody's in particular: a table with images, DICOM trees, tar shards, Hugging Face sets on disk.

The user names columns by options: ``--option report=Report --option label=Finding``.
"""

from __future__ import annotations

import json
import re
import string
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ranjax.core.checks import texts_by_name
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.data.images.locations import (
    MEMBER_LIMIT,
    CellRef,
    FileRef,
    RecordRef,
    Reference,
    SliceRef,
    open_records,
    read_table,
    tfds_builder,
)
from ranjax.data.publisher_tables import decode, find, inside, load_json, needed, rows, safe_member, text
from ranjax.data.sets.spec import PRESENT, UNCERTAIN, Entry, Options, Rejected, spec
from ranjax.data.splits import SPLITS, hash_split

_SPLITS = {
    "train": "train", "training": "train", "adapt": "adapt", "val": "validation", "valid": "validation",
    "validate": "validation", "validation": "validation", "dev": "validation", "test": "test", "testing": "test",
    "ood_test": "ood_test",
}  # fmt: skip
_VIEWS = {"pa": "frontal", "ap": "frontal", "frontal": "frontal", "lateral": "lateral", "ll": "lateral", "l": "lateral"}
_IMAGES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")


def from_row(
    row: Mapping[str, object], values: Mapping[str, str], image: Reference, identity: str, split: str = ""
) -> Entry | Rejected:
    """Return the entry of a row whose columns the options name; columns that the row does not have are left out.

    Args:
      row: cells by column.
      values: the set's options by name, see the table columns of sets.toml.
      image: where its pixels lie.
      identity: its id where no column holds one.
      split: that it belongs to where no column says so.

    Raises:
      ConfigError: a column that the user named and the row lacks.
    """
    # Columns that the user named must be there.
    for option in ("report", "label", "patient", "split", "id", "view"):
        if option in values:
            _check_column(row, values[option], option)

    def cell(option: str, default: str = "") -> str:
        return " ".join(_text(row.get(values.get(option, default))).split())

    # Labels: of one column a class, and of a column of labels.
    labels: dict[str, float] = {}
    for name in filter(None, values.get("labels", "").split(",")):
        _check_column(row, name, "labels")
        if (mark := _text(row[name])) in ("1", "1.0", "True", "true", "0", "0.0", "-1", "-1.0"):
            labels[name] = {"1": PRESENT, "T": PRESENT, "t": PRESENT, "-": UNCERTAIN}.get(mark[0], 0.0)
    if "label" in values:
        labels |= dict.fromkeys(_labels_of(row, values), PRESENT)
    report, identity = _text(row.get(values.get("report", "report"))), cell("id") or identity
    if template := values.get("template", ""):
        try:
            report = _written(template, row, values)
        except DataError as error:
            return Rejected(identity, split, str(error))
    # The columns that nothing has read describe the example.
    stated = cell("split", "split").lower()
    used = {values.get(o, o) for o in ("image", "file", "report", "patient", "split", "id")}
    used |= set(values.get("labels", "").split(","))
    group = {k: v for k, v in row.items() if k not in used and isinstance(v, str | int | float | bool)}
    return Entry(
        identity, image, report, labels, cell("patient", "patient"), _SPLITS.get(stated, stated) or split,
        _VIEWS.get(cell("view").lower(), ""), group,
    )  # fmt: skip


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _check_column(row: Mapping[str, object], name: str, option: str) -> None:
    if name not in row:
        raise ConfigError(f"option {option}", name, f"one of {', '.join(row)}", nearest(name, row))


def _labels_of(row: Mapping[str, object], values: Mapping[str, str]) -> list[str]:
    """Return the labels of a cell: those of a list, or of a text with a separator."""
    given = row[values["label"]]
    parts = given if isinstance(given, list) else _text(given).split(values.get("separator", "|"))
    return [label for part in parts if (label := " ".join(_text(part).split()))]


def _written(template: str, row: Mapping[str, object], values: Mapping[str, str]) -> str:
    """Return a report written from columns: each place ``{column:VALUE=words;VALUE=words}`` holds a cell's words.

    Raises:
      ConfigError: a template that is malformed, or a column that the row lacks.
      DataError: an empty cell.
    """
    try:
        places = [part[:3] for part in string.Formatter().parse(template)]
    except ValueError as error:
        raise ConfigError("option template", template, f"text with {{column}} places ({error})") from error
    report = ""
    for before, column, replaced in places:
        report += before
        if column is None:
            continue
        _check_column(row, column, "template")
        words = {value: said[-1] for value, said in texts_by_name((replaced or "").split(";")).items()}
        if not (value := _text(row[column])):
            raise DataError(f"column {column!r}, which the report is written from, is empty")
        parts = _labels_of(row, values) if column == values.get("label") and value not in words else [value]
        report += ", ".join(words.get(part, part.replace("_", " ")) for part in parts)
    return report


def _table(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """Read one table, or two: that of `ood_table` gives the out-of-domain test set, with the same columns."""
    values = dict(options.values)
    names = [name for name in values if name.startswith("ood_")]
    other = {name.removeprefix("ood_"): values.pop(name) for name in names}
    shares = _shares(values.pop("shares", ""))
    if other and "table" not in other:
        raise ConfigError("option ood_table", "", f"a table, as option ood_{next(iter(other))} is given")
    for row in _rows_of_table(root, values):
        row = _from_source("main", row) if other else row
        if shares and isinstance(row, Entry) and not row.split:
            row = row._replace(split=hash_split(row.patient or row.id, shares, options.seed))
        yield row
    if other:
        shared = {name: value for name, value in values.items() if name not in ("images", "patient", "split")}
        for row in _rows_of_table(root, {**shared, **other}):
            yield _from_source("ood", row._replace(split="ood_test"))


def _shares(stated: str) -> dict[str, float]:
    """Return the shares of train, adapt, validation and test: "0.6,0.1,0.1,0.2" -> {"train": 0.6, ...}."""
    try:
        shares = dict(zip(SPLITS[:4], map(float, stated.split(",")), strict=True)) if stated else {}
    except ValueError:
        shares = {"": -1.0}
    if shares and (min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6):
        raise ConfigError("option shares", stated, "four positive shares that sum to 1, as '0.6,0.1,0.1,0.2'")
    return shares


def _from_source(source: str, row: Entry | Rejected) -> Entry | Rejected:
    """Put the name of its table before the ids of a row and its patient."""
    if isinstance(row, Rejected):
        return row if row.id.startswith("row ") else row._replace(id=f"{source}/{row.id}")
    return row._replace(id=f"{source}/{row.id}", patient=f"{source}/{row.patient or row.id}")


def _rows_of_table(root: Path, values: dict[str, str]) -> Iterator[Entry | Rejected]:
    name = values.get("table", "")
    table = needed(root, name) if name else needed(root, "index.csv", "*.csv", "*.jsonl", "*.tsv")
    if not table.suffix.startswith((".csv", ".tsv", ".json", ".gz")):
        raise ConfigError("option table", name, "a .csv, .csv.gz, .tsv, .jsonl or .json file")
    folder = root / values["images"] if "images" in values else table.parent
    column = values.get("image", "file")
    content = load_json(table) if ".json" in table.name else rows(table, (column,), _delimiter(table))
    for number, row in enumerate(content, start=1):
        if not isinstance(row, dict) or not row.get(column):
            yield Rejected(f"row {number} of {table.name}", "", f"column {column!r} is empty")
            continue
        try:
            file = inside(folder, str(row[column]))
        except DataError as error:
            yield Rejected(f"row {number} of {table.name}", "", str(error))
            continue
        if not file.exists() and (folder / "images").is_dir():
            file = inside(folder / "images", str(row[column]))
        entry = from_row(row, values, FileRef(str(file)), str(row[column]))
        empty = [values[o] for o in ("patient", "split") if o in values and not _text(row[values[o]])]
        if empty and isinstance(entry, Entry):
            entry = Rejected(entry.id, entry.split, f"column {empty[0]!r} is empty")
        yield entry


def _delimiter(table: Path) -> str:
    """Return what separates the columns of the header: spreadsheets of many countries write semicolons."""
    header = text(table).partition("\n")[0]
    return max((",", ";", "\t"), key=header.count)


def _dicom(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """Read DICOM files below the folder; report and labels from a table (by path, file name or SOPInstanceUID), or from
    a text file beside the film (film.txt), else none."""
    from ranjax.data.images import dicom

    values = dict(options.values)
    name = values.pop("table", "")
    table = needed(root, name) if name else find(root, "index.csv", "*.csv")
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
        if isinstance(entry, Rejected):
            yield entry
            continue
        report = path.with_suffix(".txt")
        if not entry.report and report.is_file():
            entry = entry._replace(report=text(report))
        group = {"view": header["ViewPosition"], "sex": header["PatientSex"], "age": header["PatientAge"]}
        yield entry._replace(
            patient=entry.patient or header["PatientID"],
            view=entry.view or _VIEWS.get(header["ViewPosition"].lower(), ""),
            group={**group, **entry.group},
        )


def _dicom_files(root: Path) -> Iterator[Path]:
    """Yield files that end as DICOM files do, and files without an ending that begin as they do (exports have none)."""
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
    """Read tar shards of samples that share a name up to the first dot of its last part: image, .txt and .json."""
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
    """Read a set that `datasets` saved to disk (Arrow files by split), or a folder of Parquet files named by split."""
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
    """Return the names of a ClassLabel column: from dataset_info.json beside the file, or from the table's own
    metadata.
    """
    info = file.parent / "dataset_info.json"
    features = load_json(info).get("features") or {} if info.is_file() else {}
    if not features and b"huggingface" in (table.schema.metadata or {}):
        features = json.loads(table.schema.metadata[b"huggingface"]).get("info", {}).get("features", {})
    return list((features.get(label) or {}).get("names") or ())


def _tfds(root: Path, options: Options) -> Iterator[Entry | Rejected]:
    """Read a set that tensorflow-datasets prepared as array_record."""
    values = dict(options.values)
    builder = tfds_builder(values.pop("name", ""), root)
    features, column = builder.info.features, values.get("image", "image")
    for name in [column, *(values[o] for o in ("report", "label", "patient", "id") if o in values)]:
        if name not in features:
            raise ConfigError("option", name, f"one of the features {', '.join(features)}", nearest(name, features))
    label = features[values["label"]] if "label" in values else None
    names = getattr(getattr(label, "feature", label), "names", None) or ()
    chosen = {
        split: stated[-1] for split, stated in texts_by_name(values.pop("splits", "").split(";")).items() if split
    }
    for split, expression in (chosen or _splits_by_name(builder.info.splits)).items():
        if re.split(r"[\[+]", expression)[0].strip() not in builder.info.splits:
            raise ConfigError("option splits", expression, f"splits out of {', '.join(builder.info.splits)}")
        for index, stored in enumerate(open_records(str(builder.data_dir), expression, column)):
            row = {k: decode(v) if isinstance(v, bytes) else v for k, v in stored.items() if k != column}
            row = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
            if names:
                given = row[values["label"]]
                numbers = given if isinstance(given, list) else [given]
                row[values["label"]] = [names[int(number)] for number in numbers if int(number) >= 0]
            image = RecordRef(str(builder.data_dir), expression, column, index)
            yield from_row(row, values, image, f"{expression}/{index}", split)
    for own in [] if chosen else builder.info.splits:
        if own not in _splits_by_name(builder.info.splits).values():
            yield Rejected(f"{own}/*", "", f"the set's split {own!r} is none of {', '.join(sorted(set(_SPLITS)))}")


def _splits_by_name(names: Iterable[str]) -> dict[str, str]:
    """Return the set's splits by the names of this project; a set with one split alone is all of "train"."""
    names = list(names)
    found = {_SPLITS[name.lower()]: name for name in names if name.lower() in _SPLITS}
    return found if found or len(names) != 1 else {"train": names[0]}


READERS = {"table": _table, "dicom": _dicom, "webdataset": _webdataset, "huggingface": _huggingface, "tfds": _tfds}
SPECS = tuple(spec(name, reader) for name, reader in READERS.items())
