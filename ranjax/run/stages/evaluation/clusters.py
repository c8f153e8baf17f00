"""Clusters of test examples that are not independent: films of one patient, questions about one picture.

As queries, reports of one wording form a cluster too: if one of them finds its image, all of them do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32
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


def cluster_ids(encoder: EvaluatedEncoder, split: str) -> Int32[np.ndarray, "examples"]:
    """Return the cluster id of each example of a split, of the task or not.

    Examples of one patient share an id, and so do those of equal pixels, as a set of questions holds them. Without a
    patient's name every example is a cluster of its own.
    """

    def find() -> np.ndarray:
        source = encoder.data.prepared.splits[split]
        return join_partitions(_picture_ids(encoder, split), _number(source.column("patient")))

    return encoder.context.memoize(("cluster ids", split), find)


def _picture_ids(encoder: EvaluatedEncoder, split: str) -> np.ndarray:
    """Return `questions.same_picture` of a split, hashed once for all conditions."""
    images = encoder.data.split(split).images
    return encoder.context.memoize(("pictures", split), lambda: questions.same_picture(images))


def declare_clusters(encoder: EvaluatedEncoder, record: Record, split: str) -> None:
    """Set the clusters of a split's examples in the record, with a note, unless all are independent."""
    of_all = cluster_ids(encoder, split)
    count, independent = len(of_all), int(of_all.max()) + 1
    if independent < statistics.FEW:
        record.notes.append(
            f"{split}: {independent} independent examples are few: intervals over them are somewhat too narrow, and "
            "tests allow for it by flips of sign"
        )
    # Queries by report: reports of one wording are one cluster, and so are those of one patient or picture.
    wordings = _number(encoder.data.split(split).reports)
    different = len(np.unique(wordings))
    if different < count:
        queries = join_partitions(of_all, wordings)
        for task in (RETRIEVAL, ATTACKED_PAIRS):
            record.set_clusters(task, split, queries, BY_REPORT)
        record.notes.append(
            f"{split}: {count} reports of {different} wording{'s' if different > 1 else ''}; from report to image, "
            f"intervals and tests draw reports of one wording together, and n counts {len(np.unique(queries))}"
        )
    if independent == count:
        return
    # All other figures: patients, or pictures, with all their examples.
    of_task = of_all[encoder.of_task(split)]
    for task in (TASK, CORRUPTED):
        record.set_clusters(task, split, of_task)
    for task in (FINDINGS, RETRIEVAL, CAPTIONS, ATTACKED_PAIRS):
        record.set_clusters(task, split, of_all)
    examples = "questions" if encoder.data.has_questions else "images"
    clusters = "patients" if independent < len(np.unique(_picture_ids(encoder, split))) else "pictures"
    independent_of_task = len(np.unique(of_task))
    if independent_of_task < len(of_task):
        record.independent[split] = f"{independent_of_task} {clusters} ({len(of_task)} {examples})"
    record.notes.append(
        f"{split}: {count} {examples} of {independent} {clusters}; intervals and tests draw {clusters} with all their "
        f"{examples}, and n counts {clusters}"
    )


def join_partitions(*partitions: np.ndarray) -> Int32[np.ndarray, "examples"]:
    """Return the finest partition that keeps together the examples that any of `partitions` keeps together."""
    count = len(partitions[0])
    rows = np.arange(count)
    # A node for every example, and one for every group of every partition, linked to its members.
    ends, used = [], count
    for partition in partitions:
        ends.append(partition + used)
        used += int(partition.max()) + 1
    links = np.concatenate([np.tile(rows, len(partitions))]), np.concatenate(ends)
    graph = sparse.coo_array((np.ones(len(links[0]), bool), links), shape=(used, used))
    found = sparse.csgraph.connected_components(graph, directed=False)[1][:count]
    return np.unique(found, return_inverse=True)[1].astype(np.int32)


def _number(names: Sequence[str]) -> Int32[np.ndarray, "examples"]:
    """Return a number for each name, of patients or reports as written; every empty name has a number of its own."""
    numbers: dict[object, int] = {}
    keys = (name or (index,) for index, name in enumerate(names))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int32)
