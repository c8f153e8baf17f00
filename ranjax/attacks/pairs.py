"""Attacks on image-text pairs of a dual encoder: separate, sequential, Co-Attack and SGA, in embedding form.

An encoder is two functions, ``image_fn(images f32[B, H, W, C]) -> f32[B, D]`` and ``text_fn(embeddings f32[B, L, W],
tokens i32[B, L], mask bool[B, L]) -> f32[B, D]`` (embeddings: of the tokens, before positions). The loss of a pair is
minus the cosine of its two features; it depends on that pair alone.

Texts are [B, L], or [B, C, L] with C captions per image; a caption whose mask is all False counts for nothing.
Everything is pure and meant to be called inside the caller's jit, with weights as arguments of the jitted function:

    @functools.partial(jax.jit, static_argnames="text_settings")
    def run(params, images, tokens, mask, words, keys, allowed, image_settings, text_settings):
        image_fn = functools.partial(functions.image_features, params)
        text_fn = lambda e, t, m: functions.text_features(params, t, m, embeddings=e)
        return pairs.craft(image_fn, text_fn, functions.token_table(params), images, tokens, mask, words, keys,
                           image_settings, text_settings, allowed, recipe="sga")
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Shaped

from ranjax.attacks import losses, transforms
from ranjax.attacks.ascent import ImageAttack, Loss
from ranjax.attacks.input_checks import Images, PerExample, Pixels
from ranjax.attacks.losses import Features
from ranjax.attacks.pgd import PGD, pgd
from ranjax.attacks.text import candidates as words_allowed
from ranjax.attacks.text import importance, rewrites
from ranjax.attacks.text.substitution import Substitution, TextAttack, similar_to, substitute
from ranjax.attacks.text.words import Embedded, MaskRows, PerRow, TokenRows
from ranjax.core.errors import ConfigError, nearest
from ranjax.core.math import unit

ImageEncoder = Callable[[jax.Array], jax.Array]
TextEncoder = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
Allowed = words_allowed.Table | words_allowed.Candidates | rewrites.Rewrites
Captions = Float[Array, "batch captions features"]
Texts = Shaped[Array | np.ndarray, "..."]
"""[B, L], or [B, C, L] with several captions per image."""


ORDERS = ("image_first", "text_first")


class PairAttack(NamedTuple):
    """Both sides of an attack on B pairs.

    Attributes:
      image: `ImageAttack` on the images.
      text: `TextAttack` on the captions, [B, ...], or [B, C, ...] for several captions per image (traces: last).
      loss: f32[B] or f32[B, C], minus the cosine of the attacked image and its attacked captions.
      clean_loss: the same of the given pairs.
      features: f32[B, D], L2-normalised features of the attacked image; None where a recipe leaves them out.
    """

    image: ImageAttack
    text: TextAttack
    loss: jax.Array
    clean_loss: jax.Array
    features: jax.Array | None = None


class Target(NamedTuple):
    """Features f32[B, D] of the pairs that B pairs are driven towards: of their images, and of their reports."""

    image: jax.Array | np.ndarray
    text: jax.Array | np.ndarray


class Pairs(NamedTuple):
    """Encoders and inputs of an attack, with one row per caption: B images, R = B * C captions; fields as of
    `craft`.
    """

    image_fn: ImageEncoder
    text_fn: TextEncoder
    table: jax.Array
    images: jax.Array
    tokens: jax.Array  # i32[R, L]
    mask: jax.Array
    words: jax.Array
    keys: jax.Array
    allowed: Allowed
    similarity: float | None = None
    hide_id: int | None = None
    surrogate_fn: ImageEncoder | None = None
    image_attack: Callable[..., ImageAttack] = pgd
    target: Target | None = None

    @property
    def captions(self) -> int:
        """The number of captions per image, C."""
        return self.tokens.shape[0] // self.images.shape[0]

    def encode_text(self, tokens: Int[Array, "rows length"], mask: Bool[Array, "rows length"]) -> Captions:
        """Return L2-normalised features of captions; zero for an empty caption."""
        features = unit(self.text_fn(self.table[tokens], tokens, mask))
        features = jnp.where(jnp.any(mask, axis=1)[:, None], features, 0)
        return features.reshape(self.images.shape[0], self.captions, -1)

    def encode_image(self, images: Pixels) -> Features:
        """Return L2-normalised features of images."""
        return unit(self.image_fn(images))

    def attack_text(self, features: Features, settings: Substitution, towards: bool = False) -> TextAttack:
        """Change the captions to raise minus their cosine to unit features of an image or a text.

        Words are substituted, or one of whole texts is taken, as `allowed` says. With `towards` the cosine itself is
        raised: the features are those of a target.
        """
        target = jnp.repeat(features, self.captions, axis=0) * (-1 if towards else 1)
        accept = None
        if self.similarity is not None:
            original = self.text_fn(self.table[self.tokens], self.tokens, self.mask)
            accept = similar_to(self.text_fn, original, self.similarity)

        def loss(embeddings: Embedded, tokens: TokenRows, mask: MaskRows) -> PerRow:
            return -jnp.sum(unit(self.text_fn(embeddings, tokens, mask)) * target, axis=-1)

        rows, allowed = (self.tokens, self.mask, self.words), self.allowed
        if isinstance(allowed, rewrites.Rewrites):
            return rewrites.choose(loss, self.table, *rows, allowed, accept)
        if self.hide_id is None:
            return substitute(loss, self.table, *rows, allowed, settings, accept)
        if isinstance(allowed, words_allowed.Table):
            allowed = words_allowed.for_rows(allowed, self.tokens, self.words)
        return importance.ranked(loss, self.table, *rows, allowed, settings, hide_id=self.hide_id, accept_fn=accept)

    def ascend(
        self, loss: Callable[[ImageEncoder], Loss], settings: PyTree, initial: ArrayLike | None = None
    ) -> ImageAttack:
        """Run `image_attack` on ``loss(encoder)``, following the gradient of the surrogate encoder where there is
        one.
        """
        # An attack need not take what is not used.
        given: dict[str, object] = {} if initial is None else {"initial": initial}
        if self.surrogate_fn is not None:
            given["surrogate"] = loss(self.surrogate_fn)
        return self.image_attack(loss(self.image_fn), self.images, self.keys, settings, **given)

    def attack_image(self, captions: Captions, settings: PyTree, initial: ArrayLike | None = None) -> ImageAttack:
        """Attack the image to raise the sum of minus the cosines to caption features."""
        return self.ascend(lambda encode: lambda images: _away(unit(encode(images)), captions), settings, initial)

    def attack_towards(self, goal: Features, settings: PyTree, initial: ArrayLike | None = None) -> ImageAttack:
        """Attack the image to raise the cosine to unit features, e.g. those of a target image, or a sum of cosines."""
        return self.ascend(lambda encode: lambda images: jnp.sum(unit(encode(images)) * goal, -1), settings, initial)

    def goal(self) -> tuple[Features, Features]:
        """Return the L2-normalised features of the target's image and of its text.

        Raises:
          ConfigError: there is no target.
        """
        if self.target is None:
            raise ConfigError("target", None, "features of the target pairs, a pairs.Target")
        return unit(jnp.asarray(self.target.image)), unit(jnp.asarray(self.target.text))

    def keep_text(self) -> TextAttack:
        """Return the captions as the result of a search that changes no word."""
        plain = self._replace(hide_id=None, similarity=None)
        if isinstance(plain.allowed, rewrites.Rewrites):
            plain = plain._replace(allowed=plain.allowed._replace(valid=jnp.zeros_like(plain.allowed.valid)))
        return plain.attack_text(self.encode_image(self.images), Substitution(max_words=0))

    def result(self, image: ImageAttack, attack: TextAttack) -> PairAttack:
        """Return both sides with the losses of the attacked and the clean pairs."""

        def pair_loss(image: Features, tokens: Array, mask: Array) -> Float[Array, "batch captions"]:
            return -jnp.einsum("bd,bcd->bc", image, self.encode_text(tokens, mask))

        features = self.encode_image(image.images)
        loss = pair_loss(features, attack.tokens, attack.mask)
        clean_loss = pair_loss(self.encode_image(self.images), self.tokens, self.mask)
        return PairAttack(image, attack, loss, clean_loss, features)


def _away(image: Features, captions: Captions) -> PerExample:
    """Return the sum over the captions of minus the cosine of unit features."""
    return -jnp.sum(image * captions.sum(1), axis=-1)


def sep(pairs: Pairs, image_settings: PyTree, text_settings: Substitution) -> PairAttack:
    """Attack each side against the clean other side."""
    image = pairs.attack_image(pairs.encode_text(pairs.tokens, pairs.mask), image_settings)
    return pairs.result(image, pairs.attack_text(pairs.encode_image(pairs.images), text_settings))


def sequential(
    pairs: Pairs, image_settings: PyTree, text_settings: Substitution, initial: ArrayLike | None = None
) -> PairAttack:
    """Attack the text against the clean image, then the image against the attacked text, both by the cosine."""
    attack = pairs.attack_text(pairs.encode_image(pairs.images), text_settings)
    captions = pairs.encode_text(attack.tokens, attack.mask)
    return pairs.result(pairs.attack_image(captions, image_settings, initial), attack)


def coattack(pairs: Pairs, image_settings: PyTree, text_settings: Substitution, alpha: float | int = 3.0) -> PairAttack:
    """Run Co-Attack (Zhang et al., ACM MM 2022, arXiv 2206.09391): text first, then the image by divergences.

    The image ascends KL(p_img || p_img') + alpha KL(p_t' || p_img'), p = softmax of the L2-normalised embedding;
    several captions count by their mean. Differs from the public code in the start of PGD (two-sided), in the text step
    (`text.substitute` against the clean image) and in the candidates, which the caller gives.
    """
    clean = pairs.encode_image(pairs.images)
    attack = pairs.attack_text(clean, text_settings)
    captions = pairs.encode_text(attack.tokens, attack.mask)
    real = jnp.any(pairs.mask, axis=1).reshape(captions.shape[:2]).astype(captions.dtype)

    def loss(encode: ImageEncoder, images: Pixels) -> PerExample:
        features = encode(images)
        to_captions = jax.vmap(losses.coattack_kl, in_axes=(None, 1), out_axes=1)(features, captions)
        to_captions = jnp.sum(real * to_captions, axis=1) / jnp.maximum(real.sum(1), 1)
        return losses.coattack_kl(features, clean) + alpha * to_captions

    return pairs.result(pairs.ascend(lambda encode: functools.partial(loss, encode), image_settings), attack)


def sga(
    pairs: Pairs,
    image_settings: PyTree,
    text_settings: Substitution,
    scales: Sequence[float] = transforms.SGA_SCALES,
    noise: float | int = 0.05,
) -> PairAttack:
    """Run the set-level guidance attack (SGA, Lu et al., ICCV 2023, arXiv 2307.14061).

    (1) Text against the clean image. (2) The image against the set of its attacked captions, over the set of its own
    scales (`transforms.scaled`), ascending the sum of minus the cosines; `image.loss` and `image.trace` are that sum.
    (3) Text again, from the original captions, against the attacked image.
    """
    first = pairs.attack_text(pairs.encode_image(pairs.images), text_settings)
    captions = pairs.encode_text(first.tokens, first.mask)

    def guided(encode: ImageEncoder) -> Loss:
        return transforms.scaled(lambda images: _away(unit(encode(images)), captions), scales, noise)

    image = pairs.ascend(guided, image_settings)
    last = pairs.attack_text(pairs.encode_image(image.images), text_settings)
    return pairs.result(image, last._replace(queries=first.queries + last.queries))


def image_only(pairs: Pairs, image_settings: PyTree, text_settings: Substitution) -> PairAttack:
    """Attack the image against its clean captions; the text stays."""
    del text_settings
    image = pairs.attack_image(pairs.encode_text(pairs.tokens, pairs.mask), image_settings)
    return pairs.result(image, pairs.keep_text())


def targeted(pairs: Pairs, image_settings: PyTree, text_settings: Substitution) -> PairAttack:
    """Raise the cosine of the image's embedding to that of the target's image; the text stays."""
    del text_settings
    return pairs.result(pairs.attack_towards(pairs.goal()[0], image_settings), pairs.keep_text())


def targeted_keywords(
    pairs: Pairs, image_settings: PyTree, text_settings: Substitution, order: str = "image_first"
) -> PairAttack:
    """Move both sides of a pair towards those of the target pair, one after the other; the second follows the first.

    "image_first": the image raises its cosine to the target's image, then the caption the sum of its cosines to the
    target's caption and to the attacked image. "text_first": the caption raises its cosine to the target's caption,
    then the image the sum of its cosines to the target's image and to the attacked captions, by their mean.
    The upstream noise of arXiv 2407.02716 as its public reviews describe it: images by PGD towards a target image,
    captions with exchanged key words. That the caption has a target, too, and both orders are this project's.
    """
    if order not in ORDERS:
        raise ConfigError("order", order, f"one of {', '.join(ORDERS)}")
    goal, goal_text = pairs.goal()
    if order == "image_first":
        image = pairs.attack_towards(goal, image_settings)
        near = goal_text + pairs.encode_image(image.images)
        return pairs.result(image, pairs.attack_text(near, text_settings, towards=True))
    attack = pairs.attack_text(goal_text, text_settings, towards=True)
    captions = pairs.encode_text(attack.tokens, attack.mask)
    real = jnp.any(pairs.mask, axis=1).reshape(captions.shape[:2]).sum(1)
    mean = captions.sum(1) / jnp.maximum(real, 1).astype(captions.dtype)[:, None]
    return pairs.result(pairs.attack_towards(goal + mean, image_settings), attack)


def text_only(pairs: Pairs, image_settings: PyTree, text_settings: Substitution) -> PairAttack:
    """Attack the captions against the clean image; the image stays."""
    del image_settings
    attack = pairs.attack_text(pairs.encode_image(pairs.images), text_settings)
    # The clean images as the result of an attack without a step.
    captions = pairs.encode_text(pairs.tokens, pairs.mask)
    image = pairs._replace(surrogate_fn=None, image_attack=pgd).attack_image(captions, PGD(0.0, 1.0, 0, start="none"))
    return pairs.result(image, attack)


RECIPES: dict[str, Callable[..., PairAttack]] = {
    recipe.__name__: recipe
    for recipe in (coattack, sga, sep, sequential, image_only, text_only, targeted, targeted_keywords)
}


def craft(
    image_fn: ImageEncoder,
    text_fn: TextEncoder,
    table: Texts,
    images: Images,
    tokens: Texts,
    mask: Texts,
    words: Texts,
    keys: ArrayLike,
    image_settings: PyTree,
    text_settings: Substitution,
    candidates: Allowed,
    recipe: str | Callable[..., PairAttack] = "coattack",
    similarity: float | None = None,
    hide_id: int | None = None,
    surrogate_fn: ImageEncoder | None = None,
    image_attack: Callable[..., ImageAttack] = pgd,
    target: Target | None = None,
    **options: object,
) -> PairAttack:
    """Attack B pairs by one of `RECIPES`; pure, for the caller's jit.

    Args:
      image_fn, text_fn: the encoder, see the module.
      table: f[V, W], token embeddings.
      images: f32[B, H, W, C] in [0, 1].
      tokens: i32[B, L] or [B, C, L]; mask: bool, words: i32, of the same shape.
      keys: key[B], one per pair.
      image_settings: of `image_attack`. text_settings: of the substitution.
      candidates: what may replace what; `Candidates` or `rewrites.Rewrites` have one row per caption, [B * C, ...].
      recipe: "coattack", "sga", "sep", "sequential", "image_only", "text_only", "targeted" or
        "targeted_keywords"; or a function of yours,
        ``(pairs, image_settings, text_settings, **options) -> PairAttack``.
      similarity: least cosine of a replaced caption's features to those of the original; None: no bound.
      hide_id: the token that hides a word: words are visited in the order of their importance (`importance.ranked`,
        which needs candidates with lists); None: guided by the gradient (`text.substitute`).
      surrogate_fn: an encoder whose gradient PGD follows in the place of `image_fn`'s, e.g. the same one computing in
        bfloat16; every loss that is returned is `image_fn`'s, but `image.trace`.
      image_attack: ``(loss_fn, images, keys, image_settings) -> ImageAttack``; with `surrogate_fn` it is given
        ``surrogate=`` as well.
      target: features of the pairs that these are driven towards, for recipes that need them (targeted ones).
      **options: of the recipe: `alpha` (coattack), `scales` and `noise` (sga), `initial` (sequential),
        `order` (targeted_keywords).

    Raises:
      ConfigError: unknown recipe, or an option that it does not have; targeted settings; no target where one is needed.
        ValueError: shapes that do not
        fit.
    """
    if not callable(recipe) and (not isinstance(recipe, str) or recipe not in RECIPES):
        raise ConfigError("recipe", recipe, f"one of {sorted(RECIPES)}", nearest(str(recipe), RECIPES))
    if tokens.ndim not in (2, 3) or tokens.shape[0] != images.shape[0]:
        raise ValueError(f"tokens must be [B, L] or [B, C, L] for {images.shape[0]} images, got shape {tokens.shape}")
    if not tokens.shape == mask.shape == words.shape:
        shapes = f"{tokens.shape}, {mask.shape}, {words.shape}"
        raise ValueError(f"tokens, mask and words must be of one shape, got {shapes}")
    if getattr(image_settings, "targeted", False):
        raise ConfigError("targeted", True, "False: the losses of pairs are raised, those of a target pair as well")
    attack_pairs = recipe if callable(recipe) else RECIPES[recipe]
    known = list(inspect.signature(attack_pairs).parameters)[3:]
    for name in options:
        if isinstance(recipe, str) and name not in known:
            raise ConfigError(f"options of {recipe}", name, f"some of {known}", nearest(name, known))
    lead = tokens.shape[:-1]
    captions, real, slots = (jnp.asarray(x).reshape(-1, tokens.shape[-1]) for x in (tokens, mask, words))
    inputs = jnp.asarray(table), jnp.asarray(images), captions, real, slots, jnp.asarray(keys)
    pairs = Pairs(image_fn, text_fn, *inputs, candidates, similarity, hide_id, surrogate_fn, image_attack, target)
    result = attack_pairs(pairs, image_settings, text_settings, **options)
    attack = result.text._asdict().items()
    text = {name: x.reshape((-1, *lead) if name == "trace" else lead + x.shape[1:]) for name, x in attack}
    losses_of = {name: getattr(result, name).reshape(lead) for name in ("loss", "clean_loss")}
    return result._replace(text=TextAttack(**text), **losses_of)
