"""The table of image attacks: evaluation, crafting, `robust_accuracy`, the command line and the page read it.

An entry of your own is an object of type `Attack` in a module of yours, named as `my_lab.rfgsm:RFGSM`. Importing this
module imports no JAX; an entry's functions do when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ranjax.core import lazy
from ranjax.core.checks import at_least, length, share_of
from ranjax.core.errors import ConfigError
from ranjax.core.pixels import pixel_units
from ranjax.core.registry import Table, check_entry
from ranjax.core.settings import DataclassInstance, setting

if TYPE_CHECKING:
    from ranjax.attacks.apgd import APGD
    from ranjax.attacks.apgd_t import TargetedAPGD
    from ranjax.attacks.ascent import ImageAttack
    from ranjax.attacks.fab import FAB
    from ranjax.attacks.pgd import PGD
    from ranjax.attacks.square import Square
else:  # a config names attacks before anything imports JAX
    APGD = FAB = ImageAttack = PGD = Square = TargetedAPGD = object

FEATURES = ("restarts", "l2", "l1", "surrogate")
CLASSIFIER = "classifier"
"""The `loss` of an attack that makes losses of its own: `run` then takes a `classifier.Classifier` as its first."""


@runtime_checkable
class AtRadius(Protocol):
    """Settings of an attack at one radius: a pytree, so that a new radius compiles nothing anew."""

    @property
    def epsilon(self) -> object: ...

    @property
    def norm(self) -> str: ...

    def with_epsilon(self, epsilon: float) -> AtRadius:
        """Return the same settings at another radius."""


def _own_radius(settings: object, epsilon: float | int | str, *, norm: str = "linf", restarts: int = 1) -> AtRadius:
    from ranjax.attacks.own_attack import OwnAttack

    return OwnAttack(epsilon, settings, norm, restarts)


@dataclass(frozen=True)
class Attack:
    """An image attack: how it is named, what may be set, and the function that runs it.

    Attributes:
      name: part of keys and result rows, e.g. "apgd_ce".
      label: what the page calls it.
      run: `(loss_fn, images f32[B, H, W, C] in [0, 1], keys key[B], at) -> ascent.ImageAttack`, pure and traceable.
        `loss_fn(images)` gives the loss f32[B] to be raised, or `(loss, success bool[B])`. `at` holds the radius:
        an `OwnAttack` with the fields `epsilon`, `values` (of the settings), `norm` and `restarts`, or what
        `configure` returns. With `loss=CLASSIFIER`, a `Classifier` stands in the place of `loss_fn`.
      settings: an instance of a dataclass of `core.settings.setting`s, or None. They are the keys
        `evaluate.NAME.SETTING` and `noise.NAME.SETTING`.
      configure: `(settings, epsilon, *, norm, restarts) -> at`; by default an `OwnAttack`.
      loss: name in `ranjax.attacks.losses` of the loss of a classifier that it raises, or `CLASSIFIER`: it makes losses
        of its own, one for each class to reach. Such an attack crafts no pairs.
      loss_of_two: the same where there are two classes; empty: `loss`.
      loss_of_many: the same where several labels an image may be right.
      needs: "single_label" where its loss takes one label an image. Such an attack crafts no pairs.
      takes: which of `FEATURES` `run` has: "restarts" (`at.restarts`), "l2" and "l1" (`at.norm`), and "surrogate" (the
        keyword `surrogate=loss_fn` whose gradient it follows). What an attack does not take is refused.
      source: the paper, and whether a radius of a curve scales the step.
    """

    name: str
    label: str
    run: Callable[..., ImageAttack]
    settings: DataclassInstance | None = None
    configure: Callable[..., AtRadius] = _own_radius
    loss: str = "cross_entropy"
    loss_of_two: str = ""
    loss_of_many: str = "binary_cross_entropy"
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        check_entry(self, "run", "configure")
        for field, known in (("needs", ("single_label",)), ("takes", FEATURES)):
            if unknown := [name for name in getattr(self, field) if name not in known]:
                raise ConfigError(f"Attack.{field}", unknown[0], f"some of {', '.join(known)}")

    def at(self, settings: object, epsilon: float | int | str, *, norm: str = "linf", restarts: int = 1) -> AtRadius:
        """Return what `run` takes.

        Args:
          settings: values of the type of `self.settings`.
          epsilon: radius in pixels from 0 to 1, a number or "8/255".
          norm: "linf" or "l2".
          restarts: random starts, the worst of which is kept.

        Raises:
          ConfigError: restarts or a norm that the attack does not take; what `configure` refuses.
        """
        self.check(settings, norm=norm, restarts=restarts)
        return self.configure(settings, epsilon, norm=norm, restarts=restarts)

    def check(self, settings: object, *, norm: str = "linf", restarts: int = 1, prefix: str = "attack") -> None:
        """Raise ConfigError where the attack does not take these restarts or this norm, or a step leaves the image.

        Args:
          settings: values of the type of `self.settings`.
          norm: "linf" or "l2".
          restarts: random starts.
          prefix: of the keys that errors name, e.g. "evaluate".
        """
        if restarts > 1 and "restarts" not in self.takes:
            raise ConfigError(f"{prefix}.restarts", restarts, f"1 with the attack {self.name!r}")
        if norm != "linf" and norm not in self.takes:
            raise ConfigError(f"{prefix}.norm", norm, f"'linf' with the attack {self.name!r}")
        step = getattr(settings, "step", None)
        if norm == "linf" and isinstance(step, str) and pixel_units(step) > 1:
            raise ConfigError(f"{prefix}.{self.name}.step", step, "at most 1, in pixel units (not 0 to 255)")

    def loss_for(self, classes: int, multi_label: bool = False) -> str:
        """Return the name of the loss that it raises on a classifier of so many classes.

        Raises:
          ConfigError: several labels an image, where its loss takes one.
        """
        if multi_label and "single_label" in self.needs:
            expected = f"one without the loss {self.loss!r}, which takes one label an image"
            raise ConfigError("attack", self.name, expected)
        if self.loss == CLASSIFIER:
            return CLASSIFIER
        if multi_label:
            return self.loss_of_many
        return self.loss_of_two if self.loss_of_two and classes == 2 else self.loss


def raises_any_loss(attack: Attack) -> str:
    """Return "" where an attack raises whichever loss it is given, as crafting pairs needs it, or what is expected."""
    of_classifier = "single_label" in attack.needs or attack.loss == CLASSIFIER
    return "an attack on any loss; this one takes the loss of a classifier" if of_classifier else ""


@dataclass(frozen=True)
class PGDSettings:
    """Settings of projected gradient ascent."""

    step: str = setting("1/255", "Step of PGD; of a curve over radii in proportion.", "pixel units", length)
    steps: int = setting(10, "Steps of PGD; 0 is its start alone.", "steps", at_least(0))


@dataclass(frozen=True)
class APGDSettings:
    """Settings of APGD, which chooses its step itself."""

    steps: int = setting(20, "Steps of APGD.", "steps", at_least(1))


def _at_pgd(settings: PGDSettings, epsilon: float | int | str, *, norm: str = "linf", restarts: int = 1) -> PGD:
    from ranjax.attacks.pgd import PGD

    return PGD(epsilon, settings.step, settings.steps, norm=norm, restarts=restarts)


@dataclass(frozen=True)
class TargetedSettings:
    """Settings of an attack that goes towards one class after another."""

    steps: int = setting(20, "Steps towards each class.", "steps", at_least(1))
    targets: int = setting(9, "Classes to reach, the nearest first.", "classes", at_least(1))


@dataclass(frozen=True)
class SquareSettings:
    """Settings of the Square attack."""

    queries: int = setting(1000, "Forward passes of the Square attack.", "queries", at_least(1))
    share: float = setting(0.8, "Share of the pixels that its first squares cover.", "share", share_of)
    rescale: bool = setting(
        True, "Run through the whole schedule of sizes within these queries; AutoAttack's 5,000 run through half of it."
    )


_apgd = lazy.function("ranjax.attacks.apgd", "apgd")


def _at_apgd(settings: APGDSettings, epsilon: float | int | str, *, norm: str = "linf", restarts: int = 1) -> APGD:
    from ranjax.attacks.apgd import APGD

    return APGD(epsilon, settings.steps, norm=norm, restarts=restarts)


def _at_apgd_t(
    settings: TargetedSettings, epsilon: float | int | str, *, norm: str = "linf", restarts: int = 1
) -> TargetedAPGD:
    from ranjax.attacks.apgd_t import TargetedAPGD

    return TargetedAPGD(epsilon, settings.steps, norm=norm, restarts=restarts, targets=settings.targets)


def _at_fab(settings: TargetedSettings, epsilon: float | int | str, *, norm: str = "linf", restarts: int = 1) -> FAB:
    from ranjax.attacks.fab import FAB

    return FAB(epsilon, settings.steps, norm=norm, restarts=restarts, targets=settings.targets)


def _at_square(
    settings: SquareSettings, epsilon: float | int | str, *, norm: str = "linf", restarts: int = 1
) -> Square:
    from ranjax.attacks.square import Square

    return Square(epsilon, settings.queries, norm, settings.share, settings.rescale, restarts)


STANDARD = ("apgd_ce", "apgd_t", "square")
"""The suite "standard": two attacks by gradients, whose worst case is the figure, and one without, to check it by."""

ATTACKS: Table[Attack] = Table(
    "attack",
    Attack,
    (
        Attack(
            name="pgd",
            label="PGD",
            run=lazy.function("ranjax.attacks.pgd", "pgd"),
            settings=PGDSettings(),
            configure=_at_pgd,
            takes=FEATURES,
            source="Madry et al. 2018, arXiv 1706.06083. The step grows with the radius of a curve.",
        ),
        Attack(
            name="apgd_ce",
            label="APGD (cross-entropy)",
            run=_apgd,
            settings=APGDSettings(),
            configure=_at_apgd,
            takes=("restarts", "l2", "l1"),
            source="Croce and Hein 2020, arXiv 2003.01690, Algorithm 1. The first step is two radii.",
        ),
        Attack(
            name="apgd_dlr",
            label="APGD (DLR)",
            run=_apgd,
            settings=APGDSettings(),
            configure=_at_apgd,
            loss="dlr",
            # The ratio needs a third logit; the margin is its numerator.
            loss_of_two="margin",
            needs=("single_label",),
            takes=("restarts", "l2", "l1"),
            source="Croce and Hein 2020, arXiv 2003.01690, equation 6. The first step is two radii.",
        ),
        Attack(
            name="apgd_t",
            label="APGD-T",
            run=lazy.function("ranjax.attacks.apgd_t", "apgd_t"),
            settings=TargetedSettings(),
            configure=_at_apgd_t,
            loss=CLASSIFIER,
            takes=("restarts", "l2", "l1"),
            source="Croce and Hein 2020, arXiv 2003.01690, equation 7: targeted DLR; below 4 classes the margin.",
        ),
        Attack(
            name="fab_t",
            label="FAB-T",
            run=lazy.function("ranjax.attacks.fab", "fab"),
            settings=TargetedSettings(),
            configure=_at_fab,
            loss=CLASSIFIER,
            takes=("restarts", "l2", "l1"),
            source="Croce and Hein 2020, arXiv 1907.02044, Algorithm 1, towards the nearest classes.",
        ),
        Attack(
            name="square",
            label="Square",
            run=lazy.function("ranjax.attacks.square", "square"),
            settings=SquareSettings(),
            configure=_at_square,
            loss="margin",
            loss_of_many="margin_of_any",
            takes=("restarts", "l2", "l1"),
            source="Andriushchenko et al. 2020, arXiv 1912.00049. It takes no gradient.",
        ),
    ),
    key="evaluate.attacks",
    suites={"standard": STANDARD},
)
