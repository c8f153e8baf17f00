"""Keys of the dual encoder. What a tower is made of stands in its own keys, e.g. model.vit.width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ranjax.core.buckets.object_store import is_url
from ranjax.core.checks import at_least, one_of
from ranjax.core.errors import ConfigError
from ranjax.core.settings import Group, keys_of, read, setting, value_at
from ranjax.models.checkpoints.packaged import weights_path
from ranjax.models.towers.contract import OPTIONS, Tower
from ranjax.models.towers.tower_table import TOWERS
from ranjax.run.schema.entry_keys import Config, EntryKeys


@dataclass(frozen=True)
class Model(Group):
    """Settings of the dual encoder."""

    weights: str = setting(
        "",
        "Checkpoint to start from (docs/models.md): a folder, or one .safetensors file; empty: random weights.",
        "path",
    )
    text_weights: str = setting(
        "",
        "Folder of a BERT to start the text tower from, beside an image tower, or package:NAME; empty: none.",
        "path",
    )
    image_weights: str = setting(
        "",
        "Image tower to set beside model.text_weights (docs/models.md): folder, .safetensors or .pth file, or "
        "package:NAME; empty: a new one.",
        "path",
    )
    image_tower: str = setting("vit", "A new image tower, by its name or as module:NAME.")
    text_tower: str = setting("text_transformer", "A new text tower, by its name or as module:NAME.")
    projection: str = setting(
        "linear",
        "What joins model.text_weights and its image tower to the shared space.",
        check=one_of("linear", "mlp"),
    )
    embed_dim: int = setting(128, "Width of the shared embedding.", "channels", at_least(4))
    compute_dtype: str = setting(
        "float32",
        "What towers compute in; parameters, layer norms, softmax and embeddings stay at float32.",
        check=one_of("float32", "bfloat16"),
    )
    remat: bool = setting(False, "Compute blocks again in the backward pass rather than keep their activations.")
    scan: bool = setting(False, "Run the blocks as one scanned block: compiles faster; slower steps on a CPU.")
    attention: str = setting(
        "auto",
        "By the platform: cuDNN's on a GPU, splash attention on a TPU, written out on a CPU; or plain, written out "
        "everywhere, as forward-mode derivatives need it.",
        check=one_of("auto", "plain"),
    )


def _of(kind: str) -> Callable[[Tower], str]:
    """Return the check that a tower is of a kind."""
    names = ", ".join(name for name, tower in TOWERS.items() if tower.kind == kind)
    return lambda tower: "" if tower.kind == kind else f"a tower of {kind}s ({names}), or your own as module:NAME"


IMAGE = EntryKeys(TOWERS, ("model.image_tower",), "model", accepts=_of("image"))
TEXT = EntryKeys(
    TOWERS,
    ("model.text_tower",),
    "model",
    # A published BERT is pooled by its own pooler, where nothing else is said.
    settings={"bert": read(TOWERS["bert"].settings, {"pooling": "pooler"})},
    accepts=_of("text"),
)
KEYS = keys_of("model", Model)
TABLES = (IMAGE, TEXT)
RENAMED = {
    "model.patch_size": "model.vit.patch_size",
    **{f"model.vision_{part}": f"model.vit.{part}" for part in ("width", "layers", "heads")},
    **{f"model.text_{part}": f"model.text_transformer.{part}" for part in ("width", "layers", "heads")},
    "model.text_pooling": "model.bert.pooling",
    "model.activation": "model.vit.activation and model.text_transformer.activation",
}
_VOCABULARY = 1 << 20
"""Tokens that a tower is tried with before a tokenizer is there."""


def new_tower(config: Config, keys: EntryKeys[Tower], **given: Any) -> Any:
    """Return the config of the new tower of `IMAGE` or `TEXT` that a config names, with the fields `given`.

    Raises:
      ConfigError: settings that do not fit each other.
    """
    tower = keys.one(config)
    return tower.config(**keys.options_of(config, tower), **given)


def check(config: Config) -> None:
    """Check how keys fit each other.

    Raises:
      ConfigError: two do not.
    """
    model = config.model
    if model.weights and model.text_weights:
        expected = "empty where model.weights names a whole checkpoint"
        raise ConfigError("model.text_weights", model.text_weights, expected)
    for name in ("weights", "text_weights", "image_weights"):
        if not is_url(model[name]):  # read when the stage begins that needs it
            weights_path(model[name], f"model.{name}")
    if model.image_weights and model.weights:
        raise ConfigError("model.image_weights", model.image_weights, "empty where model.weights names a checkpoint")
    if model.image_weights and not (model.text_weights or config.pretrain.skip):
        raise ConfigError("model.image_weights", model.image_weights, "empty without model.text_weights beside it")
    image: dict[str, Any] = {"image_size": config.data.image_size, "channels": 1}
    text: dict[str, Any] = {"vocab_size": _VOCABULARY, "max_length": config.text.max_length}
    text |= dict.fromkeys(("eos_id", "bos_id", "pad_id"), 0)
    for keys, fields in ((IMAGE, image), (TEXT, text)):
        if _given(config, keys):
            continue
        new_tower(config, keys, **fields)
        tower = keys.one(config)
        for option in OPTIONS:
            if model[option] and option not in tower.options:
                raise ConfigError(f"model.{option}", True, f"false for the tower {tower.name!r}, which has no such way")


def _given(config: Config, keys: EntryKeys[Tower]) -> str:
    """Return the key of the given weights that bring a tower along; "": it is new."""
    names = ("weights", "image_weights" if keys is IMAGE else "text_weights")
    return next((f"model.{name}" for name in names if config.model[name]), "")


def notes(config: Config) -> list[str]:
    """Return what a config says of the encoder in vain, by key: given weights decide it, or another tower is chosen."""
    model, found, reasons = config.model, list[str](), dict[str, str]()
    for keys in (TEXT, IMAGE):
        if given := _given(config, keys):
            names = [key.name for key in keys.built_in_keys()]
            reasons |= dict.fromkeys(names, f"{given} = {value_at(config, given)!r} decides it")
        else:
            found += keys.unused(config)
    if model.text_weights:
        del reasons["model.bert.pooling"]
    else:
        reasons["model.projection"] = "no model.text_weights"
    if model.weights:
        reasons["model.embed_dim"] = f"model.weights = {model.weights!r} decides it"
    for key in (*TEXT.built_in_keys(), *IMAGE.built_in_keys(), *KEYS):
        value = value_at(config, key.name)
        if key.name in reasons and value != key.default:
            found.append(f"{key.name} = {value!r} is not used: {reasons[key.name]}")
    return found
