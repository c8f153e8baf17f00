"""What `ranjax.training.cpu.keep_freed_memory` is worth: seconds a training step with and without it, in turns.

    python experiments/benchmarks/allocator.py [--repeats 3] [--steps 30]

Prints the median step of every process and the medians over processes.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time


def measure(keep: bool, steps: int) -> dict[str, float]:
    from ranjax.training.cpu import keep_freed_memory

    if keep and not keep_freed_memory():
        raise SystemExit("this allocator takes no settings: nothing to measure")
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from ranjax.models import DualEncoder, clip, split
    from ranjax.objectives.contrastive import info_nce

    config = clip(
        vocab_size=400, eos_id=4, image_size=64, patch_size=16, vision_width=128, vision_layers=4, vision_heads=4,
        text_width=96, text_layers=1, text_heads=4, max_length=60, embed_dim=128,
    )  # fmt: skip
    functions, params = split(DualEncoder(config, nnx.Rngs(0)))
    images = jax.random.uniform(jax.random.key(0), (64, 64, 64, 1))
    tokens = jax.random.randint(jax.random.key(1), (64, 60), 5, 400).at[:, 40].set(4)
    mask = jnp.ones(tokens.shape, bool)

    @jax.jit
    def step(params):
        def loss(params):
            image = functions.image_features(params, images)
            text = functions.text_features(params, tokens, mask)
            return info_nce(image, text, functions.logit_scale(params))[0]

        return jax.grad(loss)(params)

    jax.block_until_ready(step(params))
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        jax.block_until_ready(step(params))
        times.append(time.perf_counter() - start)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {"seconds": statistics.median(times), "page_faults": faults / steps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--one", choices=("with", "without"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one == "with", arguments.steps)))
        return
    found: dict[str, list[float]] = {"without": [], "with": []}
    for repeat in range(arguments.repeats):
        for which, seconds in found.items():
            line = [sys.executable, __file__, "--one", which, "--steps", str(arguments.steps)]
            out = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
            seconds.append(out["seconds"])
            print(f"{repeat + 1} {which:8} {out['seconds']:.3f} s a step, {out['page_faults']:.0f} page faults")
    medians = {which: statistics.median(seconds) for which, seconds in found.items()}
    print(f"median: {medians['without']:.3f} s without, {medians['with']:.3f} s with: "
          f"{medians['without'] / medians['with']:.2f} times as fast")  # fmt: skip


if __name__ == "__main__":
    main()
