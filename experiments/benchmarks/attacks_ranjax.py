"""The contestant ranjax of `experiments.benchmarks.attacks`: repeats one workload when told to, by lines on stdin."""

import json
import resource
import sys
import time
from pathlib import Path

from ranjax.training import allocator, compile_cache

allocator.keep_freed_memory()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from ranjax import models  # noqa: E402
from ranjax.attacks import candidates, image, joint, losses, text  # noqa: E402


def build(folder, workload):
    """A function of no arguments that runs the workload once and gives its mean loss."""
    functions, params, config = models.load(folder)
    settings = json.loads((folder / "inputs.json").read_text())
    given = np.load(folder / "inputs.npz")
    images, tokens, mask = (jnp.asarray(given[name]) for name in ("images", "tokens", "mask"))
    rows = len(images)
    keys = jax.random.split(jax.random.key(0), rows)
    params = jax.device_put(params)
    pgd = image.PGD(settings["epsilon"], settings["step"], settings["steps"])
    substitution = text.Substitution(max_words=settings["words"], top_k=settings["top_k"])

    def encode(e, t, m):
        return functions.text_features(params, t, m, embeddings=e)

    if workload.startswith("pgd"):
        captions = losses.unit(functions.text_features(params, tokens, mask))
        scale, labels = functions.logit_scale(params), jnp.arange(rows)

        def loss(params, images, captions, labels, scale):
            logits = scale * losses.unit(functions.image_features(params, images)) @ captions.T
            return losses.cross_entropy(logits, labels)

        @jax.jit
        def attack(params, images, keys, captions, labels, scale):
            found = image.pgd(lambda x: loss(params, x, captions, labels, scale), images, keys, pgd)
            return found.loss

        return lambda: float(attack(params, images, keys, captions, labels, scale).mean())

    words = np.where((given["tokens"] > 2) & given["mask"], np.arange(32)[None] - 1, -1).astype(np.int32)
    lexicon = candidates.build([str(i) for i in range(3, 400)], lambda word: [int(word)], pad_id=0)
    if workload == "text":
        target = losses.unit(functions.image_features(params, images))

        @jax.jit
        def attack(params, tokens, mask, words, target, table):
            def loss(e, t, m):
                return -jnp.sum(losses.unit(functions.text_features(params, t, m, embeddings=e)) * target, -1)

            weights = functions.token_table(params)
            return text.substitute(loss, weights, tokens, mask, words, table, substitution).loss

        return lambda: float(attack(params, tokens, mask, words, target, lexicon.table).mean())

    @jax.jit
    def attack(params, images, tokens, mask, words, keys, table):
        return joint.craft(
            lambda x: functions.image_features(params, x),
            lambda e, t, m: functions.text_features(params, t, m, embeddings=e),
            functions.token_table(params), images, tokens, mask, words, keys, pgd, substitution, table, recipe="sga",
            scales=tuple(settings["scales"]), noise=settings["noise"],
        ).loss  # fmt: skip

    return lambda: float(attack(params, images, tokens, mask, words, keys, lexicon.table).mean())


def main():
    folder, workload = Path(sys.argv[1]), sys.argv[2]
    compile_cache.enable(folder / "cache")
    run = None
    for line in sys.stdin:
        if line.strip() == "end":
            break
        if run is None:
            run = build(folder, workload)
        began = time.perf_counter()
        loss = run()
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "loss": loss, "peak_mb": peak}), flush=True)


if __name__ == "__main__":
    main()
