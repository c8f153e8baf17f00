"""Weights on disk: safetensors in and out, the tensors of torch's files in, and clear words for all else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.models.checkpoints.torch_files import read_torch

WEIGHTS, INDEX_SUFFIX, CONFIG = "model.safetensors", ".index.json", "config.json"
SUMS = "SHA256SUMS"
_SHA256 = re.compile(r"[0-9a-f]{64}")
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class WeightsError(DataError):
    """Weights that do not fit the model.

    Attributes:
      missing: names that the model needs and the files lack.
      extra: names that the files hold and the model does not know.
      misshaped: (name, shape in the file, shape in the model).
    """

    def __init__(
        self,
        source: str,
        missing: list[str],
        extra: list[str],
        misshaped: list[tuple[str, tuple[int, ...], tuple[int, ...]]],
    ):
        self.missing, self.extra, self.misshaped = missing, extra, misshaped
        lines = []
        for title, items in (("missing", missing), ("extra", extra)):
            if items:
                lines.append(f"{len(items)} {title}: {', '.join(items)}")
        if misshaped:
            shown = ", ".join(f"{name} is {list(got)}, not {list(want)}" for name, got, want in misshaped)
            lines.append(f"{len(misshaped)} of another shape: {shown}")
        super().__init__(f"the weights in {source} do not fit the model of its config: {'; '.join(lines)}")


def read_config(folder: str | Path, name: str = CONFIG) -> dict[str, Any]:
    """Read config.json (or `name`) of a model folder. Raises DataError where it is absent or no JSON object."""
    path = Path(folder) / name
    if not path.is_file():
        raise DataError(f"{path} is absent: a model folder holds {name} beside {WEIGHTS}")
    refuse_stand_ins(path)
    return files.read_object(path)


def folder_of(source: str | Path) -> Path:
    """Return the folder of a checkpoint that is given as a folder or as one file of weights."""
    path = Path(source)
    return path.parent if path.suffix in (".safetensors", *PICKLED) else path


def weights_in(folder: Path, names: Sequence[str] = (WEIGHTS,)) -> Path | None:
    """Return the file that a folder's weights start from: an index of shards or one of `names`; None where there is
    none.
    """
    found = [folder / f"{name}{suffix}" for name in names for suffix in (INDEX_SUFFIX, "")]
    return next((path for path in found if path.is_file()), None)


def read_weights(source: str | Path, names: Sequence[str] = (WEIGHTS,)) -> dict[str, np.ndarray]:
    """Read all tensors of a folder (one file or several with an index) or of one file, as stored.

    A file that is named itself may be torch's (.pth, .bin, ...): its tensors are read, it is not run (`read_torch`).

    Sizes and SHA-256 sums are compared wherever something beside the files says what they should be (`known_sha256`).

    Raises:
      DataError: no weights, a folder of pickled ones alone, an HTML page or a Git LFS pointer in their place, a damaged
        file, a missing shard, a file of another size or hash than it should have.
    """
    source = Path(source)
    if source.is_file():
        return _read_file(source)
    found = weights_in(source, names)
    if found is not None and found.name.endswith(INDEX_SUFFIX):
        if (whole := found.with_name(found.name.removesuffix(INDEX_SUFFIX))).is_file():
            raise DataError(f"{source} holds {whole.name} and {found.name}, of which libraries read one: remove one")
        return _read_shards(found)
    if found is not None:
        return _read_file(found)
    refuse_pickles(source)
    shown = " or ".join(names)
    raise DataError(f"{source} holds no weights: expected {shown}, or {names[0]}{INDEX_SUFFIX} and its shards")


def tensor_names(source: Path, names: Sequence[str] = (WEIGHTS,)) -> frozenset[str]:
    """Read the names of the tensors of a folder or file from headers alone; none where nothing readable is there."""
    from safetensors import SafetensorError, safe_open

    found = weights_in(source, names) if source.is_dir() else source
    if found is None:
        return frozenset()
    try:
        if found.name.endswith(INDEX_SUFFIX):
            return frozenset(weight_map(found))
        with safe_open(found, "numpy") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError, DataError):
        return frozenset()  # `read_weights` says what is wrong with it.


def refuse_pickles(source: Path) -> None:
    """Raise DataError, with the command that converts them, where a folder holds pickled weights or a file is some."""
    found = [source] if source.suffix in PICKLED else source.glob("*")
    pickled = sorted(path for path in found if path.suffix in PICKLED and path.name != "training_args.bin")
    if pickled:
        raise DataError(_pickle_refusal(pickled[0]))


def write_weights(
    folder: str | Path, weights: Mapping[str, np.ndarray], configs: Mapping[str, Mapping[str, Any]], name: str = WEIGHTS
) -> None:
    """Write the JSON files of `configs` and the weights as `name`; each appears whole, by rename."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # order="C" keeps a scalar a scalar, which np.ascontiguousarray does not.
    tensors = {name: np.asarray(value, order="C") for name, value in weights.items()}
    files.write_tensors(folder / name, tensors, metadata={"format": "pt"})
    for file, content in configs.items():
        write_json(folder / file, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON by rename, keys sorted."""
    files.write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def refuse_stand_ins(path: Path) -> None:
    """Raise DataError where `path` holds an HTML page or a Git LFS pointer instead of the file it is named after."""
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    if head[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise DataError(f"{path} is a web page, not the file itself: a login or error page answered the download")


def known_sha256(path: Path) -> tuple[str, str] | None:
    """Return (the SHA-256 that a file should have, where that is said), or None where nothing says it.

    Three things do: a ``SHA256SUMS`` beside it, a ``NAME.sha256``, and what the Hugging Face client leaves: a cache
    that keeps large files under their hash, a ``.cache/huggingface/download`` with their hash in it.
    """
    for source in (path.with_name(SUMS), path.with_name(f"{path.name}.sha256")):
        if source.is_file():
            for line in source.read_text("utf-8", errors="replace").splitlines():
                digest, _, name = line.strip().partition(" ")
                if name.strip().lstrip("*") in (path.name, "") and _SHA256.fullmatch(digest.lower()):
                    return digest.lower(), str(source)
    target = path.resolve()
    if target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name, f"its name in the cache, {target.parent}"
    note = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    if note.is_file():
        lines = note.read_text("utf-8", errors="replace").splitlines()
        if len(lines) > 1 and _SHA256.fullmatch(lines[1].strip().strip('"')):
            return lines[1].strip().strip('"'), str(note)
    return None


def _read_file(path: Path) -> dict[str, np.ndarray]:
    refuse_stand_ins(path)
    wanted, source = known_sha256(path) or ("", "")
    if wanted and (found := files.sha256(path)) != wanted:
        raise DataError(
            f"{path} ({path.stat().st_size} bytes) has SHA-256 {found}, not {wanted}, which {source} says: damaged or "
            "exchanged; fetch it again"
        )
    weights = read_torch(path) if path.suffix in PICKLED else _read_safetensors(path)
    _refuse_quantised(path, weights)
    _refuse_not_finite(path, weights)
    return weights


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (AttributeError, KeyError, TypeError) as error:  # NumPy knows no floats of 8 bits
        kinds = ", ".join(sorted(_kinds(path) - _OF_NUMPY))
        raise DataError(f"{path} holds tensors of {kinds or error}, {_QUANTISED}") from error
    except SafetensorError as error:
        raise DataError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}. "
            "A cut-off download looks like this; fetch it again"
        ) from error


_QUANTISED = (
    "no floats of 16 bits or more: a quantised checkpoint, whose scales are not read here. Take the one that it was "
    "made from"
)
_OF_NUMPY = frozenset(
    ["BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64", "C64"]
)


def _kinds(path: Path) -> set[str]:
    """Return the types of a safetensors file's tensors, as its header names them."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}


# Tensors that are counts or places, not weights; 64 bits are neither a weight's nor a quantised one's.
_COUNTS = ("position_ids", "token_type_ids", "num_batches_tracked", "relative_position_index", "attn_mask", "mask")


def _refuse_quantised(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Raise DataError for weights of integers or of 8-bit floats: their scales lie elsewhere, if anywhere."""
    for name, value in weights.items():
        if (
            not name.endswith(_COUNTS)
            and (value.dtype != bool or name.endswith("weight"))  # elsewhere a truth value is a mask of attention
            and (value.dtype.kind in "iub" or value.dtype.itemsize == 1)
            and value.dtype.itemsize < 8
        ) or value.dtype.kind == "c":
            raise DataError(f"{path}: {name} holds {value.dtype}, {_QUANTISED}")


def _refuse_not_finite(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    bad = [name for name, value in weights.items() if not _is_finite(name, value)]
    if bad:
        value = weights[bad[0]]
        more = f", and some of {len(bad) - 1} other tensors" if len(bad) > 1 else ""
        raise DataError(
            f"{path}: {int(np.sum(~np.isfinite(value)))} of the {value.size} numbers of {bad[0]} are NaN or infinite"
            f"{more}. Training that diverged leaves such weights; take an earlier checkpoint"
        )


def _is_finite(name: str, value: np.ndarray) -> bool:
    """Return whether all numbers are finite; an attention mask that a checkpoint holds may be -inf."""
    if value.dtype.kind not in "fV" or value.dtype.itemsize == 1:  # V: bfloat16, which NumPy knows by ml_dtypes alone
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.sum(value, dtype=np.float32)):  # what is not finite stays so in a sum, which needs no copy
            return True
    return bool(~np.isnan(value).any() if name.endswith("mask") else np.isfinite(value).all())


def weight_map(index: Path) -> dict[str, str]:
    """Read which shard, a file of its folder, an index names for each tensor.

    Raises:
      DataError: it is no index, or names a shard that is no file of its folder.
    """
    place: dict[str, str] = _read_index(index)["weight_map"]
    return place


def _read_index(index: Path) -> dict[str, Any]:
    refuse_stand_ins(index)
    content = files.read_object(index)
    place = content.get("weight_map")
    if not isinstance(place, dict) or not all(isinstance(name, str) for name in place.values()):
        raise DataError(f"{index} is not an index of shards: its weight_map must name a file for each tensor")
    outside = sorted({name for name in place.values() if Path(name).name != name})
    if outside:
        raise DataError(f"{index} names shards outside its folder: {', '.join(outside)}")
    return content


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    content = _read_index(index)
    place = content["weight_map"]
    folder, shards = index.parent, sorted(set(place.values()))
    absent = [name for name in shards if not (folder / name).is_file()]
    if absent:
        raise DataError(f"{folder} lacks {len(absent)} of its {len(shards)} shards: {', '.join(absent)}")
    weights: dict[str, np.ndarray] = {}
    for name in shards:
        weights.update(_read_file(folder / name))
    lost = sorted(set(place) - set(weights))
    if lost:
        raise DataError(f"{index} names {len(lost)} tensors that no shard holds: {', '.join(lost[:5])}")
    metadata = content.get("metadata")
    total = metadata.get("total_size") if isinstance(metadata, dict) else None
    held = sum(value.nbytes for value in weights.values())
    if isinstance(total, int) and total != held:
        raise DataError(f"{index} says that its tensors take {total} bytes; the shards hold {held}")
    return weights


def _pickle_refusal(path: Path) -> str:
    return (
        f"{path} is a pickle, which can run any code when torch opens it, and is refused. Convert it once; its tensors "
        f"are read and nothing in it is run: python -m ranjax.models.checkpoints.convert {path}"
    )
