"""The configs of the towers, without the modules built from them: a configuration is read before JAX is there."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from ranjax.core.checks import at_least, one_of
from ranjax.core.errors import ConfigError
from ranjax.core.settings import setting
from ranjax.models.towers.contract import ImageTowerConfig, TextTowerConfig

ACTIVATIONS = ("quick_gelu", "gelu", "gelu_tanh")
LAYERS_MEAN = "mean_of_1_2_last"
"""MedCLIP's pooling of a BERT: the mean over the mask of the states after blocks 1, 2 and the last."""
BERT_POOLINGS = ("pooler", "cls", "mean", LAYERS_MEAN)
RESNET_STRIDE = 32
"""Pixels on a side of one place in the last feature map of CLIP's ResNets."""

EFFICIENT_STAGES = 7
"""Stages of an EfficientNet."""


class _Transformer:
    """What the configs of transformers share."""

    tower: ClassVar[str]
    width: int
    heads: int
    mlp_width: int
    layer_norm_eps: float

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[misc]
        if self.width % self.heads:
            expected = f"a divisor of model.{self.tower}.width = {self.width}"
            raise ConfigError(f"model.{self.tower}.heads", self.heads, expected)
        if not 0 < self.layer_norm_eps < math.inf:
            raise ConfigError(f"model.{self.tower}.layer_norm_eps", self.layer_norm_eps, "a number above 0")
        object.__setattr__(self, "mlp_width", self.mlp_width or 4 * self.width)

    @property
    def outputs(self) -> int:
        return self.width


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(_Transformer, ImageTowerConfig):
    """The config of a vision transformer; hashable.

    Attributes:
      patch_size: divides `image_size`.
      activation: "quick_gelu" (x * sigmoid(1.702 x)), "gelu" (exact, erf) or "gelu_tanh".
      layer_norm_eps: added to the variance in every layer norm.
      patch_bias: the patch embedding has a bias (timm, SigLIP).
      norm_before: a layer norm before the first block (CLIP).
      pooling: "class", the layer-normed class token (CLIP, timm); or "probe", SigLIP's pooling by a learned query over
        all patches, without a class token.
      name: what timm calls it, carried for files that refer to it by name.
    """

    tower: ClassVar[str] = "vit"

    patch_size: int = setting(16, "Side of a patch.", "pixels", at_least(1))
    width: int = setting(128, "Width of the image tower.", "channels", at_least(1))
    layers: int = setting(3, "Blocks of the image tower.", "layers", at_least(1))
    heads: int = setting(4, "Attention heads of the image tower; a divisor of its width.", "heads", at_least(1))
    mlp_width: int = setting(0, "Width of the MLPs' hidden layer; 0: 4 times the tower's.", "channels", at_least(0))
    activation: str = setting("quick_gelu", "Activation of the MLPs.", check=one_of(*ACTIVATIONS))
    layer_norm_eps: float = 1e-5
    patch_bias: bool = False
    norm_before: bool = True
    pooling: str = "class"
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size % self.patch_size:
            raise ConfigError("model.vit.patch_size", self.patch_size, f"a divisor of image_size = {self.image_size}")
        if self.pooling not in ("class", "probe"):
            raise ConfigError("model.vit.pooling", self.pooling, "one of class, probe")

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def position_table(self) -> tuple[tuple[str, ...], int]:
        return ("positions",), int(self.pooling == "class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig(ImageTowerConfig):
    """The config of a residual network, which takes images of any size; hashable.

    Attributes:
      depths: blocks of each stage; (3, 4, 6, 3) of "bottleneck" is ResNet-50.
      block: "bottleneck" (1 x 1, 3 x 3, 1 x 1, the inner two a fourth as wide) or "basic" (3 x 3, 3 x 3).
      name: what timm calls it, carried for files that refer to it by name.
    """

    tower: ClassVar[str] = "resnet"

    stem_width: int = setting(64, "Channels after the first convolution.", "channels", at_least(1))
    widths: tuple[int, ...] = setting((256, 512, 1024, 2048), "Channels after each stage.", "channels")
    depths: tuple[int, ...] = setting((3, 4, 6, 3), "Blocks of each stage.", "blocks")
    block: str = setting("bottleneck", "Kind of the blocks.", check=one_of("bottleneck", "basic"))
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.depths or len(self.depths) != len(self.widths) or min(self.depths) < 1:
            expected = f"{len(self.widths)} whole numbers of at least 1"
            raise ConfigError("model.resnet.depths", self.depths, expected)
        if self.block == "bottleneck" and any(width % 4 for width in self.widths):
            raise ConfigError("model.resnet.widths", self.widths, "multiples of 4 for bottlenecks")

    @property
    def outputs(self) -> int:
        return self.widths[-1]

    @property
    def convolutions(self) -> int:
        """Convolutions of a block."""
        return 2 if self.block == "basic" else 3

    def shortcuts(self, stage: int, block: int) -> bool:
        """Return whether a block has a convolution on its way around."""
        before = self.stem_width if stage == 0 else self.widths[stage - 1]
        return block == 0 and (stage > 0 or before != self.widths[stage])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetConfig(ImageTowerConfig):
    """The config of an EfficientNet-Lite, which takes images of any size; hashable. The defaults are Lite0.

    Attributes:
      widths: channels after each of the seven stages.
      depths: blocks of each stage.
      same: padded as TensorFlow does, where the weights come from it (timm's ``tf_`` names).
      norm_eps: what batch norms add to the variance.
      name: what timm calls it, carried for files that refer to it by name.
    """

    tower: ClassVar[str] = "efficientnet"

    stem_width: int = setting(32, "Channels after the first convolution.", "channels", at_least(1))
    widths: tuple[int, ...] = setting((16, 24, 40, 80, 112, 192, 320), "Channels after each stage.", "channels")
    depths: tuple[int, ...] = setting((1, 2, 2, 3, 3, 4, 1), "Blocks of each stage.", "blocks")
    head_width: int = setting(
        1280, "Channels after the last convolution, whose mean is returned.", "channels", at_least(1)
    )
    same: bool = True
    norm_eps: float = 1e-3
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("widths", "depths"):
            value = getattr(self, key)
            if len(value) != EFFICIENT_STAGES or min(value) < 1:
                expected = f"{EFFICIENT_STAGES} whole numbers of at least 1"
                raise ConfigError(f"model.efficientnet.{key}", value, expected)

    @property
    def outputs(self) -> int:
        return self.head_width


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModifiedResNetConfig(ImageTowerConfig):
    """The config of a CLIP ResNet; hashable.

    Attributes:
      image_size: a multiple of 32.
      width: stages are 4, 8, 16 and 32 times as wide.
      depths: blocks of the four stages; (3, 4, 6, 3) is RN50, (3, 4, 23, 3) is RN101.
      heads: a divisor of 32 * width.
    """

    tower: ClassVar[str] = "modified_resnet"

    width: int = setting(
        64, "Channels after the stem, an even number; the last stage has 32 times as many.", "channels"
    )
    depths: tuple[int, ...] = setting((3, 4, 6, 3), "Blocks of the four stages.", "blocks")
    heads: int = setting(32, "Heads of the attention pooling.", "heads", at_least(1))
    pooled_width: int = setting(
        0, "Width of what the pooling returns; 0: 32 times the stem's.", "channels", at_least(0)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise ConfigError("model.modified_resnet.depths", self.depths, "four whole numbers of at least 1")
        if self.image_size % RESNET_STRIDE:
            raise ConfigError("model.image_size", self.image_size, f"a multiple of {RESNET_STRIDE} for CLIP's ResNets")
        if self.width < 2 or self.width % 2:
            raise ConfigError("model.modified_resnet.width", self.width, "an even number of at least 2")
        if 32 * self.width % self.heads:
            expected = f"a divisor of 32 * model.modified_resnet.width = {32 * self.width}"
            raise ConfigError("model.modified_resnet.heads", self.heads, expected)
        object.__setattr__(self, "pooled_width", self.pooled_width or 32 * self.width)

    @property
    def outputs(self) -> int:
        return self.pooled_width

    @property
    def grid(self) -> int:
        return self.image_size // RESNET_STRIDE

    @property
    def position_table(self) -> tuple[tuple[str, ...], int]:
        # The first row is the mean's.
        return ("pool", "positions"), 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTransformerConfig(_Transformer, TextTowerConfig):
    """The config of a text transformer; hashable.

    Attributes:
      layer_norm_eps: as in `ViTConfig`.
      causal: a token sees those before it (CLIP); else all of them (SigLIP).
      pooling: "eos", the first `eos_id`; "highest_id", the first occurrence of the largest id, which is what
        checkpoints that say ``eos_token_id = 2`` mean (OpenAI's rule); or "last", the last of `max_length` places, for
        which every text is filled up with `pad_id` and padding is seen like any token, as SigLIP was trained.
    """

    tower: ClassVar[str] = "text_transformer"

    width: int = setting(96, "Width of the text tower.", "channels", at_least(1))
    layers: int = setting(1, "Blocks of the text tower.", "layers", at_least(1))
    heads: int = setting(4, "Attention heads of the text tower; a divisor of its width.", "heads", at_least(1))
    mlp_width: int = setting(0, "Width of the MLPs' hidden layer; 0: 4 times the tower's.", "channels", at_least(0))
    activation: str = setting("quick_gelu", "Activation of the MLPs.", check=one_of(*ACTIVATIONS))
    layer_norm_eps: float = 1e-5
    causal: bool = True
    pooling: str = "eos"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in ("eos", "highest_id", "last"):
            raise ConfigError("model.text_transformer.pooling", self.pooling, "one of eos, highest_id, last")
        needed = "pad_id" if self.pooling == "last" else "eos_id"
        value = getattr(self, needed)
        if value is None or not 0 <= value < self.vocab_size:
            raise ConfigError(f"model.{needed}", value, f"an id below model.vocab_size = {self.vocab_size}")

    @property
    def end_pooling(self) -> str:
        return "" if self.pooling == "last" else self.pooling

    @property
    def needs_begin(self) -> bool:
        return self.pooling != "last"

    @property
    def needs_pad(self) -> int | None:
        return self.pad_id if self.pooling == "last" else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(_Transformer, TextTowerConfig):
    """The config of a BERT; hashable.

    Attributes:
      types: rows of the segment table.
      layer_norm_eps: as in `ViTConfig`.
      pooling: how a text's one vector comes from its tokens': "pooler" (BERT's own: a linear map and tanh on the first
        token, which the encoder then has), "cls" (the first token's state), "mean" (over the mask) or `LAYERS_MEAN`.
      masked_lm: the encoder has a masked-LM head, its output matrix tied to the token table.
      name: what the encoder's publisher calls it, carried for files that refer to it by name.
    """

    tower: ClassVar[str] = "bert"

    max_length: int = 512
    pad_id: int = 0
    types: int = 2
    width: int = setting(768, "Width of a new BERT.", "channels", at_least(1))
    layers: int = setting(12, "Blocks of a new BERT.", "layers", at_least(1))
    heads: int = setting(12, "Attention heads of a new BERT; a divisor of its width.", "heads", at_least(1))
    mlp_width: int = setting(0, "Width of the MLPs' hidden layer; 0: 4 times the tower's.", "channels", at_least(0))
    activation: str = setting("gelu", "Activation of the MLPs of a new BERT.", check=one_of(*ACTIVATIONS))
    pooling: str = setting(
        "cls",
        "A text's vector: BERT's own pooler, its first token, the mean of its tokens, or that of three of its blocks.",
        check=one_of(*BERT_POOLINGS),
    )
    layer_norm_eps: float = 1e-12
    masked_lm: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling == LAYERS_MEAN and self.layers < 2:
            raise ConfigError("model.bert.pooling", self.pooling, "another pooling for a BERT of one layer")
        if self.pad_id >= self.vocab_size:
            raise ConfigError("model.pad_id", self.pad_id, f"an id below model.vocab_size = {self.vocab_size}")

    @property
    def needs_pad(self) -> int:
        return self.pad_id
