r"""Paper scale: an ImageNet ResNet-50 beside PubMedBERT on the 59,958 training figures of ROCO v2, at all ratios.

What it costs, before it runs, and before any weight is there (the folders named hold sizes alone):
SIZES=experiments/scale/shapes; python -m experiments.scale --config configs/roco_rn50.py --devices 8 --pairs 59958 \
  --config.model.image_weights=$SIZES/resnet50 --config.model.text_weights=$SIZES/bert_base

Needs the set, prepared by `ranjax prepare roco` (docs/data.md), and the two towers: give the folders of any
ResNet-50 (transformers, timm, torchvision) and BERT. Sizes are this project's choice, not a published recipe's.
"""

from ranjax.run.config import default_config

PAIRS, EPOCHS, BATCH = 59_958, 40, 1024


def get_config():
    config = default_config()
    config.data.source = "prepared"
    config.data.prepared.dir = "prepared/roco"
    config.data.image_size = 224
    config.text.max_length = 77
    model = config.model
    model.image_weights, model.text_weights = "weights/resnet50", "weights/pubmedbert"
    model.embed_dim, model.compute_dtype = 512, "bfloat16"
    config.pretrain.batch_size = BATCH
    config.pretrain.steps = EPOCHS * PAIRS // BATCH
    config.pretrain.learning_rate = 1e-4
    config.pretrain.checkpoint_every = 200
    config.noise.ratios = (0.0, 0.05, 0.1, 0.2, 0.3)
    config.evaluate.attacked_examples = 1000
    return config
