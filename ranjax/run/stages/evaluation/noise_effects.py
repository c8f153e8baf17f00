"""Between conditions: effects of the noise on each method, differences of recipes, paired by image, and the mCE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from ranjax.evaluation import corruptions, statistics
from ranjax.evaluation.result_rows import Cell, Row, draws, interval_row
from ranjax.models.controls import CONTROLS
from ranjax.run.stages.evaluation.result_record import (
    CORRUPTED,
    REFERENCE,
    RETRIEVAL,
    TASK,
    TRANSFER,
    Answers,
    Clusters,
    Entry,
    clusters_of,
    figures,
    paired,
)

NOISE, RECIPE, RESTORED = "noise", "recipe", "restored"
BASELINE = "lp"


class Condition(NamedTuple):
    """One upstream condition, with the answers and clusters that `result_record.load` returns."""

    name: str
    ratio: float
    answers: Answers
    clusters: Clusters = MappingProxyType({})

    @property
    def is_clean(self) -> bool:
        """Return whether it is the encoder pre-trained without noise; controls were not pre-trained."""
        return self.ratio == 0 and self.name not in CONTROLS


def effects(conditions: Sequence[Condition], resamples: int, seed: int) -> list[Entry]:
    """Return paired differences between conditions, on the same test images (and head seeds), with intervals and tests.

    Kinds: "noise", a method on a noisy encoder less the same on the clean one; "recipe", another recipe's condition
      less
    the first recipe's at the same ratio; "restored", RAN on a noisy encoder less LP on the clean one.
    """
    clean = next((condition for condition in conditions if condition.is_clean), None)
    noisy = [condition for condition in conditions if condition.ratio > 0]
    found = []
    for condition in noisy:
        # The condition of the first recipe at this ratio, for another recipe's.
        main = next(
            (c for c in noisy if c.name == noisy[0].name != condition.name and c.ratio == condition.ratio), None
        )
        for key, hits in condition.answers.items():
            for kind, reference in _references(key, clean, main):
                pair = paired(hits, reference)
                if pair is None:
                    continue
                task, split, attack, method = key
                clusters = clusters_of(condition.clusters, task, split, pair[0].shape[1], method)
                gap = statistics.paired_difference(*pair, resamples, seed, clusters=clusters)
                entry = {
                    "kind": kind,
                    "condition": condition.name,
                    "ratio": condition.ratio,
                    "method": method,
                    "task": task,
                    "split": split,
                    "attack": attack,
                    "metric": "recall@1" if task.startswith(RETRIEVAL) else "accuracy",
                }
                found.append({**entry, **figures(gap), "seeds": len(pair[0])})
    return found


def _references(
    key: tuple[str, str, str, str], clean: Condition | None, main: Condition | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the kinds of effects of some answers, each with the answers to subtract."""
    task, split, attack, method = key
    if "@" in attack or task == CORRUPTED:
        return
    # On the clean condition the surrogate's encoder is the one attacked, elsewhere it is not: no effect of the noise.
    if clean is not None and key in clean.answers and attack != TRANSFER:
        yield NOISE, clean.answers[key]
    if main is not None and key in main.answers:
        yield RECIPE, main.answers[key]
    baseline = (task, split, attack, BASELINE)
    if task == TASK and method == REFERENCE and attack != TRANSFER and clean is not None and baseline in clean.answers:
        yield RESTORED, clean.answers[baseline]


def mean_corruption_errors(conditions: Sequence[Condition], resamples: int, seed: int) -> list[Row]:
    """Return the mCE of every method and condition against LP (else the first method) on the clean encoder.

    Rows have the metric "mce" (Hendrycks & Dietterich 2019): the mean over corruptions of errors summed over
    severities, over the baseline's. The interval is over test images, drawn anew for model and baseline together.
    """
    tables = {(condition.name, condition.ratio): _errors(condition.answers) for condition in conditions}
    clean = next((tables[condition.name, condition.ratio] for condition in conditions if condition.is_clean), {})
    rows: list[Row] = []
    if not clean:
        return rows
    split, baseline = next((key for key in clean if key[1] == BASELINE), next(iter(clean)))
    reference = clean[split, baseline]
    count = reference.shape[-1]
    clusters = clusters_of(conditions[0].clusters, CORRUPTED, split, count, baseline)
    counts, n = draws(count, resamples, seed, clusters=clusters), statistics.count_clusters(count, clusters)
    below = np.einsum("rn,ksn->rk", counts, reference)
    if (below[0] == 0).any():
        return rows
    for (name, ratio), methods in tables.items():
        for (other, method), table in methods.items():
            if other != split or table.shape != reference.shape:
                continue
            above = np.einsum("rn,ksn->rk", counts, table)
            values = (above / np.where(below > 0, below, np.nan)).mean(1)
            interval = statistics.bootstrap_metric(values[:1], values[1:, None], n, seed)
            rows.append(interval_row(Cell(name, ratio, method, CORRUPTED, split, "all"), "mce", interval))
    return rows


def _errors(answers: Answers) -> dict[tuple[str, str], Float64[np.ndarray, "kinds severities examples"]]:
    """Return error rates over seeds by (split, method), where all kinds and severities are there."""
    found = {}
    for split, method in dict.fromkeys((s, m) for task, s, _, m in answers if task == CORRUPTED):
        kinds = [k for k in corruptions.LEVELS if (CORRUPTED, split, f"{k}-1", method) in answers]
        attacks = [f"{kind}-{severity}" for kind in kinds for severity in range(1, 6)]
        hits = [answers.get((CORRUPTED, split, attack, method)) for attack in attacks]
        if all(one is not None for one in hits):
            errors = np.stack([1.0 - one.mean(0) for one in hits if one is not None])
            found[split, method] = errors.reshape(len(kinds), 5, -1)
    return found
