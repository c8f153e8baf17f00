"""Paper scale: ViT-B/16 and a 12-layer text tower on the 377,110 images of MIMIC-CXR-JPG, at all ratios.

What it costs, before it runs:
python -m experiments.scale --config configs/mimic_vit_b16.py --devices 64 --pairs 377110

Needs the set, under its licence, prepared by `ranjax prepare mimic_cxr`; see docs/data.md. Sizes are this project's
choice, not a published recipe's.
"""

from ranjax.run.config import default_config

PAIRS, EPOCHS, BATCH = 377_110, 30, 4096


def get_config():
    config = default_config()
    config.data.source = "prepared"
    config.data.prepared.dir = "prepared/mimic_cxr"
    config.data.image_size = 224
    config.text.max_length = 128
    config.text.max_vocabulary = 30_000
    model = config.model
    model.vit.patch_size, model.vit.width, model.vit.layers, model.vit.heads = 16, 768, 12, 12
    text = model.text_transformer
    text.width, text.layers, text.heads, model.embed_dim = 512, 12, 8, 512
    model.compute_dtype = "bfloat16"
    # Without these, 256 pairs need more than the 16 GB of a v5e, and 24 blocks compile for minutes.
    model.scan = model.remat = True
    config.pretrain.batch_size = BATCH
    config.pretrain.steps = EPOCHS * PAIRS // BATCH
    config.pretrain.learning_rate = 5e-4
    config.pretrain.checkpoint_every = 200
    config.noise.ratios = (0.0, 0.05, 0.1, 0.2, 0.3)
    config.evaluate.attacked_examples = 1000
    return config
