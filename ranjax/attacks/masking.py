"""Is a robust accuracy real, or are the gradients masked? One call, one verdict.

    report = masking.check(logits_fn, params, images, labels, keys, settings)
    print(report)                      # one line a check, then the verdict
    report.robust_accuracy             # the worst case over everything that was tried

Labels are one class an image, or multi-hot: then an image is right where every class is on its side of 0, and the
attack raises the binary cross-entropy.

The checks follow Athalye et al. 2018 (arXiv 1802.00420), Carlini et al. 2019 (arXiv 1902.06705) and the flags of
AutoAttack.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree, Shaped

from ranjax.attacks import input_checks, projections
from ranjax.attacks.ascent import ImageAttack, fold_in, known, score_and_gradient
from ranjax.attacks.attack_table import CLASSIFIER
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.input_checks import Flags, Images, Keys, Pixels
from ranjax.attacks.pgd import PGD, pgd
from ranjax.attacks.square import Square, square
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.pixels import to_uint8

# (params, images f32[B, H, W, C]) -> logits f32[B, C]
Logits = Callable[[PyTree, jax.Array], jax.Array]
Right = Bool[np.ndarray, "batch"]
MARGINS = ("margin", "margin_of_any")
"""Losses of labels of one class, and of several, that never saturate."""


@dataclass(frozen=True)
class Finding:
    """One check: its name, whether it passed, and what was seen, in words."""

    name: str
    passed: bool
    seen: str


@dataclass(frozen=True)
class MaskingReport:
    """What `check` found on B images.

    Attributes:
      clean_accuracy: share that is right before any attack.
      robust_accuracy: share that is right under every attack tried: gradients, random search, transferred images.
      robust_accuracy_8bit: share that is right on the gradient attack's images rounded to 8 bits.
      broken: how many images were right before and wrong under the gradient attack; those wrong before do not count.
      findings: one per check.
      saturated: right images on which the attack's own loss has no gradient while the margin has one, as of a
        cross-entropy of large logits. Where there are any, all of this is of the same attack on the margin.
    """

    clean_accuracy: float
    robust_accuracy: float
    robust_accuracy_8bit: float
    broken: int
    findings: tuple[Finding, ...]
    saturated: int = 0

    @property
    def masked(self) -> bool:
        """True where a check failed."""
        return not all(finding.passed for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One sentence to print beside the robust accuracy."""
        failed = [f"{finding.name} ({finding.seen})" for finding in self.findings if not finding.passed]
        if not failed and self.saturated:
            return (
                f"no sign of gradient masking in {len(self.findings)} checks of an attack on the margin: the attack's "
                f"own loss is saturated on {self.saturated} images, so trust no figure of that loss alone"
            )
        if not failed:
            return f"no sign of gradient masking in {len(self.findings)} checks"
        return f"not to be trusted as robustness: failed {'; '.join(failed)}"

    def __str__(self) -> str:
        lines = [f"{'ok    ' if f.passed else 'FAILED'} {f.name}: {f.seen}" for f in self.findings]
        return "\n".join([*lines, f"robust accuracy {self.robust_accuracy:.3f}, {self.verdict}"])


def has_no_gradient(model: Classifier, images: Pixels, keys: Keys) -> Flags:
    """Return where the margin has a gradient of exactly 0 at the image itself: nothing for an attack to follow."""
    loss = model.named("margin_of_any" if model.multi_label else "margin")
    _, _, gradient = score_and_gradient(loss, images, keys, 0)
    return jnp.all(gradient == 0, axis=projections.pixel_axes(images))


def are_probabilities(outputs: Float[np.ndarray, "batch classes"], multi_hot: bool) -> bool:
    """Return whether outputs look like probabilities: within 0 and 1, and (one class right) rows that sum to 1."""
    # Probabilities of classes that do not compete need not sum to 1, but none is ever below 0, where logits say "no".
    bounded = outputs.min() >= 0 and outputs.max() <= 1
    return bool(bounded and (multi_hot or np.all(np.abs(outputs.sum(-1) - 1) < 1e-3)))


def check(
    logits_fn: Logits,
    params: PyTree,
    images: Images,
    labels: Shaped[Array | np.ndarray, "..."],
    keys: ArrayLike,
    settings: PyTree,
    *,
    attack: Callable[..., ImageAttack] = pgd,
    transferred: Images | None = None,
    queries: int = 1000,
    loss: str = "",
    other_losses: bool = False,
) -> MaskingReport:
    """Attack a classifier in the ways that show masked gradients, and report what each showed.

    1. The outputs are logits, not probabilities (of multi-hot labels: not all within 0 and 1). 2. Two calls agree. 3.
    No right image has a gradient of exactly 0. 4. The loss rises with the steps, and 5. with epsilon (half, once,
    twice), while accuracy falls. 6. Accuracy is 0 at a huge epsilon (1 under linf). 7. A random search (Square)
    never breaks what the gradient attack does not; 8. nor do transferred images.

    A loss may be saturated, as a cross-entropy of large logits, with a model that hides nothing. A figure of that loss
    alone is not to be believed, and check 3 fails. With `other_losses` the attack is judged on the margin in its place,
    which the verdict says; check 6 always tries the margin, too.

    Not to be called inside ``jit``; it compiles two programs once per `logits_fn` and settings. A batch of some dozens
    of images is enough.

    Args:
      logits_fn: ``(params, images) -> logits f32[B, C]``, the whole deployed model.
      params: its parameters.
      images: f32[B, H, W, C] in [0, 1].
      labels: i32[B], or multi-hot [B, C] of 0 and 1.
      keys: key[B].
      settings: of the attack whose robust accuracy is to be believed; a number above 0 as epsilon.
      attack: ``(loss_fn, images, keys, settings) -> ImageAttack``.
      transferred: f32[B, H, W, C], adversarial images made on another model within the same ball; None leaves check 8
        out.
      queries: of Square, which goes through its whole schedule of sizes within them.
      loss: that `attack` raises, by its name, or "classifier" where it takes a `Classifier`; empty: the cross-entropy,
        of multi-hot labels the binary one.
      other_losses: whether the robust accuracy to be believed is the worst of this attack and of one that raises a
        margin or a ratio of logits, too.

    Raises:
      DataError: images, labels or transferred images that do not fit each other or the ball.
      ConfigError: settings that are targeted or whose epsilon is no number above 0.
    """
    # Check the input; the values of this batch are concrete.
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, len(images))
    input_checks.validate_count(queries, "queries", 1)
    if getattr(settings, "targeted", False):
        raise ConfigError("targeted", True, "False: the check raises the loss of the label")
    if not isinstance(settings.epsilon, float) or settings.epsilon <= 0:
        raise ConfigError("epsilon", settings.epsilon, "a number above 0")
    labels = _labels(labels, len(images))

    # The model as it stands: two calls on the clean images.
    outputs = np.asarray(logits_fn(params, images))
    if labels.ndim == 1:
        input_checks.validate_labels(labels, outputs.shape[1])
    elif labels.shape != outputs.shape:
        raise DataError(f"labels have shape {labels.shape}, the logits {outputs.shape}.")
    again = np.asarray(logits_fn(params, images))
    right = _right(outputs, labels)
    findings = [_are_logits(outputs, labels.ndim == 2)]
    difference = float(np.abs(outputs - again).max())
    seen = f"largest difference {difference:.3g}" + ("" if difference == 0 else "; use transforms.expectation")
    findings.append(Finding("two calls agree", difference == 0, seen))

    # The attack at half, once and twice the radius, and at a huge one, where PGD's step is free of its radius.
    run, search = _programs(logits_fn, queries, settings.norm, attack, loss)
    budget = Square(settings.epsilon, queries, settings.norm, rescale=True)
    searched, flat = map(np.asarray, search(params, images, keys, labels, budget))
    saturated, margin = 0, MARGINS[labels.ndim - 1]
    if other_losses and loss not in (CLASSIFIER, *MARGINS):
        dead = _no_gradient(run(params, images, keys, labels, settings), flat)
        saturated = int((dead & ~flat & right).sum())
    if saturated:
        loss = margin
        run, _ = _programs(logits_fn, queries, settings.norm, attack, loss)

    def at(radius: float, step_size: float | None = None, run: Callable[..., ImageAttack] = run) -> ImageAttack:
        chosen = settings.with_epsilon(radius)
        if step_size is not None and isinstance(chosen, PGD):
            chosen = replace(chosen, step_size=step_size)
        return run(params, images, keys, labels, chosen)

    whole = 1.0 if settings.norm == "linf" else float(images[0].size) ** 0.5
    results = [at(min(factor * settings.epsilon, whole)) for factor in (0.5, 1.0, 2.0)]
    step = min(whole, 2.5 * whole / max(getattr(settings, "steps", 1), 1))
    far = right & ~np.asarray(at(whole, step).success)
    if far.any() and loss not in (CLASSIFIER, *MARGINS):
        # Steps as long as the image lead where a cross-entropy is saturated; a margin never is.
        by_margin, _ = _programs(logits_fn, queries, settings.norm, attack, margin)
        far &= ~np.asarray(at(whole, step, by_margin).success)
    white = results[1]
    standing = right & ~np.asarray(white.success)
    findings += [_zero_gradients(white, flat, right), _rises_with_steps(white), _rises_with_epsilon(results, right)]
    left = int(far.sum())
    seen = f"{left} of {right.size} right at {whole:g}"
    findings.append(Finding("accuracy is 0 at a huge epsilon", left == 0, seen))

    # Attacks without gradients of this model: they must not break what the gradient attack left right.
    findings.append(_beaten("a random search never beats the gradient", searched, standing))
    worst = standing & ~searched
    if transferred is not None:
        wrong = _transferred_wrong(logits_fn, params, images, labels, transferred, settings)
        findings.append(_beaten("transferred images never beat the gradient", wrong, standing))
        worst &= ~wrong
    rounded = (to_uint8(np.asarray(white.images)) / 255).astype(images.dtype)
    right_8bit = _right(np.asarray(logits_fn(params, jax.device_put(rounded))), labels)
    return MaskingReport(
        clean_accuracy=float(right.mean()),
        robust_accuracy=float(worst.mean()),
        robust_accuracy_8bit=float((right & right_8bit).mean()),
        broken=int((right & ~standing).sum()),
        findings=tuple(findings),
        saturated=saturated,
    )


@functools.lru_cache(maxsize=16)
def _programs(
    logits_fn: Logits, queries: int, norm: str, attack: Callable[..., ImageAttack] = pgd, loss: str = ""
) -> tuple[Callable[..., ImageAttack], Callable[..., jax.Array]]:
    """Return the compiled gradient attack and Square; memoized, so that a second check does not compile again."""

    def masking_check(params: PyTree, images: Pixels, keys: Keys, labels: Array, settings: PyTree) -> ImageAttack:
        model = Classifier(lambda x: logits_fn(params, x), labels)
        named = loss or ("binary_cross_entropy" if model.multi_label else "cross_entropy")
        return attack(model if loss == CLASSIFIER else model.named(named), images, keys, settings)

    def masking_search(
        params: PyTree, images: Pixels, keys: Keys, labels: Array, settings: Square
    ) -> tuple[jax.Array, jax.Array]:
        model = Classifier(lambda x: logits_fn(params, x), labels)
        loss_fn = model.named("margin_of_any" if model.multi_label else "margin")
        own = fold_in(keys, 1)
        found = square(loss_fn, images, own, settings)
        return known(found.success, found.loss), has_no_gradient(model, images, own)

    return jax.jit(masking_check), jax.jit(masking_search)


def _labels(labels: Shaped[Array | np.ndarray, "..."], count: int) -> np.ndarray:
    """Return labels i32[B], or f32[B, C] of 0 and 1."""
    array = np.asarray(labels)
    if array.ndim not in (1, 2) or len(array) != count:
        expected = f"{(count,)}, one per image, or multi-hot ({count}, C)"
        raise DataError(f"labels have shape {array.shape}, expected {expected}.")
    if array.ndim == 1:
        return array.astype(np.int32)
    if not np.isin(array, (0, 1)).all():
        raise DataError(f"labels hold {array[~np.isin(array, (0, 1))][0]:g}, expected 0 or 1 in multi-hot ones.")
    return array.astype(np.float32)


def _right(outputs: Float[np.ndarray, "batch classes"], labels: np.ndarray) -> Right:
    if labels.ndim == 2:
        return ((outputs > 0) == (labels > 0.5)).all(axis=-1)
    input_checks.validate_labels(labels, outputs.shape[1])
    return outputs.argmax(axis=-1) == labels


def _are_logits(outputs: Float[np.ndarray, "batch classes"], multi_hot: bool) -> Finding:
    probabilities = are_probabilities(outputs, multi_hot)
    why = ", all within 0 and 1" if multi_hot else ", rows sum to 1"
    seen = f"values in [{outputs.min():.3g}, {outputs.max():.3g}]" + (why if probabilities else "")
    return Finding("outputs are logits, not probabilities", not probabilities, seen)


def _no_gradient(white: ImageAttack, flat: Right) -> Right:
    # An attack without gradients has none to look at: that of the margin stands in for them.
    return np.asarray(white.gradient_norm)[0] == 0 if white.gradient_norm.shape[0] else flat


def _zero_gradients(white: ImageAttack, flat: Right, right: Right) -> Finding:
    zero = _no_gradient(white, flat) & right
    return Finding("no gradient is exactly 0", not zero.any(), f"{int(zero.sum())} of {int(right.sum())} right images")


def _rises_with_steps(white: ImageAttack) -> Finding:
    trace = np.maximum.accumulate(np.asarray(white.trace), axis=0).mean(1)
    seen = f"mean of the best loss so far {trace[0]:.4g} at the start, {trace[-1]:.4g} at the end"
    return Finding("the loss rises with the steps", bool(trace[-1] > trace[0]), seen)


def _rises_with_epsilon(results: list[ImageAttack], right: Right) -> Finding:
    loss = [float(np.asarray(result.loss).mean()) for result in results]
    accuracy = [float((right & ~np.asarray(result.success)).mean()) for result in results]
    passed = loss[0] <= loss[1] <= loss[2] and loss[0] < loss[2] and accuracy[0] >= accuracy[1] >= accuracy[2]
    seen = "half, once, twice: loss {:.4g}, {:.4g}, {:.4g}, accuracy {:.3f}, {:.3f}, {:.3f}".format(*loss, *accuracy)
    return Finding("the loss rises and accuracy falls with epsilon", passed, seen)


def _beaten(name: str, wrong: Right, standing: Right) -> Finding:
    more = int((standing & wrong).sum())
    return Finding(name, more == 0, f"breaks {more} of {int(standing.sum())} that the gradient attack left right")


def _transferred_wrong(
    logits_fn: Logits, params: PyTree, images: Pixels, labels: np.ndarray, transferred: Images, settings: PyTree
) -> Right:
    attacked = input_checks.validate_images(transferred)
    if attacked.shape != images.shape:
        raise DataError(f"transferred images have shape {attacked.shape}, expected {images.shape}.")
    moved = np.abs(np.asarray(attacked) - np.asarray(images)).reshape(len(labels), -1)
    furthest = float((moved.max(1) if settings.norm == "linf" else np.linalg.norm(moved, axis=1)).max())
    if furthest > settings.epsilon * (1 + 1e-4) + 1e-6:
        expected = f"epsilon = {settings.epsilon:.4g}"
        raise DataError(f"transferred images are off by up to {furthest:.4g}, expected {expected}.")
    return ~_right(np.asarray(logits_fn(params, attacked)), labels)
