"""The config of a dual encoder: an image tower, a text tower, and what joins them."""

from __future__ import annotations

import dataclasses

from ranjax.core.errors import ConfigError
from ranjax.models.towers.contract import CLIP_MEAN, CLIP_STD, OPTIONS, ImageTowerConfig, TextTowerConfig
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.tower_configs import TextTransformerConfig, ViTConfig
from ranjax.models.towers.tower_table import tower_of

COMPUTE_DTYPES = ("params", "float32", "bfloat16")
ATTENTIONS = ("auto", "plain")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualEncoderConfig:
    """The config of a dual encoder; hashable, so that it can be static under `jax.jit`.

    Attributes:
      image, text: the towers' configs.
      embed_dim: D, width of the shared space.
      image_projection, text_projection: from each tower's width to D.
      logit_scale_init: natural logarithm of the starting logit scale.
      scale_limited: the logit scale is held at 100 at most, as CLIP's; SigLIP's is free.
      logit_bias_init: start of the bias of the logits (SigLIP's sigmoid loss), None where there is none.
      pixel_mean, pixel_std: one number per channel; None = CLIP's for 3 channels, 0.5 and 0.25 for one.
      grey_to_rgb: a 1-channel image is repeated for a 3-channel tower.
      compute_dtype: "params" computes in the parameters' own dtype; "float32"; or "bfloat16", with layer norms,
        softmax and outputs at higher precision.
      remat: recompute each block in the backward pass instead of keeping its activations.
      scan: run the blocks as one scanned block, to the same bits. Deep towers compile faster; the default's 3 blocks do
        not: their step took 9.3 s of CPU time in place of 6.7. Slower to run on a CPU.
      attention: "auto" takes the platform's fused kernel where it has one, "plain" is written out everywhere
        (`models.attention`).
      layout: the layout of files that it is written in (`checkpoints.layouts`); "": the first that can hold it.
        Configs that differ in it alone are equal.
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
    attention: str = "auto"
    # Not compared, as nothing is computed with it: an encoder just made shares the programs of one that was read.
    layout: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.embed_dim, bool) or not isinstance(self.embed_dim, int) or self.embed_dim < 1:
            raise ConfigError("model.embed_dim", self.embed_dim, "a whole number of at least 1")
        if self.compute_dtype not in COMPUTE_DTYPES:
            raise ConfigError("model.compute_dtype", self.compute_dtype, f"one of {', '.join(COMPUTE_DTYPES)}")
        if self.attention not in ATTENTIONS:
            raise ConfigError("model.attention", self.attention, f"one of {', '.join(ATTENTIONS)}")
        self._fill_pixels()
        joins = ((self.image, self.image_projection), (self.text, self.text_projection))
        for config, projection in joins:
            tower = tower_of(config)
            if projection.kind == "none" and config.outputs != self.embed_dim:
                expected = f"{config.outputs}, as the {tower.kind} tower has no projection"
                raise ConfigError("model.embed_dim", self.embed_dim, expected)
            for option in OPTIONS:
                if getattr(self, option) and option not in tower.options:
                    raise ConfigError(
                        f"model.{option}", True, f"false for the tower {tower.name!r}, which has no such way"
                    )

    def _fill_pixels(self) -> None:
        """Fill pixel statistics where they are None, and check them."""
        rgb = self.channels == 3
        defaults = {"pixel_mean": CLIP_MEAN if rgb else (0.5,), "pixel_std": CLIP_STD if rgb else (0.25,)}
        for name, default in defaults.items():
            given = getattr(self, name)
            value = tuple(float(v) for v in (default if given is None else given))
            if len(value) != self.channels:
                raise ConfigError(f"model.{name}", value, f"one number for each of the {self.channels} channels")
            # A mean of 123.7, say, is of pixels from 0 to 255, at which every image would look black.
            if not all(0 <= v <= 1 for v in value) or (name == "pixel_std" and min(value) <= 0):
                expected = f"numbers of pixels in [0, 1]{', above 0' * (name == 'pixel_std')}"
                raise ConfigError(f"model.{name}", value, expected)
            object.__setattr__(self, name, value)
        if self.grey_to_rgb and not rgb:
            raise ConfigError("model.grey_to_rgb", True, "false for an image tower of one channel")

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


def clip(
    *,
    vocab_size: int,
    eos_id: int,
    bos_id: int | None = None,
    pad_id: int | None = None,
    max_length: int = 32,
    text_width: int = 192,
    text_layers: int = 6,
    text_heads: int = 3,
    image_size: int = 64,
    channels: int = 1,
    patch_size: int = 8,
    vision_width: int = 192,
    vision_layers: int = 12,
    vision_heads: int = 3,
    activation: str = "quick_gelu",
    embed_dim: int = 128,
    grey_to_rgb: bool = False,
    compute_dtype: str = "params",
) -> DualEncoderConfig:
    """Return the config of a CLIP: a vision transformer and a causal text transformer, MLPs 4 times as wide.

    See `ViTConfig`, `TextTransformerConfig` and `DualEncoderConfig`, whose fields these are.
    """
    image = ViTConfig(
        image_size=image_size,
        channels=channels,
        patch_size=patch_size,
        width=vision_width,
        layers=vision_layers,
        heads=vision_heads,
        activation=activation,
    )
    text = TextTransformerConfig(
        vocab_size=vocab_size,
        max_length=max_length,
        width=text_width,
        layers=text_layers,
        heads=text_heads,
        activation=activation,
        eos_id=eos_id,
        bos_id=bos_id,
        pad_id=pad_id,
    )
    return DualEncoderConfig(
        image=image,
        text=text,
        embed_dim=embed_dim,
        grey_to_rgb=grey_to_rgb,
        compute_dtype=compute_dtype,
        layout="clip",
    )
