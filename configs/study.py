"""The full study on the bundled radiographs: every ratio, the controls at 30 %, every method, every figure.

ranjax run --config configs/study.py                    a night or more on two CPU cores; resumable
ranjax run --config configs/study.py --config.seed=1    another upstream run; three of them make intervals
ranjax report runs/study runs/study_seed_1              over upstream runs
ranjax run --config configs/study.py:evening            ratios 0 and 30 %; every method and figure
ranjax run --config configs/study.py:claims             ratios 0, 10, 30 %, every condition; heads alone
ranjax run --config configs/study.py:noise     which noise hurts or helps what: four recipes at every ratio
ranjax run --config configs/study.py:smoke              a few minutes: a method of every kind, learns nothing

Hyper-parameters are chosen on the validation split, by the same small grid for every method (adapt.search_*).
"""

from ranjax.core.errors import ConfigError
from ranjax.run.config import default_config

ABLATIONS = (
    "ran_v1_without_mse",
    "ran_v1_without_cov",
    "ran_v1_without_svd",
    "ran_v1_without_defence_ce",
    "ran_v1_without_defence_consistency",
    "ran_v1_without_defence_kl",
)


def get_config(mode=""):
    config = default_config()
    noise, adapt, evaluate = config.noise, config.adapt, config.evaluate
    noise.ratios = (0.0, 0.05, 0.1, 0.2, 0.3)
    noise.controls, noise.control_ratios = ("image_only", "text_only", "gaussian", "caption_shuffle"), (0.0, 0.3)
    adapt.methods = (
        *("lp", "lp_filter", "ridge", "mlp", "nmtune", "robust_ridge", "ran", "ran_v1", "at", "ran_live", "lora"),
        *("at_lora", "at_lora_filter", "ran_lora", "fft", "tecoa", "fare", "pmg_aft", "ttc", *ABLATIONS),
    )
    adapt.search_rates, adapt.search_strengths = (0.3, 1.0, 3.0), (0.3, 1.0, 3.0)
    evaluate.restarts = 2
    evaluate.attacks, evaluate.masking_queries = ("pgd", "apgd_ce", "apgd_dlr"), 30
    evaluate.radii = ("1/255", "2/255", "8/255")
    evaluate.attacked_splits = ("test", "ood_test")
    evaluate.attacked_seeds = 3
    evaluate.prompt_words = 2
    evaluate.pair_attacks = ("image_only", "text_only", "coattack", "sga")
    evaluate.captions = 4
    evaluate.corruption_examples = 256
    evaluate.question_seeds = 3
    if mode == "claims":
        noise.ratios, noise.control_ratios = (0.0, 0.1, 0.3), (0.0,)
        adapt.methods = ("lp", "lp_filter", "mlp", "nmtune", "ran")
        adapt.search_rates = (1.0,)
        evaluate.restarts = evaluate.attacked_seeds = 1
        evaluate.attacks, evaluate.radii = ("pgd", "apgd_ce"), ("1/255", "2/255")
        evaluate.attacked_splits, evaluate.pair_attacks = ("test",), ("",)
        evaluate.corruption_examples = evaluate.question_seeds = evaluate.masking_examples = 0
    elif mode == "noise":
        noise.recipe, noise.control_ratios = "targeted_keywords", (0.0,)
        noise.controls = ("coattack", "gaussian", "caption_shuffle")
        adapt.methods = ("lp", "mlp", "nmtune", "ran")
        adapt.search_rates = (1.0,)
        evaluate.restarts = evaluate.attacked_seeds = 1
        evaluate.attacks, evaluate.radii = ("pgd", "apgd_ce"), ("",)
        evaluate.pair_attacks, evaluate.captions = ("",), 1
        evaluate.corruption_examples = evaluate.question_seeds = evaluate.masking_examples = 0
    elif mode == "evening":
        noise.ratios, noise.controls, noise.control_ratios = (0.0, 0.3), ("",), (0.0,)
        adapt.methods = (
            *("lp", "lp_filter", "mlp", "nmtune", "ran", "at", "lora", "at_lora_filter", "ran_lora", "fft"),
            *("tecoa", "fare", "pmg_aft", "ttc"),
        )
        adapt.search_rates = (1.0,)
        evaluate.attacked_seeds = 1
    elif mode == "smoke":
        config.quick_compile = True
        data = config.data.radiographs
        config.data.image_size, config.model.vit.patch_size = 32, 16
        data.train, data.adapt, data.validation, data.test, data.ood_test = 48, 64, 32, 32, 24
        config.pretrain.steps, config.pretrain.batch_size = 6, 16
        config.model.vit.layers = config.model.text_transformer.layers = 1
        config.model.vit.width = config.model.text_transformer.width = config.model.embed_dim = 32
        noise.ratios, noise.controls, noise.control_ratios = (0.0, 0.3), ("gaussian",), (0.0,)
        noise.pgd.steps, noise.max_words, noise.top_k = 2, 1, 2
        noise.plausible_pairs, noise.candidates = 0, ("vocabulary",)
        noise.shard_size = noise.batch_size = 8
        adapt.methods = ("lp", "ran", "ran_v1", "ran_lora", "tecoa", "ttc", "ran_v1_without_mse")
        adapt.seeds, adapt.epochs, adapt.attack_steps = 2, 2, 1
        adapt.search_rates, adapt.search_strengths = (1.0,), (0.3, 1.0)
        adapt.tower.epochs, adapt.tower.batch_size = 1, 32
        evaluate.pgd.steps, evaluate.apgd_ce.steps, evaluate.restarts = 2, 3, 1
        evaluate.attacks, evaluate.radii, evaluate.attacked_splits = ("pgd", "apgd_ce"), ("1/255",), ("test",)
        evaluate.attacked_examples = evaluate.batch_size = evaluate.corruption_examples = evaluate.pairs = 8
        evaluate.attacked_seeds, evaluate.draws, evaluate.smallest_group = 1, 2, 3
        evaluate.masking_examples, evaluate.masking_queries = 4, 4
        evaluate.prompt_words = evaluate.pair_words = 1
        evaluate.pair_attacks, evaluate.captions, evaluate.question_seeds = ("coattack",), 2, 1
        evaluate.bootstrap, config.report.examples = 50, 2
    elif mode:
        modes = "configs/study.py, :evening, :claims, :noise or :smoke"
        raise ConfigError("--config", f"configs/study.py:{mode}", modes)
    return config
