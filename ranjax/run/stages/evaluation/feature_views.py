"""Spectra of the features, and their plane of two principal directions, clean and attacked."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ranjax.core.errors import DataError
from ranjax.evaluation.spectrum import principal_plane, spectrum
from ranjax.run.stages.evaluation.evaluated_encoder import EvaluatedEncoder
from ranjax.run.stages.evaluation.result_record import REFERENCE, Entry, Record

ENCODER = "encoder"
Features = Float[np.ndarray, "examples dim"]


def view_clean(encoder: EvaluatedEncoder, record: Record, features: Features, labels: np.ndarray) -> None:
    """Record spectrum and plane of the encoder's own features of clean images."""
    _add_spectrum(record, ENCODER, "clean", features)
    _add_plane(encoder, record, ENCODER, features, {"clean": features}, labels)


def view_attacked(
    encoder: EvaluatedEncoder,
    record: Record,
    method: str,
    features: Features,
    images: np.ndarray,
    attacked_images: np.ndarray | None,
    labels: np.ndarray,
    questions: np.ndarray | None = None,
) -> None:
    """Record spectra and planes of a method's features, on clean images and on images attacked through it.

    `features` are the encoder's of the clean images, `questions` embeddings; without `attacked_images` there was no
    attack.
    """
    if attacked_images is None:
        return
    attacked_features = encoder.image_features(attacked_images)
    before = encoder.outputs(method, images, features, 0, questions)[0]
    after = encoder.outputs(method, attacked_images, attacked_features, 0, questions)[0]
    _add_spectrum(record, method, "clean", before)
    _add_spectrum(record, method, "attacked", after)
    names = list(encoder.methods)
    if method == names[0]:
        _add_spectrum(record, ENCODER, "attacked", attacked_features)
    if method == (REFERENCE if REFERENCE in names else names[-1]):
        # The images attacked through this method, in both planes: the encoder's features, and the head's.
        _add_plane(encoder, record, ENCODER, features, {"attacked": attacked_features}, labels)
        _add_plane(encoder, record, method, before, {"clean": before, "attacked": after}, labels)


def _where(record: Record, method: str, kind: str) -> Entry:
    return {"condition": record.condition, "ratio": record.ratio, "method": method, "features": kind}


def _add_spectrum(record: Record, method: str, kind: str, features: Features) -> None:
    try:
        found = spectrum(features)
    except DataError as error:
        record.notes.append(f"no spectrum of {method}, {kind}: {error}")
        return
    values = [float(f"{s:.6g}") for s in found.sigma]
    entry = {**_where(record, method, kind), "singular_values": values, "sve": found.sve, "lsvr": found.lsvr}
    record.lists["spectra"].append(entry)


def _add_plane(
    encoder: EvaluatedEncoder,
    record: Record,
    method: str,
    fitted: Features,
    shown: dict[str, Features],
    labels: np.ndarray,
) -> None:
    """Record the first examples of `shown`, by kind, in the plane of the features `fitted`."""
    count = encoder.config.projected
    if not count:
        return
    try:
        plane = principal_plane(fitted)
    except DataError as error:
        record.notes.append(f"no plane of {method}: {error}")
        return
    explained = [float(f"{v:.4g}") for v in plane.explained]
    for kind, features in shown.items():
        points = [[float(f"{v:.4g}") for v in line] for line in plane.project(features[:count])]
        entry = {"points": points, "labels": labels[:count].tolist(), "explained": explained}
        record.lists["projections"].append({**_where(record, method, kind), **entry})
