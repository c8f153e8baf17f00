"""Common corruptions of the test images: accuracy at every strength, for all methods; the mCE is made in the report."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ranjax.core.pixels import to_float
from ranjax.evaluation import corruptions
from ranjax.run.stages import inputs as common
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import CORRUPTED, Record

STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(subject: EvaluatedEncoder, record: Record, split: str) -> None:
    """Rows of task "corrupted" with attacks "noise-1" to "jpeg-5", and their answers."""
    count = subject.config.corruption_examples
    if not count:
        return
    examples = subject.some(split, count)
    keys = common.example_keys(subject.context, "evaluate/corruptions", examples.ids)
    images, asked = to_float(examples.images), subject.question_features(split, examples)
    for kind in corruptions.NAMES:
        for strength in STRENGTHS:
            subject.context.check_stop(f"corrupting by {kind}")
            moved = _corrupted(subject, kind, strength, images, keys)
            features = common.image_features(subject.context, subject.functions, subject.params, moved)
            name = f"{kind}-{strength}"
            for method in subject.methods:
                hits = subject.right(subject.outputs(method, moved, features, questions=asked)[1], examples.labels)
                record.share(method, CORRUPTED, split, name, "accuracy", hits)
            if not subject.multi_label:
                hits = subject.right(subject.zero_shot_logits(features), examples.labels)
                record.share("zero_shot", CORRUPTED, split, name, "accuracy", hits)


def _corrupted(subject: EvaluatedEncoder, kind: str, strength: int, images: np.ndarray, keys: jax.Array) -> np.ndarray:
    def of_rows(shared: Any, rows: Any) -> jax.Array:
        return corruptions.corrupt(kind, strength, *rows)

    # Small programs apart from the encoder, which compiles once for all of them.
    run = common.row_map(subject.context, ("corruption", kind, strength), of_rows)
    return run((), (images, keys))
