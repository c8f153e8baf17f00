"""FAB and FAB-T: the nearest point beyond the decision boundary (Croce & Hein 2020, arXiv 1907.02044, Algorithm 1).

Each step takes the classifier as linear, goes to the nearest point of the boundary within the box, and is drawn back
towards the clean image. The numbers are those of the public AutoAttack code. What differs: an example that is broken
within the radius is done, unless `minimal`; the projections find the same points by Newton's steps instead of a sort.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ranjax.attacks import hyperplanes, input_checks, projections
from ranjax.attacks.any_model import OnAnyModel
from ranjax.attacks.ascent import (
    ImageAttack,
    Run,
    expand_like,
    finalize,
    fold_in,
    known,
    score,
    score_and_gradient,
    usable_gradient,
    worst_index,
    worst_of,
)
from ranjax.attacks.classifier import Classifier
from ranjax.attacks.input_checks import Flags, Images, Keys, Length, Number, PerExample, Pixels
from ranjax.core.errors import ConfigError

OVERSHOOT, BACK, PULL = 1.05, 0.9, 0.1
"""eta, beta and alpha_max of the paper."""

Linearised = Callable[[Pixels, Number], tuple[PerExample, Pixels]]
"""``(images, number of the step) -> (margin f32[B], its gradient)`` of the class to reach."""


@input_checks.traced_fields("epsilon")
@dataclass(frozen=True)
class FAB(OnAnyModel):
    """Settings of `fab`, which can be called on a model; a pytree whose only leaf is `epsilon`.

    Attributes:
      epsilon: radius in pixel units within which a found image counts: a number, "8/255", or [B, 1, 1, 1].
      steps: gradient evaluations per run.
      norm: "linf", "l2" or "l1", of which the least is sought.
      targets: classes to reach, one run each; 0: in each step the class whose boundary is nearest (FAB).
      restarts: runs per target, from the second on from a random start.
      minimal: go on after success to the least norm, and count any radius.
      eps: another name of `epsilon`, in its place.

    Raises:
      ConfigError: a value that is refused, by its name.
    """

    epsilon: Length = None
    steps: int = 100
    norm: str = "linf"
    targets: int = 9
    restarts: int = 1
    minimal: bool = False
    eps: dataclasses.InitVar[Length] = None

    def __post_init__(self, eps: Length) -> None:
        input_checks.validate_choice(self.norm, "norm", input_checks.ALL_NORMS)
        for name, least in (("steps", 1), ("targets", 0), ("restarts", 1)):
            input_checks.validate_count(getattr(self, name), name, least)
        chosen = input_checks.radius(self.epsilon, eps)
        object.__setattr__(self, "epsilon", input_checks.validate_length(chosen, "epsilon", self.norm))

    def on_classifier(self, model: Classifier, images: Pixels, keys: Keys, loss: str = "") -> ImageAttack:
        """See `OnAnyModel`."""
        if loss:
            raise ConfigError(
                "loss", loss, "none: this attack makes losses of its own, towards one class after another"
            )
        return fab(model, images, keys, self)

    def with_epsilon(self, epsilon: Length) -> FAB:
        """Return the same settings at another radius."""
        return dataclasses.replace(self, epsilon=epsilon)


def _random_start(keys: Keys, images: Pixels, epsilon: Float[Array, "..."], norm: str) -> Pixels:
    """Start half a radius away, in a random direction."""

    def draw(key: jax.Array) -> Array:
        if norm == "linf":
            return jax.random.uniform(key, images.shape[1:], images.dtype, minval=-1, maxval=1)
        return jax.random.normal(key, images.shape[1:], images.dtype)

    delta = jax.vmap(draw)(keys)
    length = expand_like(projections.norm_of(norm)(delta), delta)
    return jnp.clip(images + epsilon / 2 * delta / length, 0, 1)


def _run(
    margin: Linearised,
    is_adversarial: Callable[[Pixels, Number], Flags],
    images: Pixels,
    first: Pixels,
    settings: FAB,
    within: PerExample,
) -> Run:
    """Run Algorithm 1 from `first`; a row is done once its image is within `within` of the clean one."""
    batch, measure = images.shape[0], projections.norm_of(settings.norm)
    clean = images.reshape(batch, -1)
    nearest = hyperplanes.NEAREST[settings.norm]
    State = tuple[Array, ...]

    def unfinished(state: State) -> Array:
        return (state[0] < settings.steps) & ~jnp.all(state[3] <= within)

    def step(state: State) -> State:
        number, current, found, least, finite, trace, lengths = state
        height, gradient = margin(current, number)
        gradient, usable = usable_gradient(height, gradient, None)
        # The boundary of the linearised classifier, and the way to it from the iterate and from the clean image.
        normal, here = gradient.reshape(batch, -1), current.reshape(batch, -1)
        offset = jnp.sum(normal * here, axis=1) - height
        both = nearest(
            jnp.concatenate([here, clean]), jnp.concatenate([normal, normal]), jnp.concatenate([offset, offset])
        ).reshape(2, *images.shape)
        away, home = (jnp.maximum(measure(delta), 1e-8) for delta in both)
        pull = expand_like(jnp.minimum(away / (away + home), PULL), images)
        moved = (current + OVERSHOOT * both[0]) * (1 - pull) + (images + OVERSHOOT * both[1]) * pull
        moved = jnp.where(expand_like(usable, images), jnp.clip(moved, 0, 1), current)
        # Beyond the boundary: remember the nearest such point, and step back towards the clean image.
        adversarial, length = is_adversarial(moved, number), measure(moved - images)
        done = least <= within
        better = adversarial & (length < least) & ~done
        found = jnp.where(expand_like(better, images), moved, found)
        least = jnp.where(better, length, least)
        following = jnp.where(expand_like(adversarial, images), images + BACK * (moved - images), moved)
        trace, lengths = trace.at[number].set(height), lengths.at[number].set(projections.l2_norm(gradient))
        return number + 1, following, found, least, finite & (usable | done), trace, lengths

    far = jnp.full(batch, jnp.inf, images.dtype)
    record = jnp.zeros((settings.steps, batch), images.dtype)
    start: State = (jnp.zeros((), jnp.int32), first, images, far, jnp.ones(batch, bool), record, record)
    number, current, found, least, finite, trace, lengths = jax.lax.while_loop(unfinished, step, start)
    # Steps that were not taken repeat the last one.
    taken = jnp.minimum(jnp.arange(settings.steps + 1), jnp.maximum(number - 1, 0))
    return Run(found, -least, jnp.isfinite(least), trace[taken], lengths[taken[:-1]], finite)


def linearised(classifier: Classifier, keys: Keys, target: Array) -> Linearised:
    """Return the margin of one class to reach, and its gradient."""
    loss = classifier.loss(classifier.margin_to(target))

    def margin(images: Pixels, number: Number) -> tuple[PerExample, Pixels]:
        height, _, gradient = score_and_gradient(loss, images, keys, number + 1)
        return height, gradient

    return margin


def nearest_class(classifier: Classifier, keys: Keys, classes: int, norm: str) -> Linearised:
    """Return the margin, and its gradient, of the class whose linearised boundary is nearest, anew at each point."""
    dual = projections.norm_of({"linf": "l1", "l2": "l2", "l1": "linf"}[norm])

    def margin(images: Pixels, number: Number) -> tuple[PerExample, Pixels]:
        batch = images.shape[0]

        def distance(one: Number) -> PerExample:
            height, gradient = linearised(classifier, keys, jnp.full(batch, one))(images, number)
            # The label itself is no class to reach: its margin is minus infinity.
            return jnp.where(jnp.isfinite(height), jnp.abs(height) / (1e-12 + dual(gradient)), jnp.inf)

        away = jax.lax.map(distance, jnp.arange(classes))
        return linearised(classifier, keys, jnp.argmin(away, axis=0))(images, number)

    return margin


def run_towards(
    classifier: Classifier,
    images: Pixels,
    keys: Keys,
    settings: FAB,
    target: Array | None,
    is_random: ArrayLike,
) -> Run:
    """Run FAB once, towards `target` i32[B] or (None) the class nearest at each point.

    Args:
      classifier: the model and the labels.
      images: f32[B, ...], the clean ones; keys: key[B]; settings: a `FAB`.
      is_random: whether to start at random, traced, instead of at the clean images.

    Returns:
      The run; `raised` is minus the norm of the image that was found, minus infinity where none was.
    """
    epsilon = input_checks.broadcast_radius(settings.epsilon, settings.norm, images)
    radius = jnp.max(epsilon, axis=projections.pixel_axes(epsilon))
    within = jnp.broadcast_to(-1 if settings.minimal else radius, images.shape[:1]).astype(images.dtype)
    random = _random_start(fold_in(keys, 0), images, epsilon, settings.norm)
    first = jnp.where(is_random, random, images)
    judge = classifier.loss(lambda logits: jnp.max(classifier.margins(logits), axis=-1))
    own = fold_in(keys, 1)

    def is_adversarial(images: Pixels, number: Number) -> Flags:
        loss, success = score(judge, images, own, number + 1)
        return known(success, loss)

    if target is None:
        classes = jax.eval_shape(lambda: classifier.logits(images, keys)).shape[-1]
        margin = nearest_class(classifier, own, classes, settings.norm)
    else:
        margin = linearised(classifier, own, target)
    return _run(margin, is_adversarial, images, first, settings, within)


def fab(classifier: Classifier, images: Images, keys: ArrayLike, settings: PyTree) -> ImageAttack:
    """Look for the nearest image of another class: FAB-T towards each of the nearest classes, or FAB.

    Args:
      classifier: the model and the labels.
      images: f32[B, ...] in [0, 1].
      keys: key[B].
      settings: a `FAB`.

    Returns:
      The image of least norm within the radius (of any norm with `minimal`); where there is none, the clean image.
      `loss` is the margin, `trace` that of the run which is kept.

    Raises:
      DataError: images or keys that are refused. ConfigError: settings of another attack.
    """
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, images.shape[0])
    input_checks.validate_settings(settings, ("epsilon", "minimal"), "a fab.FAB")
    judge = classifier.named("margin_of_any" if classifier.multi_label else "margin")
    epsilon = input_checks.broadcast_radius(settings.epsilon, settings.norm, images)
    measure = projections.norm_of(settings.norm)

    def run(start_keys: Keys, loss_keys: Keys) -> Run:
        del start_keys
        targets = classifier.targets(classifier.logits(images, loss_keys), max(settings.targets, 1))
        each = targets.shape[1] if settings.targets else 1

        def one(number: Number) -> Run:
            target = targets[:, number % each] if settings.targets else None
            return run_towards(classifier, images, fold_in(loss_keys, number), settings, target, number >= each)

        def further(kept: Run, number: Number) -> tuple[Run, None]:
            def both() -> Run:
                pair = jax.tree.map(lambda a, b: jnp.stack([a, b]), kept, one(number))
                nearer = worst_index(pair.raised, pair.success, pair.finite)
                return worst_of(pair, jnp.where(done, 0, nearer))

            # What was broken stays as it is, so that a result does not depend on what else is in the batch.
            done = kept.success & is_within(kept) & (not settings.minimal)
            return jax.lax.cond(jnp.all(done), lambda: kept, both), None

        def is_within(kept: Run) -> Flags:
            return jnp.all(expand_like(-kept.raised, images) <= epsilon, axis=projections.pixel_axes(images))

        first = one(jnp.zeros((), jnp.uint32))
        kept = jax.lax.scan(further, first, jnp.arange(1, each * settings.restarts, dtype=jnp.uint32))[0]
        counts = kept.success & (is_within(kept) | settings.minimal)
        return kept._replace(images=jnp.where(expand_like(counts, images), kept.images, images))

    return finalize(judge, images, keys, run, measure, 1, "best", 1, rescore=True)
