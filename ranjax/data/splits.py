"""The splits of a set by name, and the hash that cuts its patients into them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

SPLITS = ("train", "adapt", "validation", "test", "ood_test")
"""Upstream pairs, labelled downstream training data, model selection, test, and the test under other acquisition."""


def hash_split(patient: str, shares: Mapping[str, float], seed: int) -> str:
    """Return the split of a patient: a keyed hash in [0, 1) against the cumulated shares.

    A patient's split depends on nothing else, so rows that are added later move nobody.
    """
    key = hashlib.blake2b(f"split:{seed}:{patient}".encode(), digest_size=8).digest()
    place, edge = int.from_bytes(key, "little") / 2**64, 0.0
    for split, share in shares.items():
        edge += share
        if place < edge:
            return split
    return list(shares)[-1]
