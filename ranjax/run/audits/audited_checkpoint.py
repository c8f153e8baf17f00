"""The checkpoint that an audit is of: where its files lie, their hash, and what they say of sizes and towers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.types import Params
from ranjax.methods.method_settings import LORA_TARGETS
from ranjax.models.checkpoints.naming import paths

RUN_ENCODER = Path("pretrain", "clean", "encoder")
_WEIGHTS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_NOT_HASHED = (".md", ".html", ".log")
_LONGEST = 77
"""Tokens of a text at most, CLIP's: a longer text tower would only cost more."""


@dataclass(frozen=True)
class AuditedCheckpoint:
    """A checkpoint as an audit reads it.

    Attributes:
      given: as the user named it.
      path: of its folder or file.
      texts: whether it has a text tower; without one, zero-shot and retrieval are left out.
      layout: name of the layout it came in; "" for an image tower alone.
      image_size: side of the images that it was made for, in pixels.
      max_length: tokens of a text at most.
      fingerprint: of names and contents of its files.
      blocks: whether its image tower has blocks whose kernels take adapters, as a transformer's do.
    """

    given: str
    path: Path
    texts: bool
    layout: str
    image_size: int
    max_length: int
    fingerprint: str
    blocks: bool = False

    @property
    def name(self) -> str:
        """Return a short name: that of its folder or file, of a run that of the workdir."""
        path = Path(self.given.removeprefix("package:"))
        if path.name == "encoder":
            path = path.parent.parent.parent
        return path.name or self.path.name


def find_checkpoint(given: str) -> Path:
    """Return the folder or file of a checkpoint: that path, the encoder of a run or of its condition, or a package's.

    Raises:
      ConfigError: nothing lies there; a hub's name is told apart, with the command that fetches it.
    """
    from ranjax.models.checkpoints.packaged import weights_path

    path = weights_path(given, "checkpoint").expanduser()
    if not path.exists():
        if _is_hub_name(given):
            fetch = f"huggingface-cli download {given} --local-dir {given.rpartition('/')[2]}"
            expected = f"a folder on this machine: nothing is downloaded. Fetch it yourself: {fetch}"
            raise ConfigError("checkpoint", given, expected)
        raise ConfigError("checkpoint", given, "a folder or file that exists, or package:NAME")
    for inside in (RUN_ENCODER, Path("encoder")):
        if (path / inside).is_dir():
            return path / inside
    return path


def _is_hub_name(given: str) -> bool:
    parts = given.removeprefix("hf-hub:").split("/")
    return len(parts) == 2 and all(parts) and not given.startswith((".", "/", "~"))


def open_checkpoint(given: str) -> AuditedCheckpoint:
    """Read what a checkpoint says of itself; weights are read once, to see that they fit.

    Raises:
      ConfigError, DataError: as `find_checkpoint`, `models.load` and `models.load_image_tower`.
    """
    from ranjax.models import load
    from ranjax.models.checkpoints.layouts import LAYOUTS

    path = find_checkpoint(given)
    fingerprint = fingerprint_of(path)
    folder = path.parent if path.is_file() else path
    file = path if path.is_file() else None
    met = [layout.name for layout in LAYOUTS.values() if layout.meets(folder, file)] if path.is_dir() else []
    if not met and path.suffix != ".safetensors":
        return _tower_alone(given, path, fingerprint)
    try:
        _, params, shape = load(path)
    except ConfigError as error:
        if error.key != "config.json: model_type":
            raise
        return _tower_alone(given, path, fingerprint)
    length = min(shape.max_length, _LONGEST)
    blocks = _takes_adapters(params)
    return AuditedCheckpoint(given, path, True, shape.layout, shape.image_size, length, fingerprint, blocks)


def _tower_alone(given: str, path: Path, fingerprint: str) -> AuditedCheckpoint:
    from ranjax.models import load_image_tower

    tower = load_image_tower(path)
    blocks = _takes_adapters({"vision": tower.params})
    return AuditedCheckpoint(given, path, False, "", tower.config.image_size, 16, fingerprint, blocks)


def _takes_adapters(params: Params) -> bool:
    names = ["/".join(place) for place in paths(dict(params))]
    return any(re.search(pattern, name) for pattern in LORA_TARGETS for name in names)


def fingerprint_of(path: Path) -> str:
    """Return a hash of names and contents of a checkpoint's files, pages and logs left out.

    Raises:
      DataError: no file of weights is there.
    """
    every = [path] if path.is_file() else sorted(path.rglob("*"))
    chosen = [one for one in every if one.is_file() and one.suffix not in _NOT_HASHED]
    if not any(one.suffix in _WEIGHTS for one in chosen):
        raise DataError(f"{path} holds no weights ({', '.join(_WEIGHTS)}).")
    return files.digest([(one.name, files.sha256(one)) for one in chosen])
