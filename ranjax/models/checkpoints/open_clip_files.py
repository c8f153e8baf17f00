"""open_clip: open_clip_config.json and its keys, in and out.

CLIP's own towers (vision transformer, ResNet, causal text), timm's vision transformers and ResNets, BERTs of
transformers: so also BiomedCLIP, and ResNet-50 beside BioClinicalBERT.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path

from ranjax.core.errors import ConfigError
from ranjax.core.files import read_object
from ranjax.models.checkpoints import efficientnet_files, open_clip_keys, timm_towers
from ranjax.models.checkpoints.bert_files import bert_keys, modern_keys, read_bert_config, write_bert_config
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.naming import (
    SAME,
    Arrangement,
    Content,
    Json,
    Keys,
    Names,
    Weights,
    blocks,
    conv_norm,
    inside,
    linear,
    named,
    stages,
    under,
)
from ranjax.models.checkpoints.padding_token import padding_id
from ranjax.models.checkpoints.timm_towers import count, need
from ranjax.models.checkpoints.transformers_towers import is_clip_vit
from ranjax.models.checkpoints.weight_files import CONFIG, WEIGHTS
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.contract import CLIP_MEAN, CLIP_STD, ImageTowerConfig, TextTowerConfig, TowerFiles
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.tower_configs import BertConfig, ModifiedResNetConfig, TextTransformerConfig, ViTConfig
from ranjax.models.towers.tower_table import CannotHoldError, files_of, files_reading

OPEN_CLIP_CONFIG = "open_clip_config.json"
_KEY = f"{OPEN_CLIP_CONFIG}: "
# What open_clip's configs do not say and timm's or transformers' names stand for; open_clip ignores this key.
OWN = "ranjax"
_TRUNK, _BERT = "visual.trunk.", "text.transformer."


POOLERS = {"cls_pooler": "pooler", "mean_pooler": "mean", "cls_last_hidden_state_pooler": "cls"}
"""open_clip's names of a BERT's pooling -> ours."""
_BERT_HEAD_WIDTH = 64


def _own(content: Content, group: str) -> Json:
    """Return the fields that open_clip's own transformers share; `content` says the model's activation, too."""
    prefix = f"open_clip_config.json: {group}."
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
    names: Names = {
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


def _read(content: Content, folder: Path, weights: Weights) -> DualEncoderConfig:
    model = content.get("model_cfg", content)
    pixels, own = content.get("preprocess_cfg") or {}, content.get(OWN) or {}
    open_clip_keys.check(content)
    shared = {"embed_dim": model["embed_dim"], "activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    image, image_projection = _image_of(shared | dict(model["vision_cfg"]) | own, weights)
    text, text_projection = _text_of(shared | dict(model["text_cfg"]), weights, folder)
    rgb = image.channels == 3
    bias = "logit_bias" in weights or model.get("init_logit_bias") is not None
    return DualEncoderConfig(
        image=image,
        text=text,
        embed_dim=model["embed_dim"],
        image_projection=image_projection,
        text_projection=text_projection,
        scale_limited=not bias,
        logit_bias_init=float(_given(model, "init_logit_bias", -10.0)) if bias else None,
        pixel_mean=tuple(pixels.get("mean") or (CLIP_MEAN if rgb else ())) or None,
        pixel_std=tuple(pixels.get("std") or (CLIP_STD if rgb else ())) or None,
        layout="open_clip",
    )


def _given(content: Content, key: str, otherwise: float) -> float:
    found: float = otherwise if content.get(key) is None else content[key]
    return found


def _image_of(content: Content, weights: Weights) -> tuple[ImageTowerConfig, Projection]:
    name, size = content.get(timm_towers.NAME), content["embed_dim"]
    if not name:
        files = files_reading(content, "open_clip", "image")
        assert files is not None
        image = files.read(content, inside(weights, "visual."))
        return image, LINEAR if files.kind == "vit" else Projection(kind="none")
    files = files_reading(content, "timm", "image")
    if files is None:
        raise ConfigError(_KEY + timm_towers.NAME, name, f"{efficientnet_files.KNOWN}, {timm_towers.KNOWN}")
    image = files.read(content, inside(weights, _TRUNK))
    timm_towers.refuse_pool(
        content.get(timm_towers.POOL, "avg"), files.write(image)[timm_towers.POOL], _KEY + timm_towers.POOL
    )
    kind, bias = content.get("timm_proj", "linear"), content.get("timm_proj_bias", False)
    if kind == "none":
        return image, Projection(kind="none")
    if kind == "linear":
        return image, Projection(bias=bias)
    if kind == "mlp":
        return image, Projection(kind="mlp", hidden=2 * size, hidden_bias=True, bias=bias)
    raise ConfigError(f"{_KEY}timm_proj", kind, "'linear', 'mlp' or 'none'")


def _text_of(content: Content, weights: Weights, folder: Path) -> tuple[TextTowerConfig, Projection]:
    size = content["embed_dim"]
    if content.get("hf_model_name"):
        bert = bert_of(content, inside(weights, _BERT), folder)
        kind = content.get("hf_proj_type", "mlp")
        if kind not in ("linear", "mlp", None):
            raise ConfigError(f"{_KEY}hf_proj_type", kind, "'linear', 'mlp' or null")
        return bert, Projection(kind=kind or "none", hidden=(bert.width + size) // 2 if kind == "mlp" else 0)
    files = files_reading(content, "open_clip", "text")
    assert files is not None
    if content.get("pool_type") == "last":
        pad = padding_id(folder, content.get("pad_id"), content.get("vocab_size", 49408))
        content = {**content, "pad_id": pad}
    return files.read(content, weights), Projection(bias=content.get("proj_bias", False))


def bert_of(content: Content, weights: Weights, folder: Path) -> BertConfig:
    """Return a BERT: by the folder's config.json if that is a BERT's, else by shapes, which is logged.

    Args:
      content: ``hf_model_name`` and ``hf_pooler_type`` of a ``text_cfg``.
      weights: of the BERT, its own keys.
      folder: of the checkpoint.

    Raises:
      ConfigError: a config.json of a BERT that is not implemented, or a pooling that is none.
      WeightsError: the tensors by which a BERT is recognised are missing.
    """
    name, pooling = content["hf_model_name"], bert_pooling(content)
    found = read_object(folder / CONFIG)
    if found.get("model_type") == "bert":
        return dataclasses.replace(read_bert_config(found, pooling), name=name)
    if found.get("model_type") and "text_config" not in found:
        raise ConfigError("config.json: model_type", found["model_type"], "'bert', the text tower beside open_clip's")
    bert = read_bert(content, weights)
    logging.getLogger("ranjax").warning(
        "%s names its text tower %r and holds no config.json of it: taken as a BERT of width %d with %d heads",
        *(folder, name, bert.width, bert.heads),
    )
    return bert


def _towers(config: DualEncoderConfig) -> tuple[TowerFiles, TowerFiles]:
    """Return how both towers are kept; raises CannotHoldError."""
    try:
        image = files_of(config.image, "open_clip")
    except CannotHoldError:
        image = files_of(config.image, "timm")
    return image, files_of(config.text, "open_clip")


def _check(config: DualEncoderConfig) -> None:
    image, text = _towers(config)
    shown, written = config.image_projection, config.text_projection
    if image.library == "open_clip" and shown != (LINEAR if image.kind == "vit" else Projection(kind="none")):
        raise CannotHoldError("open_clip's own image towers have a projection of their own kind")
    if getattr(config.image, "pooling", "") == "probe" and shown.kind != "none":
        raise CannotHoldError("open_clip's SigLIP projects images not at all")
    if text.kind == "bert":
        if written.kind == "mlp" and written.hidden != (config.text.outputs + config.embed_dim) // 2:
            raise CannotHoldError("open_clip's MLP behind a text tower is half as wide as both ends together")
    elif written.kind != "linear":
        raise CannotHoldError("open_clip has a linear map behind its own text tower")
    own = [tower for tower, files in ((config.image, image), (config.text, text)) if files.kind != "bert"]
    quick = {tower.activation == "quick_gelu" for tower in own if hasattr(tower, "activation")}
    if image.library == "open_clip" and len(quick) > 1:
        raise CannotHoldError("open_clip has QuickGELU in both towers or in none")


def _write(config: DualEncoderConfig, dtype: str) -> dict[str, Json]:
    image, text = _towers(config)
    shown, written = config.image_projection, config.text_projection
    vision_cfg = {"image_size": config.image_size, **image.write(config.image)}
    own = {timm_towers.HEADS: vision_cfg.pop(timm_towers.HEADS)} if timm_towers.HEADS in vision_cfg else {}
    if image.library == "timm":
        vision_cfg |= {"timm_model_pretrained": False, "timm_proj": shown.kind, "timm_proj_bias": shown.bias}
    text_cfg = text.write(config.text)
    model: Json = {"embed_dim": config.embed_dim, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    files: dict[str, Json] = {}
    activation = getattr(config.text if text.kind != "bert" else config.image, "activation", "")
    model["quick_gelu"] = activation == "quick_gelu"
    if isinstance(config.text, BertConfig):
        text_cfg["hf_proj_type"] = None if written.kind == "none" else written.kind
        files[CONFIG] = write_bert_config(config.text)
    elif written.bias:
        text_cfg["proj_bias"] = model["custom_text"] = True
    if config.logit_bias_init is not None:
        model["init_logit_bias"] = config.logit_bias_init
    content: Json = {"model_cfg": model}
    content["preprocess_cfg"] = {"mean": list(config.pixel_mean or ()), "std": list(config.pixel_std or ())}
    if own:
        content[OWN] = own
    return files | {OPEN_CLIP_CONFIG: content}


def _keys(config: DualEncoderConfig) -> Keys:
    image, text = _towers(config)
    shown, written = config.image_projection, config.text_projection
    keys: Keys = {("log_scale" if config.scale_limited else "free_log_scale",): ("logit_scale", SAME)}
    if config.logit_bias_init is not None:
        keys[("bias",)] = ("logit_bias", SAME)
    if image.library == "timm":
        keys |= under(image.keys(config.image), ("vision",), _TRUNK)
        keys |= _projection("visual_projection", shown, "visual.head.proj", "visual.head.mlp.fc{}", (1, 2))
    else:
        keys |= under(image.keys(config.image), ("vision",), "visual.")
        if shown.kind == "linear":
            keys[("visual_projection", "kernel")] = ("visual.proj", SAME)
    if text.kind == "bert":
        keys |= under(text.keys(config.text), ("text",), _BERT)
        return keys | _projection("text_projection", written, "text.proj", "text.proj.{}", (0, 2))
    if written.bias:
        # SigLIP's: a linear module, in a class that keeps the tower apart.
        keys |= under(text.keys(config.text), ("text",), "text.")
        return keys | linear("text_projection", "text.text_projection")
    keys[("text_projection", "kernel")] = ("text_projection", SAME)
    return keys | under(text.keys(config.text), ("text",), "")


def _projection(path: str, projection: Projection, plain: str, mlp: str, numbers: tuple[int, int]) -> Keys:
    """Return the keys of a projection: `plain` of a linear map, `mlp` with ``{}`` for the numbers of an MLP's two."""
    if projection.kind == "none":
        return {}
    if projection.kind == "linear":
        return linear(path, plain, projection.bias)
    first, second = (mlp.format(number) for number in numbers)
    return linear(f"{path}/fc1", first, projection.hidden_bias) | linear(f"{path}/fc2", second, projection.bias)


def _tidy(weights: Weights) -> Weights:
    """Return BERTs under today's names; native text towers behind "text." where the projection is a linear module.

    open_clip has two classes for the same towers, with and without that prefix. SigLIP's are published with it, CLIP's
    without.
    """
    weights = modern_keys(weights)
    prefixed = "text.token_embedding.weight" in weights
    module = any(key.endswith("text_projection.weight") for key in weights)
    if prefixed and not module:
        return {key.removeprefix("text."): value for key, value in weights.items()}
    if module and not prefixed:
        outside = ("visual.", "logit_")
        return {key if key.startswith(outside) else f"text.{key}": value for key, value in weights.items()}
    return weights


OPEN_CLIP = Layout(
    name="open_clip",
    label="open_clip",
    recognises=lambda content: "vision_cfg" in content.get("model_cfg", content),
    read=_read,
    keys=_keys,
    check=_check,
    write=_write,
    config_file=OPEN_CLIP_CONFIG,
    # Older exports have the same layout under other names.
    weights_files=("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", WEIGHTS),
    tidy=_tidy,
)
