"""Image-text retrieval: recall@k both ways, several captions an image, with a stated rule for ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.math import unit_numpy

TIES = ("worst", "index", "best")


class Ranks(NamedTuple):
    """0-based rank of the best right item of each query.

    Attributes:
      image_to_text: i64[I], among the captions.
      text_to_image: i64[T], among the images.
      right_texts, right_images: i64[I] and i64[T], how many items are right; from these comes the level of chance.
    """

    image_to_text: np.ndarray
    text_to_image: np.ndarray
    right_texts: np.ndarray
    right_images: np.ndarray


def unit(features: Any) -> np.ndarray:
    """Rows f32[N, D] scaled to length 1 (float16 and bfloat16 are cast up first); a zero row stays zero."""
    array = np.asarray(features, np.float32)
    if array.ndim != 2 or not np.isfinite(array).all():
        raise DataError(f"features must be finite and [N, D], got shape {array.shape}")
    return unit_numpy(array)


def ranks(
    images: Any,
    texts: Any,
    owners: Any,
    *,
    ties: str = "worst",
    texts_as_written: Sequence[str] | None = None,
    chunk: int = 1024,
) -> Ranks:
    """Ranks by dot products, `chunk` queries at a time, so that the full similarity matrix is never held.

    Args:
      images: f[I, D] and texts: f[T, D], normalised by the caller (`unit`) where cosines are meant.
      owners: i[T], the image that each caption belongs to; any number of captions an image, in any order.
      ties: where a right item lies among equal wrong ones: "worst" behind them (against the model), "best" before
        them, "index" in the order of the arrays.
      texts_as_written: T captions; where given, a caption worded like one of an image's own is right for it, too.

    Raises:
      DataError: shapes that do not fit, an owner outside the images, an image without captions.
      ConfigError: an unknown rule.
    """
    images, texts, owners = np.asarray(images), np.asarray(texts), np.asarray(owners)
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise DataError(f"images [I, D] and texts [T, D] are needed, got {images.shape} and {texts.shape}")
    return _ranks(lambda rows: images[rows] @ texts.T, lambda rows: texts[rows] @ images.T, len(images), len(texts),
                  owners, ties, texts_as_written, chunk)  # fmt: skip


def ranks_of_similarity(
    similarity: Any, owners: Any, *, ties: str = "worst", texts_as_written: Sequence[str] | None = None
) -> Ranks:
    """As `ranks`, from a similarity matrix [I, T]."""
    matrix = np.asarray(similarity)
    if matrix.ndim != 2:
        raise DataError(f"similarity must be [I, T], got shape {matrix.shape}")
    images, texts = matrix.shape
    return _ranks(lambda rows: matrix[rows], lambda rows: matrix.T[rows], images, texts, np.asarray(owners), ties,
                  texts_as_written, max(images, texts, 1))  # fmt: skip


def _ranks(image_rows, text_rows, images, texts, owners, ties, written, chunk) -> Ranks:
    if ties not in TIES:
        raise ConfigError("ties", ties, f"one of {', '.join(TIES)}")
    if chunk < 1:
        raise ConfigError("chunk", chunk, "at least 1")
    if owners.shape != (texts,) or not np.issubdtype(owners.dtype, np.integer):
        raise DataError(f"owners are {owners.dtype} of shape {owners.shape}, integers of shape ({texts},) are needed")
    if texts == 0 or owners.min() < 0 or owners.max() >= images:
        raise DataError(f"owners must lie in 0..{images - 1}, one for each of {texts} captions")
    alone = np.flatnonzero(np.bincount(owners, minlength=images) == 0)
    if alone.size:
        raise DataError(f"image {alone[0]} has no caption ({alone.size} such images)")
    if written is None:
        same, of_image = np.arange(texts), None
    else:
        if len(written) != texts:
            raise DataError(f"{len(written)} captions as written for {texts} texts")
        same = np.unique(np.asarray(written, dtype=str), return_inverse=True)[1].ravel()
        # right[i, group]: does image i own a caption of this wording?
        of_image = np.zeros((images, same.max() + 1), bool)
        of_image[owners, same] = True

    def right_texts(rows: np.ndarray) -> np.ndarray:
        return owners[None] == rows[:, None] if of_image is None else of_image[rows][:, same]

    def right_images(rows: np.ndarray) -> np.ndarray:
        return owners[rows][:, None] == np.arange(images)[None] if of_image is None else of_image[:, same[rows]].T

    to_text, texts_right = _chunked(image_rows, right_texts, images, ties, chunk)
    to_image, images_right = _chunked(text_rows, right_images, texts, ties, chunk)
    return Ranks(to_text, to_image, texts_right, images_right)


def _chunked(scores_of, right_of, queries: int, ties: str, chunk: int) -> tuple[np.ndarray, np.ndarray]:
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


def recall(ranks_of_queries: Any, k: int) -> float:
    """Share of queries with a right item among the first k; ranks i[Q] from 0."""
    if k < 1:
        raise ConfigError("k", k, "at least 1")
    return float((np.asarray(ranks_of_queries) < k).mean())


def chance(right: Any, items: int, k: int) -> float:
    """Recall@k of a random order: mean of 1 - C(items - right, k) / C(items, k); right i[Q] per query."""
    right = np.asarray(right, np.float64)
    k = min(k, items)
    missed = np.ones_like(right)
    for j in range(k):
        missed *= np.clip(items - right - j, 0, None) / (items - j)
    return float((1 - missed).mean())


def summary(found: Ranks, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """{"image_to_text_recall@1": ..., "text_to_image_recall@1": ..., "..._chance@1": ...} for every k."""
    texts, images = len(found.text_to_image), len(found.image_to_text)
    figures = {}
    for k in ks:
        figures[f"image_to_text_recall@{k}"] = recall(found.image_to_text, k)
        figures[f"text_to_image_recall@{k}"] = recall(found.text_to_image, k)
        figures[f"image_to_text_chance@{k}"] = chance(found.right_texts, texts, k)
        figures[f"text_to_image_chance@{k}"] = chance(found.right_images, images, k)
    return figures


def success_rates(clean: Any, attacked: Any, k: int = 1) -> tuple[float, float]:
    """Both definitions of an attack's success at recall@k, from the ranks of the same queries before and after.

    Returns:
      (clean recall less attacked recall, as Co-Attack counts; share of the queries right before that are wrong after,
      as SGA counts, NaN where none was right).
    """
    before, after = np.asarray(clean) < k, np.asarray(attacked) < k
    if before.shape != after.shape:
        raise DataError(f"ranks before and after differ in shape: {before.shape}, {after.shape}")
    fooled = float((before & ~after).sum() / before.sum()) if before.any() else float("nan")
    return float(before.mean() - after.mean()), fooled
