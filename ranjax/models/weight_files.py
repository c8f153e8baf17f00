"""Weights on disk: safetensors in and out, and clear words for whatever is not safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ranjax import files
from ranjax.errors import DataError

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class WeightsError(DataError):
    """Weights that do not fit the model.

    Attributes:
      missing: names that the model needs and the files lack.
      extra: names that the files hold and the model does not know.
      misshaped: (name, shape in the file, shape in the model).
    """

    def __init__(self, source: str, missing: list[str], extra: list[str], misshaped: list[tuple]):
        self.missing, self.extra, self.misshaped = missing, extra, misshaped
        lines = [f"the weights in {source} do not fit the model of its config."]
        for title, items in (("missing", missing), ("extra", extra)):
            if items:
                lines.append(f"{len(items)} {title}: {', '.join(items)}")
        if misshaped:
            shown = ", ".join(f"{name} is {list(got)}, not {list(want)}" for name, got, want in misshaped)
            lines.append(f"{len(misshaped)} of another shape: {shown}")
        super().__init__("\n".join(lines))


def read_config(folder: str | Path) -> dict:
    """config.json of a model folder. Raises DataError where it is absent or not JSON."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise DataError(f"{path} is absent: a model folder holds {CONFIG} beside {WEIGHTS}")
    refuse_stand_ins(path)
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error


def read_weights(source: str | Path) -> dict[str, np.ndarray]:
    """All tensors of a folder (one file or several with an index) or of one .safetensors file, as stored.

    Raises:
      DataError: no weights, pickled weights, an HTML page or a Git LFS pointer in their place, a damaged file, a
        missing shard.
    """
    source = Path(source)
    if source.suffix in PICKLED:
        raise DataError(_pickle_refusal(source, source.parent))
    if source.is_file():
        return _read_file(source)
    if (source / INDEX).is_file():
        return _read_shards(source)
    if (source / WEIGHTS).is_file():
        return _read_file(source / WEIGHTS)
    pickled = sorted(path for path in source.glob("*") if path.suffix in PICKLED)
    if pickled:
        raise DataError(_pickle_refusal(pickled[0], source))
    raise DataError(f"{source} holds no weights: expected {WEIGHTS}, or {INDEX} and its shards")


def write_weights(folder: str | Path, weights: Mapping[str, np.ndarray], config: Mapping) -> None:
    """Writes config.json and model.safetensors; each appears whole, by rename."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # order="C" keeps a scalar a scalar, which np.ascontiguousarray does not.
    tensors = {name: np.asarray(value, order="C") for name, value in weights.items()}
    files.write_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    write_json(folder / CONFIG, config)


def write_json(path: Path, content: Mapping) -> None:
    """Writes JSON by rename, keys sorted."""
    files.write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def refuse_stand_ins(path: Path) -> None:
    """Raises DataError where `path` holds an HTML page or a Git LFS pointer instead of the file it is named after."""
    with path.open("rb") as file:
        head = file.read(512).lstrip()
    if head.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    if head[:15].lower().startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise DataError(f"{path} is a web page, not the file itself: a login or error page answered the download")


def _read_file(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    refuse_stand_ins(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}. "
            "A cut-off download looks like this; fetch it again"
        ) from error


def _read_shards(folder: Path) -> dict[str, np.ndarray]:
    refuse_stand_ins(folder / INDEX)
    try:
        place = json.loads((folder / INDEX).read_text())["weight_map"]
    except (ValueError, KeyError) as error:
        raise DataError(f"{folder / INDEX} is not an index of shards: {error!r}") from error
    files = sorted(set(place.values()))
    outside = [name for name in files if Path(name).name != name]
    if outside:
        raise DataError(f"{folder / INDEX} names shards outside its folder: {', '.join(outside)}")
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise DataError(f"{folder} lacks {len(absent)} of its {len(files)} shards: {', '.join(absent)}")
    weights: dict[str, np.ndarray] = {}
    for name in files:
        weights.update(_read_file(folder / name))
    return weights


def _pickle_refusal(path: Path, folder: Path) -> str:
    command = (
        'python -c "from transformers import AutoModel as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )
    return (
        f"{path} is a pickle, which can run any code when it is opened, and is refused. "
        f"Where you trust it, convert it once (needs torch and transformers): {command}"
    )
