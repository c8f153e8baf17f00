"""The table of recipes that make noisy pairs: attacks on both sides of a pair, and controls without an attack.

An entry of your own is an object of type `Recipe` in a module of yours, named as `my_lab.mine:RECIPE`. Importing this
module imports no JAX; the attacks' functions do when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ranjax.core import lazy
from ranjax.core.checks import at_least, one_of
from ranjax.core.errors import ConfigError
from ranjax.core.registry import Table, check_entry
from ranjax.core.settings import DataclassInstance, setting
from ranjax.data.noisy_pairs import caption_shuffle, gaussian
from ranjax.data.target_pairs import TARGETS

SIDES = ("image", "text")
MEANINGS = ("keep", "contradict")
TEXTS = ("", "keywords", "captions")


@dataclass(frozen=True)
class Recipe:
    """A way to make noisy pairs.

    Attributes:
      name: part of keys, of result rows and of conditions, as in "coattack_10".
      label: what the page calls it.
      craft: of an attack `(pairs, image_settings, text_settings, **settings) -> attacks.pairs.PairAttack`, pure and
        traceable, with `pairs` an `attacks.pairs.Pairs`; its methods `attack_text` and `attack_image` are what the
        built-in recipes are composed of. Of a control `(source, ids, seed, epsilon, **settings) ->
        data.noisy_pairs.View`: the source with the records of `ids` changed, the same for the same arguments.
      kind: "attack" or "control".
      changes: the sides of a pair that it changes, of `SIDES`.
      settings: an instance of a dataclass of `core.settings.setting`s, or None: keywords of `craft`. They are the keys
        `noise.NAME.SETTING`, and of attacks `evaluate.NAME.SETTING`, too.
      meanings: the regimes that it can have, of `MEANINGS`, its own first: "keep", changed captions still say what the
        case has, or "contradict", they are false. `noise.meaning` chooses another.
      text: what its changed captions are taken from: "keywords" or "captions" of a file; "": a search for words in the
        regime "keep"; in "contradict" the captions of `noise.captions.file` where one is named, else keywords.
      source: the paper, and where this differs from it.
      needs_target: whether each pair is driven towards another training pair, whose features are `pairs.target`. Its
        setting `target`, one of `on_host`, says how that one is drawn, one of `target_pairs.TARGETS`.
      on_host: the settings that are read before `craft` is called, and are no keywords of it: how targets are drawn,
        how captions are written.
    """

    name: str
    label: str
    craft: Callable[..., Any]
    kind: str = "attack"
    changes: tuple[str, ...] = SIDES
    settings: DataclassInstance | None = None
    source: str = ""
    needs_target: bool = False
    on_host: tuple[str, ...] = ()
    meanings: tuple[str, ...] = MEANINGS
    text: str = ""

    def __post_init__(self) -> None:
        check_entry(self, "craft")
        if self.kind not in ("attack", "control"):
            raise ConfigError("Recipe.kind", self.kind, "'attack' or 'control'")
        if not self.changes or not set(self.changes) <= set(SIDES):
            raise ConfigError("Recipe.changes", self.changes, "'image', 'text' or both")
        if self.needs_target and (self.kind != "attack" or "target" not in self.on_host):
            raise ConfigError("Recipe.needs_target", True, "False, or an attack with a setting 'target' on_host")
        if unknown := [name for name in self.on_host if not hasattr(self.settings, name)]:
            raise ConfigError("Recipe.on_host", unknown[0], "names of its settings")
        if not self.meanings or not set(self.meanings) <= set(MEANINGS):
            raise ConfigError("Recipe.meanings", self.meanings, "'keep', 'contradict' or both")
        if self.text not in TEXTS:
            raise ConfigError("Recipe.text", self.text, "'keywords', 'captions' or nothing")


def is_attack(recipe: Recipe) -> str:
    """Return "" for an attack, or what is expected in the place of a control."""
    return "" if recipe.kind == "attack" else "an attack, not a control"


def is_attack_alone(recipe: Recipe) -> str:
    """Return "" for an attack on given pairs alone, or what is expected in the place of another recipe."""
    if expected := is_attack(recipe):
        return expected
    if recipe.needs_target:
        return "an attack without a target pair"
    return "an attack that makes its captions itself" if recipe.text == "captions" else ""


def searches_words(recipe: Recipe) -> str:
    """Return "" for an attack that can search for words, or what is expected in the place of another recipe."""
    if expected := is_attack_alone(recipe):
        return expected
    return "an attack whose captions stay true: false ones are upstream noise" if recipe.text else ""


@dataclass(frozen=True)
class KeywordSettings:
    """Settings of captions that are made false by exchanged keywords."""

    changes: int = setting(2, "Exchanges of keywords in a caption at most.", "exchanges", at_least(1))
    candidates: int = setting(
        16, "False forms of a caption, of which a true forward pass takes the worst.", "captions", at_least(1)
    )
    without: str = setting(
        "leave",
        "A caption that no exchange makes false: 'leave' it as it is, counted, or 'refuse' to craft.",
        check=one_of("leave", "refuse"),
    )


@dataclass(frozen=True)
class CaptionSettings:
    """Settings of captions that the user brings."""

    file: str = setting("", "CSV with the columns id and caption, e.g. of 'ranjax captions'.", "path")


@dataclass(frozen=True)
class CoattackSettings:
    """Settings of Co-Attack."""

    alpha: float = setting(3.0, "Weight of the divergence from the attacked report.", check=at_least(0))


@dataclass(frozen=True)
class SgaSettings:
    """Settings of the set-level guidance attack."""

    noise: float = setting(0.05, "Deviation of the noise on each rescaled image.", "pixel units", at_least(0))


@dataclass(frozen=True)
class TargetedSettings:
    """Settings of the attack towards a target image."""

    target: str = setting(
        "other_class", "The target: a training pair that shares no label, or any other one.", check=one_of(*TARGETS)
    )


@dataclass(frozen=True)
class TargetedKeywordsSettings(TargetedSettings):
    """Settings of the attack on both sides towards a target pair."""

    order: str = setting(
        "image_first", "The side that moves first; the other follows it.", check=one_of("image_first", "text_first")
    )


def _attack(name: str, label: str, function: str = "", **more: Any) -> Recipe:
    """Return the recipe of a function in `attacks.pairs`, by default of its name; it is imported when it is called."""
    return Recipe(name, label, lazy.function("ranjax.attacks.pairs", function or name), **more)


RECIPES: Table[Recipe] = Table(
    "recipe",
    Recipe,
    (
        _attack(
            "coattack",
            "Co-Attack",
            settings=CoattackSettings(),
            source="Zhang et al., ACM MM 2022, arXiv 2206.09391. PGD starts on both sides of the image.",
        ),
        _attack("sga", "SGA", settings=SgaSettings(), source="Lu et al., ICCV 2023, arXiv 2307.14061."),
        _attack("sep", "both apart", source="Each side against the clean other side."),
        _attack(
            "sequential",
            "one after the other",
            source="The report against the clean image, then the image against the attacked report.",
        ),
        _attack("image_only", "image", changes=("image",)),
        _attack("text_only", "report", changes=("text",)),
        _attack(
            "targeted",
            "towards a target image",
            changes=("image",),
            settings=TargetedSettings(),
            needs_target=True,
            on_host=("target",),
            source="The upstream images of arXiv 2407.02716 as its public reviews describe them; details are ours.",
        ),
        _attack(
            "keywords",
            "exchanged keywords",
            "text_only",
            changes=("text",),
            settings=KeywordSettings(),
            on_host=("changes", "candidates", "without"),
            source="Captions made false by a medical grammar, the image as it is; the worst of them by a forward pass.",
            meanings=("contradict",),
            text="keywords",
        ),
        _attack(
            "captions",
            "captions of a file",
            "text_only",
            changes=("text",),
            settings=CaptionSettings(),
            on_host=("file",),
            source="Captions rewritten by whatever the user chose, e.g. a language model; the image as it is.",
            meanings=("contradict", "keep"),
            text="captions",
        ),
        _attack(
            "targeted_keywords",
            "targeted + keywords",
            settings=TargetedKeywordsSettings(),
            needs_target=True,
            on_host=("target",),
            source="The upstream noise of arXiv 2407.02716 as its public reviews describe it: images towards a target "
            "image, captions with exchanged keywords. Which false caption is taken, and the order, are ours.",
            meanings=("contradict",),
            text="keywords",
        ),
        Recipe(
            name="gaussian",
            label="random signs",
            craft=gaussian,
            kind="control",
            changes=("image",),
            source="The norm of an Linf attack with the signs of Gaussian noise.",
        ),
        Recipe(
            name="caption_shuffle",
            label="shuffled reports",
            craft=lambda source, ids, seed, epsilon: caption_shuffle(source, ids, seed),
            kind="control",
            changes=("text",),
            source="The reports of the noisy pairs swapped among themselves.",
            meanings=("contradict",),
        ),
    ),
    key="noise.recipe",
)
