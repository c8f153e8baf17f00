"""The towers of open_clip: its own vision transformer, CLIP's ResNets and text transformer, and BERTs of transformers."""

from __future__ import annotations

import math

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.bert_files import bert_keys
from ranjax.models.checkpoints.fields import refuse_others
from ranjax.models.checkpoints.naming import (
    Arrangement,
    Content,
    Json,
    Keys,
    Weights,
    blocks,
    conv_norm,
    linear,
    named,
    stages,
)
from ranjax.models.checkpoints.timm_towers import count, need
from ranjax.models.checkpoints.transformers_towers import is_clip_vit
from ranjax.models.towers.contract import TowerFiles
from ranjax.models.towers.tower_configs import BertConfig, ModifiedResNetConfig, TextTransformerConfig, ViTConfig

POOLERS = {"cls_pooler": "pooler", "mean_pooler": "mean", "cls_last_hidden_state_pooler": "cls"}
"""open_clip's names of a BERT's pooling -> ours."""
_BERT_HEAD_WIDTH = 64
# Switches of open_clip's own towers at which they are what is implemented here.
_ONLY: dict[str, object] = {
    "ls_init_value": None,
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "final_ln_after_pool": False,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
    "embed_cls": False,
    "proj_type": "linear",
}


def _own(content: Content, group: str) -> Json:
    """Return the fields that open_clip's own transformers share; `content` says the model's activation, too."""
    prefix = f"open_clip_config.json: {group}."
    refuse_others(content, _ONLY, prefix)
    if content.get("block_type") not in (None, "default"):
        raise ConfigError(f"{prefix}block_type", content["block_type"], "None")
    activation, given = content["activation"], content.get("act_kwargs")
    if given and activation == "gelu" and given in ({"approximate": "tanh"}, {"approximate": "none"}):
        activation = "gelu_tanh" if given["approximate"] == "tanh" else "gelu"
    elif given:
        raise ConfigError(f"{prefix}act_kwargs", given, "{'approximate': 'tanh'} of a GELU, or absent")
    width = content.get("width", 768 if group == "vision_cfg" else 512)
    return {
        "width": width,
        "layers": content.get("layers", 12),
        "mlp_width": int(width * content.get("mlp_ratio", 4.0)),
        "activation": activation,
        "layer_norm_eps": (content.get("norm_kwargs") or {}).get("eps", 1e-5),
    }


def _own_content(config: ViTConfig | TextTransformerConfig) -> dict[str, object]:
    ratio = config.mlp_width / config.width
    # Multiplied and cut off, as open_clip's reading and ours do, it must give the width again.
    ratio = ratio if int(config.width * ratio) == config.mlp_width else math.nextafter(ratio, math.inf)
    content: dict[str, object] = {"layers": config.layers, "width": config.width, "mlp_ratio": ratio}
    content["norm_kwargs"] = {"eps": config.layer_norm_eps}
    return content | ({"act_kwargs": {"approximate": "tanh"}} if config.activation == "gelu_tanh" else {})


_BLOCKS = blocks(
    "transformer.resblocks.{}.",
    {
        "norm1": "ln_1.*",
        "attention/query|key|value": "attn.in_proj_*",
        "attention/out": "attn.out_proj.*",
        "norm2": "ln_2.*",
        "mlp/fc1": "mlp.c_fc.*",
        "mlp/fc2": "mlp.c_proj.*",
    },
)
_POSITIONS = {"positions": "positional_embedding"}


def _read_vit(content: Content, weights: Weights) -> ViTConfig:
    fields = _own(content, "vision_cfg")
    if content.get("pool_type", "tok") != "tok":
        raise ConfigError("open_clip_config.json: vision_cfg.pool_type", content["pool_type"], "'tok'")
    return ViTConfig(
        **fields,
        image_size=content.get("image_size", 224),
        patch_size=content.get("patch_size", 16),
        channels=_channels(weights),
        heads=fields["width"] // content.get("head_width", 64),
    )


def _channels(weights: Weights) -> int:
    return weights["conv1.weight"].shape[1] if "conv1.weight" in weights else 3


def _write_vit(config: ViTConfig) -> dict[str, object]:
    return _own_content(config) | {"patch_size": config.patch_size, "head_width": config.width // config.heads}


def _vit_keys(config: ViTConfig) -> Keys:
    patch = Arrangement("conv", (config.patch_size, config.patch_size, config.channels))
    names = {
        "patch_embedding": ("conv1.weight", patch),
        "class_embedding": "class_embedding",
        "norm_before": "ln_pre.*",
        "norm_after": "ln_post.*",
        **_POSITIONS,
        **_BLOCKS,
    }
    return named(names, config.layers)


def _is_resnet(content: Content) -> bool:
    return isinstance(content.get("layers", 12), list | tuple)


def _read_resnet(content: Content, weights: Weights) -> ModifiedResNetConfig:
    refuse_others(content, _ONLY, "open_clip_config.json: vision_cfg.")
    width = content.get("width", 768)
    return ModifiedResNetConfig(
        image_size=content.get("image_size", 224),
        channels=_channels(weights),
        width=width,
        depths=tuple(content["layers"]),
        heads=width * 32 // content.get("head_width", 64),
        pooled_width=content["embed_dim"],
    )


def _write_resnet(config: ModifiedResNetConfig) -> dict[str, object]:
    content: dict[str, object] = {"layers": list(config.depths), "width": config.width, "patch_size": None}
    return content | {"head_width": config.width * 32 // config.heads}


def _resnet_keys(config: ModifiedResNetConfig) -> Keys:
    keys = named({"pool/positions": "attnpool.positional_embedding"})
    for name, word in {"query": "q", "key": "k", "value": "v", "out": "c"}.items():
        keys |= linear(f"pool/attention/{name}", f"attnpool.{word}_proj")
    for k in range(3):
        keys |= conv_norm(("stem", str(k)), f"conv{k + 1}", f"bn{k + 1}")
    for i, j, path in stages(config.depths):
        prefix = f"layer{i + 1}.{j}"
        for k in (1, 2, 3):
            keys |= conv_norm((*path, f"conv{k}"), f"{prefix}.conv{k}", f"{prefix}.bn{k}")
        if j == 0:
            keys |= conv_norm((*path, "shortcut"), f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    return keys


def _read_text(content: Content, weights: Weights) -> TextTransformerConfig:
    fields = _own(content, "text_cfg")
    key = "open_clip_config.json: text_cfg."
    pooling = {"argmax": "highest_id", "eos": "eos", "last": "last"}.get(content.get("pool_type", "argmax"))
    if pooling is None:
        raise ConfigError(f"{key}pool_type", content["pool_type"], "'argmax', 'eos' or 'last'")
    causal = not content.get("no_causal_mask", False)
    if not causal and pooling != "last":
        raise ConfigError(f"{key}no_causal_mask", True, "false unless pool_type is 'last' (SigLIP's towers)")
    vocab_size = content.get("vocab_size", 49408)
    return TextTransformerConfig(
        **fields,
        vocab_size=vocab_size,
        max_length=content.get("context_length", 77),
        heads=content.get("heads", 8),
        causal=causal,
        pooling=pooling,
        # The largest id is pooled, and that is the end token's in every vocabulary made for it.
        eos_id=vocab_size - 1 if pooling == "highest_id" else content.get("eos_id", 1 if pooling == "last" else 2),
        pad_id=content.get("pad_id", 0),
    )


def _write_text(config: TextTransformerConfig) -> dict[str, object]:
    content = _own_content(config) | {
        "context_length": config.max_length,
        "vocab_size": config.vocab_size,
        "heads": config.heads,
        "pad_id": config.pad_id or 0,
    }
    if not config.causal:
        content["no_causal_mask"] = True
    if config.pooling == "last":
        # SigLIP's: the tokenizer of the folder, after lower-casing and without punctuation.
        own: dict[str, object] = {"hf_tokenizer_name": ".", "tokenizer_kwargs": {"clean": "canonicalize"}}
        return content | own | {"pool_type": "last"} | ({} if config.eos_id is None else {"eos_id": config.eos_id})
    if config.pooling == "highest_id" or config.eos_id == config.vocab_size - 1:
        return content | {"pool_type": "argmax"}
    return content | {"pool_type": "eos", "eos_id": config.eos_id}


def _text_keys(config: TextTransformerConfig) -> Keys:
    names = {"token_embedding": "token_embedding.weight", "norm_after": "ln_final.*"}
    return named(names | _POSITIONS | _BLOCKS, config.layers)


def _refuses_text(config: TextTransformerConfig) -> str:
    sees_padding = not config.causal and config.pooling != "last"
    return "open_clip's text towers that are not causal see padding" if sees_padding else ""


def read_bert(content: Content, weights: Weights) -> BertConfig:
    """Return a BERT as its shapes tell it, pooled as `content` says.

    Shapes tell all but the number of heads (here width / 64, as in every BERT, PubMedBERT, BioClinicalBERT published
    by that name) and constants that all of those share.

    Raises:
      WeightsError: the tensors by which a BERT is recognised are missing.
    """
    tables = {n: f"embeddings.{n}_embeddings.weight" for n in ("word", "position", "token_type")}
    need(weights, *tables.values(), "encoder.layer.0.intermediate.dense.weight")
    vocab_size, width = weights[tables["word"]].shape
    return BertConfig(
        vocab_size=vocab_size,
        width=width,
        layers=count(weights, r"encoder\.layer\.(\d+)\."),
        heads=max(width // _BERT_HEAD_WIDTH, 1),
        mlp_width=weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        max_length=weights[tables["position"]].shape[0],
        types=weights[tables["token_type"]].shape[0],
        pooling=bert_pooling(content),
        name=content["hf_model_name"],
    )


def bert_pooling(content: Content) -> str:
    """Return our name of a BERT's pooling in a ``text_cfg``. Raises ConfigError for another one."""
    given = content.get("hf_pooler_type", "mean_pooler")
    if given not in POOLERS:
        raise ConfigError("open_clip_config.json: hf_pooler_type", given, f"one of {', '.join(POOLERS)}")
    return POOLERS[given]


def _write_bert(config: BertConfig) -> dict[str, object]:
    return {
        # The encoder's config.json lies in the folder too; without a public name that folder is its name.
        "hf_model_name": config.name or ".",
        "hf_model_pretrained": False,
        "hf_pooler_type": {ours: theirs for theirs, ours in POOLERS.items()}[config.pooling],
        "context_length": config.max_length,
        "vocab_size": config.vocab_size,
    }


VIT = TowerFiles(
    library="open_clip",
    kind="vit",
    recognises=lambda content: not _is_resnet(content),
    read=_read_vit,
    write=_write_vit,
    keys=_vit_keys,
    refuses=lambda config: "" if is_clip_vit(config) else "open_clip's own vision transformer is CLIP's",
)
MODIFIED_RESNET = TowerFiles(
    library="open_clip",
    kind="modified_resnet",
    recognises=_is_resnet,
    read=_read_resnet,
    write=_write_resnet,
    keys=_resnet_keys,
)
TEXT = TowerFiles(
    library="open_clip",
    kind="text_transformer",
    recognises=lambda content: not content.get("hf_model_name"),
    read=_read_text,
    write=_write_text,
    keys=_text_keys,
    refuses=_refuses_text,
)
BERT = TowerFiles(
    library="open_clip",
    kind="bert",
    recognises=lambda content: bool(content.get("hf_model_name")),
    read=read_bert,
    write=_write_bert,
    keys=bert_keys,
    refuses=lambda config: "" if config.pooling in POOLERS.values() else f"open_clip knows no pooling {config.pooling}",
)
