"""Keys of the light-weight fine-tuning; the settings of a method are keys of its own, `adapt.<method>.<setting>`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ranjax.core.checks import at_least, between, epsilon, one_of, pixel_step, share_of
from ranjax.core.errors import ConfigError
from ranjax.core.settings import Group, group, keys_of, setting
from ranjax.methods.method_settings import METRICS, TERMS, TowerTraining, Variation
from ranjax.methods.search import key_prefix
from ranjax.methods.table import METHODS, PARTS, Method, selected, settings_of
from ranjax.models.controls import CONTROLS
from ranjax.run.schema.entry_keys import Config, EntryKeys, EntryNames


def _different_controls(value: tuple[str, ...]) -> str:
    expected = f"a tuple of different names out of {', '.join(map(repr, CONTROLS))}; empty: none"
    return "" if len(set(value)) == len(value) else expected


def _factors(value: tuple[float, ...]) -> str:
    good = value and len(set(value)) == len(value) and all(math.isfinite(v) and v > 0 for v in value)
    return "" if good else "different factors above 0, e.g. (0.3, 1.0, 3.0)"


@dataclass(frozen=True)
class Tower:
    """What all methods that tune the image tower share."""

    seeds: int = setting(1, "Fits of each method that tunes the image tower.", "seeds", at_least(1))
    epochs: int = setting(
        20, "Passes over the images of such a method at most, see adapt.tower.patience.", "epochs", at_least(1)
    )
    patience: int = setting(
        4, "Epochs without a better validation figure after which it ends; 0: none, all epochs.", "epochs", at_least(0)
    )
    batch_size: int = setting(64, "Images a step of such a method.", "images", at_least(2))
    step: str = setting("2/255", "Step of the PGD against encoder and head on the fly.", "pixel units", pixel_step)
    attack_steps: int = setting(2, "Steps of that PGD.", "steps", at_least(1))


@dataclass(frozen=True)
class Adapt(Group):
    """What all methods share."""

    task: str = setting(
        "single",
        "Labels of an image: one (softmax; images with several findings are left out), or any number (sigmoid; all).",
        "",
        one_of("single", "multi"),
    )
    methods: tuple[str, ...] = setting(
        ("lp", "mlp", "nmtune", "lp_filter", "ridge_tokens", "ridge_copies", "ran"),
        "Methods to fit and compare.",
        "",
        EntryNames(METHODS),
    )
    controls: tuple[str, ...] = setting(
        ("pixels", "random_init"),
        "Encoders without pre-training on which every head is fitted, too: what pre-training is worth. (): none.",
        "",
        _different_controls,
    )
    seeds: int = setting(5, "Heads of each method, with seeds 0, 1, ...", "seeds", at_least(1))
    epochs: int = setting(
        40, "Passes over the labelled features at most, see adapt.<method>.patience.", "epochs", at_least(1)
    )
    batch_size: int = setting(64, "Features a step.", "features", at_least(2))
    metric: str = setting(
        "accuracy",
        "Validation metric that chooses epoch and search.",
        "",
        one_of(*METRICS),
    )
    class_weights: str = setting(
        "none",
        "Weights of the classes in cross-entropy; methods that classify by prompts take none.",
        "",
        one_of("none", "balanced"),
    )
    shots: int = setting(0, "Labelled examples of each class; 0: all.", "examples", at_least(0))
    share: float = setting(1.0, "Share of the labelled examples of each class.", "share", share_of)
    search_rates: tuple[float, ...] = setting(
        (0.3, 1.0, 3.0), "Factors on each method's learning rate that the search tries.", "", _factors
    )
    search_strengths: tuple[float, ...] = setting(
        (1.0,),
        "Factors that the search tries on the weights of a method's own terms, or where it has none, on its decay.",
        "",
        _factors,
    )
    defence_source: str = setting(
        "encoder",
        "What cached defence examples attack: the frozen encoder's features (no label), or it and a linear probe.",
        "",
        one_of("encoder", "probe"),
    )
    filter: float = setting(
        1.5,
        "Standard deviation of the fixed Gaussian low-pass filter of RAN and others in front of the tower; 0: none.",
        "pixels",
        between(0, 64),
    )
    epsilon: str = setting("4/255", "Radius of the ball of defence examples.", "pixel units", epsilon)
    step: str = setting("1/255", "Step of their PGD.", "pixel units", pixel_step)
    attack_steps: int = setting(5, "Steps of their PGD.", "steps", at_least(1))
    variation: Variation = group(Variation)
    tower: Tower = group(Tower)


KEYS = keys_of("adapt", Adapt)


def _accepts(method: Method) -> str:
    return "another method: it is always evaluated" if method.family == "zero_shot" else ""


TABLES = (
    EntryKeys(METHODS, ("adapt.methods",), "adapt", reserved=("tower", "variation"), accepts=_accepts),
    EntryKeys(CONTROLS, ("adapt.controls",), "adapt"),
)


_FORMER = ("learning_rate", "weight_decay", "attacked_share")
_TUNED = ("fft", "tecoa", "fare", "pmg_aft")
RENAMED = {
    "adapt.learning_rate": "adapt.mlp.learning_rate, adapt.nmtune.learning_rate or adapt.at.learning_rate",
    "adapt.lp_learning_rate": "adapt.ran_v1.learning_rate or, e.g., adapt.lora.head_learning_rate",
    **{f"adapt.lp.{name}": "adapt.lp.penalties: LP is solved to its optimum" for name in _FORMER},
    "adapt.weight_decay": "adapt.METHOD.weight_decay, e.g. adapt.mlp.weight_decay",
    **{f"adapt.{name}": f"adapt.nmtune.{name} or adapt.ran_v1.{name}" for name in ("mse", "cov", "svd", "top_k")},
    **{f"adapt.{term}": f"adapt.ran_v1.{term}" for term in TERMS if "defence" in term},
    **{f"adapt.ran_{name}": f"adapt.ran_v1.{name}" for name in ("svd_every", "epochs_share")},
    **{
        f"adapt.ran.{name}": f"adapt.ran_v1.{name}, of the method 'ran_v1'"
        for name in (*_FORMER, *TERMS[1:], "top_k", "svd_every", "epochs_share")
    },
    "adapt.ran_scope": "the method 'ran_lora' in adapt.methods",
    "adapt.lora_terms": "the weights " + ", ".join(f"adapt.ran_lora.{term}" for term in TERMS),
    **{
        f"adapt.lora_{name}": f"adapt.lora.{name}, adapt.at_lora.{name} or adapt.ran_lora.{name}"
        for name in ("learning_rate", "rank", "targets")
    },
    "adapt.tuned_seeds": "adapt.tower.seeds",
    **{f"adapt.tune_{name}": f"adapt.tower.{name}" for name in ("epochs", "batch_size", "step", "attack_steps")},
    **{
        f"adapt.tune_{setting}": " or ".join(f"adapt.{name}.{setting}" for name in _TUNED)
        for setting in ("learning_rate", "trainable")
    },
}


def check(config: Config) -> None:
    """Check that keys fit each other.

    Raises:
      ConfigError: names the key to change.
    """
    adapt = config.adapt
    if adapt.shots and adapt.share < 1:
        raise ConfigError("adapt.share", adapt.share, f"1.0 where adapt.shots = {adapt.shots}: one of the two")
    methods = selected(adapt.methods)
    if len(methods) < len(adapt.methods):
        raise ConfigError("adapt.methods", adapt.methods, "each method once")
    for name, method in methods.items():
        _check_parts(adapt, name, method)
    _check_needs(config, methods)


def notes(config: Config) -> list[str]:
    """Return what a config sets in vain: settings of methods that it does not name, nor a variant of them."""
    bases = [method.variant_of for method in selected(config.adapt.methods).values()]
    probe = ["lp"] if config.adapt.defence_source == "probe" else []
    return list(TABLES[0].unused(config, *bases, *probe))


def _check_parts(adapt: Config, name: str, method: Method) -> None:
    """Refuse to leave out a part that a method lacks, and weights that leave no loss."""
    settings, prefix, part = settings_of(adapt, name), key_prefix(name), method.leaves_out
    if part:
        base = settings_of(adapt, method.variant_of)
        changes = dict(PARTS[part].changes) if part in PARTS else dict(method.changes)
        lacking = [key for key, value in changes.items() if getattr(base, key) == value]
        key = f"{prefix}.{lacking[0]}" if len(lacking) == len(changes) else "adapt.filter" if part == "filter" else ""
        value = getattr(base, lacking[0]) if lacking else adapt.filter
        if key and (lacking or not value):
            label = METHODS[method.variant_of].label
            raise ConfigError("adapt.methods", name, f"a part that {label} has to leave out; here {key} = {value!r}")
    if isinstance(settings, TowerTraining) and settings.objective == "ran" and not settings.terms:
        expected = f"a method with at least one weight above 0 among {prefix}.{{{','.join(TERMS)}}}"
        raise ConfigError("adapt.methods", name, expected)


def _check_needs(config: Config, methods: Mapping[str, Method]) -> None:
    """Refuse methods that need what the task, the data or the config lacks."""
    adapt, evaluate = config.adapt, config.evaluate

    def in_need(what: str) -> list[str]:
        return [name for name, method in methods.items() if what in method.needs]

    if in_need("filter") and not adapt.filter:
        needing = in_need("filter")[0]
        raise ConfigError("adapt.filter", adapt.filter, f"above 0 where adapt.methods holds {needing!r}")
    if in_need("questions") and config.data.source != "prepared":
        expected = "methods that need no prepared set of questions"
        raise ConfigError("adapt.methods", in_need("questions"), expected)
    if adapt.task != "multi":
        return
    if in_need("single_label"):
        expected = "methods with a head of their own where adapt.task = 'multi'"
        raise ConfigError("adapt.methods", in_need("single_label"), expected)
    if evaluate.prompt_words:
        expected = "0 where adapt.task = 'multi': prompts compete for one label"
        raise ConfigError("evaluate.prompt_words", evaluate.prompt_words, expected)
