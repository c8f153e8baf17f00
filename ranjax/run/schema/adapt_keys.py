"""Keys of the light-weight fine-tuning."""

import math

from ml_collections import ConfigDict

from ranjax.core.checks import (
    Key,
    above,
    at_least,
    between,
    epsilon,
    one_of,
    patterns,
    pixel_step,
    share_of,
    some_of,
)
from ranjax.core.errors import ConfigError

ONE_SIDED = ("lp_image", "lp_question")
"""Methods that see one side of a set of questions."""
HEADS = ("lp", "lp_filter", "mlp", "nmtune", "ran", "ran_wide", "at", *ONE_SIDED)
TERMS = ("ce", "mse", "cov", "svd", "defence_ce", "defence_consistency", "defence_kl")
ABLATIONS = tuple(f"ran_without_{part}" for part in (*TERMS[1:], "filter"))
TUNED = ("lora", "fft", "at_lora", "lora_filter", "at_lora_filter", "ran_lora", "ran_live", "tecoa", "fare", "pmg_aft")
TEST_TIME = ("ttc",)
METHODS = (*HEADS, *TUNED, *TEST_TIME, *ABLATIONS)


def _factors(value: tuple[float, ...]) -> str:
    good = value and len(set(value)) == len(value) and all(math.isfinite(v) and v > 0 for v in value)
    return "" if good else "different factors above 0, e.g. (0.3, 1.0, 3.0)"


FILTERED = ("lp_filter", "lora_filter", "at_lora_filter")
"""Methods that differ from another one by the filter alone."""
BY_PROMPTS = ("tecoa", "fare", "pmg_aft", "ttc")
"""Methods that classify by the classes' prompts, which compete for one label an image."""

KEYS = (
    Key(
        "adapt.task",
        "single",
        "Labels of an image: one (softmax; images with several findings are left out), or any number (sigmoid; all).",
        "",
        one_of("single", "multi"),
    ),
    Key(
        "adapt.methods",
        ("lp", "mlp", "nmtune", "lp_filter", "ran"),
        "Methods to fit and compare.",
        "",
        some_of(*METHODS),
    ),
    Key("adapt.seeds", 5, "Heads of each method, with seeds 0, 1, ...", "seeds", at_least(1)),
    Key("adapt.epochs", 15, "Passes over the labelled features.", "epochs", at_least(1)),
    Key("adapt.batch_size", 64, "Features a step.", "features", at_least(2)),
    Key("adapt.learning_rate", 1e-3, "AdamW's for heads of NMTune's width (cosine to 0).", "", above(0)),
    Key("adapt.lp_learning_rate", 1e-2, "AdamW's for LP, RAN and heads of tuned encoders.", "", above(0)),
    Key("adapt.weight_decay", 1e-4, "AdamW's.", "", at_least(0)),
    Key(
        "adapt.metric",
        "accuracy",
        "Validation metric that chooses epoch and search.",
        "",
        one_of("accuracy", "balanced_accuracy", "auroc"),
    ),
    Key(
        "adapt.class_weights",
        "none",
        "Weights of the classes in cross-entropy; methods that classify by prompts take none.",
        "",
        one_of("none", "balanced"),
    ),
    Key("adapt.shots", 0, "Labelled examples of each class; 0: all.", "examples", at_least(0)),
    Key("adapt.share", 1.0, "Share of the labelled examples of each class.", "share", share_of),
    Key("adapt.search_rates", (1.0,), "Factors on each method's learning rate that the search tries.", "", _factors),
    Key(
        "adapt.search_strengths",
        (1.0,),
        "Factors that the search tries on the weights of a method's own terms, or where it has none, on its decay.",
        "",
        _factors,
    ),
    Key("adapt.mse", 1.0, "Weight of the consistency term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.cov", 0.04, "Weight of the covariance term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.svd", 0.001, "Weight of the dominant-singular-value term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.top_k", 1, "Singular values counted as dominant.", "values", at_least(1)),
    Key("adapt.defence_ce", 1.0, "RAN: weight of cross-entropy on attacked features.", "", at_least(0)),
    Key("adapt.defence_consistency", 1.0, "RAN: weight of feature consistency under attack.", "", at_least(0)),
    Key("adapt.defence_kl", 1.0, "RAN: weight of prediction consistency under attack.", "", at_least(0)),
    Key(
        "adapt.ran_svd_every",
        8,
        "RAN's head: the singular-value term is taken every so many steps, and counts as many times.",
        "steps",
        at_least(1),
    ),
    Key("adapt.ran_epochs_share", 0.5, "RAN's head: share of adapt.epochs that it trains for.", "share", share_of),
    Key(
        "adapt.defence_source",
        "encoder",
        "What cached defence examples attack: the frozen encoder's features (no label), or it and a linear probe.",
        "",
        one_of("encoder", "probe"),
    ),
    Key(
        "adapt.ran_scope",
        "head",
        "What RAN trains: a head on cached features, or adapters in the image tower and a head.",
        "",
        one_of("head", "lora"),
    ),
    Key(
        "adapt.lora_terms",
        ("defence_ce", "defence_kl"),
        "RAN's terms in LoRA's scope, each with its weight above (ce: 1).",
        "",
        some_of(*TERMS),
    ),
    Key(
        "adapt.filter",
        1.5,
        "RAN: standard deviation of the fixed Gaussian low-pass filter in front of the image tower; 0: none.",
        "pixels",
        between(0, 64),
    ),
    Key("adapt.epsilon", "4/255", "Radius of the ball of defence examples.", "pixel units", epsilon),
    Key("adapt.step", "1/255", "Step of their PGD.", "pixel units", pixel_step),
    Key("adapt.attack_steps", 5, "Steps of their PGD.", "steps", at_least(1)),
    Key("adapt.tuned_seeds", 1, "Fits of each method that reaches into the encoder.", "seeds", at_least(1)),
    Key("adapt.tune_epochs", 10, "Passes over the labelled images of such a method.", "epochs", at_least(1)),
    Key("adapt.tune_batch_size", 64, "Images a step of such a method.", "images", at_least(2)),
    Key("adapt.tune_step", "2/255", "Step of the PGD against encoder and head on the fly.", "pixel units", pixel_step),
    Key("adapt.tune_attack_steps", 2, "Steps of that PGD.", "steps", at_least(1)),
    Key("adapt.tune_learning_rate", 1e-4, "AdamW's for a whole image tower.", "", above(0)),
    Key("adapt.lora_learning_rate", 3e-3, "AdamW's for LoRA's adapters.", "", above(0)),
    Key("adapt.lora_rank", 2, "Rank of LoRA's adapters.", "", at_least(1)),
    Key(
        "adapt.lora_targets",
        (r"^vision/.*blocks/.*/(attention|mlp)/[^/]+/kernel$",),
        "Regular expressions on the paths of the kernels that get an adapter.",
        "",
        patterns,
    ),
    Key(
        "adapt.tune_trainable",
        ("^vision/", "^visual_projection/"),
        "Regular expressions on the paths of what methods of full scope train.",
        "",
        patterns,
    ),
)


def check(config: ConfigDict) -> None:
    """Raises a ConfigError where keys do not fit each other."""
    adapt = config.adapt
    if adapt.shots and adapt.share < 1:
        raise ConfigError("adapt.share", adapt.share, f"1.0 where adapt.shots = {adapt.shots}: one of the two")
    _check_ablations(adapt)
    _check_terms(adapt)
    one_sided = [name for name in adapt.methods if name in ONE_SIDED]
    if one_sided and config.data.source != "prepared":
        raise ConfigError("adapt.methods", one_sided, "methods for a prepared set of questions where there is one")
    if adapt.task == "multi":
        _check_multi(config)


def _check_ablations(adapt: ConfigDict) -> None:
    """Refuses to leave out what RAN has not, or all that it has."""
    left = {name: name.removeprefix("ran_without_") for name in adapt.methods if name in ABLATIONS}
    for name, part in left.items():
        in_lora = adapt.ran_scope == "lora" and part != "filter"
        if in_lora and (part not in adapt.lora_terms or len(adapt.lora_terms) == 1):
            allowed = (
                f"ran_without_ one of several adapt.lora_terms = {adapt.lora_terms} where adapt.ran_scope = 'lora'"
            )
            raise ConfigError("adapt.methods", name, allowed)
        if not adapt[part]:
            allowed = f"a part that RAN has to leave out; here adapt.{part} = {adapt[part]!r}"
            raise ConfigError("adapt.methods", name, allowed)


def _check_terms(adapt: ConfigDict) -> None:
    """Refuses methods of which the weights leave no loss, and a filter's own methods where there is no filter."""
    filtered = [name for name in adapt.methods if name in FILTERED]
    if filtered and not adapt.filter:
        raise ConfigError("adapt.filter", adapt.filter, f"above 0 where adapt.methods holds {filtered[0]!r}")
    if "at" in adapt.methods and not adapt.defence_ce:
        raise ConfigError("adapt.defence_ce", 0.0, "above 0 where adapt.methods holds 'at', whose whole loss it is")
    in_lora = [name for name in adapt.methods if name == "ran_lora" or (name == "ran" and adapt.ran_scope == "lora")]
    weighed = [term for term in adapt.lora_terms if term == "ce" or adapt[term]]
    if in_lora and not weighed:
        raise ConfigError(
            "adapt.lora_terms", adapt.lora_terms, f"at least one with a weight above 0, as {in_lora[0]} has no other"
        )


def _check_multi(config: ConfigDict) -> None:
    """Refuses what is defined for one label an image only."""
    adapt, evaluate = config.adapt, config.evaluate
    prompted = [name for name in adapt.methods if name in BY_PROMPTS]
    if prompted:
        raise ConfigError("adapt.methods", prompted, "methods with a head of their own where adapt.task = 'multi'")
    if "apgd_dlr" in evaluate.attacks:
        allowed = "'pgd' and 'apgd_ce' where adapt.task = 'multi': the DLR loss takes one label"
        raise ConfigError("evaluate.attacks", evaluate.attacks, allowed)
    if evaluate.prompt_words:
        allowed = "0 where adapt.task = 'multi': prompts compete for one label"
        raise ConfigError("evaluate.prompt_words", evaluate.prompt_words, allowed)
