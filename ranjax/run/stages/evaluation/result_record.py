"""The results of one upstream condition: rows, comparisons and pictures, and the answers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import ArrayLike
from safetensors.numpy import load_file

from ranjax.core import files
from ranjax.evaluation import metrics, statistics
from ranjax.evaluation.result_rows import Cell, Row, classification_rows, heads_first, mean_row
from ranjax.methods.table import METHODS

FILE, ANSWERS = "evaluation.json", "answers.safetensors"
TASK, FINDINGS, RETRIEVAL, CAPTIONS = "finding", "findings", "retrieval", "retrieval_sentences"
ATTACKED_PAIRS, CORRUPTED, GROUPS, QUESTIONS = "retrieval_attacked", "corrupted", "groups", "questions"
TRANSFER = "transfer"
"""The attack with images made against the surrogate, the clean encoder with the first method's head."""
REFERENCE = "ran"
"""The method that the others are compared with; the last one where it is not among them."""
Entry = dict[str, Any]
"""An object in a list of results.json other than "rows"."""
Answers = dict[tuple[str, str, str, str], np.ndarray]
"""Right or not, bool[seeds, examples], by (task, split, attack, method)."""
Clusters = Mapping[tuple[str, ...], np.ndarray]
"""Cluster ids i32[examples] by (task, split), or (task, split, method), where examples are not independent."""
_CLUSTERS = "clusters"
"""The first part of the names of tensors that hold cluster ids."""


class LoadedAnswers(NamedTuple):
    """The answers to single examples that `Record.write` left, and the clusters of these examples."""

    answers: Answers
    clusters: Clusters


class Record:
    """Collects figures of one condition and writes them.

    Args:
      condition, ratio: of every row.
      classes: names in label order.
      resamples, seed: of the bootstrap.

    Attributes:
      rows: result rows.
      lists: further results, by their key in results.json.
      chance: levels of chance, by metric.
      notes: sentences for the page.
      independent: by split, the drawn clusters in words, where an example is not one of its own.
    """

    def __init__(self, condition: str, ratio: float, classes: Sequence[str], resamples: int, seed: int):
        self.condition, self.ratio, self.classes = condition, ratio, tuple(classes)
        self.resamples, self.seed = resamples, seed
        self.rows: list[Row] = []
        self.lists: dict[str, list[Entry]] = {
            name: [] for name in ("comparisons", "spectra", "masking", "calibration", "confusions", "projections")
        }
        self.chance: dict[str, float] = {"accuracy": 1 / len(classes), "macro_auroc": 0.5}
        self.chance["balanced_accuracy"] = self.chance["accuracy"]
        self.notes: list[str] = []
        self.independent: dict[str, str] = {}
        self._answers: dict[str, np.ndarray] = {}
        self._clusters: dict[tuple[str, ...], np.ndarray] = {}

    def set_clusters(self, task: str, split: str, clusters: np.ndarray, method: str = "") -> None:
        """Set the cluster ids of the examples of a task and split, such as the image of each question.

        Later intervals and tests of their figures, and of the first of them, draw whole clusters. With `method`, they
        hold for it alone, and come before those for all methods.
        """
        self._clusters[(task, split, method) if method else (task, split)] = np.asarray(clusters, np.int32)

    def clusters(self, task: str, split: str, count: int, method: str = "") -> np.ndarray | None:
        """Return the cluster ids of the first `count` examples; None: all are independent."""
        return clusters_of(self._clusters, task, split, count, method)

    def cell(self, method: str, task: str, split: str, attack: str = "none", seed: int | None = None) -> Cell:
        return Cell(self.condition, self.ratio, method, task, split, attack, seed)

    def classified(
        self, method: str, split: str, attack: str, logits: ArrayLike, labels: np.ndarray, seeds: Sequence[int]
    ) -> Bool[np.ndarray, "heads examples"]:
        """Record every figure of logits [N, C] or [S, N, C], and return which examples are right.

        Labels are i[N], or multi-hot [N, C]: then an example is right with every class right, and there are no
        confusion counts.
        """
        stack, multi_label = heads_first(logits), labels.ndim == 2
        self.rows += classification_rows(
            self.cell(method, TASK, split, attack),
            stack,
            labels,
            seeds,
            class_names=self.classes if attack == "none" else (),
            resamples=self.resamples,
            seed=self.seed,
            clusters=self.clusters(TASK, split, len(labels)),
        )
        right = metrics.all_right if multi_label else metrics.correct
        hits = np.stack([right(one, labels) for one in stack])
        self._keep_answers(method, TASK, split, attack, hits)
        if multi_label:
            return hits
        where = {"condition": self.condition, "ratio": self.ratio, "method": method, "split": split, "attack": attack}
        counts = np.sum([metrics.confusion(one.argmax(1), labels, len(self.classes)) for one in stack], axis=0)
        self.lists["confusions"].append({**where, "counts": counts.tolist()})
        if attack == "none":
            confidence = np.minimum(np.stack([metrics.softmax(one).max(1) for one in stack]), 1.0)
            table = metrics.calibration_bins(confidence.ravel(), hits.ravel(), 10)
            bins = [[float(x) if np.isfinite(x) else None for x in line] for line in table]
            self.lists["calibration"].append({**where, "bins": bins})
        return hits

    def share(
        self,
        method: str,
        task: str,
        split: str,
        attack: str,
        metric: str,
        hits: ArrayLike,
        seeds: Sequence[int] = (),
        clusters: np.ndarray | None = None,
    ) -> None:
        """Record the share of bool[N] or bool[S, N] as a row with its interval; the answers too if it is an accuracy.

        Whole clusters are drawn: those given, or those of the task and split.
        """
        values = np.atleast_2d(np.asarray(hits, np.float64))
        clusters = self.clusters(task, split, values.shape[1], method) if clusters is None else clusters
        bootstrap = self.resamples, self.seed, clusters
        self.rows.append(mean_row(self.cell(method, task, split, attack), metric, values, *bootstrap))
        for index, seed in enumerate(seeds):
            cell = self.cell(method, task, split, attack, int(seed))
            self.rows.append(mean_row(cell, metric, values[index], *bootstrap))
        if metric in ("accuracy", "recall@1"):
            self._keep_answers(method, task, split, attack, np.atleast_2d(np.asarray(hits, bool)))

    def set_multi_label_chance(self, targets: np.ndarray) -> None:
        """Set the levels of chance of a multi-label task: those of one answer for all images of the test set."""
        shares = targets.mean(0)
        self.chance["accuracy"] = float(np.unique(targets, axis=0, return_counts=True)[1].max() / len(targets))
        self.chance["balanced_accuracy"] = 0.5
        self.chance["label_accuracy"] = float(np.maximum(shares, 1 - shares).mean())
        self.chance["map"] = float(shares[shares > 0].mean())
        self.notes.append(
            "several findings an image: accuracy is the share of images with every finding right, and its level of "
            "chance that of the most frequent set of findings"
        )

    def compare(self, task: str, split: str, attack: str, hits: Mapping[str, np.ndarray]) -> None:
        """Compare the reference method with every other one, on the same images and seeds.

        What is left out of a part of a method is compared with that method, where it is there.
        """
        if len(hits) < 2:
            return
        reference = REFERENCE if REFERENCE in hits else list(hits)[-1]
        for other in hits:
            entry = METHODS.get(other)
            first = entry.variant_of if entry is not None and entry.leaves_out else reference
            if other == first or first not in hits:
                continue
            pair = paired(hits[first], hits[other])
            if pair is None:
                continue
            clusters = self.clusters(task, split, pair[0].shape[1])
            gap = statistics.paired_difference(*pair, self.resamples, self.seed, clusters=clusters)
            where = {"condition": self.condition, "ratio": self.ratio, "task": task, "split": split, "attack": attack}
            self.lists["comparisons"].append(
                {"a": first, "b": other, **where, "metric": "accuracy", **figures(gap), "seeds": len(pair[0])}
            )

    def write(self, folder: Path) -> Entry:
        """Write both files, and return their facts for the manifest."""
        clusters = {"|".join((_CLUSTERS, *key)): found for key, found in self._clusters.items()}
        files.write_tensors(folder / ANSWERS, {**self._answers, **clusters})
        content = {"rows": self.rows, **self.lists, "chance": self.chance, "notes": self.notes}
        content["independent"] = self.independent
        files.write_json(folder / FILE, content)
        hashes = {"sha256": files.sha256(folder / FILE), "answers": files.sha256(folder / ANSWERS)}
        return {"rows": len(self.rows), **hashes}

    def _keep_answers(self, method: str, task: str, split: str, attack: str, hits: np.ndarray) -> None:
        self._answers["|".join((task, split, attack, method))] = np.ascontiguousarray(hits)


def paired(
    a: np.ndarray, b: np.ndarray
) -> tuple[Float64[np.ndarray, "seeds examples"], Float64[np.ndarray, "seeds examples"]] | None:
    """Return both as floats with one seed a row: the seeds they share, or every seed against the one.

    None where the numbers of examples differ.
    """
    if a.shape[1] != b.shape[1]:
        return None
    if 1 not in (len(a), len(b)):
        count = min(len(a), len(b))
        a, b = a[:count], b[:count]
    a, b = np.broadcast_arrays(a, b)
    return a.astype(np.float64), b.astype(np.float64)


def figures(gap: statistics.Difference) -> Entry:
    """Return a difference as it is written; an infinite effect (the same for every example) becomes None."""
    effect = gap.effect if np.isfinite(gap.effect) else None
    return {"difference": gap.value, "low": gap.low, "high": gap.high, "p": gap.p, "effect": effect, "n": gap.n}


def clusters_of(clusters: Clusters, task: str, split: str, count: int, method: str) -> np.ndarray | None:
    """Return the cluster ids of the first `count` examples, for this method; None: all are independent."""
    found = clusters.get((task, split, method), clusters.get((task, split)))
    return None if found is None else found[:count]


def load(folder: Path) -> LoadedAnswers:
    """Return the answers to single examples that `Record.write` left, with their clusters."""
    answers: Answers = {}
    clusters: dict[tuple[str, ...], np.ndarray] = {}
    for name, values in load_file(folder / ANSWERS).items():
        if name.startswith(f"{_CLUSTERS}|"):
            clusters[tuple(name.split("|")[1:])] = values
        else:
            task, split, attack, method = name.split("|")
            answers[task, split, attack, method] = values.astype(bool)
    return LoadedAnswers(answers, clusters)
