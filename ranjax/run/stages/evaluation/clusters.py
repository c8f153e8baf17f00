"""Which test examples are no independent observations: films of one patient, questions about one picture.

As queries, reports of one wording are none either: what one of them finds, all of them find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from ranjax.evaluation import questions, statistics
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import (
    ATTACKED_PAIRS,
    CAPTIONS,
    CORRUPTED,
    FINDINGS,
    RETRIEVAL,
    TASK,
    Record,
)

BY_REPORT = "text_to_image"


def owners(subject: EvaluatedEncoder, split: str) -> np.ndarray:
    """i32[N], what each example of a split, with a label of the task or not, belongs to: a number each.

    Examples of one patient have one number, and so have those of equal pixels, as a set of questions holds them. Where
    no patient is named every example is one of its own.
    """

    def find() -> np.ndarray:
        source = subject.data.prepared.splits[split]
        return joined(_pictures(subject, split), _numbered(source.column("patient")))

    return subject.context.memoize(("owners", split), find)


def _pictures(subject: EvaluatedEncoder, split: str) -> np.ndarray:
    """`questions.same_picture` of a split, hashed once for all conditions."""
    images = subject.data.split(split).images
    return subject.context.memoize(("pictures", split), lambda: questions.same_picture(images))


def declare(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Tells the record what the examples of a split belong to, and notes it, where they do not all stand alone."""
    of_all = owners(subject, split)
    count, independent = len(of_all), int(of_all.max()) + 1
    if independent < statistics.FEW:
        record.notes.append(
            f"{split}: {independent} independent examples are few: intervals over them are somewhat too narrow, and "
            "tests allow for it by flips of sign"
        )
    wordings = _numbered(subject.data.split(split).reports)
    different = len(np.unique(wordings))
    if different < count:
        queries = joined(of_all, wordings)
        for task in (RETRIEVAL, ATTACKED_PAIRS):
            record.belong(task, split, queries, BY_REPORT)
        record.notes.append(
            f"{split}: {count} reports of {different} wording{'s' if different > 1 else ''}; from report to image, "
            f"intervals and tests draw reports of one wording together, and n counts {len(np.unique(queries))}"
        )
    if independent == count:
        return
    of_task = of_all[subject.of_task(split)]
    for task in (TASK, CORRUPTED):
        record.belong(task, split, of_task)
    for task in (FINDINGS, RETRIEVAL, CAPTIONS, ATTACKED_PAIRS):
        record.belong(task, split, of_all)
    pictures = len(np.unique(_pictures(subject, split)))
    what = "questions" if subject.data.has_questions else "images"
    who = "patients" if independent < pictures else "pictures"
    alone = len(np.unique(of_task))
    if alone < len(of_task):
        record.independent[split] = f"{alone} {who} ({len(of_task)} {what})"
    record.notes.append(
        f"{split}: {count} {what} of {independent} {who}; intervals and tests draw {who} with all their {what}, and n "
        f"counts {who}"
    )


def joined(*parts: np.ndarray) -> np.ndarray:
    """Partitions i[N] of the same examples -> i32[N], the finest one that keeps together what any of them does."""
    count = len(parts[0])
    rows = np.arange(count)
    # A node for every example, and one for every group of every partition, linked to its members.
    ends, used = [], count
    for part in parts:
        ends.append(part + used)
        used += int(part.max()) + 1
    links = np.concatenate([np.tile(rows, len(parts))]), np.concatenate(ends)
    graph = sparse.coo_array((np.ones(len(links[0]), bool), links), shape=(used, used))
    found = sparse.csgraph.connected_components(graph, directed=False)[1][:count]
    return np.unique(found, return_inverse=True)[1].astype(np.int32)


def _numbered(names: Sequence[str]) -> np.ndarray:
    """i32[N] of names, of patients or reports as written; an empty name is nobody's: a number of its own."""
    place: dict[object, int] = {}
    named = (name or (index,) for index, name in enumerate(names))
    return np.array([place.setdefault(name, len(place)) for name in named], np.int32)
