"""Figures on unattacked images: every head, zero-shot, groups, and all findings of an image at once."""

from __future__ import annotations

import numpy as np

from ranjax.evaluation import groups, metrics, questions, statistics
from ranjax.evaluation.result_rows import count_rarest, draws, interval_row
from ranjax.run.stages import inputs
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import FINDINGS, GROUPS, TASK, Record


def classify(encoder: EvaluatedEncoder, record: Record, split: str) -> None:
    """Record every metric of every method on a split, over all heads and for each seed; comparisons and groups."""
    examples = encoder.data.task_split(split)
    labels = examples.labels
    features, question_features = encoder.task_features(split), encoder.question_features(split, examples)
    if question_features is not None:
        _note_questions(encoder, record, split, examples)
    hits = {}
    for name, method in encoder.methods.items():
        logits = encoder.outputs(name, examples.images, features, questions=question_features)[1]
        hits[name] = record.classified(name, split, "none", logits, labels, list(range(method.seeds)))
    with_zero_shot = dict(hits)
    # Prompts compete for one label; the zero-shot scores of several findings are in `findings`.
    if not encoder.multi_label:
        record.chance[f"majority/{split}"] = float(np.bincount(labels).max() / len(labels))
    if encoder.prompted:
        logits = encoder.zero_shot_logits(features)
        with_zero_shot = {"zero_shot": record.classified("zero_shot", split, "none", logits, labels, []), **hits}
    if encoder.multi_label and split == "test":
        record.set_multi_label_chance(labels)
    record.compare(TASK, split, "none", hits)
    for name in (name for name, method in encoder.methods.items() if method.random):
        threshold = encoder.methods[name].settings.threshold
        _note_pushed(record, split, name, encoder.pushed(name, examples.images), threshold)
    _group(encoder, record, split, with_zero_shot)


def classify_control(encoder: EvaluatedEncoder, record: Record, split: str) -> None:
    """Record the accuracy of every head on a control encoder, over all heads and for each seed, and nothing else."""
    examples = encoder.data.task_split(split)
    features, question_features = encoder.task_features(split), encoder.question_features(split, examples)
    for name, method in encoder.methods.items():
        logits = encoder.outputs(name, examples.images, features, questions=question_features)[1]
        hits = encoder.right(logits, examples.labels)
        record.share(name, TASK, split, "none", "accuracy", hits, list(range(method.seeds)))


def _group(encoder: EvaluatedEncoder, record: Record, split: str, hits: dict[str, np.ndarray]) -> None:
    """Record the accuracy of every method in the groups of each column."""
    facts, config = encoder.records(split), encoder.config
    for column in groups.columns(facts, [name for name in config.groups if name]):
        names = groups.names(facts, column)
        clusters = record.clusters(TASK, split, len(names))
        for method, found in hits.items():
            cell = record.cell(method, GROUPS, split)
            bootstrap = config.smallest_group, record.resamples, record.seed, clusters
            record.rows += groups.group_rows(cell, found, names, column, *bootstrap)


def _note_pushed(record: Record, split: str, method: str, pushed: np.ndarray, threshold: float) -> None:
    """Note how many clean images a counterattack moves: its threshold is for another encoder than this one."""
    useless = ", so it does not tell images apart here" if pushed.all() or not pushed.any() else ""
    few = f"by less than {threshold:g} of its length (its authors' threshold, for CLIP at 224 pixels)"
    count = f"{method} pushes {pushed.sum()} of {len(pushed)} clean images away"
    record.notes.append(f"{split}: {count}, those whose embedding moves under noise {few}{useless}")


def _note_questions(encoder: EvaluatedEncoder, record: Record, split: str, examples: inputs.Split) -> None:
    """Note the methods of a set of questions that do not read the question, and the worth of the question alone."""
    if split == "test":
        blind = [name for name, method in encoder.methods.items() if not method.modality]
        blind += ["zero_shot"] if encoder.prompted else []
        if blind:
            record.notes.append(f"answered from the picture without its question: {', '.join(blind)}")
    if encoder.multi_label:
        return
    train, test = (
        questions.Questions(
            np.arange(len(part.ids)),
            part.questions or [],
            [encoder.classes[label] for label in part.labels],
            ["any"] * len(part.ids),
        )
        for part in (encoder.data.task_split("adapt"), examples)
    )
    prior = questions.majority(train, test)["any"]
    record.notes.append(
        f"{split}: the most frequent answer to the same question, which needs no image: {100 * prior:.1f} %"
    )


def findings(encoder: EvaluatedEncoder, record: Record, split: str) -> None:
    """Record the zero-shot AUROC of each finding over all examples, those with several findings included.

    Only where some example has several, or may: elsewhere it is the single-label task once more. Examples of which a
    class is not known do not count. A class that all or none of the examples have is left out, and so is its row.
    """
    if not encoder.config.texts:
        return
    known = encoder.data.known(split)
    targets = encoder.data.targets(split)[known]
    if not len(targets):
        record.notes.append(f"{split}: no example of which every class is known, so no figures of all findings")
        return
    if not (encoder.multi_label or (targets.sum(1) > 1).any()):
        return
    features = encoder.image_features(encoder.data.split(split).images[known])
    scores = encoder.zero_shot_logits(features).astype(np.float64)
    cell = record.cell("zero_shot", FINDINGS, split)
    clusters = record.clusters(FINDINGS, split, len(known))
    clusters = None if clusters is None else clusters[known]
    counts = draws(len(targets), record.resamples, record.seed, clusters=clusters)
    n = statistics.count_clusters(len(targets), clusters)
    each = metrics.auroc_each(scores, targets, counts)
    tables = {"macro_auroc": metrics.class_mean(each)}
    tables |= {f"auroc/{name}": each[:, c] for c, name in enumerate(encoder.classes)}
    rarest = count_rarest(targets > 0.5, encoder.classes, clusters)
    for name, column in tables.items():
        if np.isnan(column[0]):
            record.notes.append(f"{split}: {name} of all findings has no value, as every example or none has it")
            continue
        found = statistics.bootstrap_metric(column[:1], column[1:, None], n, record.seed, fewest=rarest[name])
        record.rows.append(interval_row(cell, name, found))
