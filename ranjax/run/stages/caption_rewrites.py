"""The rewritten captions among which an attack chooses, as a run's config says, in tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from ranjax.data.captions.caption_file import FileCaptions, read_captions
from ranjax.data.captions.keyword_rewrites import Found, Keywords
from ranjax.data.captions.radiograph_reading import Facts
from ranjax.data.captions.rewrite import Rewrite
from ranjax.data.captions.term_exchange import Corpus
from ranjax.data.recipe_table import RECIPES, Recipe
from ranjax.data.sources import Source
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.run.context import Context
from ranjax.run.schema import RunConfig, noise_keys
from ranjax.run.stages import inputs as common
from ranjax.run.stages import prepare

TOO_LONG = "every rewrite is longer than the tokens that are read"


class Texts(NamedTuple):
    """Rewrites of a part of the captions in tokens: i32 and bool [captions, K, length], valid bool [captions, K]."""

    tokens: Int32[np.ndarray, "captions rewrites length"]
    mask: Bool[np.ndarray, "captions rewrites length"]
    valid: Bool[np.ndarray, "captions rewrites"]


class CaptionRewriter:
    """Writes the rewrites of captions, `count` a caption at most.

    Args:
      write: gives the rewrites of a caption, from the pair's id, the caption and its exact findings (None: unknown).
      count: K.
      tokenizer, length: of the surrogate's text tower; a rewrite that does not fit is left out.
    """

    def __init__(self, write: Callable[[str, str, Facts | None], Found], count: int, tokenizer: Tokenizer, length: int):
        self.write, self.count, self._tokenizer, self._length = write, count, tokenizer, length

    def __call__(self, identity: str, caption: str, facts: Facts | None) -> Found:
        """Return the rewrites of one caption that the text tower can read whole, or why there are none."""
        found = self.write(identity, caption, facts)
        texts = [rewrite.text for rewrite in found.rewrites]
        if not texts:
            return found
        fits = ~self._tokenizer.encode(texts, self._length + 1).mask[:, -1]
        kept = [rewrite for rewrite, fitting in zip(found.rewrites, fits) if fitting][: self.count]
        return Found(kept, "" if kept else TOO_LONG)

    def encode(self, rewrites: Sequence[Sequence[Rewrite]]) -> Texts:
        """Return the rewrites of each caption in tokens, K a caption."""
        shape = len(rewrites), self.count
        texts = [rewrite.text for listed in rewrites for rewrite in listed]
        valid = np.arange(self.count) < np.array([len(listed) for listed in rewrites])[:, None]
        tokens = np.full((*shape, self._length), self._tokenizer.pad_id, np.int32)
        mask = np.zeros((*shape, self._length), bool)
        if texts:
            encoded = self._tokenizer.encode(texts, self._length)
            tokens[valid], mask[valid] = encoded.ids, encoded.mask
        return Texts(tokens, mask, valid)


def of_config(
    config: RunConfig, recipe: Recipe, tokenizer: Tokenizer, length: int, corpus: Sequence[str] = ()
) -> CaptionRewriter | None:
    """Return who rewrites the captions of a recipe; None where they are not rewritten, see `noise_keys.text_of`.

    A rewrite reads as the texts of `corpus` do; without one any will do.
    """
    text = noise_keys.text_of(config, recipe)
    if text == "captions":
        return CaptionRewriter(FileCaptions(read_captions(noise_keys.caption_file(config))), 1, tokenizer, length)
    if text != "keywords":
        return None
    settings = noise_keys.keyword_settings(config)
    known = Corpus(corpus) if corpus else None
    write = Keywords(config.seed, settings.changes, settings.candidates, known)
    return CaptionRewriter(write, settings.candidates, tokenizer, length)


def of_run(context: Context, recipe: Recipe) -> CaptionRewriter | None:
    """Return who rewrites the captions of a run, in the words of its training reports and of `text.corpus`."""
    data = common.data(context)
    corpus = [*data.split("train").reports, *prepare.corpus(context.config)]
    return of_config(context.config, recipe, data.tokenizer, data.max_length, corpus)


def files_of(config: RunConfig) -> tuple[Path, ...]:
    """Return the user's files that the captions of `noise.recipe` are taken from."""
    recipe = RECIPES.resolve(config.noise.recipe)
    return (Path(noise_keys.caption_file(config)),) if noise_keys.text_of(config, recipe) == "captions" else ()


def check_files(config: RunConfig) -> None:
    """Read the captions that the user brings, so that a run is not refused hours later.

    Raises:
      ConfigError, DataError: as `read_captions`.
    """
    if path := noise_keys.caption_file(config):
        read_captions(path)


def facts_of(source: Source, ids: Sequence[str]) -> list[Facts | None]:
    """Return the exact findings of each pair as its record holds them; None where it holds none."""
    place = {name: index for index, name in enumerate(source.ids)}
    groups = (source.meta(place[name])["group"] for name in ids)
    return [group.get("findings") if isinstance(group, dict) else None for group in groups]
