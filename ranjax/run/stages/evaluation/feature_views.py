"""What the features look like: spectra, and a plane of two principal directions, clean and attacked."""

from __future__ import annotations

from typing import Any

import numpy as np

from ranjax.core.errors import DataError
from ranjax.evaluation import feature_plane as projection
from ranjax.evaluation.spectrum import spectrum
from ranjax.run.stages import inputs as common
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import REFERENCE, Record

ENCODER = "encoder"


def look(subject: EvaluatedEncoder, record: Record, kind: str, features: np.ndarray, labels: np.ndarray) -> None:
    """The encoder's own features f32[N, D]."""
    _spectrum(record, ENCODER, kind, features)
    _plane(subject, record, ENCODER, features, {kind: features}, labels)


def look_attacked(
    subject: EvaluatedEncoder,
    record: Record,
    method: str,
    clean: np.ndarray,
    unattacked: np.ndarray,
    images: np.ndarray | None,
    labels: np.ndarray,
    asked: np.ndarray | None = None,
) -> None:
    """What a method makes of clean features f32[N, D] and of images attacked through it, and what its encoder does."""
    if images is None:
        return
    attacked = common.image_features(subject.context, subject.functions, subject.params, images)
    before, after = (subject.outputs(method, *side, 0, asked)[0] for side in ((unattacked, clean), (images, attacked)))
    _spectrum(record, method, "clean", before)
    _spectrum(record, method, "attacked", after)
    first, shown = next(iter(subject.methods)), REFERENCE if REFERENCE in subject.methods else list(subject.methods)[-1]
    if method == first:
        _spectrum(record, ENCODER, "attacked", attacked)
    if method == shown:
        # The images attacked through this method, in both planes: what the encoder sees, and what the head makes of it.
        _plane(subject, record, ENCODER, clean, {"attacked": attacked}, labels)
        _plane(subject, record, method, before, {"clean": before, "attacked": after}, labels)


def _spectrum(record: Record, method: str, kind: str, values: Any) -> None:
    try:
        found = spectrum(np.asarray(values))
    except DataError as error:
        record.notes.append(f"no spectrum of {method}, {kind}: {error}")
        return
    record.lists["spectra"].append(
        {
            "condition": record.condition,
            "ratio": record.ratio,
            "method": method,
            "features": kind,
            "singular_values": [float(f"{s:.6g}") for s in found.sigma],
            "sve": found.sve,
            "lsvr": found.lsvr,
        }
    )


def _plane(
    subject: EvaluatedEncoder,
    record: Record,
    method: str,
    fitted: np.ndarray,
    shown: dict[str, np.ndarray],
    labels: np.ndarray,
) -> None:
    count = subject.config.projected
    if not count:
        return
    try:
        plane = projection.principal_plane(fitted)
    except DataError as error:
        record.notes.append(f"no plane of {method}: {error}")
        return
    for kind, features in shown.items():
        points = [[float(f"{v:.4g}") for v in line] for line in plane.project(features[:count])]
        where = {"condition": record.condition, "ratio": record.ratio, "method": method, "features": kind}
        explained = [float(f"{v:.4g}") for v in plane.explained]
        record.lists["projections"].append(
            {**where, "points": points, "labels": labels[:count].tolist(), "explained": explained}
        )
