"""Named image attacks of the literature: settings, loss and transformation, each with its source and where it differs.

    preset = presets.get("sga")
    attack = preset.jitted(my_loss)             # or by hand: jitted(my_loss, preset.settings, ...)

``autoattack-lite`` is an ensemble: call `autoattack_lite`; its ``jitted`` is APGD on the loss that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PyTree

from ranjax.attacks import apgd, input_checks, losses, pgd, transforms
from ranjax.attacks.ascent import ImageAttack, KeyedLoss, Loss, fold_in, known, worst_of
from ranjax.attacks.compile import jitted
from ranjax.attacks.input_checks import Images, Length
from ranjax.attacks.losses import Labels
from ranjax.core.errors import ConfigError, nearest


@dataclass(frozen=True)
class Preset:
    """An image attack by name.

    Attributes:
      name: as asked for.
      settings: a `pgd.PGD` or an `apgd.APGD`.
      loss: the name in `ranjax.attacks.losses` of the loss it raises.
      against: the other side of that loss, in words.
      transform: None, or a function that turns the loss into one under transformations.
      source: the paper.
      differs: where this differs from the paper's public code, in words.
    """

    name: str
    settings: pgd.PGD | apgd.APGD
    loss: str
    against: str
    source: str
    differs: str
    transform: Callable[[Loss], KeyedLoss] | None = None

    def with_epsilon(self, epsilon: Length) -> Preset:
        """Return the same attack at another radius (PGD: with the step in proportion)."""
        radius = input_checks.validate_length(epsilon, "epsilon", self.settings.norm)
        return replace(self, settings=self.settings.with_epsilon(radius))

    def jitted(self, loss: Loss) -> Callable[..., PyTree]:
        """Return `jitted` of a loss under these settings, with the attack and the transformation meant for them."""
        attack: Callable[..., ImageAttack] = apgd.apgd if isinstance(self.settings, apgd.APGD) else pgd.pgd
        return jitted(loss, self.settings, attack=attack, transform=self.transform)


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="coattack",
            settings=pgd.PGD("2/255", 1.25 * 2 / 255 / 10, 10, keep="last"),
            loss="coattack_kl",
            against="the clean image's embedding, plus 3 times the same to the attacked text (see `pairs`)",
            source="Zhang et al., Towards Adversarial Attack on Vision-Language Pre-training Models, ACM MM 2022, "
            "arXiv 2206.09391",
            differs="The start is U[-eps, eps]; the public code draws from U[0, eps), which is one-sided.",
        ),
        Preset(
            name="sga",
            settings=pgd.PGD("2/255", "0.5/255", 10, keep="last"),
            loss="cosine",
            against="the embeddings of the attacked captions, summed over captions and scales",
            source="Lu et al., Set-level Guidance Attack, ICCV 2023, arXiv 2307.14061",
            differs="Bicubic resizing with the kernel of jax.image (a = -0.5; torch's has a = -0.75). Scale 1 is the "
            "image itself, once; the public code adds it to the scales it is given.",
            transform=transforms.scaled,
        ),
        Preset(
            name="fare",
            settings=pgd.PGD("4/255", "1/255", 10, keep="last"),
            loss="squared_distance",
            against="the clean image's embedding under the original encoder, not normalised",
            source="Schlarmann et al., Robust CLIP, ICML 2024, arXiv 2402.12336",
            differs="Plain signs; the public code accumulates them with momentum 0.9 and takes the sign of the sum.",
        ),
        Preset(
            name="tecoa",
            settings=pgd.PGD("1/255", "1/255", 2, keep="last"),
            loss="cross_entropy",
            against="the label, on cosine logits between image and class prompts",
            source="Mao et al., Understanding Zero-shot Adversarial Robustness for Large-Scale Models, ICLR 2023, "
            "arXiv 2212.07016",
            differs="The paper's training attack; the public code's command line defaults to 2/255 and 5 steps.",
        ),
        Preset(
            name="autoattack-lite",
            settings=apgd.APGD("8/255", 100),
            loss="dlr",
            against="the label: APGD on cross-entropy, then on the targeted DLR; see `autoattack_lite`",
            source="Croce & Hein, Reliable Evaluation of Adversarial Robustness, ICML 2020, arXiv 2003.01690",
            differs="Without FAB and Square; every image meets both attacks, where the public code drops those already "
            "broken; see ranjax.attacks.apgd for APGD itself.",
        ),
    )
}


def get(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
      ConfigError: an unknown name, with the nearest one.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError("preset", name, f"one of {', '.join(PRESETS)}", nearest(str(name), PRESETS))
    return PRESETS[name]


def autoattack_lite(
    logits_fn: Callable[[jax.Array], jax.Array],
    images: Images,
    labels: Labels,
    keys: ArrayLike,
    settings: apgd.APGD | None = None,
    *,
    classes: int = 9,
    mask: ArrayLike | None = None,
) -> ImageAttack:
    """Return the worst case of APGD on cross-entropy and of APGD on the targeted DLR towards the nine best classes.

    With 2 or 3 classes, where the targeted DLR is undefined, the second attack raises the margin max_{i != y} z_i -
    z_y. ``loss``, ``clean_loss`` and ``trace`` are those of the attack that is kept, so compare ``success``, not
    losses, between images.

    Args:
      logits_fn: ``images -> logits f32[B, C]``.
      images: f32[B, H, W, C] in [0, 1].
      labels: i32[B].
      keys: key[B].
      settings: an `apgd.APGD`; None takes the preset's.
      classes: target classes of the second attack.
      mask: as for `pgd.pgd`.

    Raises:
      DataError, ConfigError: as `apgd.apgd`.
    """
    chosen: PyTree = get("autoattack-lite").settings if settings is None else settings
    input_checks.validate_settings(chosen, ("epsilon", "rho"), "an apgd.APGD")
    if chosen.targeted:
        raise ConfigError("targeted", True, "False: both attacks lead away from the label")
    images = input_checks.validate_images(images)
    keys = input_checks.validate_keys(keys, images.shape[0])
    first = apgd.apgd(losses.of_classifier(logits_fn, labels), images, fold_in(keys, 0), chosen, mask=mask)
    if jax.eval_shape(logits_fn, images).shape[-1] < 4:
        margin = losses.of_classifier(logits_fn, labels, "margin")
        second = apgd.apgd(margin, images, fold_in(keys, 1), chosen, mask=mask)
    else:
        second = apgd.apgd_targeted(logits_fn, images, labels, fold_in(keys, 1), chosen, classes=classes, mask=mask)
    # The first attack's image is kept unless only the second one succeeded.
    take = known(second.success, second.loss) & ~known(first.success, first.loss)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b]), first, second)
    return worst_of(both, take.astype(jnp.int32))
