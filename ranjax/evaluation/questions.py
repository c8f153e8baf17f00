"""Questions about an image as answer classification, open and closed: a set's own, or made from findings.

A set of questions (VQA-RAD, SLAKE, PathVQA) names the kind of each. Made from a radiograph's exact findings,
closed: "is there a pneumothorax" (yes or no; as many of either as there are findings). Open, about the only finding:
"which side is the effusion on", "which lobe is the mass in", "how severe is the oedema". The answers are the words of
the report grammar. The kind of a question is part of it, so open and closed accuracy never mix.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Shaped

from ranjax.core.errors import DataError
from ranjax.core.keys import stable_hash
from ranjax.core.math import unit

CLOSED, OPEN = "closed", "open"
VARIED = "varied"
"""Questions of either kind that training holds with different answers (`varied`)."""
BOTH, IMAGE, QUESTION = "both", "image", "question"
"""The modalities that a head is given of a question about an image."""
Record = Mapping[str, Any]
"""The known facts of an example."""
OPEN_QUESTIONS = {
    "side": "which side is the {} on",
    "lobe": "which lobe is the {} in",
    "severity": "how severe is the {}",
}


Embeddings = Float[Array | np.ndarray, "questions dim"]


class Questions(NamedTuple):
    """Attributes: example, the row of each question's image; texts; answers; kinds, "open" or "closed"."""

    example: Int[np.ndarray, "questions"]
    texts: list[str]
    answers: list[str]
    kinds: list[str]


def ask(ids: Sequence[str], records: Sequence[Record], classes: Sequence[str], seed: int = 0) -> Questions:
    """Make questions about examples from their findings.

    Args:
      ids: of the examples; with `seed` they key the choice of absent findings.
      records: each with "findings", a list of {"kind", "side", "lobe", "severity"}.
      classes: the kinds that may be asked for; "normal" is none.
      seed: see `ids`.

    Raises:
      DataError: records without findings, or no finding in any of them.
    """
    if len(ids) != len(records) or any(not isinstance(record.get("findings"), list) for record in records):
        raise DataError("questions are made from exact findings, which the records of this data source do not carry")
    kinds = [name for name in classes if name != "normal"]
    made: list[tuple[int, str, str, str]] = []
    for row, (name, record) in enumerate(zip(ids, records)):
        present = [finding["kind"] for finding in record["findings"]]
        absent = [kind for kind in kinds if kind not in present]
        absent.sort(key=lambda kind: stable_hash(f"question/{seed}/{name}/{kind}"))
        closed = [(kind, "yes") for kind in present] + [(kind, "no") for kind in absent[: max(1, len(present))]]
        made += [(row, f"is there {kind}", answer, CLOSED) for kind, answer in closed]
        if len(present) == 1:
            finding = record["findings"][0]
            for field, words in OPEN_QUESTIONS.items():
                if finding.get(field):
                    made.append((row, words.format(finding["kind"]), finding[field], OPEN))
    if not any(answer == "yes" for _, _, answer, _ in made):
        raise DataError("no record has a finding to ask for")
    example, texts, answers, of = zip(*made)
    return Questions(np.array(example, np.int64), list(texts), list(answers), list(of))


def given(records: Sequence[Record]) -> Questions:
    """Return the questions that examples of a set of questions carry, one each.

    Answers are compared as the sets' own scores do, without case, blanks at the ends and a full stop.

    Args:
      records: each with "question", "answer" and "kind" ("open" or "closed").

    Raises:
      DataError: a record without one of them, or of another kind.
    """
    for number, record in enumerate(records):
        lacking = [name for name in ("question", "answer", "kind") if not str(record.get(name) or "").strip()]
        if lacking:
            raise DataError(f"record {number} of a set of questions has no {' and no '.join(lacking)}")
        if record["kind"] not in (OPEN, CLOSED):
            raise DataError(
                f"record {number}: kind {record['kind']!r} of its question, expected {OPEN!r} or {CLOSED!r}"
            )
    return Questions(
        np.arange(len(records)),
        [" ".join(str(record["question"]).split()) for record in records],
        [" ".join(str(record["answer"]).lower().split()).rstrip(".") for record in records],
        [str(record["kind"]) for record in records],
    )


def same_picture(images: Shaped[np.ndarray, "examples ..."]) -> Int32[np.ndarray, "examples"]:
    """Return a number for each image, one for all of equal pixels, counted from 0 in their order.

    A set of questions holds a picture once for every question about it, under ids of the questions.
    """
    place: dict[bytes, int] = {}
    found = (hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in images)
    return np.array([place.setdefault(digest, len(place)) for digest in found], np.int32)


def fuse(images: Embeddings, texts: Embeddings, modality: str = BOTH) -> Float[Array, "questions features"]:
    """Return features of questions about images: both unit embeddings and their product by entry; differentiable.

    Args:
      images, texts: embeddings of any length.
      modality: "both"; or "image" or "question" alone, to measure the worth of the other.

    Returns:
      f32[questions, 3 dim], or f32[questions, dim] of one modality alone: its entries among those of both.
    """
    images, texts = (unit(jnp.asarray(x, jnp.float32)) for x in (images, texts))
    if images.shape != texts.shape or images.ndim != 2:
        raise DataError(f"embeddings of images {images.shape} and questions {texts.shape} do not fit each other")
    width = np.float32(np.sqrt(images.shape[1]))
    # Scaled so that every entry is of the order of 1, as a head expects.
    parts = {IMAGE: [width * images], QUESTION: [width * texts]}
    parts[BOTH] = [*parts[IMAGE], *parts[QUESTION], width * width * images * texts]
    return jnp.concatenate(parts[modality], axis=1)


def fused_width(width: int, modality: str = BOTH) -> int:
    """Return the number of features that `fuse` makes of embeddings of this width."""
    return 3 * width if modality == BOTH else width


def varied(train: Questions, test: Questions) -> Bool[np.ndarray, "questions"]:
    """Return True where training holds different answers to the same question, so that it takes the image to tell.

    A question that training does not hold counts as varied: its answer is not given by its wording.
    """
    answers: dict[str, set[str]] = {}
    for text, answer in zip(train.texts, train.answers):
        answers.setdefault(text, set()).add(answer)
    return np.array([len(answers.get(text, ())) != 1 for text in test.texts], bool)


def majority(train: Questions, test: Questions) -> dict[str, float]:
    """Return the accuracy of the most frequent answer to the same question in training, by `rows_by_kind`.

    A question that training does not hold is answered by the most frequent answer of its kind.
    """
    by_text: dict[str, Counter[str]] = {}
    by_kind: dict[str, Counter[str]] = {}
    for text, answer, kind in zip(train.texts, train.answers, train.kinds):
        by_text.setdefault(text, Counter())[answer] += 1
        by_kind.setdefault(kind, Counter())[answer] += 1

    def guess(text: str, kind: str) -> str:
        counts = by_text.get(text) or by_kind.get(kind) or Counter()
        return max(sorted(counts), key=lambda answer: counts[answer], default="")

    found: dict[str, float] = {}
    right = np.array([guess(*asked) == answer for *asked, answer in zip(test.texts, test.kinds, test.answers)], bool)
    for kind, rows in rows_by_kind(train, test).items():
        found[kind] = float(right[rows].mean())
    return found


def rows_by_kind(train: Questions, test: Questions) -> dict[str, Int[np.ndarray, " rows"]]:
    """Return the rows of `test` of each kind, and under `VARIED` those that `varied` names, where there are any."""
    kinds = np.array(test.kinds)
    found = {str(kind): np.flatnonzero(kinds == kind) for kind in dict.fromkeys(test.kinds)}
    return {kind: rows for kind, rows in {**found, VARIED: np.flatnonzero(varied(train, test))}.items() if len(rows)}
