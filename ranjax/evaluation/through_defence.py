"""Robust accuracy of a defended model, attacked as papers do and through the defence, with a verdict.

    found = through_defence(functions, undefended, params, images, labels, epsilons=("2/255",), name="TTC")
    print(found)                    # as published, by gradients through the defence, by queries, worst of all, verdict
    found.headline                  # the worst of all, or None where gradients are masked

`functions` are one defended model, ``(params, images, keys) -> logits``: all have the same values, and differ in what a
gradient passes (`ranjax.methods.defences.defended`). Papers on defences at test time often attack the undefended model
and show the defence those images. That is a transfer attack here, one of several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from ranjax.attacks import input_checks, losses, masking, transforms
from ranjax.attacks.ascent import ImageAttack, Loss
from ranjax.attacks.attack_table import ATTACKS, CLASSIFIER
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.minimal import validate_radii
from ranjax.core import keys as streams
from ranjax.core import precision
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.keys import take
from ranjax.core.settings import read
from ranjax.evaluation.robust_accuracy import ALONE
from ranjax.evaluation.white_box import Logits, MapRows, WhiteBox, judging
from ranjax.training.row_map import RowFunction, RowMap

TRANSFER, QUERY = "transfer", "square"
GRADIENT_ATTACKS = ("apgd_ce", "apgd_dlr")
"""Those of AutoAttack's form for random models; what takes one label is left out where an image has several."""
Survived = Bool[np.ndarray, "epsilons examples"]


@dataclass(frozen=True)
class ThroughDefence:
    """Which of N images a defended model has right under which attack, at E rising radii.

    Attributes:
      name: of the defence.
      epsilons: the radii as they were given.
      clean: right without an attack, and `undefended`: the same of the model without the defence.
      published: right on the images that attack the undefended model, whatever the clean answer is, as papers count.
      undefended_attacked: right of the undefended model under the same attacks.
      survived: {attack: bool[E, N]}, right without an attack and under this one. Those by gradients ("apgd_ce through",
        ...) go on with what those before them left; "transfer" stands alone; "square" goes on with what they all left.
      flat: right images whose margin has a gradient of exactly 0 in every form that an attacker takes.
    """

    name: str
    epsilons: tuple[float | int | str, ...]
    clean: Bool[np.ndarray, " examples"]
    undefended: Bool[np.ndarray, " examples"]
    published: Survived
    undefended_attacked: Survived
    survived: Mapping[str, Survived]
    flat: Bool[np.ndarray, " examples"]

    @property
    def by_gradient(self) -> Survived:
        """Right under every attack by gradients through the defence."""
        return np.all([rows for name, rows in self.survived.items() if name not in (TRANSFER, QUERY)], axis=0)

    @property
    def worst(self) -> Survived:
        """Right under every attack."""
        return np.all(list(self.survived.values()), axis=0)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why gradients count as masked, in words; empty where they do not."""
        found = []
        if self.flat.mean() > ALONE:
            found.append(f"{self.flat.sum()} of {self.clean.sum()} right images have a gradient of exactly 0")
        gap = (self.by_gradient.mean(1) - self.survived[TRANSFER].mean(1)).max()
        if gap > ALONE:
            found.append(f"transferred images break {100 * gap:.0f} points more than gradients through the defence")
        rest = self.by_gradient & self.survived[TRANSFER]
        alone = (rest & ~self.survived[QUERY]).mean(1).max() if QUERY in self.survived else 0.0
        if alone > ALONE:
            found.append(f"a search without gradients breaks {100 * alone:.0f} points that nothing else did")
        return tuple(found)

    @property
    def masked(self) -> bool:
        """Whether attacks by gradients do worse than those without: no figure is then robustness."""
        return bool(self.reasons)

    @property
    def verdict(self) -> str:
        """Return "not masked", or "masked" with the reasons."""
        return f"masked ({'; '.join(self.reasons)})" if self.masked else "not masked"

    @property
    def headline(self) -> tuple[float, ...] | None:
        """The accuracy under all attacks by radius; None, as withheld, where gradients are masked."""
        return None if self.masked else tuple(self.worst.mean(1).tolist())

    def __str__(self) -> str:
        def line(name: str, rows: Survived) -> str:
            return f"{name:24} " + " ".join(f"{100 * share:8.1f}" for share in rows.mean(axis=1))

        lines = [
            f"{self.name}: {100 * self.undefended.mean():.1f} % clean without it, {100 * self.clean.mean():.1f} with"
        ]
        lines.append(f"{'epsilon':24} " + " ".join(f"{epsilon!s:>8}" for epsilon in self.epsilons))
        lines += [line("undefended", self.undefended_attacked), line("as published", self.published)]
        lines += [line(name, rows) for name, rows in self.survived.items()]
        lines.append("worst of all             withheld" if self.masked else line("worst of all", self.worst))
        return "\n".join([*lines, self.verdict])


def through_defence(
    functions: Mapping[str, Logits] | Logits,
    undefended: Logits,
    params: PyTree,
    images: Float[Array | np.ndarray, "examples height width channels"],
    labels: Shaped[Array | np.ndarray, "..."],
    *,
    epsilons: Sequence[float | int | str],
    name: str = "defence",
    attacks: Sequence[str] = GRADIENT_ATTACKS,
    steps: int = 10,
    draws: int = 4,
    queries: int = 100,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 32,
    transferred: Mapping[str, Float[np.ndarray, "examples height width channels"]] | None = None,
    poll: Callable[[], None] = lambda: None,
) -> ThroughDefence:
    """Attack a defended model in every way at hand: through it, by transfer and by queries.

    A draw that no attack sees judges a random defence, the same one before and after; attacks by gradients and queries
    raise the mean over `draws`. An image broken at a radius counts as broken at larger ones. Each attack compiles once.

    Args:
      functions: ``(params, images, keys) -> logits`` by what a gradient passes, e.g. {"through": ..., "identity": ...};
        one alone is "through".
      undefended: ``(params, images) -> logits`` of the model without the defence.
      params: of both.
      images: f32[N, H, W, C] in [0, 1].
      labels: i32[N], or multi-hot f32[N, C].
      epsilons: rising radii above 0, L-infinity, in pixel units.
      name: of the defence.
      attacks: by gradients, names of `ATTACKS`.
      steps: of each.
      draws: over which attacks raise the mean; they keep the highest one. 0: keys decide nothing, what breaks is kept.
      queries: of Square, on what all others left right; 0: none.
      ids: N different names, which decide each image's draws; None: "0", "1", ...
      seed: of the draws.
      batch_size: images at a time.
      transferred: attacked images of the undefended model by radius, from `published_images`, where they are at hand.
      poll: called before each batch.

    Raises:
      DataError: images outside [0, 1], labels or ids that do not fit.
      ConfigError: radii that do not rise, an unknown attack.
    """
    images = np.asarray(input_checks.validate_images(images, 4))
    names = input_checks.example_names(ids, len(images))
    if len(labels) != len(images):
        raise DataError(f"{len(labels)} labels for {len(images)} images")
    radii = validate_radii(epsilons, "linf")
    ways: Mapping[str, Logits] = functions if isinstance(functions, Mapping) else {"through": functions}
    if not ways or draws < 0:
        raise ConfigError("functions" if not ways else "draws", draws if ways else 0, f"at least {0 if ways else 1}")
    labels = np.asarray(labels)
    labels = labels.astype(np.float32 if labels.ndim == 2 else np.int32)
    drawn = streams.example_keys(streams.stream(seed, "through defence"), names)
    map_rows = _polled(poll)
    if transferred is None:
        transferred = published_images(
            undefended, params, images, labels, epsilons=epsilons, attacks=attacks, steps=steps, ids=ids, seed=seed,
            batch_size=batch_size, poll=poll,
        )  # fmt: skip

    # The judge: one draw of the defended model, and the model without the defence.
    first = next(iter(ways.values()))
    judge = map_rows(_judge(first), batch_size)
    plain = map_rows(_plain(undefended), batch_size)
    clean = judge(params, (images, labels, drawn))
    before = plain(params, (images, labels))
    shown = [transferred[str(epsilon)] for epsilon in epsilons]
    published = np.stack([judge(params, (moved, labels, drawn)) for moved in shown])
    without = np.stack([plain(params, (moved, labels)) for moved in shown])

    # Through the defence: each attack and way goes on with what those before left.
    survived: dict[str, Survived] = {}
    classes = _classes(first, params, images[:1], drawn[:1])
    left = np.repeat(clean[None], len(radii), axis=0)
    for attack in _fitting(attacks, labels):
        for way, function in ways.items():
            box = _box(function, attack, classes, labels, steps, batch_size, draws, map_rows)
            left = survived[f"{attack} {way}"] = _survivors(box, params, images, labels, drawn, radii, left)
    survived[TRANSFER] = np.logical_and.accumulate(published & clean)
    if queries:
        box = _box(first, QUERY, classes, labels, queries, batch_size, draws, map_rows)
        survived[QUERY] = _survivors(box, params, images, labels, drawn, radii, left & survived[TRANSFER])
    flat = clean
    for function in ways.values():
        if flat.any():
            flat = flat & map_rows(_flat(function), batch_size)(params, (images, labels, drawn))
    return ThroughDefence(name, tuple(epsilons), clean, before, published, without, survived, flat)


def published_images(
    undefended: Logits,
    params: PyTree,
    images: Float[Array | np.ndarray, "examples height width channels"],
    labels: Shaped[Array | np.ndarray, "..."],
    *,
    epsilons: Sequence[float | int | str],
    attacks: Sequence[str] = GRADIENT_ATTACKS,
    steps: int = 10,
    ids: Sequence[str] | None = None,
    seed: int = 0,
    batch_size: int = 32,
    poll: Callable[[], None] = lambda: None,
) -> dict[str, Float[np.ndarray, "examples height width channels"]]:
    """Return images that attack a model without its defence, by radius: the first attack's, or of the next that breaks.

    Arguments as those of `through_defence`; its results serve all defences of one model.
    """
    images, labels = np.asarray(images, np.float32), np.asarray(labels)
    names = input_checks.example_names(ids, len(images))
    drawn = streams.example_keys(streams.stream(seed, "published"), names)
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    classes = jax.eval_shape(undefended, params, one).shape[1]
    boxes = [
        _box(undefended, attack, classes, labels, steps, batch_size, None, _polled(poll))
        for attack in _fitting(attacks, labels)
    ]
    found = {}
    for text, radius in zip(epsilons, validate_radii(epsilons, "linf")):
        moved, standing = images.copy(), np.ones(len(images), bool)
        for number, box in enumerate(boxes):
            rows = np.flatnonzero(standing)
            if not rows.size:
                break
            settings = box.settings.with_epsilon(radius)
            result = box(params, images[rows], labels[rows], take(drawn, rows), settings=settings, keep_images=True)
            assert result.images is not None
            broken = ~result.correct
            taken = np.ones_like(broken) if number == 0 else broken
            moved[rows[taken]] = result.images[taken]
            standing[rows] &= result.correct
        found[str(text)] = moved
    return found


def _polled(poll: Callable[[], None]) -> MapRows:
    return lambda fn, batch_size: RowMap(fn, None, batch_size, poll)


def _fitting(attacks: Sequence[str], labels: np.ndarray) -> list[str]:
    names = [ATTACKS.resolve(name, "attacks").name for name in ATTACKS.expand(attacks)]
    fitting = [name for name in names if labels.ndim == 1 or "single_label" not in ATTACKS[name].needs]
    if not fitting or set(fitting) <= {QUERY}:
        raise ConfigError("attacks", tuple(attacks), "an attack by gradients that takes such labels")
    return [name for name in fitting if name != QUERY]


def _classes(function: Logits, params: PyTree, image: np.ndarray, key: jax.Array) -> int:
    return int(jax.eval_shape(function, params, image, key).shape[1])


def _box(
    function: Logits,
    name: str,
    classes: int,
    labels: np.ndarray,
    budget: int,
    batch_size: int,
    draws: int | None,
    map_rows: MapRows,
) -> WhiteBox:
    """Return one attack, compiled once for all radii; its budget is steps or queries; `draws` None: no keys at all."""
    count = 0 if draws is None else max(draws, 1)
    attack = ATTACKS[name]
    values: Any = attack.settings
    if values is not None:
        values = read(values, {"steps": budget, "step": str(2.5 / budget), "queries": budget})
    loss = attack.loss_for(classes, labels.ndim == 2)
    run: Callable[..., Any] = attack.run
    if draws and loss != CLASSIFIER:

        def run(loss_fn: Loss, *given: Any) -> ImageAttack:
            return attack.run(transforms.without_success(loss_fn), *given)

    return WhiteBox(function, attack.at(values, 1.0), run, loss, batch_size, count, map_rows)


def _survivors(
    box: WhiteBox,
    params: PyTree,
    images: np.ndarray,
    labels: np.ndarray,
    drawn: jax.Array,
    radii: Sequence[float],
    left: Survived,
) -> Survived:
    """Return what one attack leaves right at each radius of what was left; what breaks stays broken at larger ones."""
    found, alive = [], left[0].copy()
    for radius, standing in zip(radii, left):
        alive &= standing
        rows = np.flatnonzero(alive)
        if rows.size:
            settings = box.settings.with_epsilon(radius)
            alive[rows] &= box(params, images[rows], labels[rows], take(drawn, rows), settings=settings).correct
        found.append(alive.copy())
    return np.stack(found)


def _judge(function: Logits) -> RowFunction:
    @precision.exact
    def judged(params: PyTree, rows: PyTree) -> Array:
        images, labels, drawn = rows
        return ~losses.is_wrong(function(params, images, judging(drawn)), labels)

    return judged


def _plain(function: Logits) -> RowFunction:
    @precision.exact
    def judged(params: PyTree, rows: PyTree) -> Array:
        images, labels = rows
        return ~losses.is_wrong(function(params, images), labels)

    return judged


def _flat(function: Logits) -> RowFunction:
    def zero_gradients(params: PyTree, rows: PyTree) -> Array:
        images, labels, drawn = rows
        model = Classifier(lambda x, keys: function(params, x, keys), labels, 1)
        return masking.has_no_gradient(model, images, drawn)

    return zero_gradients
