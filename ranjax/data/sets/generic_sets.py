"""Layouts that are nobody's in particular: tar shards, Hugging Face sets on disk, prepared tensorflow-datasets sets.

The user names columns by options: ``--option report=Report --option label=Finding``.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ranjax.core.checks import texts_by_name
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.core.files import read_object
from ranjax.data.images.locations import (
    MEMBER_LIMIT,
    CellRef,
    RecordRef,
    Reference,
    SliceRef,
    open_records,
    read_table,
    tfds_builder,
)
from ranjax.data.prepared_files import readable_records, said
from ranjax.data.publisher_tables import decode, safe_member
from ranjax.data.sets.column_roles import NOBODY, SPLIT_NAMES, roles, splits_of_files
from ranjax.data.sets.row_entries import Spellings, check_options, from_row
from ranjax.data.sets.spec import Entry, Options, Rejected, Said, spec
from ranjax.data.strict_tables import Cells, parse_object
from ranjax.data.table_cells import is_missing

_IMAGES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")


def _webdataset(root: Path, options: Options) -> Iterator[Entry | Rejected | Said]:
    """Read tar shards of samples that share a name up to the first dot of its last part: image, .txt and .json."""
    values = dict(options.values)
    pattern = values.pop("pattern", "*.tar")
    shards = sorted(root.glob(pattern)) or sorted(root.glob(f"*/{pattern}"))
    if not shards:
        raise DataError(f"No shard {pattern} lies in {root}.")
    splits, said = splits_of_files(root, shards)
    yield said
    samples: list[tuple[str, Cells, Reference, str]] = []
    for shard in shards:
        name = shard.relative_to(root).with_suffix("").as_posix()
        try:
            for found in _shard(shard, values):
                if isinstance(found, Rejected):
                    yield found._replace(id=f"{name}/{found.id}", split=splits[shard])
                else:
                    samples.append((f"{name}/{found.key}", found.cells, found.image, splits[shard]))
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"The shard {shard} cannot be read: {error}") from error
    # Samples need not have the same keys: which ones are known is told by all of them.
    columns = tuple(dict.fromkeys(key for _, cells, _, _ in samples for key in cells))
    if _CLASS in columns and "label" not in values:
        values["label"] = _CLASS
    yield from _entries(samples, columns, values, "", "the samples")


def _entries(
    rows: Iterable[tuple[str, Cells, Reference, str]],
    columns: Sequence[str],
    values: Mapping[str, str],
    image: str,
    where: str,
) -> Iterator[Entry | Rejected | Said]:
    """Yield the entries of rows of (id, cells, image, split), whose columns are recognised together."""
    check_options(values, tuple(columns))
    known, spellings = roles(columns, values, image, where), Spellings()
    yield from known.said
    for identity, cells, place, split in rows:
        entry = from_row(cells, known.values, place, identity, split)
        spellings.add(entry, known.values, identity)
        yield entry
    spellings.check()


class _Sample(NamedTuple):
    key: str
    cells: Cells
    image: Reference


_CLASS = "label"
"""Column that the file .cls of a sample fills."""
_BLOCK = tarfile.BLOCKSIZE
_TEXT_LIMIT = 1 << 20
"""Bytes of a text of a sample at most."""


def _shard(shard: Path, values: Mapping[str, str]) -> Iterator[_Sample | Rejected]:
    # Only uncompressed tars: their members have a place, and cannot inflate.
    with tarfile.open(shard, "r:") as archive:
        sample: dict[str, Any] = {}
        current = None
        for member in archive:
            if member.isdir():
                continue
            if reason := safe_member(member, MEMBER_LIMIT):
                yield Rejected(member.name, "", reason)
                continue
            path = PurePosixPath(member.name)
            stem, _, ending = path.name.partition(".")
            key = str(path.with_name(stem))
            if key != current:
                yield from _sample(current, sample, values)
                current, sample = key, {}
            ending = f".{ending.lower()}"
            kind = "image" if ending in _IMAGES else ending
            if kind in sample:
                sample["fault"] = (
                    f"the sample has two files {ending}" if kind == ending else "the sample has two images"
                )
            elif kind == "image":
                sample[kind] = SliceRef(str(shard), member.offset_data, member.size)
            elif kind in (".txt", ".json", ".cls"):
                if member.size > _TEXT_LIMIT:
                    sample["fault"] = f"the sample's {ending} has more than {_TEXT_LIMIT >> 20} MiB"
                opened = archive.extractfile(member)
                sample[kind] = decode(opened.read(_TEXT_LIMIT)) if opened else ""
        yield from _sample(current, sample, values)
        # Cut between two members, or within a header, a tar reads as a whole one, but for the mark of its end.
        with shard.open("rb") as file:
            file.seek(archive.offset)
            end = file.read(_BLOCK)
        if len(end) < _BLOCK or any(end):
            raise DataError(
                f"The shard {shard} ends without the mark of a tar's end: it was cut. Fetch or write it again."
            )


def _sample(key: str | None, sample: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[_Sample | Rejected]:
    if key is None:
        return
    if "image" not in sample or "fault" in sample:
        yield Rejected(key, "", sample.get("fault", "the sample has no image"))
        return
    try:
        cells = parse_object(sample[".json"]) if ".json" in sample else {}
    except ValueError as error:
        yield Rejected(key, "", f"the sample's JSON is not valid ({error})")
        return
    for ending, column in ((".txt", values.get("report", "report")), (".cls", values.get("label", _CLASS))):
        if ending in sample:
            given = sample[ending] if ending == ".txt" else sample[ending].strip()
            if not is_missing(cells.get(column)) and str(cells[column]).strip() != given.strip():
                yield Rejected(key, "", f"the sample's {ending} and its JSON state two of {column!r}")
                return
            cells[column] = given
    yield _Sample(key, cells, sample["image"])


def _huggingface(root: Path, options: Options) -> Iterator[Entry | Rejected | Said]:
    """Read a set that `datasets` saved to disk (Arrow files by split), or a folder of Parquet files named by split."""
    values = dict(options.values)
    column = values.get("image", "image")
    found = sorted(p for p in root.rglob("*") if p.suffix in (".arrow", ".parquet") and not p.name.startswith("cache-"))
    if not found:
        raise DataError(f"No .arrow or .parquet file lies in {root}.")
    splits, said = splits_of_files(root, found)
    yield said
    columns: dict[str, None] = {}
    for file in found:
        names = read_table(str(file)).column_names
        if column not in names:
            raise ConfigError("option image", column, f"one of {', '.join(names)}")
        if len(set(names)) < len(names):
            raise DataError(f"{file} names a column twice: {', '.join(names)}.")
        columns |= dict.fromkeys(name for name in names if name != column)
    rows = (row for file in found for row in _arrow_rows(file, root, splits[file], column, values.get("label", "")))
    yield from _entries(rows, list(columns), values, column, "the tables")


def _arrow_rows(
    file: Path, root: Path, split: str, column: str, label: str
) -> Iterator[tuple[str, Cells, Reference, str]]:
    table = read_table(str(file))
    names = _class_names(file, table, label)
    plain = table.select([c for c in table.column_names if c != column])
    relative = file.relative_to(root).with_suffix("")
    try:
        rows = [row for batch in plain.to_batches() for row in batch.to_pylist()]
    except (ValueError, OverflowError) as error:  # texts that are no UTF-8, moments beyond the calendar
        raise DataError(f"{file}: a cell cannot be read ({said(error)}).") from error
    for index, row in enumerate(rows):
        if names and label in row:
            row[label] = _named(row[label], names, f"row {index + 1} of {file.name}")
        yield f"{relative}/{index}", row, CellRef(str(file), column, index), split


def _named(given: object, names: Sequence[str], place: str) -> list[str] | None:
    """Return the names of one number of a class or of a list of them; -1 is no label.

    Raises:
      DataError: a number beyond the names, or one twice.
    """
    found = []
    for number in given if isinstance(given, list) else [given]:
        if is_missing(number) or number == -1:
            continue
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
            raise DataError(f"{place}: label {number!r} is none of the {len(names)} classes that the set names.")
        if names[number] in found:
            raise DataError(f"{place}: the list of labels names a class twice: are they marks of 0 and 1?")
        found.append(names[number])
    return found or None


def _class_names(file: Path, table: Any, label: str) -> list[str]:
    """Return the names of a ClassLabel, or of a list of them: from dataset_info.json beside the file, or from the
    table's own metadata.
    """
    info = file.parent / "dataset_info.json"
    stated = read_object(info)
    if not stated.get("features") and b"huggingface" in (table.schema.metadata or {}):
        try:
            stated = json.loads(table.schema.metadata[b"huggingface"])["info"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: its metadata of datasets cannot be read ({said(error)}).") from error
    features = stated.get("features") or {} if isinstance(stated, dict) else {}
    feature = features.get(label) or {} if isinstance(features, dict) else {}
    # A list stands as {"feature": ...}, and in older files as [...].
    while isinstance(feature, list) or (isinstance(feature, dict) and "names" not in feature and "feature" in feature):
        feature = (feature[0] if feature else {}) if isinstance(feature, list) else feature["feature"]
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):  # of dataset cards: {"0": "ill", "1": "well"}
        names = [names[key] for key in sorted(names, key=lambda key: (len(key), key))]
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{file}: the names of the classes of {label!r} are no list of texts.")
    return names or []


def _tfds(root: Path, options: Options) -> Iterator[Entry | Rejected | Said]:
    """Read a set that tensorflow-datasets prepared as array_record."""
    values = dict(options.values)
    builder = tfds_builder(values.pop("name", ""), root)
    features, column = builder.info.features, values.get("image", "image")
    for name in [column, *(values[o] for o in ("report", "label", "patient", "id") if o in values)]:
        if name not in features and name != NOBODY:
            raise ConfigError("option", name, f"one of the features {', '.join(features)}", nearest(name, features))
    label = features[values["label"]] if "label" in values else None
    names = getattr(getattr(label, "feature", label), "names", None) or ()
    chosen = {
        split: stated[-1] for split, stated in texts_by_name(values.pop("splits", "").split(";")).items() if split
    }
    for expression in chosen.values():
        if re.split(r"[\[+]", expression)[0].strip() not in builder.info.splits:
            raise ConfigError("option splits", expression, f"splits out of {', '.join(builder.info.splits)}")
    splits = chosen or _splits_by_name(builder.info.splits)
    folder = str(builder.data_dir)

    def rows() -> Iterator[tuple[str, Cells, Reference, str]]:
        for split, expression in splits.items():
            records = open_records(folder, expression, column)
            for index in range(len(records)):
                with readable_records(f"record {index} of {expression} of {folder}"):
                    stored = records[index]
                row = {k: decode(v) if isinstance(v, bytes) else v for k, v in stored.items() if k != column}
                row = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in row.items()}
                if names:
                    row[values["label"]] = _named(row[values["label"]], names, f"{expression}/{index}")
                yield f"{expression}/{index}", row, RecordRef(folder, expression, column, index), split

    yield from _entries(rows(), [name for name in features if name != column], values, column, "the features")
    for own in [] if chosen else builder.info.splits:
        if own not in splits.values():
            reason = f"the set's split {own!r} is none of {', '.join(sorted(set(SPLIT_NAMES)))}"
            yield from (Rejected(f"{own}/{i}", "", reason) for i in range(builder.info.splits[own].num_examples))


def _splits_by_name(names: Iterable[str]) -> dict[str, str]:
    """Return the set's splits by the names of this project; a set with one split alone is all of "train"."""
    names = list(names)
    found: dict[str, str] = {}
    for name in names:
        if own := SPLIT_NAMES.get(name.lower()):
            found.setdefault(own, name)
    return found if found or len(names) != 1 else {"train": names[0]}


READERS = {"webdataset": _webdataset, "huggingface": _huggingface, "tfds": _tfds}
SPECS = tuple(spec(name, reader) for name, reader in READERS.items())
