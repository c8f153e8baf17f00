"""Questions about images as answer classification: heads on frozen image and question embeddings, and on either."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from ranjax.evaluation import questions
from ranjax.methods.head_inputs import Examples
from ranjax.methods.head_training import predict
from ranjax.methods.method_settings import Fit
from ranjax.methods.own_head import fit_method
from ranjax.methods.table import METHODS
from ranjax.run.stages import inputs
from ranjax.run.stages.evaluation.clusters import cluster_ids
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import QUESTIONS, Record
from ranjax.training import devices

HEADS = ("lp", "mlp", "lp_image", "lp_question")
TRAIN, VALIDATION = "adapt", "validation"


def answer(encoder: EvaluatedEncoder, record: Record, splits: tuple[str, ...]) -> None:
    """Record the accuracy of open and closed questions, by a linear and a residual head, and by one modality alone.

    Rows have the tasks "questions_open" and "questions_closed"; chance is the accuracy of the most frequent answer to
    the same question, which needs no image. A linear head on the question alone ("lp_question") and on the image alone
    ("lp_image") measure the worth of the other. Questions of one image are not independent: intervals and tests draw
    images with all their questions.
    """
    count = encoder.config.question_seeds
    if not count:
        return
    asked = {split: _questions(encoder, split) for split in (TRAIN, VALIDATION, *splits)}
    answers = sorted(set(asked[TRAIN].answers))
    embedded = {split: _embed(encoder, split, found, answers) for split, found in asked.items()}
    # An answer that training never gave has no class: it cannot help to choose the epoch.
    known = np.flatnonzero(embedded[VALIDATION].labels >= 0)
    if len(known) < len(asked[VALIDATION].answers):
        unseen = f"{100 * (1 - len(known) / len(asked[VALIDATION].answers)):.0f} % of the validation questions"
        record.notes.append(f"{unseen} have an answer that training never gave: nobody can be right there")
    unknown = encoder.data.tokenizer.unknown_rate(asked[TRAIN].texts)
    record.notes.append(f"{100 * unknown:.0f} % of the words of the questions are not in the vocabulary")
    adapt = encoder.context.config.adapt
    settings = Fit(epochs=adapt.epochs, batch_size=adapt.batch_size)
    local_mesh = devices.local_mesh(encoder.context.mesh)
    for name in HEADS:
        encoder.context.check_stop(f"fitting {name} to questions")
        head, seeds = METHODS[name].settings, range(count)
        examples = {split: found.examples(head.modality) for split, found in embedded.items()}
        validation = Examples(*(x[known] for x in examples[VALIDATION][:2]))
        fitted = fit_method(
            METHODS[name],
            head,
            examples[TRAIN],
            validation,
            classes=len(answers),
            seeds=seeds,
            shared=settings,
            mesh=local_mesh,
        )
        for split in splits:
            logits = np.asarray(predict(fitted.head, fitted.select(0), examples[split].features, leading=1)[1])
            hits = logits.argmax(-1) == embedded[split].labels[None]
            for kind, level in questions.majority(asked[TRAIN], asked[split]).items():
                rows, task = np.flatnonzero(np.array(asked[split].kinds) == kind), f"{QUESTIONS}_{kind}"
                record.set_clusters(task, split, cluster_ids(encoder, split)[asked[split].example[rows]])
                record.share(name, task, split, "none", "accuracy", hits[:, rows], seeds)
                record.chance[f"{task}/{split}"] = level


def _questions(encoder: EvaluatedEncoder, split: str) -> questions.Questions:
    examples, records = encoder.data.split(split), encoder.records(split, task=False)
    if any("question" in record for record in records):
        return questions.given(records)
    return questions.ask(examples.ids, records, encoder.classes, encoder.context.config.seed)


class _Embedded(NamedTuple):
    """Embeddings of images and questions, and the index of each answer among those of training, or -1."""

    images: Float[np.ndarray, "questions dim"]
    questions: Float[np.ndarray, "questions dim"]
    labels: Int32[np.ndarray, "questions"]

    def examples(self, modality: str) -> Examples:
        return Examples(np.asarray(questions.fuse(self.images, self.questions, modality)), self.labels)


def _embed(encoder: EvaluatedEncoder, split: str, asked: questions.Questions, answers: list[str]) -> _Embedded:
    images = encoder.image_features(encoder.data.split(split).images)
    texts = inputs.question_features(encoder.context, encoder.functions, encoder.params, asked.texts)
    # -1, which is never right: an answer that training never gave.
    labels = np.array([answers.index(found) if found in answers else -1 for found in asked.answers], np.int32)
    return _Embedded(images[asked.example], np.asarray(texts), labels)
