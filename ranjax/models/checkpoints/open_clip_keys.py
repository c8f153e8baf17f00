"""Keys of open_clip's files: its own towers, timm's (``visual.trunk``), transformers' (``text.transformer``)."""

from __future__ import annotations

from ranjax.models.checkpoints.bert_files import bert_layout
from ranjax.models.checkpoints.naming import (
    LINEAR,
    SAME,
    Layout,
    fused_attention,
    lead_arrangement,
    linear,
    norm,
    patch_arrangement,
    under,
)
from ranjax.models.checkpoints.resnet_keys import modified_resnet_keys, torchvision_keys
from ranjax.models.checkpoints.transformers_parts import is_clip_vision
from ranjax.models.encoder_config import TowersConfig, towers
from ranjax.models.towers.modified_resnet import ModifiedResNetConfig
from ranjax.models.towers.projection_head import Projection
from ranjax.models.towers.resnet import ResNetConfig
from ranjax.models.towers.text_transformer import TextTransformerConfig
from ranjax.models.towers.vision_transformer import ViTConfig


def open_clip_keys(config: object) -> Layout:
    """Every parameter's key in an open_clip file."""
    parts = towers(config)  # type: ignore[arg-type]
    layout: Layout = {("log_scale" if parts.scale_limited else "free_log_scale",): ("logit_scale", SAME)}
    if parts.logit_bias_init is not None:
        layout[("bias",)] = ("logit_bias", SAME)
    return layout | _image(parts) | _text(parts)


def _image(parts: TowersConfig) -> Layout:
    image, path = parts.image, ("visual_projection",)
    if isinstance(image, ModifiedResNetConfig):
        return under(modified_resnet_keys(image), ("vision",), "visual.")
    if is_clip_vision(image):
        return under(_vit_keys(image), ("vision",), "visual.") | {(*path, "kernel"): ("visual.proj", SAME)}
    trunk = torchvision_keys(image) if isinstance(image, ResNetConfig) else timm_vit_keys(image)
    projection = parts.image_projection
    if projection.kind == "none":
        head: Layout = {}
    elif projection.kind == "mlp":
        head = _mlp(path, projection, "visual.head.mlp.fc1", "visual.head.mlp.fc2")
    else:
        head = linear(path, "visual.head.proj", projection.bias)
    return under(trunk, ("vision",), "visual.trunk.") | head


def _text(parts: TowersConfig) -> Layout:
    text, path, projection = parts.text, ("text_projection",), parts.text_projection
    if isinstance(text, TextTransformerConfig):
        if projection.bias:
            # SigLIP's: a linear module, in a class that keeps the tower apart.
            return under(_text_keys(text), ("text",), "text.") | linear(path, "text.text_projection")
        return under(_text_keys(text), ("text",), "") | {(*path, "kernel"): ("text_projection", SAME)}
    keys = under(bert_layout(text.bert), ("text",), "text.transformer.")
    if projection.kind == "none":
        return keys
    if projection.kind == "mlp":
        return keys | _mlp(path, projection, "text.proj.0", "text.proj.2")
    return keys | linear(path, "text.proj", bias=False)


def _mlp(path: tuple[str, ...], projection: Projection, first: str, second: str) -> Layout:
    return linear((*path, "fc1"), first, projection.hidden_bias) | linear((*path, "fc2"), second, projection.bias)


def _vit_keys(config: ViTConfig) -> Layout:
    layout: Layout = {
        ("patch_embedding",): ("conv1.weight", patch_arrangement(config.patch_size, config.channels)),
        ("class_embedding",): ("class_embedding", SAME),
        ("positions",): ("positional_embedding", SAME),
        **norm(("norm_before",), "ln_pre"),
        **norm(("norm_after",), "ln_post"),
    }
    return layout | _blocks(config.layers)


def _text_keys(config: TextTransformerConfig) -> Layout:
    layout: Layout = {
        ("token_embedding",): ("token_embedding.weight", SAME),
        ("positions",): ("positional_embedding", SAME),
        **norm(("norm_after",), "ln_final"),
    }
    return layout | _blocks(config.layers)


def _blocks(layers: int) -> Layout:
    layout: Layout = {}
    for i in range(layers):
        path, prefix = ("blocks", "layers", str(i)), f"transformer.resblocks.{i}"
        layout |= norm((*path, "norm1"), f"{prefix}.ln_1") | norm((*path, "norm2"), f"{prefix}.ln_2")
        attention = (f"{prefix}.attn.in_proj_weight", f"{prefix}.attn.in_proj_bias", f"{prefix}.attn.out_proj")
        layout |= fused_attention((*path, "attention"), *attention)
        layout |= linear((*path, "mlp", "fc1"), f"{prefix}.mlp.c_fc")
        layout |= linear((*path, "mlp", "fc2"), f"{prefix}.mlp.c_proj")
    return layout


def timm_vit_keys(config: ViTConfig) -> Layout:
    """Keys of timm's VisionTransformer, with a class token or with SigLIP's pooling by attention."""
    layout: Layout = {
        ("patch_embedding",): ("patch_embed.proj.weight", patch_arrangement(config.patch_size, config.channels)),
        ("patch_bias",): ("patch_embed.proj.bias", SAME),
        ("positions",): ("pos_embed", lead_arrangement(1)),
        **norm(("norm_after",), "norm"),
    }
    for i in range(config.layers):
        path, prefix = ("blocks", "layers", str(i)), f"blocks.{i}"
        layout |= norm((*path, "norm1"), f"{prefix}.norm1") | norm((*path, "norm2"), f"{prefix}.norm2")
        attention = (f"{prefix}.attn.qkv.weight", f"{prefix}.attn.qkv.bias", f"{prefix}.attn.proj")
        layout |= fused_attention((*path, "attention"), *attention)
        for part in ("fc1", "fc2"):
            layout |= linear((*path, "mlp", part), f"{prefix}.mlp.{part}")
    if config.pooling == "class":
        return layout | {("class_embedding",): ("cls_token", lead_arrangement(2))}
    return layout | _attention_pool(("pool",), "attn_pool")


def _attention_pool(path: tuple[str, ...], prefix: str) -> Layout:
    layout: Layout = {
        (*path, "probe"): (f"{prefix}.latent", lead_arrangement(2)),
        **norm((*path, "norm"), f"{prefix}.norm"),
    }
    attention = (*path, "attention")
    layout |= linear((*attention, "query"), f"{prefix}.q") | linear((*attention, "out"), f"{prefix}.proj")
    for part, name in enumerate(("key", "value")):
        layout[(*attention, name, "kernel")] = (f"{prefix}.kv.weight", LINEAR.of(part, 2))
        layout[(*attention, name, "bias")] = (f"{prefix}.kv.bias", SAME.of(part, 2))
    for part in ("fc1", "fc2"):
        layout |= linear((*path, "mlp", part), f"{prefix}.mlp.{part}")
    return layout


def is_timm_vit(config: object) -> bool:
    """Whether timm's key layout can hold an image tower."""
    return isinstance(config, ViTConfig) and config.patch_bias and not config.norm_before
