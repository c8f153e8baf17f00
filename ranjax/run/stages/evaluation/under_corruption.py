"""Common corruptions of the test images: accuracy at every severity, for all methods; the report takes the mCE."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import PyTree

from ranjax.core.pixels import to_float
from ranjax.evaluation import corruptions
from ranjax.evaluation.modalities import kinds_of
from ranjax.run.stages import inputs
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import CORRUPTED, Record


def corrupt(encoder: EvaluatedEncoder, record: Record, split: str) -> None:
    """Record rows of task "corrupted" with attacks "noise-1" to "jpeg-5", and their answers."""
    count = encoder.config.corruption_examples
    if not count:
        return
    examples = encoder.some(split, count)
    keys = inputs.example_keys(encoder.context, "evaluate/corruptions", examples.ids)
    images, questions = to_float(examples.images), encoder.question_features(split, examples)
    for kind in kinds_of([name for name in encoder.config.modalities if name]):
        for severity in range(1, 6):
            encoder.context.check_stop(f"corrupting by {kind}")
            corrupted = _corrupted(encoder, kind, severity, images, keys)
            features = encoder.image_features(corrupted)
            name = f"{kind}-{severity}"
            for method in encoder.methods:
                logits = encoder.outputs(method, corrupted, features, questions=questions)[1]
                record.share(method, CORRUPTED, split, name, "accuracy", encoder.right(logits, examples.labels))
            if encoder.prompted:
                hits = encoder.right(encoder.zero_shot_logits(features), examples.labels)
                record.share("zero_shot", CORRUPTED, split, name, "accuracy", hits)


def _corrupted(encoder: EvaluatedEncoder, kind: str, severity: int, images: np.ndarray, keys: jax.Array) -> np.ndarray:
    def of_rows(shared: PyTree, rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        return corruptions.corrupt(kind, severity, *rows)

    # Small programs apart from the encoder, which compiles once for all of them.
    run = inputs.row_map(encoder.context, ("corruption", kind, severity), of_rows)
    return run((), (images, keys))
