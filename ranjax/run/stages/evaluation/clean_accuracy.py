"""Figures on unattacked images: every head, zero-shot, groups, and all findings of an image at once."""

from __future__ import annotations

import numpy as np

from ranjax.evaluation import bootstrap as resampled
from ranjax.evaluation import groups, questions, statistics
from ranjax.evaluation.result_rows import draws, interval_row, of_rarest
from ranjax.run.stages import inputs as common
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import FINDINGS, GROUPS, TASK, Record


def classify(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Every metric of every method on a split, over all heads and for each seed; comparisons and groups."""
    examples = subject.data.task_split(split)
    labels = examples.labels
    features, asked = subject.task_features(split), subject.question_features(split, examples)
    if asked is not None:
        _note_questions(subject, record, split, examples)
    hits = {}
    for name, method in subject.methods.items():
        logits = subject.outputs(name, examples.images, features, questions=asked)[1]
        hits[name] = record.classified(name, split, "none", logits, labels, list(range(method.seeds)))
    everyone = dict(hits)
    # Prompts compete for one label; what zero-shot says of several findings is in `findings`.
    if not subject.multi_label:
        logits = subject.zero_shot_logits(features)
        everyone = {"zero_shot": record.classified("zero_shot", split, "none", logits, labels, []), **hits}
    elif split == "test":
        record.levels(labels)
    record.compare(TASK, split, "none", hits)
    for name in (name for name, method in subject.methods.items() if method.random):
        threshold = subject.methods[name].settings.threshold
        _note_pushed(record, split, name, subject.pushed(name, examples.images), threshold)
    known = subject.records(split)
    config = subject.config
    for column in groups.columns(known, [name for name in config.groups if name]):
        names = groups.names(known, column)
        for method, found in everyone.items():
            cell = record.cell(method, GROUPS, split)
            drawn = config.smallest_group, record.resamples, record.seed, record.owners(TASK, split, len(names))
            record.rows += groups.group_rows(cell, found, names, column, *drawn)


def _note_pushed(record: Record, split: str, method: str, pushed: np.ndarray, threshold: float) -> None:
    """A note on how many clean images a counterattack moves: its threshold is for another encoder than this one."""
    told = ", so it does not tell images apart here" if pushed.all() or not pushed.any() else ""
    few = f"by less than {threshold:g} of its length (its authors' threshold, for CLIP at 224 pixels)"
    moved = f"{method} pushes {pushed.sum()} of {len(pushed)} clean images away"
    record.notes.append(f"{split}: {moved}, those whose embedding moves under noise {few}{told}")


def _note_questions(subject: EvaluatedEncoder, record: Record, split: str, examples: common.Split) -> None:
    """Notes of a set of questions: who answers without the question, and what the question alone is worth."""
    if split == "test":
        blind = [name for name, method in subject.methods.items() if not method.modality]
        blind += [] if subject.multi_label else ["zero_shot"]
        if blind:
            record.notes.append(f"answered from the picture without its question: {', '.join(blind)}")
    if subject.multi_label:
        return
    known = subject.data.task_split("adapt")
    sides = [
        questions.Questions(
            np.arange(len(s.ids)), s.questions or [], [subject.classes[c] for c in s.labels], ["any"] * len(s.ids)
        )
        for s in (known, examples)
    ]
    prior = questions.majority(*sides)["any"]
    record.notes.append(
        f"{split}: the most frequent answer to the same question, which needs no image: {100 * prior:.1f} %"
    )


def findings(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Zero-shot AUROC of each finding over all examples, those with several findings included.

    Only where some example has several, or may: elsewhere it is the single-label task once more. A class that all or
    none of the examples have is left out, and so is its row.
    """
    targets = subject.data.targets(split)
    if not (subject.multi_label or (targets.sum(1) > 1).any()):
        return
    images = subject.data.split(split).images
    features = common.image_features(subject.context, subject.functions, subject.params, images)
    scores = subject.zero_shot_logits(features).astype(np.float64)
    cell = record.cell("zero_shot", FINDINGS, split)
    owners = record.owners(FINDINGS, split, len(targets))
    counts = draws(len(targets), record.resamples, record.seed, owners=owners)
    n = statistics.count_owners(len(targets), owners)
    each = resampled.auroc_each(counts, scores, targets)
    tables = {"macro_auroc": resampled.macro_auroc(each)}
    tables |= {f"auroc/{name}": each[:, c] for c, name in enumerate(subject.classes)}
    rarest = of_rarest(targets > 0.5, subject.classes, owners)
    for name, column in tables.items():
        if np.isnan(column[0]):
            record.notes.append(f"{split}: {name} of all findings has no value, as every example or none has it")
            continue
        found = statistics.bootstrap_metric(column[:1], column[1:, None], n, record.seed, fewest=rarest[name])
        record.rows.append(interval_row(cell, name, found))
