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
    print(f"{len(store)} twins of {shape[0]} x {shape[1]}; bytes each")
    print(f"store (clean, perturbation, report, tokens, provenance)  {held:8.0f}")
    print(
        f"clean image alone, 8-bit PNG                             {np.mean([png(t['clean_image'][:, :, 0]) for t in twins]):8.0f}"
    )
    print(
        f"attacked image alone, 16-bit PNG                         {np.mean([png(t['pixels'][:, :, 0]) for t in twins]):8.0f}"
    )
    print(f"attacked image alone, float32                            {twins[0]['image'].nbytes:8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
