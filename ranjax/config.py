"""Every configuration key: its default, its unit, what it means, and what is allowed.

`KEYS` is the one list. `default_config()` turns it into a `ml_collections.ConfigDict`, `validate(config)` checks a
resolved config against it, `override(config, "pretrain.steps", "500")` sets one key from text, `describe(config)`
prints it. A config file is a Python program whose `get_config(argument)` starts from `default_config()` and changes
what it needs; since it is a program, run only config files that you trust.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections

from ranjax.errors import ConfigError, nearest

Check = Callable[[Any], str]
"""Returns an empty string for an allowed value, else words that say what is allowed."""


def at_least(low: float) -> Check:
    return lambda v: "" if v >= low else f"a number of at least {low}"


def above(low: float) -> Check:
    return lambda v: "" if v > low else f"a number above {low}"


def between(low: float, high: float) -> Check:
    return lambda v: "" if low <= v <= high else f"a number from {low} to {high}"


def one_of(*choices: Any) -> Check:
    return lambda v: "" if v in choices else "one of " + ", ".join(map(repr, choices)) + _nearest_choice(v, choices)


def some_of(*choices: str) -> Check:
    def check(v: tuple[str, ...]) -> str:
        good = len(v) > 0 and all(x in choices for x in v) and len(set(v)) == len(v)
        return "" if good else "a tuple of different names out of " + ", ".join(map(repr, choices))

    return check


def epsilon(value: Any) -> str:
    """Pixel units, 0 to 1, as a number or as text such as "8/255"."""
    try:
        good = 0.0 <= pixel_units(value) <= 1.0
    except (ValueError, ZeroDivisionError):
        good = False
    return "" if good else 'pixel units from 0 to 1, e.g. "8/255" or "0.03" (not 0 to 255)'


def ratios(value: tuple[float, ...]) -> str:
    good = len(value) > 0 and value[0] == 0.0 and all(a < b for a, b in itertools.pairwise(value)) and value[-1] <= 1.0
    return "" if good else "shares from 0 to 1 that rise and begin with 0.0 (the clean run is the surrogate)"


def maps(value: tuple[str, ...]) -> str:
    return "" if all("=" in v for v in value if v) else "texts of the form 'name=value'"


def anything(value: Any) -> str:
    return ""


def pixel_units(value: str | float) -> float:
    """Turns "8/255", "0.03" or a number into a float in pixel units (0 to 1)."""
    if isinstance(value, str) and "/" in value:
        top, bottom = value.split("/")
        return float(top) / float(bottom)
    return float(value)


@dataclass(frozen=True)
class Key:
    """One configuration key. `check` looks at a value of the default's type."""

    name: str
    default: Any
    meaning: str
    unit: str = ""
    check: Check = anything


def _nearest_choice(value: Any, choices: tuple[Any, ...]) -> str:
    if not isinstance(value, str):
        return ""
    hint = nearest(value, [c for c in choices if isinstance(c, str)])
    return f" ({hint[:-1].lower()}?)" if hint else ""


METHODS = ("lp", "mlp", "nmtune", "ran")
RECIPES = ("coattack", "sga", "sep", "image_only", "text_only")

KEYS: tuple[Key, ...] = (
    Key("seed", 0, "The one seed: data, weights, order, attacks and heads all derive from it.", "", at_least(0)),
    Key("devices", 0, "How many devices share the work; 0 takes all that are visible.", "devices", at_least(0)),
    Key("compile_cache", "", "Folder of compiled programs; empty: the user's cache folder; 'off': none.", "path"),
    Key("quick_compile", False, "Compile without XLA's expensive passes: starts sooner, computes slower."),
    # data
    Key("data.source", "radiographs", "Where records come from.", "", one_of("radiographs", "folder", "tfds")),
    Key("data.dir", "", "Where the prepared set is kept; empty: <workdir>/data. May be shared by runs.", "path"),
    Key("data.image_size", 64, "Side of the square images.", "pixels", between(16, 1024)),
    Key("data.radiographs.train", 4096, "Upstream image-report pairs.", "pairs", at_least(8)),
    Key("data.radiographs.adapt", 768, "Labelled images for fitting heads.", "images", at_least(8)),
    Key("data.radiographs.validation", 384, "Images for choosing epochs.", "images", at_least(8)),
    Key("data.radiographs.test", 384, "Images for in-domain figures.", "images", at_least(8)),
    Key("data.radiographs.ood_test", 384, "Images of other acquisition settings.", "images", at_least(8)),
    Key("data.radiographs.multiple", 0.2, "Share of images with two or three findings.", "share", between(0, 1)),
    Key("data.folder.csv", "", "CSV with one row an image (data.source = 'folder').", "path"),
    Key("data.folder.images", "", "Folder that file names are relative to; empty: the CSV's folder.", "path"),
    Key("data.folder.file_column", "file", "Column that names the image file.", "column"),
    Key("data.folder.report_column", "", "Column with the report; empty: the template below is used.", "column"),
    Key("data.folder.report_template", "", "Report made from columns, as '{view} view. {findings}.'.", "text"),
    Key("data.folder.words", ("",), "Words for a column's values, as 'sex:M=male' (template only).", "", maps),
    Key("data.folder.label_column", "", "Column with the label or labels.", "column"),
    Key("data.folder.label_separator", "|", "What separates several labels in one cell.", "text"),
    Key("data.folder.label_map", ("",), "Class of a label where names differ, as 'No Finding=normal'.", "", maps),
    Key(
        "data.folder.unknown_labels",
        "exclude",
        "A label outside the classes excludes its row (counted, listed), or is ignored.",
        "",
        one_of("exclude", "ignore"),
    ),
    Key("data.folder.patient_column", "", "Column with the patient; splits never share one.", "column"),
    Key("data.folder.split_column", "", "Column with the split; empty: by patient, with the shares below.", "column"),
    Key(
        "data.folder.shares",
        (0.6, 0.1, 0.1, 0.2),
        "Shares of patients in train, adapt, validation and test, where no split column is named.",
        "shares",
        lambda v: "" if len(v) == 4 and min(v) > 0 and abs(sum(v) - 1) < 1e-6 else "four positive shares that sum to 1",
    ),
    Key("data.folder.ood_csv", "", "CSV of the out-of-domain test set, same columns; empty: none.", "path"),
    Key("data.folder.ood_images", "", "Folder that its file names are relative to; empty: its CSV's folder.", "path"),
    Key("data.folder.ood_report_template", "", "Report template of that set, where its columns differ.", "text"),
    Key("data.folder.resize", "crop", "How images are made square.", "", one_of("crop", "pad", "stretch")),
    Key("data.classes", ("",), "Class names in label order (folder and tfds; radiographs bring their own).", "names"),
    Key("data.prompts", ("",), "Zero-shot prompts, as 'pneumonia=a chest X-ray with pneumonia.'.", "", maps),
    Key("data.label_words", ("",), "Words that state a finding, which text attacks protect.", "words"),
    Key("data.tfds.name", "", "Name of a prepared TFDS set (data.source = tfds).", "name"),
    Key("data.tfds.data_dir", "", "Folder that TFDS prepared it into.", "path"),
    Key("data.tfds.image_key", "image", "Feature that holds the image.", "name"),
    Key("data.tfds.report_key", "report", "Feature that holds the report.", "name"),
    Key("data.tfds.label_key", "label", "Feature that holds the class index.", "name"),
    Key(
        "data.tfds.splits",
        ("train", "train", "validation", "test", ""),
        "The set's own splits that serve as train, adapt, validation, test, ood_test ('' for none).",
        "names",
        lambda v: "" if len(v) == 5 and all(v[:4]) else "five split names, of which only the last may be empty",
    ),
    # text
    Key("text.tokenizer", "", "tokenizer.json or its folder; empty: words of the training reports.", "path"),
    Key("text.max_length", 60, "Tokens a report is cut or padded to; the end token is kept.", "tokens", at_least(8)),
    Key("text.max_vocabulary", 2048, "Words kept when the tokenizer is built here.", "words", at_least(32)),
    # model
    Key("model.weights", "", "Folder of a Hugging Face CLIP to start from; empty: random weights.", "path"),
    Key("model.patch_size", 16, "Side of a patch.", "pixels", at_least(1)),
    Key("model.vision_width", 128, "Width of the image tower.", "channels", at_least(8)),
    Key("model.vision_layers", 3, "Blocks of the image tower.", "layers", at_least(1)),
    Key("model.vision_heads", 4, "Attention heads of the image tower.", "heads", at_least(1)),
    Key("model.text_width", 96, "Width of the text tower.", "channels", at_least(8)),
    Key("model.text_layers", 1, "Blocks of the text tower.", "layers", at_least(1)),
    Key("model.text_heads", 4, "Attention heads of the text tower.", "heads", at_least(1)),
    Key("model.embed_dim", 128, "Width of the shared embedding.", "channels", at_least(4)),
    Key("model.activation", "quick_gelu", "Activation of the MLPs.", "", one_of("gelu", "quick_gelu")),
    # pretrain
    Key("pretrain.steps", 260, "Steps of each upstream run.", "steps", at_least(1)),
    Key("pretrain.batch_size", 64, "Global batch; its pairs are each other's negatives.", "pairs", at_least(2)),
    Key("pretrain.learning_rate", 1e-3, "Peak of the schedule.", "", above(0)),
    Key("pretrain.warmup", 0.1, "Share of the steps with a linear warm-up; then cosine to 0.", "share", between(0, 1)),
    Key("pretrain.weight_decay", 0.1, "AdamW's; not on biases, norms, logit scale.", "", at_least(0)),
    Key("pretrain.clip_norm", 1.0, "Largest gradient norm; 0 switches clipping off.", "", at_least(0)),
    Key("pretrain.checkpoint_every", 130, "Steps between checkpoints.", "steps", at_least(1)),
    Key("pretrain.log_every", 50, "Steps between lines of figures.", "steps", at_least(1)),
    # noise
    Key("noise.ratios", (0.0, 0.1, 0.3), "Shares of the upstream pairs that are adversarial.", "shares", ratios),
    Key("noise.recipe", "coattack", "Which attack makes the twins.", "", one_of(*RECIPES)),
    Key("noise.image_epsilon", "8/255", "Radius of the Linf ball.", "pixel units", epsilon),
    Key("noise.image_step", "2/255", "Step of PGD.", "pixel units", epsilon),
    Key("noise.image_steps", 10, "Steps of PGD.", "steps", at_least(0)),
    Key("noise.max_words", 3, "Words that may change in a report.", "words", at_least(0)),
    Key("noise.top_k", 8, "Substitutions re-scored by a true forward pass each round.", "candidates", at_least(1)),
    Key("noise.protect", True, "Keep negations, sides, numbers and finding words as they are.", ""),
    Key("noise.batch_size", 64, "Pairs attacked at a time on each device.", "pairs", at_least(1)),
    Key(
        "noise.shard_size",
        256,
        "Pairs a shard of the noisy store; a finished shard is never redone.",
        "pairs",
        at_least(1),
    ),
    # adapt
    Key("adapt.methods", METHODS, "Light-weight fine-tuning methods to fit.", "", some_of(*METHODS)),
    Key("adapt.seeds", 5, "Heads of each method, with seeds 0, 1, ...", "seeds", at_least(1)),
    Key("adapt.epochs", 15, "Passes over the labelled features.", "epochs", at_least(1)),
    Key("adapt.batch_size", 64, "Features a step.", "features", at_least(2)),
    Key("adapt.learning_rate", 1e-3, "AdamW's for residual heads (cosine to 0).", "", above(0)),
    Key("adapt.lp_learning_rate", 1e-2, "AdamW's for the linear probe.", "", above(0)),
    Key("adapt.weight_decay", 1e-4, "AdamW's.", "", at_least(0)),
    Key("adapt.mse", 1.0, "Weight of the consistency term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.cov", 0.04, "Weight of the covariance term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.svd", 0.001, "Weight of the dominant-singular-value term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.top_k", 1, "Singular values counted as dominant.", "values", at_least(1)),
    Key("adapt.defence_ce", 1.0, "RAN: weight of cross-entropy on attacked features.", "", at_least(0)),
    Key("adapt.defence_consistency", 1.0, "RAN: weight of feature consistency under attack.", "", at_least(0)),
    Key("adapt.defence_kl", 1.0, "RAN: weight of prediction consistency under attack.", "", at_least(0)),
    Key("adapt.epsilon", "4/255", "RAN: radius of the ball of its defence examples.", "pixel units", epsilon),
    Key("adapt.step", "1/255", "RAN: step of its PGD.", "pixel units", epsilon),
    Key("adapt.attack_steps", 5, "RAN: steps of its PGD against the frozen encoder.", "steps", at_least(1)),
    # evaluate
    Key("evaluate.epsilon", "4/255", "Radius of the white-box attack.", "pixel units", epsilon),
    Key("evaluate.step", "1/255", "Step of the white-box PGD.", "pixel units", epsilon),
    Key("evaluate.steps", 10, "Steps of the white-box PGD.", "steps", at_least(1)),
    Key("evaluate.restarts", 1, "Random restarts; the worst counts.", "restarts", at_least(1)),
    Key("evaluate.attacked_seeds", 1, "How many of the heads are attacked.", "seeds", at_least(0)),
    Key("evaluate.attacked_examples", 128, "Test images that are attacked; 0 takes all.", "images", at_least(0)),
    Key("evaluate.masking_examples", 24, "Test images of the masking checks; 0: no checks.", "images", at_least(0)),
    Key("evaluate.masking_queries", 30, "Forward passes of their random search.", "queries", at_least(1)),
    Key("evaluate.batch_size", 64, "Images at a time on each device.", "images", at_least(1)),
    Key("evaluate.bootstrap", 1000, "Resamples behind each 95 % interval.", "resamples", at_least(10)),
    Key("report.examples", 6, "Attacked pairs shown on the page.", "pairs", at_least(0)),
)
BY_NAME = {key.name: key for key in KEYS}


def default_config() -> ml_collections.ConfigDict:
    """A ConfigDict that holds every key with its default."""
    config = ml_collections.ConfigDict()
    for key in KEYS:
        *path, last = key.name.split(".")
        node = config
        for part in path:
            if part not in node:
                node[part] = ml_collections.ConfigDict()
            node = node[part]
        node[last] = key.default
    config.lock()
    return config


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as {"pretrain.steps": 400, ...}, in the order of `KEYS`; unknown keys come last."""
    flat = dict(_leaves(config, ""))
    return {**{k: flat[k] for k in BY_NAME if k in flat}, **{k: v for k, v in flat.items() if k not in BY_NAME}}


def _leaves(node: ml_collections.ConfigDict, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in node:
        value = node[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every key and what keys demand of each other.

    Raises:
      ConfigError: names the key, the value received, what is allowed, and for an unknown key the nearest one.
    """
    flat = flatten(config)
    for name, value in flat.items():
        if name not in BY_NAME:
            raise ConfigError(name, value, "no such key", nearest(name, BY_NAME))
        _check(BY_NAME[name], value)
    for name in BY_NAME:
        if name not in flat:
            raise ConfigError(name, None, "the key must be present")
    _check_together(config)


def _check(key: Key, value: Any) -> None:
    expected = type(key.default)
    number_for_float = expected is float and isinstance(value, int) and not isinstance(value, bool)
    if not number_for_float and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
        raise ConfigError(key.name, value, f"a value of type {expected.__name__}")
    if allowed := key.check(value):
        raise ConfigError(key.name, value, allowed)


def _check_together(config: ml_collections.ConfigDict) -> None:
    model = config.model
    for tower in ("vision", "text"):
        width, heads = model[f"{tower}_width"], model[f"{tower}_heads"]
        if width % heads:
            raise ConfigError(f"model.{tower}_heads", heads, f"a divisor of model.{tower}_width = {width}")
    if not model.weights and config.data.image_size % model.patch_size:
        raise ConfigError(
            "model.patch_size", model.patch_size, f"a divisor of data.image_size = {config.data.image_size}"
        )
    if config.data.source == "radiographs" and config.pretrain.batch_size > config.data.radiographs.train:
        raise ConfigError(
            "pretrain.batch_size",
            config.pretrain.batch_size,
            f"at most data.radiographs.train = {config.data.radiographs.train}",
        )
    if config.data.source == "folder":
        for name in ("csv", "label_column"):
            if not config.data.folder[name]:
                raise ConfigError(f"data.folder.{name}", "", "a non-empty text where data.source = 'folder'")
        if not (config.data.folder.report_column or config.data.folder.report_template):
            raise ConfigError("data.folder.report_column", "", "a column, or data.folder.report_template, must be set")
    if config.data.source == "tfds" and not config.data.tfds.name:
        raise ConfigError("data.tfds.name", "", "the name of a prepared set where data.source = 'tfds'")
    if len(config.noise.ratios) > 1 and config.noise.recipe != "text_only" and config.noise.image_steps == 0:
        raise ConfigError("noise.image_steps", 0, "at least 1 where noise.recipe attacks images")


def override(config: ml_collections.ConfigDict, name: str, text: str) -> None:
    """Sets one key from the command line's text, e.g. ``override(config, "noise.ratios", "(0.0, 0.5)")``.

    Raises:
      ConfigError: the key is unknown, or the text cannot be read as the key's type.
    """
    key = BY_NAME.get(name)
    if key is None:
        raise ConfigError(name, text, "no such key", nearest(name, BY_NAME))
    *path, last = name.split(".")
    node = config
    for part in path:
        node = node[part]
    with node.unlocked():
        node[last] = _parse(key, text)
    _check(key, node[last])


def _parse(key: Key, text: str) -> Any:
    kind = type(key.default)
    try:
        if kind is str:
            return text
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            number = float(text)
            if number != int(number):
                raise ValueError(text)
            return int(number)
        if kind is float:
            return float(text)
        value = ast.literal_eval(text if text.strip().startswith(("(", "[")) else f"({text},)")
        element = type(key.default[0])
        return tuple(element(v) for v in value)
    except (ValueError, KeyError, SyntaxError, TypeError, OverflowError):
        example = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, f"like {key.default!r}")
        raise ConfigError(key.name, text, example) from None


def load(path_and_argument: str) -> ml_collections.ConfigDict:
    """Runs a config file, ``"configs/ran.py"`` or ``"configs/ran.py:smoke"``, and returns its ConfigDict.

    Raises:
      ConfigError: there is no such file, it has no `get_config`, or it takes no argument.
    """
    name, _, argument = path_and_argument.partition(":")
    path = Path(name)
    if not path.is_file():
        siblings = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError("--config", path_and_argument, "a config file that exists", nearest(name, siblings))
    spec = importlib.util.spec_from_file_location(f"ranjax_config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError("--config", path_and_argument, "a Python file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    get_config = getattr(module, "get_config", None)
    if get_config is None:
        raise ConfigError("--config", path_and_argument, "a file that defines get_config()")
    if argument and not inspect.signature(get_config).parameters:
        raise ConfigError("--config", path_and_argument, f"{name} takes no argument after a colon")
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError("--config", path_and_argument, "a file whose get_config() returns a ConfigDict")
    return config


def describe(config: ml_collections.ConfigDict) -> str:
    """A text that lists every key of the resolved config with its value, default, unit and meaning."""
    lines, group = [], ""
    for name, value in flatten(config).items():
        key = BY_NAME[name]
        head = name.split(".")[0] if "." in name else ""
        if head != group:
            lines.append("")
            group = head
        shown = f"{name} = {value!r}" + (f"  [{key.unit}]" if key.unit else "")
        default = "" if value == key.default else f"  (default {key.default!r})"
        lines.append(f"{shown}{default}\n    {key.meaning}")
    return "\n".join(lines)
