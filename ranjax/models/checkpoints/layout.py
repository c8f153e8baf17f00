"""What a layout of files is to this package: a way of reading a config, a list of keys, a way of writing both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ranjax.models.checkpoints.naming import Content, Json, Keys, Weights
from ranjax.models.checkpoints.weight_files import CONFIG, WEIGHTS, read_config, tensor_names
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.tower_table import CannotHoldError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """One way of laying a dual encoder out in files; `ranjax.models.checkpoints.layouts.LAYOUTS` is the table.

    Attributes:
      name: as a config's field `layout` has it.
      label: the library and class that read it.
      recognises: ``content -> bool``, whether a folder with this config file is of this kind.
      read: ``(content, folder, weights) -> config``; raises ConfigError for what is not implemented.
      keys: ``config -> Keys``, every parameter's key.
      check: ``config -> None``; raises CannotHoldError, with the reason, for a config that cannot be written so.
      write: ``(config, dtype) -> {file name: content}``, all JSON files of the folder.
      config_file: its name.
      weights_files: names of the file of weights: as written, and further ones that are read.
      holds: ``keys -> bool``, for a layout whose folders hold no config of their own: whether a file with these keys is
        of this kind. `config_file` is read where it is there.
      tidy: returns tensors of older files under today's keys, without parts that are never needed.
    """

    name: str
    label: str
    recognises: Callable[[Content], bool] = lambda content: False
    read: Callable[[Content, Path, Weights], DualEncoderConfig]
    keys: Callable[[DualEncoderConfig], Keys]
    check: Callable[[DualEncoderConfig], object] = lambda config: None
    write: Callable[[DualEncoderConfig, str], dict[str, Json]]
    config_file: str = CONFIG
    weights_files: tuple[str, ...] = (WEIGHTS,)
    holds: Callable[[frozenset[str]], bool] | None = None
    tidy: Callable[[Weights], Weights] = lambda weights: weights

    def refuses(self, config: DualEncoderConfig) -> str:
        """Return why a config cannot be written so; "": it can."""
        try:
            self.check(config)
        except CannotHoldError as error:
            return str(error)
        return ""

    def meets(self, folder: Path, file: Path | None = None) -> bool:
        """Return whether `folder` (or `file` in it) holds an encoder of this kind.

        Raises:
          DataError: its config is no JSON.
        """
        if self.holds is not None:
            return self.holds(tensor_names(folder if file is None else file))
        return (folder / self.config_file).is_file() and self.recognises(read_config(folder, self.config_file))

    def content(self, folder: Path) -> Content:
        """Read a folder's config file. Raises DataError where one that there must be is absent, or no JSON."""
        if self.holds is not None and not (folder / self.config_file).is_file():
            return {}
        return read_config(folder, self.config_file)
