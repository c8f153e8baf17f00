"""Converts pickled torch weights to safetensors, once: ``python -m ranjax.models.checkpoints.convert FILE [FILE ...]``.

Needs torch (the extra ``parity``), which opens the pickle with ``weights_only=True``: tensors and plain containers,
no code. FILE.safetensors appears beside FILE under the name that `ranjax.models.load` looks for; shards listed in a
``pytorch_model.bin.index.json`` are converted together where that index is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.models.checkpoints.weight_files import refuse_stand_ins, write_json

_NAMES = {"pytorch_model": "model", "open_clip_pytorch_model": "open_clip_model"}
# What training scripts wrap a state dict in, outermost first.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Scripted CLIPs carry these numbers among their weights.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def convert(path: Path) -> Path:
    """Convert one pickle, or all shards of an index; returns the file written.

    Raises:
      DataError: no such file, a stand-in for one, or one that holds more than tensors.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file")
    refuse_stand_ins(path)
    if path.name.endswith(".index.json"):
        return _convert_index(path)
    tensors = _tensors(_open(path), path)
    target = path.with_name(_NAMES.get(path.stem, path.stem) + ".safetensors")
    files.write_tensors(target, tensors, metadata={"format": "pt"})
    return target


def _convert_index(path: Path) -> Path:
    place = json.loads(path.read_text())["weight_map"]
    written = {name: convert(path.with_name(name)).name for name in sorted(set(place.values()))}
    target = path.with_name("model.safetensors.index.json")
    write_json(target, {"metadata": {}, "weight_map": {key: written[name] for key, name in place.items()}})
    return target


def _open(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise DataError("torch is not installed: pip install 'ranjax[parity]'") from error
    import pickle

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{path} holds more than tensors, or is none of torch's files: {first}") from error


def _tensors(content: Any, path: Path) -> dict[str, np.ndarray]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise DataError(f"{path} holds a {type(content).__name__}, not the tensors of a model by name")
    tensors = {}
    for key, value in content.items():
        if hasattr(value, "detach") and key not in _NOT_WEIGHTS:
            # numpy has no bfloat16 of its own; float32 holds it exactly.
            value = value.detach().float() if str(value.dtype) == "torch.bfloat16" else value.detach()
            tensors[str(key).removeprefix("module.")] = np.array(value.numpy(), order="C")
    if not tensors:
        raise DataError(f"{path} holds no tensors by name")
    return tensors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    prog = "python -m ranjax.models.checkpoints.convert"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".bin, .pt, .pth, or an index of shards")
    for path in parser.parse_args(arguments).files:
        try:
            print(convert(path))
        except DataError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
