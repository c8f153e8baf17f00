"""Keys of open_clip_config.json: used, known to change nothing, or refused by their names."""

from __future__ import annotations

from collections.abc import Mapping

from ranjax.core.errors import ConfigError
from ranjax.models.checkpoints.config_keys import object_of, refuse_statistics, refuse_type, refuse_unknown
from ranjax.models.checkpoints.naming import Content

_KEY = "open_clip_config.json: "
# Switches at which open_clip's own towers are what is implemented here.
_SHARED: Mapping[str, object] = {
    "ls_init_value": None,
    "final_ln_after_pool": False,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
_ONLY: Mapping[str, Mapping[str, object]] = {
    "vision_cfg": {
        **_SHARED,
        "attentional_pool": False,
        "no_ln_pre": False,
        "pos_embed_type": "learnable",
        "input_patchnorm": False,
        "global_average_pool": False,
    },
    "text_cfg": {**_SHARED, "embed_cls": False, "proj_type": "linear"},
}
# Of each group the keys that are read, with an example of their type.
_TOWER: Mapping[str, object] = {"width": 1, "mlp_ratio": 1.0, "act_kwargs": None, "norm_kwargs": None}
_READ: Mapping[str, Mapping[str, object]] = {
    "": {"embed_dim": 1, "vision_cfg": None, "text_cfg": None, "quick_gelu": True, "init_logit_bias": 1.0},
    "vision_cfg": {
        **_TOWER,
        "layers": None,
        "image_size": 1,
        "patch_size": 1,
        "head_width": 1,
        "pool_type": "",
        "timm_model_name": "",
        "timm_pool": "",
        "timm_proj": "",
        "timm_proj_bias": True,
    },
    "text_cfg": {
        **_TOWER,
        "layers": 1,
        "heads": 1,
        "context_length": 1,
        "vocab_size": 1,
        "pad_id": 1,
        "eos_id": 1,
        "no_causal_mask": True,
        "pool_type": "",
        "proj_bias": True,
        "hf_model_name": "",
        "hf_pooler_type": "",
        "hf_proj_type": "",
        "tokenizer_kwargs": None,
    },
}
# Of training, of where weights come from, of what is given out besides the features; the tokenizer lies in the folder.
_HARMLESS: Mapping[str, str] = {
    "": "custom_text force_custom_text init_logit_scale output_dict cast_dtype precision jit hf_hub_id",
    "vision_cfg": "patch_dropout attn_pooler_queries attn_pooler_heads output_tokens timm_model_pretrained timm_drop "
    "timm_drop_path",
    "text_cfg": "hf_tokenizer_name hf_model_pretrained output_tokens",
    "tokenizer_kwargs": "context_length",
    "preprocess_cfg": "size interpolation resize_mode fill_color",
}
# Keys that stand for nothing where they are null.
_NULLS = (
    *("quick_gelu", "init_logit_bias", "timm_model_name", "timm_pool", "timm_proj"),
    *("hf_model_name", "hf_proj_type", "pad_id"),
)
# Keys of a tower of timm or transformers that open_clip itself leaves to that library.
_ELSEWHERE = {"vision_cfg": "timm_model_name", "text_cfg": "hf_model_name"}


def check(content: Content) -> None:
    """Refuse what is not implemented.

    Raises:
      ConfigError: a group that is missing or no object, a key that is neither used nor known to change nothing, or a
        value of another type.
    """
    model = object_of(content, "model_cfg", _KEY) if "model_cfg" in content else content
    for key in ("vision_cfg", "text_cfg", "embed_dim"):
        if model.get(key) is None:
            raise ConfigError(_KEY + key, None, "present")
    if model.get("multimodal_cfg"):
        raise ConfigError(f"{_KEY}multimodal_cfg", "CoCa", "absent: two towers without a decoder")
    if "model_cfg" in content:
        refuse_unknown(content, ("model_cfg", "preprocess_cfg", "ranjax"), _KEY, frozenset())
    _check_group(model, "", ("preprocess_cfg", "ranjax"))
    for name in ("vision_cfg", "text_cfg"):
        _check_group(object_of(model, name, _KEY), name)
    _check_pixels(object_of(content, "preprocess_cfg", _KEY))
    for key, value in (own := object_of(content, "ranjax", _KEY)).items():
        refuse_unknown(own, ("image_heads",), f"{_KEY}ranjax.", frozenset())
        refuse_type(f"{_KEY}ranjax.{key}", value, 1, "")


def _check_group(group: Content, name: str, more: tuple[str, ...] = ()) -> None:
    prefix, only = f"{_KEY}{name}." if name else _KEY, _ONLY.get(name, {})
    elsewhere = bool(group.get(_ELSEWHERE.get(name, "")))
    for key, wanted in only.items():
        if not elsewhere and group.get(key) not in (wanted, None, "default"):
            raise ConfigError(prefix + key, group[key], repr(wanted))
    refuse_unknown(group, (*_READ[name], *only, *more), prefix, frozenset(_HARMLESS[name].split()))
    for key, example in _READ[name].items():
        patchless = key == "patch_size" and isinstance(group.get("layers"), list)  # a ResNet
        if group.get(key) is not None or (key in group and key not in _NULLS and not patchless):
            refuse_type(prefix + key, group[key], example, "")
    layers = group.get("layers", 1)
    if not (type(layers) is int or (isinstance(layers, list) and all(type(n) is int for n in layers))):
        raise ConfigError(f"{prefix}layers", layers, "a whole number, or a list of them")
    for key, known in (("norm_kwargs", ("eps",)), ("act_kwargs", ("approximate",))):
        inner = object_of(group, key, prefix)
        refuse_unknown(inner, known, f"{prefix}{key}.", frozenset())
        if "eps" in inner:
            refuse_type(f"{prefix}{key}.eps", inner["eps"], 1.0, "")
    own, inner = object_of(group, "tokenizer_kwargs", prefix), f"{prefix}tokenizer_kwargs."
    refuse_unknown(own, ("clean",), inner, frozenset(_HARMLESS["tokenizer_kwargs"].split()))
    if own.get("clean") not in (None, "canonicalize", "lower", "whitespace"):
        raise ConfigError(f"{inner}clean", own["clean"], "'canonicalize', 'lower' or 'whitespace'")


def _check_pixels(group: Content) -> None:
    prefix = f"{_KEY}preprocess_cfg."
    refuse_unknown(group, ("mean", "std", "mode"), prefix, frozenset(_HARMLESS["preprocess_cfg"].split()))
    refuse_statistics({key: value or None for key, value in group.items()}, ("mean", "std"), prefix)
    if group.get("mode") not in (None, "RGB"):
        raise ConfigError(f"{prefix}mode", group["mode"], "'RGB'")
