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
      source: the paper, and where this differs from it.
      needs_target: whether each pair is driven towards another training pair, whose features are `pairs.target`. Its
        setting `target` says how that one is drawn, one of `target_pairs.TARGETS`; it is no keyword of `craft`.
    """

    name: str
    label: str
    craft: Callable[..., Any]
    kind: str = "attack"
    changes: tuple[str, ...] = SIDES
    settings: DataclassInstance | None = None
    source: str = ""
    needs_target: bool = False

    def __post_init__(self) -> None:
        check_entry(self, "craft")
        if self.kind not in ("attack", "control"):
            raise ConfigError("Recipe.kind", self.kind, "'attack' or 'control'")
        if not self.changes or not set(self.changes) <= set(SIDES):
            raise ConfigError("Recipe.changes", self.changes, "'image', 'text' or both")
        if self.needs_target and (self.kind != "attack" or not hasattr(self.settings, "target")):
            raise ConfigError("Recipe.needs_target", True, "False, or an attack with a setting 'target'")


def is_attack(recipe: Recipe) -> str:
    """Return "" for an attack, or what is expected in the place of a control."""
    return "" if recipe.kind == "attack" else "an attack, not a control"


def is_attack_alone(recipe: Recipe) -> str:
    """Return "" for an attack that needs no target pair, or what is expected in the place of another recipe."""
    return is_attack(recipe) or ("an attack without a target pair" if recipe.needs_target else "")


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


def _attack(name: str, label: str, **more: Any) -> Recipe:
    """Return the recipe whose function has that name in `attacks.pairs`, which is imported when it is called."""
    return Recipe(name, label, lazy.function("ranjax.attacks.pairs", name), **more)


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
            source="The upstream images of arXiv 2407.02716 as its public reviews describe them; details are ours.",
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
        ),
    ),
    key="noise.recipe",
)
