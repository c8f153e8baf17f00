"""The config that the tests of this folder share."""

from ranjax.models import DualEncoderConfig

TINY = DualEncoderConfig(
    **{"image_size": 16, "patch_size": 8, "vision_width": 16, "vision_layers": 2, "vision_heads": 2},
    **{"text_width": 12, "text_layers": 2, "text_heads": 3, "vocab_size": 40, "max_length": 8, "embed_dim": 10},
    eos_id=39,
)
