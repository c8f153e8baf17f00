"""Image-text retrieval: ranks both ways, several captions an image, with a stated rule for ties."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64, Num
from numpy.typing import ArrayLike

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.math import unit_numpy

_END = re.compile(r"(?<=[.!?;])\s+")
_HEADING = re.compile(r"^\s*(findings|impression)\s*:\s*", re.IGNORECASE)
TIES = ("worst", "index", "best")
Rows = Callable[[np.ndarray], np.ndarray]
"""A function of queries i[Q] that returns a row for each, [Q, items]."""


class Ranks(NamedTuple):
    """0-based rank of the best right item of each query.

    Attributes:
      image_to_text: among the captions.
      text_to_image: among the images.
      right_texts, right_images: number of right items of each image and caption; from these comes the level of chance.
    """

    image_to_text: Int64[np.ndarray, "images"]
    text_to_image: Int64[np.ndarray, "texts"]
    right_texts: Int64[np.ndarray, "images"]
    right_images: Int64[np.ndarray, "texts"]


class Captions(NamedTuple):
    """Several captions an image. Attributes: texts; image_of_text: the image of each."""

    texts: list[str]
    image_of_text: Int64[np.ndarray, "texts"]


def sentences(report: str) -> list[str]:
    """Return the sentences of a report without section headings; those without a letter are left out."""
    parts = [_HEADING.sub("", part).strip() for part in _END.split(report)]
    return [part for part in parts if re.search(r"[^\W\d_]", part)]


def captions_of(reports: Sequence[str], most: int) -> Captions:
    """Return at most `most` captions an image: its sentences, the longest ones where it has more, in their order.

    Short denials ("No effusion.") are worded alike in many reports. A caption worded like one of an image's own is
    right for it (`ranks`, `texts_as_written`), and the longest sentences tell reports apart best.

    Raises:
      ConfigError: `most` below 1.  DataError: a report without words.
    """
    if most < 1:
        raise ConfigError("evaluate.captions", most, "a number of at least 1")
    texts: list[str] = []
    image_of_text: list[int] = []
    for image, report in enumerate(reports):
        found = sentences(report)
        if not found:
            raise DataError(f"report {image} has no words to make captions of")
        longest = sorted(sorted(range(len(found)), key=lambda i: (-len(found[i]), i))[:most])
        texts += [found[i] for i in longest]
        image_of_text += [image] * len(longest)
    return Captions(texts, np.array(image_of_text, np.int64))


def unit(features: ArrayLike) -> Float32[np.ndarray, "examples dim"]:
    """Return rows scaled to length 1 (float16 and bfloat16 are cast up first); a zero row stays zero."""
    array = np.asarray(features, np.float32)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise DataError(f"features have shape {array.shape}, expected finite numbers [N, D]")
    return unit_numpy(array)


def ranks(
    images: Num[np.ndarray, "images dim"],
    texts: Num[np.ndarray, "texts text_dim"],
    image_of_text: Num[np.ndarray, "..."],
    *,
    ties: str = "worst",
    texts_as_written: Sequence[str] | None = None,
    chunk: int = 1024,
) -> Ranks:
    """Rank by dot products, `chunk` queries at a time, so that the full similarity matrix is never held.

    Args:
      images, texts: features, normalised by the caller (`unit`) where cosines are meant.
      image_of_text: the image of each caption; any number of captions an image, in any order.
      ties: where a right item lies among equal wrong ones: "worst" behind them (against the model), "best" before
        them, "index" in the order of the arrays.
      texts_as_written: the captions; where given, a caption worded like one of an image's own is right for it, too.
      chunk: queries at a time.

    Raises:
      DataError: shapes that do not fit, a caption of an image that is not there, an image without captions.
      ConfigError: an unknown rule.
    """
    if images.shape[1] != texts.shape[1]:
        raise DataError(f"expected images [I, D] and texts [T, D], got {images.shape} and {texts.shape}")
    if ties not in TIES:
        raise ConfigError("ties", ties, f"one of {', '.join(TIES)}")
    if chunk < 1:
        raise ConfigError("chunk", chunk, "a number of at least 1")
    _check_images_of_texts(image_of_text, len(images), len(texts))
    right_texts, right_images = _right_items(image_of_text, len(images), texts_as_written)
    to_text, texts_right = _ranked(lambda rows: images[rows] @ texts.T, right_texts, len(images), ties, chunk)
    to_image, images_right = _ranked(lambda rows: texts[rows] @ images.T, right_images, len(texts), ties, chunk)
    return Ranks(to_text, to_image, texts_right, images_right)


def chance(right: ArrayLike, items: int, k: int) -> float:
    """Return recall@k of a random order: the mean of 1 - C(items - right, k) / C(items, k); right [queries]."""
    right = np.asarray(right, np.float64)
    k = min(k, items)
    missed = np.ones_like(right)
    for j in range(k):
        missed *= np.clip(items - right - j, 0, None) / (items - j)
    return float((1 - missed).mean())


def _check_images_of_texts(image_of_text: np.ndarray, images: int, texts: int) -> None:
    if image_of_text.shape != (texts,) or not np.issubdtype(image_of_text.dtype, np.integer):
        found = f"{image_of_text.dtype} of shape {image_of_text.shape}"
        raise DataError(f"images of texts are {found}, expected integers of shape ({texts},)")
    if texts == 0 or image_of_text.min() < 0 or image_of_text.max() >= images:
        raise DataError(f"images of texts: expected numbers in 0..{images - 1}, one for each of {texts} captions")
    alone = np.flatnonzero(np.bincount(image_of_text, minlength=images) == 0)
    if alone.size:
        raise DataError(f"image {alone[0]} has no caption ({alone.size} such images)")


def _right_items(image_of_text: np.ndarray, images: int, written: Sequence[str] | None) -> tuple[Rows, Rows]:
    """Return functions that mark the right captions of images, bool[Q, T], and the right images of captions."""
    if written is None:
        return (
            lambda rows: image_of_text[None] == rows[:, None],
            lambda rows: image_of_text[rows][:, None] == np.arange(images)[None],
        )
    if len(written) != len(image_of_text):
        raise DataError(f"{len(written)} captions as written for {len(image_of_text)} texts")
    wording = np.unique(np.asarray(written, dtype=str), return_inverse=True)[1].ravel()
    # Does image i own a caption of this wording?
    has_wording: Bool[np.ndarray, "images wordings"] = np.zeros((images, wording.max() + 1), bool)
    has_wording[image_of_text, wording] = True
    return lambda rows: has_wording[rows][:, wording], lambda rows: has_wording[:, wording[rows]].T


def _ranked(scores_of: Rows, right_of: Rows, queries: int, ties: str, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of the best right item of each query, and the number of its right items."""
    parts, counts = [], []
    for start in range(0, queries, chunk):
        rows = np.arange(start, min(start + chunk, queries))
        scores, right = np.asarray(scores_of(rows), np.float64), right_of(rows)
        if np.isnan(scores).any():
            raise DataError("similarities hold NaN")
        best = np.where(right, scores, -np.inf).max(1, keepdims=True)
        ahead = (scores > best) & ~right
        if ties != "best":
            equal = (scores == best) & ~right
            if ties == "index":
                first = np.argmax(right & (scores == best), axis=1)
                equal &= np.arange(scores.shape[1])[None] < first[:, None]
            ahead |= equal
        parts.append(ahead.sum(1))
        counts.append(right.sum(1))
    return np.concatenate(parts), np.concatenate(counts)
