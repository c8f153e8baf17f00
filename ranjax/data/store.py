"""The noisy store: adversarial pairs on disk, with where they come from.

    writer = StoreWriter(folder, ids, shard_size=256, epsilon=8 / 255, provenance={...})
    for number in writer.missing():
        writer.write(number, noisy_pairs_of(writer.positions(number)))
    store = NoisyStore.open(folder)

Pixels are kept on the grid of 1/65535. A clean 8-bit pixel u/255 lies on it (257 u), and a perturbation is cut towards
zero to it: the stored image differs from the crafted one by less than 1/65535, and the box [0, 1] holds exactly. The
Linf ball holds exactly too where its radius lies on the grid (every n/255 does), and within 2e-7 of any other.

A shard appears by rename after it reached the disk, and its ``.json`` with SHA-256 and ids after it: a shard without
that file does not count and is written again. Several processes may write different shards.
"""

from __future__ import annotations

import itertools
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32, UInt8

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import GRID, to_float
from ranjax.data.sources import Record
from ranjax.data.space import no_space, require_space

# Float error of a crafted pixel, in steps of the grid: x + eps rounds to within 6e-8, which is 0.004 steps.
_SNAP = 0.01
_PLAN = "store.json"
NORMS = ("linf", "l2")
Provenance = dict[str, Any]
"""Plain JSON by name: attack, settings, seed, losses, changed words, ..."""


def quantise(
    image: Float[np.ndarray, "*shape"], clean: UInt8[np.ndarray, "*shape"], norm: str = "linf"
) -> Int32[np.ndarray, "*shape"]:
    """Return the perturbation of `clean` uint8 in `image` f32 [0, 1], cut towards zero to int32 steps of 1/65535."""
    base = clean.astype(np.float64) * 257.0
    steps = np.asarray(image, np.float64) * GRID - base
    # L2 is cut without snapping: a sum over many pixels must not grow.
    cut = np.floor(np.abs(steps) + (_SNAP if norm == "linf" else 0.0))
    return (np.sign(steps) * cut).astype(np.int32)


def realised_norm(delta: Int[np.ndarray, "..."], norm: str) -> float:
    """Return the norm in pixel units of a perturbation in steps of 1/65535."""
    values = np.abs(delta.astype(np.float64)) / GRID
    return float(values.max(initial=0.0) if norm == "linf" else np.sqrt((values**2).sum()))


class StoreWriter:
    """Plans a store in shards and writes those that are missing.

    Args:
      folder: of the store; made if it is not there.
      ids: what the store will hold, in order.
      shard_size: noisy pairs a shard.
      epsilon: radius that every noisy pair must keep, in pixel units.
      provenance: what all noisy pairs share (attack, settings, seed, surrogate hash); plain JSON.
      norm: "linf" or "l2".
      key: what an error calls the folder: a key of a config, an option of a command.

    Raises:
      ConfigError: the folder holds a store of another plan; names what differs.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        ids: Sequence[str],
        shard_size: int,
        epsilon: float,
        provenance: Mapping[str, object],
        norm: str = "linf",
        key: str = "folder",
    ):
        if shard_size < 1:
            raise ConfigError("noise.shard_size", shard_size, "at least 1")
        if norm not in NORMS:
            raise ConfigError("noise.norm", norm, f"one of {', '.join(NORMS)}")
        if len(set(ids)) != len(ids):
            raise DataError("example ids must differ from each other; at least one is given twice")
        self.folder, self.ids = Path(folder), list(ids)
        shared = json.loads(json.dumps(provenance))
        plan = {"ids": self.ids, "shard_size": shard_size, "epsilon": epsilon, "norm": norm, "provenance": shared}
        self._plan = plan
        if not (self.folder / _PLAN).is_file():
            files.write_json(self.folder / _PLAN, plan)
        elif differing := _differing(files.read_json(self.folder / _PLAN), plan):
            named = "; ".join(differing[:8])
            raise ConfigError(key, str(self.folder), f"a folder without a store of another plan ({named})")

    @property
    def shards(self) -> int:
        """Shards in all."""
        return -(-len(self.ids) // self._plan["shard_size"])

    @property
    def done(self) -> int:
        """Noisy pairs in finished shards."""
        return sum(len(self.positions(n)) for n in range(self.shards) if _finished(self.folder, n))

    def path_of(self, number: int) -> Path:
        """Return the file that says that a shard is whole."""
        return _shard(self.folder, number).with_suffix(".json")

    def bytes_of(self, number: int) -> int:
        """Return the bytes of a finished shard."""
        return _shard(self.folder, number).stat().st_size

    def damaged(self) -> list[Fault]:
        """Return the finished shards whose file is not the one that was written, by SHA-256."""
        finished = (n for n in range(self.shards) if _finished(self.folder, n))
        return [fault for n in finished if (fault := _hash_fault(self.folder, n))]

    def positions(self, number: int) -> list[int]:
        """Return the positions in `ids` of what shard `number` holds."""
        if not 0 <= number < self.shards:
            raise ValueError(f"shard {number}; there are {self.shards}")
        size = self._plan["shard_size"]
        return list(range(number * size, min((number + 1) * size, len(self.ids))))

    def missing(self, process_index: int = 0, process_count: int = 1) -> list[int]:
        """Return the numbers of the shards that are still to be written, of this process's share."""
        return [n for n in range(process_index, self.shards, process_count) if not _finished(self.folder, n)]

    def write(self, number: int, noisy_pairs: Sequence[Record]) -> None:
        """Write one shard, atomically.

        Args:
          number: of the shard.
          noisy pairs: per position of the shard, in order: {"id", "image" f32[H,W,C] in [0, 1], "clean_image"
            uint8[H,W,C], "report" str, "tokens" i32[L], "mask" bool[L], "provenance" dict (losses, words changed,
            ...)}. The realised norm of what is stored is added to the provenance as "norm".

        Raises:
          DataError: other ids than planned, or a noisy pair outside its ball or box.
          files.DiskFullError: no space is left.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        expected = [self.ids[i] for i in self.positions(number)]
        given = [noisy_pair["id"] for noisy_pair in noisy_pairs]
        if given != expected:
            raise DataError(
                f"shard {number} must hold {len(expected)} noisy pairs from {expected[:1]}; got {given[:3]} ..."
            )
        # The shard appears by rename, and its list of hashes after it.
        records = [self._encode(noisy_pair) for noisy_pair in noisy_pairs]
        path = _shard(self.folder, number)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        needed = sum(map(len, records))
        require_space(self.folder, needed)
        try:
            with no_space(path, needed):
                # Groups of one: every noisy pair can be read by itself.
                writer = ArrayRecordWriter(os.fspath(temporary), "group_size:1,uncompressed")
                for record in records:
                    writer.write(record)
                writer.close()
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        facts = {"ids": expected, "sha256": files.sha256(path), "bytes": path.stat().st_size}
        files.write_json(path.with_suffix(".json"), facts)

    def _encode(self, noisy_pair: Record) -> bytes:
        clean, image = np.asarray(noisy_pair["clean_image"]), np.asarray(noisy_pair["image"])
        if clean.dtype != np.uint8 or image.shape != clean.shape:
            raise DataError(
                f"noisy pair {noisy_pair['id']!r}: clean_image {clean.dtype}{clean.shape} and image "
                f"{image.shape}; expected uint8 "
                "and float pixels of one shape"
            )
        if not np.isfinite(image).all() or image.min() < 0.0 or image.max() > 1.0:
            raise DataError(
                f"noisy pair {noisy_pair['id']!r}: pixels from {image.min()} to {image.max()}; expected 0 to 1"
            )
        delta = quantise(image, clean, self._plan["norm"])
        norm = realised_norm(delta, self._plan["norm"])
        if fault := _outside_ball(noisy_pair["id"], norm, self._plan["epsilon"]):
            raise DataError(fault)
        tokens, mask = np.asarray(noisy_pair["tokens"], "<i4"), np.asarray(noisy_pair["mask"], bool)
        # Modulo 2^16 any perturbation fits 16 bits, and 257 u + delta comes back exactly.
        arrays = (clean, (delta % 65536).astype("<u2"), tokens, np.packbits(mask))
        blobs = [zlib.compress(array.tobytes(), 6) for array in arrays]
        head = {
            "id": noisy_pair["id"],
            "shape": list(clean.shape),
            "length": len(tokens),
            "report": noisy_pair["report"],
            "provenance": {**noisy_pair["provenance"], "norm": norm},
            "sizes": [len(blob) for blob in blobs],
        }
        text = json.dumps(head, allow_nan=False).encode()
        return len(text).to_bytes(4, "little") + text + b"".join(blobs)


class NoisyStore:
    """Noisy pairs by id. `NoisyStore.open(folder)`; ``store[id]`` gives a dict: id, image f32[H,W,C] in [0, 1], pixels
    uint16[H,W,C] (the same over 65535), clean_image uint8[H,W,C], report, tokens i32[L], mask bool[L], provenance."""

    def __init__(self, folder: Path, plan: Provenance, fingerprint: str):
        self.folder, self.epsilon, self.norm = folder, float(plan["epsilon"]), str(plan["norm"])
        self.shared: Provenance = dict(plan["provenance"])
        self.fingerprint = fingerprint
        self._places = {name: divmod(i, plan["shard_size"]) for i, name in enumerate(plan["ids"])}
        self._readers: dict[int, Any] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> NoisyStore:
        """Open a finished store. Raises DataError if there is none, or if shards are missing."""
        folder = Path(folder)
        if not (folder / _PLAN).is_file():
            raise DataError(f"{folder} holds no noisy store ({_PLAN} is missing).")
        plan = files.read_json(folder / _PLAN)
        shards = -(-len(plan["ids"]) // plan["shard_size"])
        missing = [n for n in range(shards) if not _finished(folder, n)]
        if missing:
            raise DataError(f"The store {folder} is unfinished: {len(missing)} of {shards} shards are missing.")
        hashes = [files.read_json(_shard(folder, n).with_suffix(".json"))["sha256"] for n in range(shards)]
        return cls(folder, plan, files.digest([plan, hashes]))

    def damaged(self) -> list[Fault]:
        """Return the shards whose file is not the one that was written, by SHA-256; reading one can give other noisy
        pairs, or fail."""
        return [fault for number in self.by_shard() if (fault := _hash_fault(self.folder, number))]

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, identity: object) -> bool:
        return identity in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    @property
    def ids(self) -> list[str]:
        return list(self._places)

    def __getitem__(self, identity: str) -> Record:
        head, blobs = self._read(identity)
        shape, length = tuple(head["shape"]), head["length"]
        clean = np.frombuffer(blobs[0], np.uint8).reshape(shape)
        delta = np.frombuffer(blobs[1], "<u2").astype(np.int32).reshape(shape)
        pixels = ((clean.astype(np.int32) * 257 + delta) % 65536).astype(np.uint16)
        return {
            "id": head["id"],
            "image": to_float(pixels),
            "pixels": pixels,
            "clean_image": clean,
            "report": head["report"],
            "tokens": np.frombuffer(blobs[2], "<i4").astype(np.int32),
            "mask": np.unpackbits(np.frombuffer(blobs[3], np.uint8), count=length).astype(bool),
            "provenance": {**self.shared, **head["provenance"]},
        }

    def by_shard(self) -> dict[int, list[str]]:
        """Return the ids of every shard, in order."""
        shards = itertools.groupby(self._places, lambda identity: self._places[identity][0])
        return {number: list(ids) for number, ids in shards}

    def norm_of(self, noisy_pair: Record) -> float:
        """Return the norm in pixel units of a noisy pair's perturbation, from its pixels."""
        delta = noisy_pair["pixels"].astype(np.int32) - noisy_pair["clean_image"].astype(np.int32) * 257
        return realised_norm(delta, self.norm)

    def provenance(self, identity: str) -> Provenance:
        """Return where a noisy pair comes from: what all share, and its own losses, norm and changed words."""
        return {**self.shared, **self._read(identity)[0]["provenance"]}

    def caption(self, identity: str) -> tuple[str, Provenance]:
        """Return the report of a noisy pair and where it comes from, without its pixels."""
        head, _ = self._read(identity)
        return str(head["report"]), {**self.shared, **head["provenance"]}

    def _read(self, identity: str) -> tuple[Provenance, list[bytes]]:
        from array_record.python.array_record_module import ArrayRecordReader

        if identity not in self._places:
            raise KeyError(f"{identity!r} is not among the {len(self)} noisy pairs of {self.folder}")
        number, row = self._places[identity]
        if number not in self._readers:
            # Without read-ahead: noisy pairs are asked for in the order of training.
            options = "readahead_buffer_size:0"
            self._readers[number] = ArrayRecordReader(os.fspath(_shard(self.folder, number)), options=options)
        record = self._readers[number].read([row])[0]
        end = 4 + int.from_bytes(record[:4], "little")
        head, blobs = json.loads(record[4:end]), []
        for size in head["sizes"]:
            blobs.append(zlib.decompress(record[end : end + size]))
            end += size
        return head, blobs


class Fault(NamedTuple):
    """What is wrong with a store: the shard it is in (-1: the store as a whole) and the words for it."""

    shard: int
    what: str


def faults(folder: str | os.PathLike[str]) -> list[Fault]:
    """Check a store: hash and ids of every shard, ball and box of every noisy pair. Empty: nothing is wrong.

    Raises:
      DataError: there is no store in `folder`, or shards are missing.
    """
    store = NoisyStore.open(folder)
    found: list[Fault] = []
    for number, ids in store.by_shard().items():
        path = _shard(store.folder, number)
        if fault := _hash_fault(store.folder, number):
            found.append(fault)
            continue
        if files.read_json(path.with_suffix(".json"))["ids"] != ids:
            found.append(Fault(number, f"{path} holds other ids than planned."))
            continue
        for identity in ids:
            pair = store[identity]
            if pair["id"] != identity:
                found.append(Fault(number, f"the place of {identity!r} holds {pair['id']!r}"))
            elif what := _outside_ball(identity, store.norm_of(pair), store.epsilon):
                found.append(Fault(number, what))
    return found


def set_aside(folder: str | os.PathLike[str], number: int) -> None:
    """Move a shard into ``damaged/``, so that `StoreWriter.missing` names it again."""
    path = _shard(Path(folder), number)
    aside = path.parent / "damaged"
    aside.mkdir(exist_ok=True)
    # The list first: without it the shard does not count, whatever happens next.
    for file in (path.with_suffix(".json"), path):
        if file.exists():
            os.replace(file, aside / file.name)


def _differing(stored: object, plan: object, name: str = "") -> list[str]:
    """Return what two plans do not share: dotted names, with both values where they are short."""
    if isinstance(stored, dict) and isinstance(plan, dict):
        keys = sorted({*stored, *plan})
        return [x for key in keys for x in _differing(stored.get(key), plan.get(key), f"{name}.{key}".lstrip("."))]
    if stored == plan:
        return []
    values = f"{stored!r} then, {plan!r} now"
    return [f"{name.removeprefix('provenance.')} {values if len(values) < 80 else 'differ'}"]


def _outside_ball(identity: str, norm: float, epsilon: float) -> str | None:
    inside = norm <= epsilon + 1e-6
    return None if inside else f"noisy pair {identity!r} has norm {norm:.6g}, beyond its radius {epsilon:.6g}"


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.array_record"


def _hash_fault(folder: Path, number: int) -> Fault | None:
    path = _shard(folder, number)
    if files.sha256(path) == files.read_json(path.with_suffix(".json"))["sha256"]:
        return None
    return Fault(number, f"{path} does not match its SHA-256: it was changed or damaged after it was written.")


def _finished(folder: Path, number: int) -> bool:
    path = _shard(folder, number)
    return path.is_file() and path.with_suffix(".json").is_file()
