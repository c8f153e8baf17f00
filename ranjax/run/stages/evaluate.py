"""Evaluate one upstream condition: clean, attacked, out of domain, corrupted, by zero-shot, retrieval and questions.

`ranjax.run.stages.evaluation.evaluated_encoder` is evaluated, `result_record` collects the results, and each other
module finds one kind of figure. Expensive kinds are off or small by default: see the keys of `evaluate`.
"""

from __future__ import annotations

from ranjax.models.controls import CONTROLS
from ranjax.run.context import Context
from ranjax.run.stages.evaluation import (
    clean_accuracy,
    clusters,
    pair_attacks,
    question_answering,
    under_attack,
    under_corruption,
    word_attacks,
)
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import FILE, Entry, Record
from ranjax.training import hosts

__all__ = ["FILE", "run"]


def run(context: Context) -> Entry:
    """Write evaluation.json (rows, comparisons, spectra, masking, ...) and answers.safetensors (right or not)."""
    config, this = context.config.evaluate, context.stage_run
    # Rows name the recipe of the noisy pairs; the ratio stands beside it.
    condition = context.config.noise.recipe if this.ratio else this.condition
    encoder = EvaluatedEncoder(context, this.condition, condition)
    record = Record(condition, this.ratio, encoder.classes, config.bootstrap, context.config.seed)
    splits = tuple(split for split in ("test", "ood_test") if split in encoder.data.prepared.splits)
    # Clusters come first: all intervals depend on them.
    for split in splits:
        clusters.declare_clusters(encoder, record, split)
    if this.condition in CONTROLS:
        record.notes.clear()  # of the test sets, which the clean condition has said
        for split in splits if encoder.methods else ():
            clean_accuracy.classify_control(encoder, record, split)
        return hosts.first_does(lambda: record.write(context.folder)) or {}
    for split in splits:
        clean_accuracy.classify(encoder, record, split)
        clean_accuracy.findings(encoder, record, split)
    for split in splits if config.texts else ():
        pair_attacks.retrieve(encoder, record, split)
    if config.attacked_seeds:
        for split in splits:
            if split in config.attacked_splits:
                under_attack.attack(encoder, record, split)
    under_attack.check_masking(encoder, record, "test")
    pair_attacks.attack_prompts(encoder, record, "test")
    pair_attacks.attack_pairs(encoder, record, "test")
    word_attacks.attack_words(encoder, record, "test")
    under_corruption.corrupt(encoder, record, "test")
    question_answering.answer(encoder, record, splits)
    written = hosts.first_does(lambda: record.write(context.folder)) or {}
    context.clear_arrays()
    return written
