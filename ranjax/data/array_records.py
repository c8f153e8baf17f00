"""Records written as array_record shards in an order by hash, a shard at a time, as tensorflow-datasets lays them out.

    written = write_records(folder, parts, rows, decode.facts(parts, len(rows)), mark="...", class_count=14,
                            description="...")

Two passes: the ids give the order, by which every shard knows its records; then each shard takes its pictures from the
parts of `images.decode`. No more than one shard is ever in memory, and one that is whole stays where a process dies.
Beside each shard lies a file of its columns without pictures, so that reports and labels are read without them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.data.images import decode
from ranjax.data.sets.spec import Rejected
from ranjax.data.space import no_space
from ranjax.data.splits import SPLITS

if TYPE_CHECKING:
    from ranjax.data.row_filters import Row

NAME, VERSION = "ranjax_set", "1.0.0"
"""Of the stored layout; another layout is another version folder."""
SHARD = 256 << 20
"""Bytes of pictures of a shard at most, about: so much is in memory at one time."""
ROW = 1024
"""Bytes of a record beside its picture, about."""

Progress = Callable[[int, int], object]
"""Called with (rows done, rows in all)."""


class Written(NamedTuple):
    """What `write_records` left: a hash of all records in any order, records by split, rows that were left out."""

    content: str
    counts: dict[str, int]
    exclusions: list[dict[str, str]]


def write_records(
    folder: Path,
    parts: Path,
    rows: Sequence[Row],
    found: decode.Facts,
    *,
    mark: str,
    class_count: int,
    description: str,
    codec: str = "png",
    dropped: Mapping[int, str] | None = None,
    rejected: Sequence[Rejected] = (),
    shared_patients: bool = False,
    progress: Progress = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> Written:
    """Write the records of a set into `folder`; shards that are there already are kept.

    Args:
      folder: of the set alone; a later start finds its shards here.
      parts: of the pictures, see `decode.make_parts`.
      rows: all rows, in the order of the parts.
      found: what the parts say.
      mark: fingerprint of the set.
      class_count: length of a record's `labels`.
      description: one line on the set.
      codec: of the pictures.
      dropped: rows to leave out with the reason, by place, beside those without a picture.
      rejected: rows that were left out before.
      shared_patients: allow patients in several splits.
      progress: called after each shard, with (shards done, shards in all).
      stop: polled before each shard.

    Raises:
      DataError: nothing is left in a split, two ids are one, or splits share a patient.
      decode.Interrupted: `stop` said so.
      files.DiskFullError: no space is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gone = {**found.reasons, **(dropped or {})}
    plan = _plan(rows, gone)
    left_out = [
        Rejected(plan.ids_of_gone[place], SPLITS[plan.split[place]], reason) for place, reason in sorted(gone.items())
    ]
    exclusions = [item._asdict() for item in (*rejected, *left_out)]
    for number in np.unique(plan.split):
        if not (plan.split[plan.kept] == number).any():
            _refuse_empty(SPLITS[number], exclusions)
    if not shared_patients:
        _refuse_shared(rows, plan)
    shards = list(_shards(plan, found.sizes))
    with no_space(folder):
        for done, shard in enumerate(shards):
            progress(done, len(shards))
            if stop():
                raise decode.Interrupted
            if not (folder / shard.name).exists():
                _write_shard(folder, shard, rows, parts, class_count)
        progress(len(shards), len(shards))
        _write_info(folder, shards, mark, description, class_count, codec)
    counts = {name: sum(len(s.places) for s in shards if s.split == name) for name in SPLITS}
    digests = sorted(digest for shard in shards for digest in _digests(folder / shard.columns))
    content = hashlib.sha256(b"".join(digests)).hexdigest()
    return Written(content, {name: count for name, count in counts.items() if count}, exclusions)


class _Plan(NamedTuple):
    """split: number of each row's split. kept: places of the rows to write, by split and hash of the id. patient: hash
    of each row's patient. ids_of_gone: of the rows that are left out."""

    split: np.ndarray
    kept: np.ndarray
    patient: np.ndarray
    ids_of_gone: dict[int, str]


class _Shard(NamedTuple):
    """A shard: its files, its split, the places of its rows in order, and the bytes of their pictures."""

    name: str
    columns: str
    split: str
    places: Int64[np.ndarray, " rows"]
    size: int


def _plan(rows: Sequence[Row], gone: Mapping[int, str]) -> _Plan:
    count = len(rows)
    split, patient, keys = np.zeros(count, np.int8), np.zeros(count, np.uint64), np.zeros((count, 2), np.uint64)
    ids_of_gone = {}
    for place, row in enumerate(rows):
        split[place] = SPLITS.index(row.split)
        patient[place] = int.from_bytes(hashlib.blake2b(row.patient.encode(), digest_size=8).digest())
        # As tensorflow-datasets orders records: sets that it wrote keep their order when they are written anew.
        key = hashlib.md5(row.split.encode() + row.id.replace("\\", "/").encode()).digest()
        keys[place] = np.frombuffer(key, ">u8")
        if place in gone:
            ids_of_gone[place] = row.id
    order = np.lexsort((keys[:, 1], keys[:, 0], split))
    ordered = keys[order]
    for at in np.flatnonzero((ordered[1:] == ordered[:-1]).all(axis=1)):
        raise DataError(f"Two rows have the id {rows[int(order[at])].id!r}.")
    kept = np.ones(count, bool)
    kept[list(gone)] = False
    return _Plan(split, order[kept[order]], patient, ids_of_gone)


def _refuse_empty(split: str, exclusions: Sequence[Mapping[str, str]]) -> None:
    reasons = [f"{item['id']}: {item['reason']}" for item in exclusions if item["split"] == split]
    listed = "; ".join(reasons[:5]) or "the source has no rows for it"
    raise DataError(f"Nothing is left in split {split!r} ({len(reasons)} rows excluded: {listed}).")


def _refuse_shared(rows: Sequence[Row], plan: _Plan) -> None:
    """Raise DataError where rows of one patient are in two splits."""
    kept = plan.kept[np.argsort(plan.patient[plan.kept], kind="stable")]
    patient, split = plan.patient[kept], plan.split[kept]
    for at in np.flatnonzero((patient[1:] == patient[:-1]) & (split[1:] != split[:-1])):
        first, second = rows[int(kept[at])], rows[int(kept[at + 1])]
        raise DataError(
            f"Patient {first.patient!r} is in split {first.split!r} and in split {second.split!r} (example "
            f"{second.id!r}). Splits must not share patients: correct the split column, or split by shares."
        )


def _shards(plan: _Plan, sizes: Int64[np.ndarray, " rows"]) -> Iterator[_Shard]:
    """Yield the shards of all splits: equal numbers of rows, as many as hold about `SHARD` bytes each."""
    for number, split in enumerate(SPLITS):
        places = plan.kept[plan.split[plan.kept] == number]
        if not len(places):
            continue
        count = min(len(places), -(-int(sizes[places].sum() + ROW * len(places)) // SHARD))
        for at, inside in enumerate(np.array_split(places, count)):
            of = f"{at:05d}-of-{count:05d}"
            name = f"{NAME}-{split}.array_record-{of}"
            yield _Shard(name, f"{NAME}-{split}.columns-{of}.arrow", split, inside, int(sizes[inside].sum()))


def _write_shard(folder: Path, shard: _Shard, rows: Sequence[Row], parts: Path, class_count: int) -> None:
    """Write the columns of a shard, then its records, each whole or not at all."""
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    position = {int(place): at for at, place in enumerate(shard.places)}
    examples = [b""] * len(position)
    columns: list[Mapping[str, object]] = [{}] * len(position)
    for place, picture, digest in decode.pictures(parts, np.sort(shard.places)):
        row = rows[place]
        group = json.dumps(row.group, sort_keys=True)
        labels = np.asarray(row.labels, np.float32)
        texts = {"id": row.id, "report": row.report, "patient": row.patient, "group": group}
        kept = {name: _texts(text.encode(), tf_feature_pb2) for name, text in texts.items()}
        kept |= {
            "image": _texts(picture, tf_feature_pb2),
            "label": tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[int(row.label)])),
            "labels": tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=labels)),
        }
        example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=kept))
        # Not deterministic, a mapping's order would change from process to process.
        examples[position[place]] = example.SerializeToString(deterministic=True)
        head = json.dumps([shard.split, row.id, row.report, int(row.label), row.patient, group])
        whole = hashlib.blake2b(head.encode() + labels.tobytes() + digest, digest_size=16).digest()
        columns[position[place]] = {**texts, "label": int(row.label), "labels": labels, "digest": whole}
    _write_columns(folder / shard.columns, columns, class_count)
    with files.beside(folder / shard.name, shard.size) as place:
        # The pictures are compressed already.
        writer = array_record_module.ArrayRecordWriter(os.fspath(place), "group_size:1,uncompressed")
        with contextlib.closing(writer):
            for example in examples:
                writer.write(example)


def _texts(value: bytes, proto: Any) -> Any:
    return proto.Feature(bytes_list=proto.BytesList(value=[value]))


def _write_columns(path: Path, columns: Sequence[Mapping[str, object]], class_count: int) -> None:
    import pyarrow as pa

    schema = pa.schema(
        [
            *((name, pa.large_string()) for name in ("id", "report", "patient", "group")),
            ("label", pa.int64()),
            ("labels", pa.list_(pa.float32(), class_count)),
            ("digest", pa.binary(16)),
        ]
    )
    table = pa.Table.from_pylist(list(columns), schema=schema)
    with files.beside(path, ROW * len(columns)) as place, pa.ipc.new_file(os.fspath(place), schema) as writer:
        writer.write_table(table)


def _digests(path: Path) -> Iterator[bytes]:
    import pyarrow as pa

    table = pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all()
    return (value.as_py() for value in table.column("digest"))


def _write_info(
    folder: Path, shards: Sequence[_Shard], mark: str, description: str, class_count: int, codec: str
) -> None:
    """Write what `tfds.builder_from_directory` reads: features.json and dataset_info.json."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            # Pictures smaller than the set's size are stored as they are. TFDS knows no WebP by name.
            "image": tfds.features.Image(
                shape=(None, None, 1), encoding_format=codec if codec in ("png", "jpeg") else None
            ),
            "report": tfds.features.Text(),
            "label": tfds.features.Scalar(np.int64),
            "labels": tfds.features.Tensor(shape=(class_count,), dtype=np.float32),
            "patient": tfds.features.Text(),
            "group": tfds.features.Text(),
        }
    )
    features.save_config(os.fspath(folder))
    splits = []
    for split in dict.fromkeys(shard.split for shard in shards):
        own = [shard for shard in shards if shard.split == split]
        splits.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum((folder / shard.name).stat().st_size for shard in own)),
                "shardLengths": [str(len(shard.places)) for shard in own],
            }
        )
    stated = {
        "configDescription": description,
        "configName": mark,
        "description": description,
        "fileFormat": "array_record",
        "moduleName": __name__,
        "name": NAME,
        "splits": splits,
        "version": VERSION,
    }
    files.write_json(folder / "dataset_info.json", stated)
