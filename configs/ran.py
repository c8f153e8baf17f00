"""The default job: the whole chain on the bundled radiographs, small enough for two CPU cores.

ranjax run --config configs/ran.py            about 8 minutes
ranjax run --config configs/ran.py:smoke      about a minute: every stage, too short to learn much
"""

from ranjax.core.errors import ConfigError
from ranjax.run.config import default_config


def get_config(mode=""):
    config = default_config()
    data = config.data.radiographs
    # A bed where pre-training matters: many unlabelled pairs, few labels, patients who stand as they can.
    data.train, data.adapt, data.validation, data.test, data.ood_test = 12288, 256, 512, 1536, 1536
    config.model.vit.patch_size = 8
    config.pretrain.steps = 1000
    config.pretrain.checkpoint_every = 250
    # The paper's noise as third parties describe it: images towards another image, captions made false.
    config.noise.recipe = "targeted_keywords"
    config.noise.ratios = (0.0, 0.3)
    config.noise.masked_lm_steps = 100
    config.adapt.seeds = 2
    config.adapt.filter = 2.0
    # The largest radius at which a linear probe behind the filter is above chance on the development seeds.
    config.evaluate.epsilon = "2/255"
    # PGD alone, and a short search beside it, is what two cores do in minutes. The default is the suite "standard".
    config.evaluate.attacks, config.evaluate.masking_queries = ("pgd",), 30
    if mode == "smoke":
        config.quick_compile = True
        data.train, data.adapt, data.validation, data.test, data.ood_test = 256, 128, 64, 64, 64
        config.pretrain.steps = 20
        config.pretrain.batch_size = 32
        config.pretrain.checkpoint_every = 10
        config.pretrain.log_every = 10
        config.model.vit.layers = 1
        config.noise.ratios = (0.0, 0.3)
        config.noise.plausible_pairs, config.noise.masked_lm_steps = 8, 20
        config.noise.pgd.steps = 3
        config.noise.shard_size = 32
        config.noise.batch_size = 32
        config.adapt.methods = ("lp", "ran")
        config.adapt.seeds = 2
        config.adapt.epochs = 5
        config.adapt.attack_steps = 2
        config.evaluate.pgd.steps = 3
        config.evaluate.attacked_examples = 32
        config.evaluate.batch_size = 32
        config.evaluate.masking_examples = 0
        config.evaluate.bootstrap = 200
        config.report.examples = 3
    elif mode:
        raise ConfigError("--config", f"configs/ran.py:{mode}", "configs/ran.py or configs/ran.py:smoke")
    return config
