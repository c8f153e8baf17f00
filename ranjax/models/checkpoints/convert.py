"""Converts torch's files to safetensors, once: ``python -m ranjax.models.checkpoints.convert FILE [FILE ...]``.

Needs no torch: tensors are read, and nothing that a file says is run (`torch_files`). FILE.safetensors appears beside
FILE under the name that `ranjax.models.load` looks for; shards listed in a ``pytorch_model.bin.index.json`` are
converted together where that index is given.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ranjax.core import files
from ranjax.core.errors import DataError
from ranjax.models.checkpoints.torch_files import read_torch
from ranjax.models.checkpoints.weight_files import refuse_stand_ins, weight_map, write_json

_NAMES = {"pytorch_model": "model", "open_clip_pytorch_model": "open_clip_model"}


def convert(path: Path) -> Path:
    """Convert one pickle, or all shards of an index; returns the file written.

    Raises:
      DataError: no such file, a stand-in for one, or one that asks for more than tensors.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file")
    refuse_stand_ins(path)
    if path.name.endswith(".index.json"):
        return _convert_index(path)
    target = path.with_name(_NAMES.get(path.stem, path.stem) + ".safetensors")
    files.write_tensors(target, read_torch(path), metadata={"format": "pt"})
    return target


def _convert_index(path: Path) -> Path:
    place = weight_map(path)
    written = {name: convert(path.with_name(name)).name for name in sorted(set(place.values()))}
    target = path.with_name("model.safetensors.index.json")
    write_json(target, {"metadata": {}, "weight_map": {key: written[name] for key, name in place.items()}})
    return target


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
