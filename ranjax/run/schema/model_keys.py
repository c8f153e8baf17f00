"""Keys of the dual encoder."""

from dataclasses import dataclass

from ranjax.core.checks import at_least, one_of
from ranjax.core.errors import ConfigError
from ranjax.core.settings import Group, keys_of, setting
from ranjax.run.schema.entry_keys import Config


@dataclass(frozen=True)
class Model(Group):
    """Settings of the dual encoder."""

    weights: str = setting(
        "",
        "Checkpoint to start from (docs/models.md): a folder, or one .safetensors file; empty: random weights.",
        "path",
    )
    text_weights: str = setting(
        "", "Folder of a BERT to start the text tower from, beside an image tower; empty: none.", "path"
    )
    image_weights: str = setting(
        "",
        "Image tower to set beside model.text_weights (docs/models.md): folder or .safetensors file; empty: a new one.",
        "path",
    )
    text_pooling: str = setting(
        "pooler",
        "A text's vector out of model.text_weights: BERT's own pooler, its first token, the mean of its tokens.",
        check=one_of("pooler", "cls", "mean"),
    )
    projection: str = setting(
        "linear",
        "What joins model.text_weights and its image tower to the shared space.",
        check=one_of("linear", "mlp"),
    )
    patch_size: int = setting(16, "Side of a patch.", "pixels", at_least(1))
    vision_width: int = setting(128, "Width of the image tower.", "channels", at_least(8))
    vision_layers: int = setting(3, "Blocks of the image tower.", "layers", at_least(1))
    vision_heads: int = setting(4, "Attention heads of the image tower.", "heads", at_least(1))
    text_width: int = setting(96, "Width of the text tower.", "channels", at_least(8))
    text_layers: int = setting(1, "Blocks of the text tower.", "layers", at_least(1))
    text_heads: int = setting(4, "Attention heads of the text tower.", "heads", at_least(1))
    embed_dim: int = setting(128, "Width of the shared embedding.", "channels", at_least(4))
    activation: str = setting("quick_gelu", "Activation of the MLPs.", check=one_of("gelu", "quick_gelu"))
    compute_dtype: str = setting(
        "float32",
        "What towers compute in; parameters, layer norms, softmax and embeddings stay at float32.",
        check=one_of("float32", "bfloat16"),
    )
    remat: bool = setting(False, "Compute blocks again in the backward pass rather than keep their activations.")
    scan: bool = setting(False, "Run the blocks as one scanned block: compiles faster; slower steps on a CPU.")


KEYS = keys_of("model", Model)
SIZES = (
    "patch_size", "vision_width", "vision_layers", "vision_heads", "text_width", "text_layers", "text_heads",
    "embed_dim",
)  # fmt: skip
"""Keys of shapes, which given weights bring along."""
DEFAULTS = {key.name: key.default for key in KEYS}


def check(config: Config) -> None:
    """Raises a ConfigError where keys do not fit each other."""
    model = config.model
    if model.weights and model.text_weights:
        raise ConfigError(
            "model.text_weights", model.text_weights, "empty where model.weights names a whole checkpoint"
        )
    if model.image_weights and not model.text_weights:
        raise ConfigError("model.image_weights", model.image_weights, "empty without model.text_weights beside it")
    for tower in ("vision", "text"):
        width, heads = model[f"{tower}_width"], model[f"{tower}_heads"]
        if width % heads:
            raise ConfigError(f"model.{tower}_heads", heads, f"a divisor of model.{tower}_width = {width}")
    if not (model.weights or model.image_weights) and config.data.image_size % model.patch_size:
        raise ConfigError(
            "model.patch_size", model.patch_size, f"a divisor of data.image_size = {config.data.image_size}"
        )


def notes(config: Config) -> list[str]:
    """What a config says of the encoder and given weights decide: each key by name, as it is not read."""
    model = config.model
    image = [key for key in SIZES if key.startswith("vision_")] + ["patch_size"]
    text = [key for key in SIZES if key.startswith("text_")]
    unread: dict[str, list[str]] = {}
    if model.weights:
        unread["model.weights"] = [*SIZES, "activation", "projection", "text_pooling"]
    elif model.text_weights:
        unread["model.text_weights"] = text
        if model.image_weights:
            unread["model.image_weights"] = [*image, "activation"]
    else:
        unread[""] = ["projection", "text_pooling"]
    found = []
    for source, keys in unread.items():
        why = f"{source} = {model[source.removeprefix('model.')]!r} decides it" if source else "no model.text_weights"
        for key in keys:
            if model[key] != DEFAULTS[f"model.{key}"]:
                found.append(f"model.{key} = {model[key]!r} is not used: {why}")
    return found
