"""Bytes that a crafted noisy pair costs, against other ways to keep its image.

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
    noisy_pairs = [store[name] for name in store.ids[:200]]
    held = sum(path.stat().st_size for path in folder.glob("*.array_record")) / len(store)
    shape = noisy_pairs[0]["pixels"].shape
    lines = {
        "store (clean, perturbation, report, tokens, provenance)": held,
        "clean image alone, 8-bit PNG": np.mean(
            [png(noisy_pair["clean_image"][:, :, 0]) for noisy_pair in noisy_pairs]
        ),
        "attacked image alone, 16-bit PNG": np.mean([png(noisy_pair["pixels"][:, :, 0]) for noisy_pair in noisy_pairs]),
        "attacked image alone, float32": noisy_pairs[0]["image"].nbytes,
    }
    print(f"{len(store)} noisy pairs of {shape[0]} x {shape[1]}; bytes each")
    for name, size in lines.items():
        print(f"{name:56s} {size:8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
