"""What a tower is: a config, the module that is built from it, and how other libraries' files keep it.

A tower of your own is one `Tower` (docs/guides/add_a_tower.md). Its config is a frozen dataclass that extends
`ImageTowerConfig` or `TextTowerConfig`; the fields that `setting` declares are configuration keys,
``model.NAME.FIELD``.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ranjax.core.errors import ConfigError
from ranjax.core.registry import check_entry
from ranjax.core.settings import check_settings

Json = dict[str, Any]
"""The content of a JSON file, or a part of it."""
Content = Mapping[str, Any]
"""The same, not to be changed."""
FEATURES = ("embedding", "tokens", "blocks")
"""What a head may read of an image tower: the dual encoder's embedding, or what its states give (`tower_states`)."""
OPTIONS = ("remat", "scan")
"""How a tower's blocks may be run, see `DualEncoderConfig`."""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class _TowerConfig:
    """The base of both kinds of configs."""

    tower: ClassVar[str] = ""
    """The tower's name, for error messages."""

    @property
    def outputs(self) -> int:
        """Width of what the tower returns; of a text tower, of its token table, too."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(_TowerConfig):
    """The config of an image tower; hashable.

    Attributes:
      image_size: height and width of an image, in pixels.
      channels: that the tower reads, 1 (grey) or 3.
    """

    image_size: int
    channels: int = 3

    def __post_init__(self) -> None:
        _check(self, "image_size")
        if self.channels not in (1, 3):
            raise ConfigError("model.channels", self.channels, "1 (grey) or 3")

    @property
    def grid(self) -> int:
        """Positions on a side, for towers with a `position_table`."""
        raise NotImplementedError

    @property
    def position_table(self) -> tuple[tuple[str, ...], int] | None:
        """Path of the position embeddings inside the tower, and how many rows come before those of the grid."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTowerConfig(_TowerConfig):
    """The config of a text tower; hashable. Its token table has the width of what it returns, `outputs`.

    Attributes:
      vocab_size: rows of the token table.
      max_length: longest text, in tokens.
      eos_id, bos_id, pad_id: special tokens; None where the tokenizer has none.
    """

    vocab_size: int
    max_length: int
    eos_id: int | None = None
    bos_id: int | None = None
    pad_id: int | None = None

    def __post_init__(self) -> None:
        _check(self, "vocab_size", "max_length")
        for name in ("eos_id", "bos_id", "pad_id"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 0):
                raise ConfigError(f"model.{name}", value, "the id of a token, at least 0, or none")

    @property
    def end_pooling(self) -> str:
        """How the end token is pooled, "eos" or "highest_id" (`TextTransformerConfig`); "": it does not matter."""
        return ""

    @property
    def needs_begin(self) -> bool:
        """Whether a tokenizer must put a token at a text's beginning."""
        return True

    @property
    def needs_pad(self) -> int | None:
        """The padding token that the tower was trained with; None: any will do, as padding is not seen."""
        return None


TowerConfig = ImageTowerConfig | TextTowerConfig


def _check(config: TowerConfig, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"model.{name}", value, "a whole number of at least 1")
    check_settings(f"model.{config.tower or type(config).__name__}", config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerFiles:
    """How one library's files keep a tower.

    Attributes:
      library: "transformers"; "open_clip", for its own towers; or "timm", whose keys torchvision shares.
      kind: what the library calls it, e.g. transformers' ``model_type``.
      read: ``(content, weights) -> config`` from the part of a config.json that describes the tower.
      keys: ``config -> Keys``, every parameter's key inside the tower.
      write: ``config -> content``, the inverse of `read`.
      refuses: ``config -> reason`` why these files cannot hold it; "": they can.
      recognises: ``content -> bool``, whether `read` reads it; by default, whether its ``model_type`` is `kind`.
      alone: the library has no dual encoder with it: it is read, and written by other libraries.
      mean, std: of RGB pixels, where the files do not say.
    """

    library: str
    kind: str
    read: Callable[..., Any]
    keys: Callable[..., Any]
    write: Callable[..., dict[str, object]]
    refuses: Callable[..., str] = lambda config: ""
    recognises: Callable[[Content], bool] | None = None
    alone: bool = False
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD

    def reads(self, content: Content) -> bool:
        """Return whether `read` reads a tower's part of a config."""
        return content.get("model_type") == self.kind if self.recognises is None else self.recognises(content)


@dataclasses.dataclass(frozen=True)
class Tower:
    """One kind of tower.

    Attributes:
      name: in keys and files.
      label: on pages.
      config: the class of its configs, an `ImageTowerConfig` or a `TextTowerConfig`.
      module: ``(config, rngs) -> nnx.Module``, or ``"module:NAME"`` of it, imported when it is built; called with
        ``remat`` and ``scan`` too where `options` name them. An image tower maps images f[B, H, W, C], normalised, to
        f[B, outputs]. A text tower maps tokens i32[B, L], mask bool[B, L] and embeddings f[B, L, outputs] to f[B,
        outputs], and has a parameter ``token_embedding``.
      options: of `OPTIONS`, those that the module takes; others are refused.
      files: `TowerFiles`, or ``"module:NAME"`` of them: how other libraries keep it. Where none does, encoders are
        saved in ranjax's own layout.
      states: of an image tower, ``(module, images f[B, H, W, C], normalised) -> [State]``, the activations behind each
        of its blocks or stages, the last as the tower pools it (`ranjax.models.tower_states.State`); or
        ``"module:NAME"``. Without it, heads read the embedding alone. Of a text tower, ``(module, tokens, mask,
        embeddings) -> f[B, L, width]``, one state a token; without it, there is no co-attention with texts.
      source: the paper.
    """

    name: str
    label: str
    config: type[TowerConfig]
    module: Callable[..., Any] | str
    options: tuple[str, ...] = ()
    files: tuple[TowerFiles | str, ...] = ()
    states: Callable[..., Any] | str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        """Check the contract.

        Raises:
          ConfigError: names the field that is missing or wrong, and what it should be.
        """
        if not (isinstance(self.config, type) and issubclass(self.config, ImageTowerConfig | TextTowerConfig)):
            raise ConfigError("Tower.config", self.config, "a class that extends ImageTowerConfig or TextTowerConfig")
        if not getattr(vars(self.config).get("__dataclass_params__"), "frozen", False):
            raise ConfigError("Tower.config", self.config, "a frozen dataclass")
        if self.config.outputs is _TowerConfig.outputs:
            raise ConfigError("Tower.config", self.config, "a class with a property `outputs`, the width returned")
        for option in self.options:
            if option not in OPTIONS:
                raise ConfigError("Tower.options", option, f"some of {', '.join(OPTIONS)}")
        functions = [name for name in ("module", "states") if not isinstance(getattr(self, name), str | None)]
        if self.module is None:
            functions.append("module")
        check_entry(self, *functions)

    @property
    def kind(self) -> str:
        """Return "image" or "text"."""
        return "image" if issubclass(self.config, ImageTowerConfig) else "text"

    @property
    def settings(self) -> Any:
        """Return the fields of the config that `setting` declares, as an instance of a dataclass of their own."""
        declared = [
            (field.name, Any, dataclasses.field(default=field.default, metadata=field.metadata))
            for field in dataclasses.fields(self.config)
            if "meaning" in field.metadata
        ]
        return dataclasses.make_dataclass(f"{self.config.__name__}Settings", declared, frozen=True)()

    def build(self, config: TowerConfig, rngs: object, remat: bool = False, scan: bool = False) -> Any:
        """Return the module of a config; `rngs`: an `nnx.Rngs`."""
        chosen = {name: value for name, value in (("remat", remat), ("scan", scan)) if name in self.options}
        return _loaded(self.module)(config, rngs, **chosen)

    def states_of(self, module: Any, *inputs: Any) -> Any:
        """Return the states of inputs in a module that `build` made: of normalised images f[B, H, W, C] a list of
        `State`, of texts f[B, L, width].

        Raises:
          ConfigError: the tower gives none.
        """
        if self.states is None:
            expected = f"'embedding' with the {self.kind} tower {self.name!r}, which shows no tokens (`Tower.states`)"
            raise ConfigError("features", "tokens or blocks", expected)
        return _loaded(self.states)(module, *inputs)

    def files_of(self, library: str) -> list[TowerFiles]:
        """Return the ways in which a library's files keep the tower."""
        found: list[TowerFiles] = [_loaded(files) for files in self.files]
        return [files for files in found if files.library == library]


def _loaded(reference: Any) -> Any:
    """Return what ``"module:NAME"`` names, or what is no text as it is."""
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def refuse_no_array(name: str, value: object) -> None:
    """Raise ConfigError where a value is no array of NumPy or JAX, as a list or a tensor of torch."""
    import jax
    import numpy as np

    if not isinstance(value, np.ndarray | jax.Array):
        kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}".removeprefix("builtins.")
        raise ConfigError(name, kind, f"an array of NumPy or JAX, as np.asarray({name}) gives")


def check_tokens(
    tokens: Any,
    mask: Any,
    embeddings: Any,
    config: TextTowerConfig,
) -> None:
    """Check that tokens, mask and embeddings (of a text each row) fit a text tower and each other.

    Raises:
      ConfigError: no arrays, a text longer than max_length, shapes or dtypes that do not fit, a text without a token,
        or one without the end token at which the tower pools.
    """
    refuse_no_array("tokens", tokens)
    refuse_no_array("mask", mask)
    if tokens.ndim != 2 or tokens.shape[1] > config.max_length:
        expected = f"[B, L] with L at most model.max_length = {config.max_length}"
        raise ConfigError("tokens.shape", tokens.shape, expected)
    if mask.shape != tokens.shape or mask.dtype != bool:
        raise ConfigError("mask", f"{mask.dtype}{list(mask.shape)}", f"bool{list(tokens.shape)}, as the tokens")
    import jax  # Lazily: configs are read without it.
    import numpy as np

    if not np.issubdtype(tokens.dtype, np.integer):
        raise ConfigError("tokens.dtype", str(tokens.dtype), "whole numbers, the ids of tokens")
    # Traced values are not known; a gather would take the last row for what is beyond the table.
    if not isinstance(tokens, jax.core.Tracer) and tokens.size:
        low, high = int(np.min(np.asarray(tokens))), int(np.max(np.asarray(tokens)))
        if low < 0 or high >= config.vocab_size:
            expected = f"ids from 0 to {config.vocab_size - 1}, the rows of the token table"
            raise ConfigError("tokens", f"{low} to {high}", expected, "Is this the tokenizer of another model?")
        if not isinstance(mask, jax.core.Tracer):
            _check_ends(np.asarray(tokens), np.asarray(mask), config)
    if embeddings is not None and embeddings.shape != (*tokens.shape, config.outputs):
        expected = f"{(*tokens.shape, config.outputs)}, one row per token"
        raise ConfigError("embeddings.shape", embeddings.shape, expected)


def _check_ends(tokens: Any, mask: Any, config: TextTowerConfig) -> None:
    """Raise ConfigError for a text without a token, or without the end token at which the tower would read it."""
    expected = "True on the tokens of every text"
    ended = mask.any(axis=1)
    if ended.all() and config.end_pooling == "eos":
        expected, ended = f"the end token {config.eos_id} in every text", (mask & (tokens == config.eos_id)).any(axis=1)
    if not ended.all():
        raise ConfigError("mask" if "True" in expected else "tokens", f"row {int(ended.argmin())}", expected)
