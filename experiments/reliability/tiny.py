"""A run of seconds through every stage: what the tests and the soak kill, again and again."""

from ranjax.run.config import default_config


def get_config():
    config = default_config()
    data = config.data.radiographs
    config.quick_compile = True
    config.data.image_size = 32
    data.train, data.adapt, data.validation, data.test, data.ood_test = 48, 40, 24, 24, 16
    config.pretrain.steps, config.pretrain.batch_size = 12, 8
    config.pretrain.checkpoint_every, config.pretrain.log_every = 3, 4
    config.model.vit.layers = config.model.text_transformer.layers = 1
    config.model.vit.patch_size = 16
    config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 24
    config.noise.ratios = (0.0, 0.3)
    config.noise.plausible_pairs, config.noise.candidates, config.noise.similarity = 0, ("vocabulary",), -1.0
    config.noise.pgd.steps, config.noise.max_words, config.noise.top_k = 2, 1, 2
    config.noise.shard_size = config.noise.batch_size = 4
    config.adapt.methods = ("lp", "ran")
    config.adapt.seeds, config.adapt.epochs, config.adapt.attack_steps = 2, 2, 1
    config.evaluate.attacks = ("pgd",)
    config.evaluate.pgd.steps, config.evaluate.attacked_examples, config.evaluate.batch_size = 2, 8, 8
    config.evaluate.masking_examples, config.evaluate.masking_queries = 4, 4
    config.evaluate.bootstrap = 50
    config.report.examples = 2
    return config
