"""A dual encoder put together from any image tower and any text tower, and the table of towers.

A tower is a frozen config and the module that is built from it, ``module(config, rngs, remat, scan)``; a new
kind is one line in `IMAGE_TOWERS` or `TEXT_TOWERS`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import nnx

from ranjax.core.errors import ConfigError
from ranjax.models.clip_config import CLIP_MEAN, CLIP_STD, COMPUTE_DTYPES, DualEncoderConfig
from ranjax.models.config_checks import one_of, pixels, whole_positive
from ranjax.models.towers.bert_text import BertText, BertTextConfig
from ranjax.models.towers.modified_resnet import ModifiedResNet, ModifiedResNetConfig
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.resnet import ResNet, ResNetConfig
from ranjax.models.towers.text_transformer import TextTransformer, TextTransformerConfig
from ranjax.models.towers.vision_transformer import VisionTransformer, ViTConfig

ImageTowerConfig = ViTConfig | ModifiedResNetConfig | ResNetConfig
TextTowerConfig = TextTransformerConfig | BertTextConfig
IMAGE_TOWERS: dict[type, Any] = {
    ViTConfig: VisionTransformer,
    ModifiedResNetConfig: ModifiedResNet,
    ResNetConfig: ResNet,
}
TEXT_TOWERS: dict[type, Any] = {TextTransformerConfig: TextTransformer, BertTextConfig: BertText}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowersConfig:
    """What a dual encoder of two named towers is made of; hashable.

    Attributes:
      image, text: the towers' configs.
      embed_dim: D, width of the shared space.
      image_projection, text_projection: from each tower's width to D.
      logit_scale_init: natural logarithm of the starting logit scale.
      scale_limited: the logit scale is held at 100 at most, as CLIP's; SigLIP's is free.
      logit_bias_init: start of the bias of the logits (SigLIP's sigmoid loss), None where there is none.
      pixel_mean, pixel_std, grey_to_rgb, compute_dtype, remat, scan, layout: as in `DualEncoderConfig`.
    """

    image: ImageTowerConfig
    text: TextTowerConfig
    embed_dim: int
    image_projection: Projection = LINEAR
    text_projection: Projection = LINEAR
    logit_scale_init: float = 2.6592
    scale_limited: bool = True
    logit_bias_init: float | None = None
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    grey_to_rgb: bool = False
    compute_dtype: str = "params"
    remat: bool = False
    scan: bool = False
    layout: str = "open_clip"

    def __post_init__(self) -> None:
        whole_positive(self, "model", "embed_dim")
        one_of("model.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        rgb = self.channels == 3
        pixels(self, CLIP_MEAN if rgb else (0.5,), CLIP_STD if rgb else (0.25,), self.channels)
        widths = {"image": self.image.outputs, "text": self.text.width}
        for name, width in widths.items():
            if getattr(self, f"{name}_projection").kind == "none" and width != self.embed_dim:
                raise ConfigError("model.embed_dim", self.embed_dim, f"{width}, as the {name} tower has no projection")
        if self.scan and not isinstance(self.image, ViTConfig):
            raise ConfigError("model.scan", True, "false for a residual network, whose blocks differ in shape")

    @property
    def image_size(self) -> int:
        return self.image.image_size

    @property
    def channels(self) -> int:
        return self.image.channels

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size

    @property
    def max_length(self) -> int:
        return self.text.max_length

    @property
    def text_width(self) -> int:
        return self.text.width

    @property
    def eos_id(self) -> int | None:
        return self.text.eos_id


def towers(config: DualEncoderConfig | TowersConfig) -> TowersConfig:
    """A CLIP's flat config as one of two towers; any other as it is."""
    if isinstance(config, TowersConfig):
        return config
    same = {"activation": config.activation, "layer_norm_eps": config.layer_norm_eps}
    image = ViTConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.vision_width,
        layers=config.vision_layers,
        heads=config.vision_heads,
        mlp_width=config.vision_mlp_width or 4 * config.vision_width,
        channels=config.channels,
        **same,
    )
    text = TextTransformerConfig(
        vocab_size=config.vocab_size,
        max_length=config.max_length,
        width=config.text_width,
        layers=config.text_layers,
        heads=config.text_heads,
        mlp_width=config.text_mlp_width or 4 * config.text_width,
        pooling=config.text_pooling,
        eos_id=config.eos_id,
        bos_id=config.bos_id,
        pad_id=config.pad_id,
        **same,
    )
    shared = {field.name for field in dataclasses.fields(TowersConfig)} & {
        field.name for field in dataclasses.fields(DualEncoderConfig)
    }
    return TowersConfig(image=image, text=text, **{name: getattr(config, name) for name in shared})


def resized(
    config: DualEncoderConfig | TowersConfig, image_size: int, max_length: int
) -> DualEncoderConfig | TowersConfig:
    """The same encoder for images or texts of another size. Raises ConfigError for a size that a tower cannot take."""
    if max_length < 1:
        raise ConfigError("model.max_length", max_length, "a whole number of at least 1")
    if isinstance(config, TowersConfig):
        image, text = config.image.resized(image_size), config.text.resized(max_length)
        return dataclasses.replace(config, image=image, text=text)
    return dataclasses.replace(config, image_size=image_size, max_length=max_length)


def image_tower(config: TowersConfig, rngs: nnx.Rngs) -> Any:
    """The module of a config's image tower."""
    return IMAGE_TOWERS[type(config.image)](config.image, rngs, config.remat, config.scan)


def text_tower(config: TowersConfig, rngs: nnx.Rngs) -> Any:
    """The module of a config's text tower."""
    return TEXT_TOWERS[type(config.text)](config.text, rngs, config.remat, config.scan)
