"""What a checkpoint's files are to this package: a way of reading a config, a list of keys, a way of writing both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.models.checkpoints.naming import Layout
from ranjax.models.checkpoints.weight_files import CONFIG, WEIGHTS, keys_of, read_config

Weights = Mapping[str, np.ndarray]


def as_is(weights: Weights) -> Weights:
    """Keys that need no tidying."""
    return weights


@dataclasses.dataclass(frozen=True)
class FileLayout:
    """One way of laying a dual encoder out in files; `ranjax.models.checkpoints.layouts` lists them all.

    Attributes:
      name: what a config's field ``layout`` says.
      recognises: whether a folder with this config.json (or whichever `config_file` is) is of this kind.
      read_config: ``(content, folder, weights) -> config``; raises ConfigError for what is not implemented.
      keys: every parameter's key, for a config.
      refuses: why a config cannot be written so, or None.
      write_config: ``(config, dtype) -> {file name: content}``, all JSON files of the folder.
      config_file, weights_file: their names; others are read too (`weight_files`), these are written.
      holds: whether a file with these keys is of this kind, for a layout whose folders hold no config of their own;
        `config_file` is read where it is there.
      tidy: keys of older files as today's, before they are compared; parts that are never needed left out.
    """

    name: str
    recognises: Callable[[Mapping], bool]
    read_config: Callable[[Mapping, Path, Weights], Any]
    keys: Callable[[Any], Layout]
    refuses: Callable[[Any], str | None]
    write_config: Callable[[Any, str], dict[str, dict]]
    config_file: str = CONFIG
    weights_file: str = WEIGHTS
    tidy: Callable[[Weights], Weights] = as_is
    holds: Callable[[frozenset[str]], bool] | None = None

    def meets(self, folder: Path, file: Path | None = None) -> bool:
        """Whether `folder` (or `file` in it) holds an encoder of this kind. DataError where its config is no JSON."""
        if self.holds is not None:
            return self.holds(keys_of(folder if file is None else file))
        return (folder / self.config_file).is_file() and self.recognises(read_config(folder, self.config_file))

    def config(self, folder: Path) -> dict:
        """The content of a folder's config. Raises DataError where one that there must be is absent, or no JSON."""
        if self.holds is not None and not (folder / self.config_file).is_file():
            return {}
        return read_config(folder, self.config_file)
