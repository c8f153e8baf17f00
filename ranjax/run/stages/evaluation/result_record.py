"""What has been found about one upstream condition: rows, comparisons and pictures, and the answers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from ranjax.core import files
from ranjax.evaluation import metrics, statistics
from ranjax.evaluation.multi_label import multi_label_rows
from ranjax.evaluation.result_rows import Cell, Row, classification_rows, heads_first, mean_row

FILE, ANSWERS = "evaluation.json", "answers.safetensors"
TASK, FINDINGS, RETRIEVAL, CAPTIONS = "finding", "findings", "retrieval", "retrieval_sentences"
ATTACKED_PAIRS, CORRUPTED, GROUPS, QUESTIONS = "retrieval_attacked", "corrupted", "groups", "questions"
Owners = Mapping[tuple[str, ...], np.ndarray]
OWNERS = "owners"
"""How the names of tensors begin that say what the examples of a task and split belong to."""
TRANSFER = "transfer"
"""The attack whose images were made against the surrogate, the clean encoder with the first method's head."""
REFERENCE = "ran"
"""The method that the others are held against; the last one where it is not among them."""


class Record:
    """Collects figures of one condition and writes them.

    Args:
      condition, ratio: of every row.
      classes: names in label order.
      resamples, seed: of the bootstrap.

    Attributes:
      independent: by split, in words, what is drawn where several examples are of one.
    """

    def __init__(self, condition: str, ratio: float, classes: Sequence[str], resamples: int, seed: int):
        self.condition, self.ratio, self.classes = condition, ratio, tuple(classes)
        self.resamples, self.seed = resamples, seed
        self.rows: list[Row] = []
        self.lists: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("comparisons", "spectra", "masking", "calibration", "confusions", "projections")
        }
        self.chance: dict[str, float] = {"accuracy": 1 / len(classes), "macro_auroc": 0.5}
        self.chance["balanced_accuracy"] = self.chance["accuracy"]
        self.notes: list[str] = []
        self._answers: dict[str, np.ndarray] = {}
        self.independent: dict[str, str] = {}
        self._owners: dict[tuple[str, ...], np.ndarray] = {}

    def belong(self, task: str, split: str, owners: np.ndarray, method: str = "") -> None:
        """Says what the examples of a task and split belong to, i[N], such as the image of each question.

        From then on intervals and tests of their figures, and of the first so many of them, draw whole owners. With
        `method`, that holds for it alone, whatever holds for the others.
        """
        self._owners[(task, split, method) if method else (task, split)] = np.asarray(owners, np.int32)

    def owners(self, task: str, split: str, count: int, method: str = "") -> np.ndarray | None:
        """i32[count], what the first `count` examples belong to; None: each stands for itself."""
        return owners_of(self._owners, task, split, count, method)

    def cell(self, method: str, task: str, split: str, attack: str = "none", seed: int | None = None) -> Cell:
        return Cell(self.condition, self.ratio, method, task, split, attack, seed)

    def where(self, method: str, split: str, attack: str) -> dict[str, Any]:
        return {"condition": self.condition, "ratio": self.ratio, "method": method, "split": split, "attack": attack}

    def classified(
        self, method: str, split: str, attack: str, logits: Any, labels: np.ndarray, seeds: Sequence[int]
    ) -> np.ndarray:
        """Keeps every figure of logits [N, C] or [S, N, C]; returns who is right, bool[S, N].

        Labels i[N], or multi-hot [N, C]: then right is who has every class right, and there are no confusion counts.
        """
        stack, several = heads_first(logits), labels.ndim == 2
        rows_of, right = (multi_label_rows, metrics.all_right) if several else (classification_rows, metrics.correct)
        names = self.classes if attack == "none" else ()
        cell = self.cell(method, TASK, split, attack)
        owners = self.owners(TASK, split, len(labels))
        drawn = {"resamples": self.resamples, "seed": self.seed, "owners": owners}
        self.rows += rows_of(cell, stack, labels, seeds, class_names=names, **drawn)
        hits = np.stack([right(one, labels) for one in stack])
        self.keep_answers(method, TASK, split, attack, hits)
        if several:
            return hits
        counts = sum(metrics.confusion(one.argmax(1), labels, len(self.classes)) for one in stack)
        self.lists["confusions"].append({**self.where(method, split, attack), "counts": counts.tolist()})
        if attack == "none":
            confidence = np.minimum(np.stack([metrics.softmax(one).max(1) for one in stack]), 1.0)
            table = metrics.calibration_bins(confidence.ravel(), hits.ravel(), 10)
            bins = [[_plain(x) for x in line] for line in table]
            self.lists["calibration"].append({**self.where(method, split, attack), "bins": bins})
        return hits

    def share(
        self,
        method: str,
        task: str,
        split: str,
        attack: str,
        metric: str,
        hits: Any,
        seeds: Sequence[int] = (),
        owners: np.ndarray | None = None,
    ) -> None:
        """Keeps the share of bool[N] or bool[S, N] as a row with its interval; answers too where it is accuracy.

        Whole owners are drawn: those given, i[N], else those of the task and split.
        """
        values = np.atleast_2d(np.asarray(hits, np.float64))
        owners = self.owners(task, split, values.shape[1], method) if owners is None else owners
        drawn = self.resamples, self.seed, owners
        self.rows.append(mean_row(self.cell(method, task, split, attack), metric, values, *drawn))
        for index, seed in enumerate(seeds):
            cell = self.cell(method, task, split, attack, int(seed))
            self.rows.append(mean_row(cell, metric, values[index], *drawn))
        if metric in ("accuracy", "recall@1"):
            self.keep_answers(method, task, split, attack, np.atleast_2d(np.asarray(hits, bool)))

    def levels(self, targets: np.ndarray) -> None:
        """Takes the levels of chance of a multi-label task: what one answer for all images of the test set gives."""
        shares = targets.mean(0)
        self.chance["accuracy"] = float(np.unique(targets, axis=0, return_counts=True)[1].max() / len(targets))
        self.chance["balanced_accuracy"] = 0.5
        self.chance["label_accuracy"] = float(np.maximum(shares, 1 - shares).mean())
        self.chance["map"] = float(shares[shares > 0].mean())
        self.notes.append(
            "several findings an image: accuracy is the share of images with every finding right, and its level of "
            "chance that of the most frequent set of findings"
        )

    def keep_answers(self, method: str, task: str, split: str, attack: str, hits: np.ndarray) -> None:
        self._answers["|".join((task, split, attack, method))] = np.ascontiguousarray(hits)

    def compare(self, task: str, split: str, attack: str, hits: Mapping[str, np.ndarray]) -> None:
        """The reference method against every other one, on the same images and seeds."""
        if len(hits) < 2:
            return
        first = REFERENCE if REFERENCE in hits else list(hits)[-1]
        for other in hits:
            pair = paired(hits[first], hits[other])
            if other == first or pair is None:
                continue
            owners = self.owners(task, split, pair[0].shape[1])
            gap = statistics.paired_difference(*pair, self.resamples, self.seed, owners=owners)
            where = {"condition": self.condition, "ratio": self.ratio, "task": task, "split": split, "attack": attack}
            self.lists["comparisons"].append(
                {"a": first, "b": other, **where, "metric": "accuracy", **figures(gap), "seeds": len(pair[0])}
            )

    def write(self, folder: Path) -> dict[str, Any]:
        """Leaves both files; returns what the manifest says of them."""
        owners = {"|".join((OWNERS, *place)): found for place, found in self._owners.items()}
        files.write_tensors(folder / ANSWERS, {**self._answers, **owners})
        content = {"rows": self.rows, **self.lists, "chance": self.chance, "notes": self.notes}
        content["independent"] = self.independent
        files.write_json(folder / FILE, content)
        return {
            "rows": len(self.rows),
            "sha256": files.sha256(folder / FILE),
            "answers": files.sha256(folder / ANSWERS),
        }


def paired(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Both as float [S, N] with one seed a row: the seeds they share, or every seed against the one; None: unlike."""
    if a.shape[1] != b.shape[1]:
        return None
    if len(a) != len(b):
        if len(a) == 1 or len(b) == 1:
            count = max(len(a), len(b))
            a, b = (np.broadcast_to(x, (count, x.shape[1])) if len(x) == 1 else x for x in (a, b))
        else:
            count = min(len(a), len(b))
            a, b = a[:count], b[:count]
    return a.astype(np.float64), b.astype(np.float64)


def figures(gap: statistics.Difference) -> dict[str, Any]:
    """A difference as it is written; an infinite effect (the same for every example) has no number."""
    effect = gap.effect if np.isfinite(gap.effect) else None
    return {"difference": gap.value, "low": gap.low, "high": gap.high, "p": gap.p, "effect": effect, "n": gap.n}


def owners_of(owners: Owners, task: str, split: str, count: int, method: str) -> np.ndarray | None:
    """i32[count], what the first examples of a task and split belong to, for this method; None: each to itself."""
    found = owners.get((task, split, method), owners.get((task, split)))
    return None if found is None else found[:count]


def load(folder: Path) -> tuple[dict[tuple[str, str, str, str], np.ndarray], Owners]:
    """What `Record.write` left of single examples.

    Returns:
      ({(task, split, attack, method): bool[S, N]}, who was right, and {(task, split[, method]): i32[N]}, what these
      examples belong to, where they do not stand alone).
    """
    answers: dict[tuple[str, str, str, str], np.ndarray] = {}
    owners: dict[tuple[str, ...], np.ndarray] = {}
    for name, values in load_file(folder / ANSWERS).items():
        if name.startswith(f"{OWNERS}|"):
            owners[tuple(name.split("|")[1:])] = values
        else:
            task, split, attack, method = name.split("|")
            answers[task, split, attack, method] = values.astype(bool)
    return answers, owners


def load_answers(folder: Path) -> dict[tuple[str, str, str, str], np.ndarray]:
    """Who was right, the first of `load`."""
    return load(folder)[0]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
