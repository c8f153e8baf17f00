"""Questions about images as answer classification: heads on frozen image and question embeddings, and on either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from ranjax.evaluation import questions
from ranjax.evaluation.questions import BOTH, Questions
from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import predict
from ranjax.methods.method_settings import Fit
from ranjax.methods.own_head import fit_method
from ranjax.methods.table import METHODS, settings_of
from ranjax.run.stages.evaluation import question_attacks
from ranjax.run.stages.evaluation.clusters import cluster_ids
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.question_attacks import Answering
from ranjax.run.stages.evaluation.question_fusion import FusedQuestions
from ranjax.run.stages.evaluation.result_record import QUESTIONS, Record
from ranjax.training import devices

CONTROLS = ("lp_image", "lp_question")
TRAIN, VALIDATION = "adapt", "validation"


def answer(encoder: EvaluatedEncoder, record: Record, splits: tuple[str, ...]) -> None:
    """Record the accuracy of questions by the heads of `evaluate.question_methods`, clean and attacked.

    Rows have the tasks "questions_open", "questions_closed" and "questions_varied", those of either kind whose answer
    the question alone does not tell. Chance is the accuracy of the most frequent answer to the same question, which
    needs no image. A linear head on the question alone ("lp_question") and on the image alone ("lp_image") measure the
    worth of the other. Questions of one image are not independent: intervals and tests draw images with all their
    questions.
    """
    count = encoder.config.question_seeds
    if not count:
        return
    asked = {split: _questions(encoder, split) for split in (TRAIN, VALIDATION, *splits)}
    fused = FusedQuestions(encoder, asked, sorted(set(asked[TRAIN].answers)))
    _note_gaps(encoder, record, fused)
    for split in splits:
        for kind, level in questions.majority(asked[TRAIN], asked[split]).items():
            record.chance[f"{QUESTIONS}_{kind}/{split}"] = level
    for name in (*METHODS.names_of(encoder.config.question_methods), *CONTROLS):
        encoder.context.check_stop(f"fitting {name} to questions")
        fits = _fit(encoder, fused, name, range(count))
        for split in splits:
            hits = np.stack([_answers(one, features[split]) for one, features in fits])
            hits = hits.argmax(-1) == fused.splits[split].labels[None]
            rows = np.arange(hits.shape[1])
            _record(encoder, record, asked, name, split, "none", rows, hits, range(count))
        wanted = [one for one in encoder.config.question_attacks if one]
        if wanted and name not in CONTROLS:
            for split in splits:
                if split in encoder.config.attacked_splits:
                    _attack(encoder, record, fused, name, split, [one for one, _ in fits], wanted)


def _questions(encoder: EvaluatedEncoder, split: str) -> Questions:
    examples, records = encoder.data.split(split), encoder.records(split, task=False)
    if any("question" in record for record in records):
        return questions.given(records)
    return questions.ask(examples.ids, records, encoder.classes, encoder.context.config.seed)


def _note_gaps(encoder: EvaluatedEncoder, record: Record, fused: FusedQuestions) -> None:
    known, of = len(fused.known(VALIDATION)), len(fused.splits[VALIDATION].labels)
    if known < of:
        unseen = f"{100 * (1 - known / of):.0f} % of the validation questions"
        record.notes.append(f"{unseen} have an answer that training never gave: nobody can be right there")
    unknown = encoder.data.tokenizer.unknown_rate(fused.splits[TRAIN].asked.texts)
    record.notes.append(f"{100 * unknown:.0f} % of the words of the questions are not in the vocabulary")
    if encoder.config.fusion == "coattention":
        record.notes.append("questions are fused with their images by co-attention, one a seed of the heads")


def _fit(
    encoder: EvaluatedEncoder, fused: FusedQuestions, name: str, seeds: Sequence[int]
) -> list[tuple[Answering, dict[str, Examples]]]:
    """Return, by seed, the fitted head behind its fusion, and the features of every split."""
    adapt = encoder.context.config.adapt
    method, settings = METHODS[name], settings_of(adapt, name)
    filtered = bool(getattr(settings, "filtered", False) and adapt.filter)
    modality = getattr(settings, "modality", BOTH)
    shared = Fit(epochs=adapt.epochs, batch_size=adapt.batch_size)
    mesh, front, classes = devices.local_mesh(encoder.context.mesh), fused.front(filtered), len(fused.classes)
    known = fused.known(VALIDATION)

    def fit(reader: Any, variables: Any, features: dict[str, Examples], of: Sequence[int]) -> list[Answering]:
        both, used = (front, variables), features
        if getattr(settings, "uses_attacked", False) or "attacked" in method.needs:
            used = features | fused.attacked(reader, both, features)
        handle = fused.handle(reader, both) if "attack" in method.needs else None
        validation = Examples(*(None if part is None else part[known] for part in used[VALIDATION]))
        given = replace(shared, attack=handle)
        fitted = fit_method(
            method, settings, used[TRAIN], validation, classes=classes, seeds=list(of), shared=given, mesh=mesh
        )
        return [Answering(reader, both, fitted.head, fitted.select(0, place)) for place in range(len(of))]

    if encoder.config.fusion == "product" or modality != BOTH:
        reader, features = fused.products(filtered, modality)
        return [(one, features) for one in fit(reader, None, features, seeds)]
    found = []
    for seed in seeds:
        reader, variables, features = fused.coattended(filtered, seed)
        found.append((fit(reader, variables, features, [seed])[0], features))
    return found


def _answers(one: Answering, examples: Examples) -> np.ndarray:
    return np.asarray(predict(one.head, one.variables, examples.features, leading=0)[1])


def _record(
    encoder: EvaluatedEncoder,
    record: Record,
    asked: dict[str, Questions],
    name: str,
    split: str,
    attack: str,
    rows: np.ndarray,
    hits: Bool[np.ndarray, "seeds questions"],
    seeds: Sequence[int],
) -> None:
    """Record hits of the questions `rows` of a split, by kind."""
    clusters = cluster_ids(encoder, split)[asked[split].example]
    for kind, of in questions.rows_by_kind(asked[TRAIN], asked[split]).items():
        task, kept = f"{QUESTIONS}_{kind}", np.isin(rows, of)
        if kept.any():
            if attack == "none":
                record.set_clusters(task, split, clusters[of])
            record.share(name, task, split, attack, "accuracy", hits[:, kept], seeds, clusters[rows[kept]])


def _attack(
    encoder: EvaluatedEncoder,
    record: Record,
    fused: FusedQuestions,
    name: str,
    split: str,
    heads: Sequence[Answering],
    wanted: Sequence[str],
) -> None:
    """Attack the first head, or `evaluate.attacked_seeds` of them, on the first questions of a split.

    The first, so that they stay paired with the clean answers and with their clusters. One whose answer training never
    gave is wrong without an attack.
    """
    every = fused.splits[split]
    rows = np.arange(min(encoder.config.question_examples or len(every.labels), len(every.labels)))
    known = np.flatnonzero(every.labels[rows] >= 0)
    if not len(known):
        return
    seeds = range(max(1, min(encoder.config.attacked_seeds, len(heads))))
    found = [question_attacks.attack(encoder, fused, heads[seed], every.take(known), wanted) for seed in seeds]
    asked = {key: one.asked for key, one in fused.splits.items()}
    for attack in wanted:
        hits = np.zeros((len(found), len(rows)), bool)
        hits[:, known] = np.stack([one.right[attack] for one in found])
        before = np.mean([one.right["none"] for one in found]) * len(known) / len(rows)
        _record(encoder, record, asked, name, split, f"on {attack}", rows, hits, seeds)
        encoder.context.say(
            f"  {name}, {split}, attack on {attack}: {before:.3f} right before, {hits.mean():.3f} after"
        )
    closed = 1 - found[0].open.mean()
    note = f"{split}: {100 * closed:.0f} % of the attacked questions have no word that the guards let be replaced"
    if {question_attacks.QUESTION, question_attacks.BOTH} & {*wanted} and note not in record.notes:
        record.notes.append(note)
