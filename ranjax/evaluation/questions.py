"""Questions about a radiograph as answer classification, made from its exact findings: closed and open ones apart.

Closed: "is there a pneumothorax" (yes or no; as many of either as there are findings). Open, about the only finding:
"which side is the effusion on", "which lobe is the mass in", "how severe is the oedema". The answers are the words of
the report grammar. The kind of a question is part of it, so open and closed accuracy never mix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ranjax.errors import DataError
from ranjax.keys import stable_hash

CLOSED, OPEN = "closed", "open"
ASKED = {"side": "which side is the {} on", "lobe": "which lobe is the {} in", "severity": "how severe is the {}"}


class Questions(NamedTuple):
    """Attributes: example i[Q], the row of the image; texts: Q questions; answers: Q words; kinds: "open"/"closed"."""

    example: np.ndarray
    texts: list[str]
    answers: list[str]
    kinds: list[str]


def ask(ids: Sequence[str], records: Sequence[Mapping[str, Any]], classes: Sequence[str], seed: int = 0) -> Questions:
    """Questions about N examples.

    Args:
      ids: they settle which absent finding is asked for.
      records: each with "findings", a list of {"kind", "side", "lobe", "severity"}.
      classes: the kinds that may be asked for; "normal" is none.
      seed: keys the choice of absent findings.

    Raises:
      DataError: records without findings, or no finding in any of them.
    """
    if len(ids) != len(records) or any(not isinstance(record.get("findings"), list) for record in records):
        raise DataError("questions are made from exact findings, which the records of this data source do not carry")
    kinds = [name for name in classes if name != "normal"]
    asked: list[tuple[int, str, str, str]] = []
    for row, (name, record) in enumerate(zip(ids, records)):
        present = [finding["kind"] for finding in record["findings"]]
        absent = [kind for kind in kinds if kind not in present]
        absent.sort(key=lambda kind: stable_hash(f"question/{seed}/{name}/{kind}"))
        said = [(kind, "yes") for kind in present] + [(kind, "no") for kind in absent[: max(1, len(present))]]
        asked += [(row, f"is there {kind}", answer, CLOSED) for kind, answer in said]
        if len(present) == 1:
            finding = record["findings"][0]
            for field, words in ASKED.items():
                if finding.get(field):
                    asked.append((row, words.format(finding["kind"]), finding[field], OPEN))
    if not any(answer == "yes" for _, _, answer, _ in asked):
        raise DataError("no record has a finding to ask for")
    example, texts, answers, of = zip(*asked)
    return Questions(np.array(example, np.int64), list(texts), list(answers), list(of))


def fuse(images: Any, texts: Any) -> np.ndarray:
    """Features f32[Q, 3 D] of a question about an image: both unit embeddings and their product, entry by entry."""
    images, texts = (np.asarray(x, np.float32) for x in (images, texts))
    if images.shape != texts.shape or images.ndim != 2:
        raise DataError(f"embeddings of images {images.shape} and questions {texts.shape} do not fit each other")
    width = np.float32(np.sqrt(images.shape[1]))
    # Scaled so that every entry is of the order of 1, as a head expects.
    return np.concatenate([width * images, width * texts, width * width * images * texts], axis=1)


def majority(train: Questions, test: Questions) -> dict[str, float]:
    """Accuracy by kind of the answer most frequent for the same question in training: what needs no image."""
    counts: dict[str, dict[str, int]] = {}
    for text, answer in zip(train.texts, train.answers):
        of_text = counts.setdefault(text, {})
        of_text[answer] = of_text.get(answer, 0) + 1
    guess = {text: max(sorted(answers), key=lambda a: answers[a]) for text, answers in counts.items()}
    found: dict[str, float] = {}
    for kind in dict.fromkeys(test.kinds):
        rows = [i for i, other in enumerate(test.kinds) if other == kind]
        found[kind] = float(np.mean([guess.get(test.texts[i]) == test.answers[i] for i in rows]))
    return found
