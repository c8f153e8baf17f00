"""The towers of transformers: their part of a config.json, and their keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ranjax.core import files as files_of_json
from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.config_keys import OF_PICTURES, refuse_statistics, refuse_type, refuse_unknown
from ranjax.models.checkpoints.naming import (
    Arrangement,
    Content,
    Json,
    Keys,
    Names,
    TreePath,
    Weights,
    blocks,
    conv_norm,
    named,
    stages,
)
from ranjax.models.towers.contract import TowerFiles
from ranjax.models.towers.tower_configs import ResNetConfig, TextTransformerConfig, ViTConfig

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEGACY_EOS = 2
"""With this id transformers pools at the largest id of a text instead, a rule for configs older than its fix."""
ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
"""transformers' ``hidden_act`` -> ours."""


@dataclasses.dataclass(frozen=True)
class Fields:
    """How a config.json of transformers says the fields of a tower's config.

    Attributes:
      names: their name -> ours.
      defaults: transformers' own, which a config.json may leave out; their names.
      only: values that are implemented, of fields that are not read; their names.
    """

    names: Mapping[str, str]
    defaults: Mapping[str, object]
    only: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def read(self, content: Content) -> Json:
        """Return our fields.

        Raises:
          ConfigError: a value that is not implemented.
        """
        refuse_others(content, self.only, "config.json: ")
        refuse_unknown(content, (*self.names, *self.defaults, *self.only), "config.json: ")
        given = {**self.defaults, **content}
        for key, example in self.defaults.items():
            # An absent padding or begin token is said by null.
            if given[key] is not None or key not in ("bos_token_id", "pad_token_id"):
                refuse_type(key, given[key], example, "config.json: ")
        found = {ours: given[theirs] for theirs, ours in self.names.items()}
        if "activation" in found:
            if found["activation"] not in ACTIVATIONS:
                raise ConfigError("config.json: hidden_act", found["activation"], f"one of {', '.join(ACTIVATIONS)}")
            found["activation"] = ACTIVATIONS[found["activation"]]
        return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}

    def write(self, config: object) -> Json:
        """Return their fields of a config."""
        found = {theirs: getattr(config, ours) for theirs, ours in self.names.items()}
        if "hidden_act" in self.names:
            found["hidden_act"] = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}[found["hidden_act"]]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def refuse_others(content: Content, only: Mapping[str, object], prefix: str) -> None:
    """Raise ConfigError where a key has another value than the one that is implemented."""
    for key, wanted in only.items():
        if content.get(key, wanted) != wanted:
            raise ConfigError(prefix + key, content[key], repr(wanted))


_TRANSFORMER = {
    "hidden_size": "width",
    "intermediate_size": "mlp_width",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "hidden_act": "activation",
    "layer_norm_eps": "layer_norm_eps",
}
_VIT = _TRANSFORMER | {"image_size": "image_size", "patch_size": "patch_size", "num_channels": "channels"}
_TEXT = _TRANSFORMER | {
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_length",
    "bos_token_id": "bos_id",
    "eos_token_id": "eos_id",
    "pad_token_id": "pad_id",
}
_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_VIT = Fields(
    _VIT,
    _BASE
    | {"image_size": 224, "patch_size": 32, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
)
_SIGLIP_VIT = Fields(
    _VIT,
    {**_CLIP_VIT.defaults, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
    only={"vision_use_head": True},
)
_SPECIAL = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
_CLIP_TEXT = Fields(
    _TEXT,
    {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
    | {"vocab_size": 49408, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
    | _SPECIAL,
)
_SIGLIP_TEXT = Fields(
    _TEXT,
    _BASE
    | {"vocab_size": 32000, "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
    | _SPECIAL,
)
_RESNET = Fields(
    {
        "image_size": "image_size",
        "num_channels": "channels",
        "embedding_size": "stem_width",
        "hidden_sizes": "widths",
        "depths": "depths",
        "layer_type": "block",
    },
    # transformers does not name an image size.
    {"num_channels": 3, "embedding_size": 64, "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]}
    | {"layer_type": "bottleneck", "image_size": 224},
    only={"hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False},
)

_BLOCKS = blocks(
    "encoder.layers.{}.",
    {
        "norm1": "layer_norm1.*",
        "attention/query": "self_attn.q_proj.*",
        "attention/key": "self_attn.k_proj.*",
        "attention/value": "self_attn.v_proj.*",
        "attention/out": "self_attn.out_proj.*",
        "norm2": "layer_norm2.*",
        "mlp/fc1": "mlp.fc1.*",
        "mlp/fc2": "mlp.fc2.*",
    },
)
_POSITIONS = {"positions": "embeddings.position_embedding.weight"}
_TEXT_NAMES = (
    {"token_embedding": "embeddings.token_embedding.weight", "norm_after": "final_layer_norm.*"} | _POSITIONS | _BLOCKS
)
# "pre_layrnorm" is how the name is spelt in every published checkpoint.
_CLIP_NAMES: Names = {"class_embedding": "embeddings.class_embedding", "norm_before": "pre_layrnorm.*"}
_SIGLIP_NAMES: Names = {
    "patch_bias": "embeddings.patch_embedding.bias",
    "pool/probe": ("head.probe", Arrangement("lead", (1, 1))),
    "pool/attention/query|key|value": "head.attention.in_proj_*",
    "pool/attention/out": "head.attention.out_proj.*",
    "pool/norm": "head.layernorm.*",
    "pool/mlp/fc1": "head.mlp.fc1.*",
    "pool/mlp/fc2": "head.mlp.fc2.*",
}


def vit_keys(config: ViTConfig) -> Keys:
    """Return the keys of CLIP's or SigLIP's image tower, inside the tower."""
    patch = Arrangement("conv", (config.patch_size, config.patch_size, config.channels))
    names: Names = {
        "patch_embedding": ("embeddings.patch_embedding.weight", patch),
        "norm_after": "post_layernorm.*",
        **_POSITIONS,
        **_BLOCKS,
        **(_CLIP_NAMES if config.pooling == "class" else _SIGLIP_NAMES),
    }
    return named(names, config.layers)


def text_keys(config: TextTransformerConfig) -> Keys:
    """Return the keys of CLIP's or SigLIP's text tower, inside the tower."""
    return named(_TEXT_NAMES, config.layers)


def resnet_keys(config: ResNetConfig) -> Keys:
    """Return the keys of ResNetModel."""

    def pair(path: TreePath, key: str) -> Keys:
        return conv_norm(path, f"{key}.convolution", f"{key}.normalization")

    keys = pair(("stem",), "embedder.embedder")
    for i, j, path in stages(config.depths):
        prefix = f"encoder.stages.{i}.layers.{j}"
        for k in range(config.convolutions):
            keys |= pair((*path, "convs", str(k)), f"{prefix}.layer.{k}")
        if config.shortcuts(i, j):
            keys |= pair((*path, "shortcut"), f"{prefix}.shortcut")
    return keys


def _read_clip_text(content: Content, weights: Weights) -> TextTransformerConfig:
    fields = _CLIP_TEXT.read(content)
    return TextTransformerConfig(**fields, pooling="highest_id" if fields["eos_id"] == LEGACY_EOS else "eos")


def _refuses_clip_text(config: TextTransformerConfig) -> str:
    largest = config.pooling == "highest_id" and config.eos_id == config.vocab_size - 1
    if not config.causal or config.pooling == "last":
        return "transformers' CLIP has a causal text tower, pooled at the end token"
    if (config.eos_id == LEGACY_EOS) != (config.pooling == "highest_id") and not largest:
        return (
            f"model.eos_id = {config.eos_id!r} with pooling {config.pooling!r}: transformers pools at the "
            f"largest id if "
            f"and only if the end token's id is {LEGACY_EOS}"
        )
    return ""


def is_clip_vit(config: ViTConfig) -> bool:
    """Return whether a vision transformer is built as CLIP's."""
    return config.pooling == "class" and config.norm_before and not config.patch_bias


def _is_siglip_vit(config: ViTConfig) -> bool:
    return config.pooling == "probe" and config.patch_bias and not config.norm_before


def _written(kind: str, fields: Fields, config: object) -> dict[str, object]:
    return {"model_type": kind, **fields.write(config), "attention_dropout": 0.0}


CLIP_VISION = TowerFiles(
    library="transformers",
    kind="clip_vision_model",
    read=lambda content, weights: ViTConfig(**_CLIP_VIT.read(content)),
    write=lambda config: _written("clip_vision_model", _CLIP_VIT, config),
    keys=vit_keys,
    refuses=lambda config: "" if is_clip_vit(config) else "transformers' CLIP has an image tower of its own kind",
)
SIGLIP_VISION = TowerFiles(
    library="transformers",
    kind="siglip_vision_model",
    read=lambda content, weights: ViTConfig(
        **_SIGLIP_VIT.read(content), norm_before=False, patch_bias=True, pooling="probe"
    ),
    write=lambda config: _written("siglip_vision_model", _SIGLIP_VIT, config),
    keys=vit_keys,
    refuses=lambda config: "" if _is_siglip_vit(config) else "transformers' SigLIP has an image tower of its own kind",
    mean=HALF,
    std=HALF,
)
RESNET = TowerFiles(
    library="transformers",
    kind="resnet",
    read=lambda content, weights: ResNetConfig(**_RESNET.read(content)),
    write=lambda config: {"model_type": "resnet", "hidden_act": "relu", **_RESNET.write(config)},
    keys=resnet_keys,
    alone=True,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)
CLIP_TEXT = TowerFiles(
    library="transformers",
    kind="clip_text_model",
    read=_read_clip_text,
    write=lambda config: _written("clip_text_model", _CLIP_TEXT, config),
    keys=text_keys,
    refuses=_refuses_clip_text,
)
SIGLIP_TEXT = TowerFiles(
    library="transformers",
    kind="siglip_text_model",
    read=lambda content, weights: TextTransformerConfig(**_SIGLIP_TEXT.read(content), causal=False, pooling="last"),
    write=lambda config: _written("siglip_text_model", _SIGLIP_TEXT, config),
    keys=text_keys,
    refuses=lambda config: (
        "" if config.pooling == "last" and not config.causal else "transformers' SigLIP pools texts at the last place"
    ),
)


def read_pixels(folder: Path, files: TowerFiles, channels: int) -> Json:
    """Return pixel_mean and pixel_std: those of preprocessor_config.json, or where it is absent the tower's own.

    transformers 5 keeps them in processor_config.json, and takes what is there first; so it is done here.

    Raises:
      DataError: the file is no JSON.
      ConfigError: pixels that are scaled to another range than [0, 1], or a key whose meaning is not known.
    """
    content, prefix = files_of_json.read_object(folder / PROCESSOR).get("image_processor"), f"{PROCESSOR}: "
    if not isinstance(content, Mapping):
        content, prefix = files_of_json.read_object(folder / PREPROCESSOR), f"{PREPROCESSOR}: "
    refuse_unknown(content, (), prefix, OF_PICTURES)
    for key in ("do_rescale", "do_normalize"):
        if content.get(key) is not None:
            refuse_type(key, content[key], True, prefix)
    if content.get("do_rescale") is False:
        raise ConfigError(f"{prefix}do_rescale", False, "true: images are in [0, 1] here")
    factor = content.get("rescale_factor", 1 / 255)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or abs(factor * 255 - 1) > 1e-3:
        raise ConfigError(f"{prefix}rescale_factor", factor, "1/255: images are in [0, 1] here")
    refuse_statistics(content, ("image_mean", "image_std"), prefix)
    if content.get("do_normalize") is False:
        return {"pixel_mean": (0.0,) * channels, "pixel_std": (1.0,) * channels}
    mean, std = (files.mean, files.std) if channels == 3 else (None, None)
    given = {"pixel_mean": content.get("image_mean", mean), "pixel_std": content.get("image_std", std)}
    return {name: None if value is None else tuple(value) for name, value in given.items()}
