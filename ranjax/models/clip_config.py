"""Shapes and switches of a dual encoder of the CLIP family."""

from __future__ import annotations

import dataclasses

from ranjax.core.errors import ConfigError
from ranjax.models.config_checks import divides, one_of, pixels, whole_positive

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh")
COMPUTE_DTYPES = ("params", "float32", "bfloat16")
TEXT_POOLINGS = ("eos", "highest_id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DualEncoderConfig:
    """What a CLIP dual encoder is made of; hashable, so that it can be static under `jax.jit`.

    Attributes:
      image_size: height and width of an image, in pixels; divisible by `patch_size`.
      channels: channels that the image tower reads, 1 (grey) or 3.
      patch_size: side of a patch, in pixels.
      vision_width, vision_layers, vision_heads, vision_mlp_width: the image transformer; MLP width None = 4 x width.
      text_width, text_layers, text_heads, text_mlp_width: the text transformer.
      vocab_size: rows of the token table.
      max_length: longest text, in tokens.
      embed_dim: D, width of the shared space.
      eos_id: token whose first occurrence is pooled.
      bos_id, pad_id: carried for the sake of exported configs only.
      text_pooling: "eos", the first `eos_id`; or "highest_id", the first occurrence of the largest id, which is what
        checkpoints that say ``eos_token_id = 2`` mean (OpenAI's rule).
      activation: "quick_gelu" (x * sigmoid(1.702 x)), "gelu" (exact, erf) or "gelu_tanh".
      layer_norm_eps: added to the variance in every layer norm.
      pixel_mean, pixel_std: one number per channel; None = CLIP's for 3 channels, 0.5 and 0.25 for one.
      grey_to_rgb: a 1-channel image is repeated for a 3-channel tower.
      logit_scale_init: natural logarithm of the starting logit scale.
      compute_dtype: "params" computes in the parameters' own dtype; "float32"; or "bfloat16", with layer norms,
        softmax and outputs at higher precision.
      remat: recompute each block in the backward pass instead of keeping its activations.
      scan: run the blocks as one scanned block, which compiles faster and runs slower on a CPU.
      layout: whose files it is written as; see `ranjax.models.checkpoints.layouts`.
    """

    vocab_size: int
    eos_id: int
    image_size: int = 64
    channels: int = 1
    patch_size: int = 8
    vision_width: int = 192
    vision_layers: int = 12
    vision_heads: int = 3
    vision_mlp_width: int | None = None
    text_width: int = 192
    text_layers: int = 6
    text_heads: int = 3
    text_mlp_width: int | None = None
    max_length: int = 32
    embed_dim: int = 128
    bos_id: int | None = None
    pad_id: int | None = None
    text_pooling: str = "eos"
    activation: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    pixel_mean: tuple[float, ...] | None = None
    pixel_std: tuple[float, ...] | None = None
    grey_to_rgb: bool = False
    logit_scale_init: float = 2.6592
    compute_dtype: str = "params"
    remat: bool = False
    scan: bool = False
    layout: str = "clip"

    def __post_init__(self) -> None:
        whole_positive(self, "model", *_WHOLE_POSITIVE)
        if self.channels not in (1, 3):
            raise ConfigError("model.channels", self.channels, "1 (grey) or 3")
        if self.image_size % self.patch_size:
            raise ConfigError(
                "model.image_size",
                self.image_size,
                f"a multiple of model.patch_size = {self.patch_size}",
            )
        for tower in ("vision", "text"):
            width, heads = getattr(self, f"{tower}_width"), getattr(self, f"{tower}_heads")
            divides(f"model.{tower}_heads", heads, f"model.{tower}_width = {width}", width)
            if getattr(self, f"{tower}_mlp_width") is None:
                object.__setattr__(self, f"{tower}_mlp_width", 4 * width)
        if not 0 <= self.eos_id < self.vocab_size:
            raise ConfigError("model.eos_id", self.eos_id, f"an id below model.vocab_size = {self.vocab_size}")
        one_of("model.activation", self.activation, ACTIVATIONS)
        one_of("model.compute_dtype", self.compute_dtype, COMPUTE_DTYPES)
        one_of("model.text_pooling", self.text_pooling, TEXT_POOLINGS)
        rgb = self.channels == 3
        pixels(self, CLIP_MEAN if rgb else (0.5,), CLIP_STD if rgb else (0.25,), self.channels)

    @property
    def patches(self) -> int:
        """Patches of one image (the class token not counted)."""
        return (self.image_size // self.patch_size) ** 2


_WHOLE_POSITIVE = (
    *("image_size", "channels", "patch_size", "vision_width", "vision_layers", "vision_heads"),
    *("text_width", "text_layers", "text_heads", "vocab_size", "max_length", "embed_dim"),
)
