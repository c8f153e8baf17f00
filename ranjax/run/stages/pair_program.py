"""The attack on image-report pairs that a `noise` config describes, compiled once: for crafting, and for
given files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, UInt8

from ranjax.attacks.attack_table import ATTACKS
from ranjax.attacks.pairs import Allowed, PairAttack, Target
from ranjax.attacks.text import candidates
from ranjax.attacks.text.rewrites import Rewrites
from ranjax.attacks.text.substitution import Substitution, needed_length
from ranjax.core.errors import ConfigError
from ranjax.data.captions.rewrite import Rewrite
from ranjax.data.recipe_table import Recipe
from ranjax.data.text.tokenizer import Tokenizer, Tokens
from ranjax.run.schema import RunConfig, noise_keys
from ranjax.run.stages import inputs as common
from ranjax.run.stages.caption_rewrites import CaptionRewriter
from ranjax.run.stages.word_candidates import CandidateWords, masked_lm_rows, proposals
from ranjax.training.row_map import RowFunction, RowMap


class Surrogate(NamedTuple):
    """A dual encoder that is attacked: pure functions, parameters, its tokenizer, and the tokens that it reads."""

    functions: Any
    params: Any
    tokenizer: Tokenizer
    max_length: int
    sha256: str = ""
    """Of the weights, where they come from a user's folder."""


class AttackedPairs(NamedTuple):
    """What an attack made of N images with up to C reports each; rows of absent reports count for nothing.

    Attributes:
      images: f32[N, H, W, channels] in [0, 1].
      tokens, mask: i32 and bool [N, C, max_length].
      choices: i32[N, C, L], index in the lexicon of the word put into each slot of a report, -1 elsewhere; where the
        texts are rewrites, slot 0 holds the number of the one taken.
      loss_before, loss_after: f32[N, C], minus the cosine of image and report.
      queries: i32[N, C], forward passes on changed reports.
      features: f32[N, D], L2-normalised features of the images; [N, 0] of a recipe without a target.
    """

    images: Float[np.ndarray, "images height width channels"]
    tokens: Int[np.ndarray, "images reports length"]
    mask: Bool[np.ndarray, "images reports length"]
    choices: Int[np.ndarray, "images reports slots"]
    loss_before: Float[np.ndarray, "images reports"]
    loss_after: Float[np.ndarray, "images reports"]
    queries: Int[np.ndarray, "images reports"]
    features: Float[np.ndarray, "images dim"]


class PairProgram:
    """The attack on pairs by a recipe and the group `noise`, compiled once for all parts that it is called with.

    `words` are those that may be put in, or who rewrites whole captions. `reports` are, by image, all that it will be
    called with: a part that is done later must meet the same program. `poll` is called before each batch, and raises
    where the work is to stop.
    """

    def __init__(
        self,
        config: RunConfig,
        recipe: Recipe,
        surrogate: Surrogate,
        words: CandidateWords | CaptionRewriter,
        reports: Sequence[Sequence[str]],
        mesh: Mesh,
        poll: Callable[[], None] = lambda: None,
    ) -> None:
        functions, params, self._tokenizer, self._whole = surrogate[:4]
        self._rewriter = words if isinstance(words, CaptionRewriter) else None
        self._proposer = proposer = None if isinstance(words, CaptionRewriter) else words.proposer
        propose = proposals(proposer, config.noise.masked_lm_k) if proposer else None
        rows = pair_rows(functions, config, recipe, self._tokenizer.unk_id, propose, self._rewriter is not None)
        self._run = RowMap(rows, mesh, config.noise.batch_size, poll)
        table = () if isinstance(words, CaptionRewriter) else words.lexicon.table
        self._shared = self._run.share((params, table, (proposer.params, proposer.table) if proposer else ()))
        if isinstance(words, CaptionRewriter):
            self._length = self._whole
        else:
            self._length = needed_length(self._encode(reports).mask, words.lexicon.table, substitution_of(config))
        self._most = max(map(len, reports))

    def __call__(
        self,
        images: UInt8[np.ndarray, "images height width channels"],
        reports: Sequence[Sequence[str]],
        keys: jax.Array,
        target: Target | None = None,
        rewrites: Sequence[Sequence[Sequence[Rewrite]]] = (),
    ) -> AttackedPairs:
        """Attack N images, each with its reports, at least one, a key of its own, and its target where the recipe needs
        one.

        `rewrites` are those of each report of each image, where captions are rewritten.
        """
        # Ids, mask and words of the reports as [images, reports, length]; reports that an image lacks are empty.
        flat_tokens = self._encode(reports)
        real = np.arange(self._most) < np.array(list(map(len, reports)))[:, None]
        encoded = []
        for values, empty in ((flat_tokens.ids, 0), (flat_tokens.mask, False), (flat_tokens.words, -1)):
            filled = np.full((*real.shape, values.shape[1]), empty, values.dtype)
            filled[real] = values
            encoded.append(filled)
        more: tuple[np.ndarray, ...] = ()
        if self._rewriter:
            listed = [own[j] if j < len(own) else () for own in rewrites for j in range(self._most)]
            more = tuple(x.reshape(len(images), self._most, *x.shape[1:]) for x in self._rewriter.encode(listed))
        elif self._proposer:
            # An image with fewer reports than others has its first one in the place of those that it lacks; they are
            # masked out for the encoder, and what is proposed there is not used.
            whole = [report for own in reports for report in (*own, *[own[0]] * (self._most - len(own)))]
            flat = masked_lm_rows(self._proposer, self._tokenizer, whole, self._length)
            more = tuple(x.reshape(len(images), self._most, -1) for x in flat)
        rows = (images, *(x[..., : self._length] for x in encoded), keys, more, target or ())
        found = AttackedPairs(*self._run(self._shared, rows))
        padding = ((0, 0), (0, 0), (0, self._whole - self._length))
        tokens = np.pad(found.tokens, padding, constant_values=self._tokenizer.pad_id)
        return found._replace(tokens=tokens, mask=np.pad(found.mask, padding))

    def _encode(self, reports: Sequence[Sequence[str]]) -> Tokens:
        return self._tokenizer.encode([report for own in reports for report in own], self._whole)


def substitution_of(config: RunConfig) -> Substitution:
    """Return the word search that the group `noise` describes."""
    noise = config.noise
    return Substitution(
        max_words=noise.max_words,
        share=noise.share if noise.share < 1 else None,
        top_k=noise.top_k,
        beam=noise.beam,
        max_queries=noise.max_queries or None,
        moves=noise.moves,
    )


def pair_rows(
    functions: Any,
    config: RunConfig,
    recipe: Recipe,
    unk_id: int,
    propose: Callable[..., jax.Array] | None = None,
    rewriting: bool = False,
) -> RowFunction:
    """Return the attack of the group `noise` as `RowMap` maps it over pairs.

    `unk_id` hides a word while its importance is measured; `propose` is that of a masked language model which narrows
    the candidates down, see `word_candidates.proposals`. With `rewriting` the rows bring whole texts in their place.
    """
    noise, (norm, epsilon) = config.noise, noise_keys.ball(config)
    options, text = noise_keys.RECIPE_KEYS.options_of(config, recipe), substitution_of(config)
    options = {name: value for name, value in options.items() if name not in recipe.on_host}
    attack = ATTACKS.resolve(noise.image_attack, "noise.image_attack")
    settings = noise_keys.IMAGE_ATTACKS.settings_of(config, attack)
    image = attack.at(settings, epsilon, norm=norm, restarts=noise.restarts)

    def attack_rows(shared: Any, rows: Any) -> tuple[jax.Array, ...]:
        params, table, lm_shared = shared
        *pairs, more, target = rows
        allowed: Allowed = table
        if rewriting:
            allowed = Rewrites(*(x.reshape(-1, *x.shape[2:]) for x in more))
        elif propose:
            tokens, words, *lm_flat = (x.reshape(-1, x.shape[-1]) for x in (pairs[1], pairs[3], *more))
            allowed = candidates.for_rows(table, tokens, words, propose(lm_shared, tuple(lm_flat), tokens.shape[1]))
        result: PairAttack = common.craft_pairs(
            functions,
            params,
            pairs,
            image,
            text,
            allowed,
            gradient_dtype=noise.gradient_dtype,
            recipe=recipe.craft,
            image_attack=attack.run,
            similarity=noise.similarity if noise.similarity > -1 and not rewriting else None,
            hide_id=unk_id if noise.text_search == "importance" else None,
            target=target or None,
            **options,
        )
        (images, found), losses = (result.image.images, result.text), (result.clean_loss, result.loss)
        features = result.features if recipe.needs_target else jnp.zeros((len(images), 0), jnp.float32)
        if features is None:
            raise ConfigError(
                f"{recipe.name}.craft", None, "features of the attacked images, as pairs.result gives them"
            )
        return images, found.tokens, found.mask, found.choices, *losses, found.queries, features

    return attack_rows


def provenance(before: float, after: float, changed: Sequence[object], words: int, queries: int) -> dict[str, object]:
    """Return what the store records of a noisy pair: minus its cosine before and after, and what the search did.

    `changed` are the slots of the report whose word was replaced (of several reports: those of each), `words` in all.
    """
    losses = {"loss_before": before, "loss_after": after}
    return losses | {"words_changed": words, "changed": changed, "queries": queries, "success": after > before}
