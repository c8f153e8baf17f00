"""Bytes that a crafted twin costs, against other ways to keep its image.

python -m experiments.benchmarks.store_cost runs/ran/craft/store
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ranjax.data.store import NoisyStore


def png(pixels: np.ndarray) -> int:
    """Bytes of one grey picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.tell()


def main() -> int:
    folder = Path(sys.argv[1])
    store = NoisyStore.open(folder)
    twins = [store[name] for name in store.ids[:200]]
    held = sum(path.stat().st_size for path in folder.glob("*.array_record")) / len(store)
    shape = twins[0]["pixels"].shape
    lines = {
        "store (clean, perturbation, report, tokens, provenance)": held,
        "clean image alone, 8-bit PNG": np.mean([png(twin["clean_image"][:, :, 0]) for twin in twins]),
        "attacked image alone, 16-bit PNG": np.mean([png(twin["pixels"][:, :, 0]) for twin in twins]),
        "attacked image alone, float32": twins[0]["image"].nbytes,
    }
    print(f"{len(store)} twins of {shape[0]} x {shape[1]}; bytes each")
    for name, size in lines.items():
        print(f"{name:56s} {size:8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
