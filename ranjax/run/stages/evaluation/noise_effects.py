"""Between conditions: what the noise did to each method, and how the recipes differ, paired by test image; and the mCE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ranjax.evaluation import corruptions, statistics
from ranjax.evaluation.result_rows import Cell, Row, draws, interval_row
from ranjax.run.stages.evaluation.result_record import (
    CORRUPTED,
    REFERENCE,
    RETRIEVAL,
    TASK,
    TRANSFER,
    Owners,
    figures,
    owners_of,
    paired,
)

NOISE, RECIPE, RESTORED = "noise", "recipe", "restored"
BASELINE = "lp"
Answers = dict[tuple[str, str, str, str], np.ndarray]


class Condition(NamedTuple):
    """One upstream condition and who was right there: `answers`, `owners` as `record.load` gives them."""

    name: str
    ratio: float
    answers: Answers
    owners: Owners = MappingProxyType({})


def effects(conditions: Sequence[Condition], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Paired differences between conditions, on the same test images (and head seeds), each with interval, p and effect size.

    Kinds: "noise", a method on a noisy encoder less the same on the clean one; "recipe", another recipe's condition less the
    first recipe's at the same ratio; "restored", RAN on a noisy encoder less LP on the clean one.
    """
    clean = next((condition for condition in conditions if condition.ratio == 0), None)
    main = next((condition.name for condition in conditions if condition.ratio > 0), "")
    found = []
    for condition in [condition for condition in conditions if condition.ratio > 0]:
        other = next(
            (a for a in conditions if a.name == main and a.ratio == condition.ratio and condition.name != main), None
        )
        for key, hits in condition.answers.items():
            for kind, reference in _references(key, clean, other):
                pair = paired(hits, reference)
                if pair is None:
                    continue
                task, split, attack, method = key
                owners = owners_of(condition.owners, task, split, pair[0].shape[1], method)
                gap = statistics.paired_difference(*pair, resamples, seed, owners=owners)
                where = {
                    "condition": condition.name,
                    "ratio": condition.ratio,
                    "method": method,
                    "task": task,
                    "split": split,
                }
                metric = "recall@1" if task.startswith(RETRIEVAL) else "accuracy"
                measured = {"attack": attack, "metric": metric, **figures(gap), "seeds": len(pair[0])}
                found.append({"kind": kind, **where, **measured})
    return found


def _references(
    key: tuple[str, str, str, str], clean: Condition | None, other: Condition | None
) -> Iterator[tuple[str, np.ndarray]]:
    task, split, attack, method = key
    if "@" in attack or task == CORRUPTED:
        return
    # On the clean condition the surrogate's encoder is the one attacked, elsewhere it is not: no effect of the noise.
    if clean is not None and key in clean.answers and attack != TRANSFER:
        yield NOISE, clean.answers[key]
    if other is not None and key in other.answers:
        yield RECIPE, other.answers[key]
    baseline = (task, split, attack, BASELINE)
    if task == TASK and method == REFERENCE and attack != TRANSFER and clean is not None and baseline in clean.answers:
        yield RESTORED, clean.answers[baseline]


def mean_corruption_errors(conditions: Sequence[Condition], resamples: int, seed: int) -> list[Row]:
    """The mCE of every method and condition against LP (else the first method) on the clean encoder, as rows "mce".

    The interval is over test images, drawn anew for model and baseline together.
    """
    tables = {(condition.name, condition.ratio): _errors(condition.answers) for condition in conditions}
    clean = next((found for (_, ratio), found in tables.items() if ratio == 0), {})
    (split, baseline), reference = next(
        ((key, table) for key, table in clean.items() if key[1] == BASELINE),
        next(iter(clean.items()), (("", ""), None)),
    )
    rows: list[Row] = []
    if reference is None:
        return rows
    count = reference.shape[-1]
    owners = owners_of(conditions[0].owners, CORRUPTED, split, count, baseline)
    counts = draws(count, resamples, seed, owners=owners)
    below = np.einsum("rn,ksn->rk", counts, reference)
    if (below[0] == 0).any():
        return rows
    for (name, ratio), methods in tables.items():
        for (other, method), table in methods.items():
            if other != split or table.shape != reference.shape:
                continue
            above = np.einsum("rn,ksn->rk", counts, table)
            values = (above / np.where(below > 0, below, np.nan)).mean(1)
            n = statistics.count_owners(count, owners)
            interval = statistics.bootstrap_metric(values[:1], values[1:, None], n, seed)
            rows.append(interval_row(Cell(name, ratio, method, CORRUPTED, split, "all"), "mce", interval))
    return rows


def _errors(answers: Answers) -> dict[tuple[str, str], np.ndarray]:
    """{(split, method): error rate over seeds f64[kinds, strengths, N]} where all kinds and strengths are there."""
    found = {}
    for split, method in dict.fromkeys((s, m) for task, s, _, m in answers if task == CORRUPTED):
        keys = [
            [(CORRUPTED, split, f"{kind}-{strength}", method) for strength in range(1, 6)] for kind in corruptions.NAMES
        ]
        if all(key in answers for line in keys for key in line):
            found[split, method] = np.stack([np.stack([1.0 - answers[k].mean(0) for k in line]) for line in keys])
    return found
