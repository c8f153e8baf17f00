"""The contestant ranjax of `experiments.benchmarks.attacks`: repeats one workload when told to, by lines on stdin.

    python -m experiments.benchmarks.attacks_ranjax FOLDER WORKLOAD float32|bfloat16 DEVICES

As the commands of ranjax do: freed memory is kept, compiled programs are cached, the CPU is split into a device a core,
and rows are mapped over the devices. The workload "matmul" is the ceiling: one product of two 4096 x 4096 matrices.
"""

import functools
import json
import sys
import time
from pathlib import Path

from experiments.benchmarks import platforms

platforms.for_jax(devices=0)

from ranjax.training import compile_cache, cpu  # noqa: E402

if platforms.chosen() == "cpu":
    cpu.keep_freed_memory()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from experiments.benchmarks.peak import peak_mb  # noqa: E402
from ranjax import models  # noqa: E402
from ranjax.attacks import losses, pairs, pgd, text  # noqa: E402
from ranjax.attacks.text import candidates  # noqa: E402
from ranjax.core.math import unit  # noqa: E402
from ranjax.training import devices  # noqa: E402
from ranjax.training.row_map import RowMap  # noqa: E402

SIDE = max(4096, platforms.ceiling_side())


def build(folder, workload, dtype):
    """A function of no arguments that runs the workload once and gives its mean loss."""
    if workload == "matmul":
        return matmul(dtype)
    functions, params, _ = models.load(folder)
    settings = json.loads((folder / "inputs.json").read_text())
    given = dict(np.load(folder / "inputs.npz"))
    rows = len(given["images"])
    keys = jax.random.split(jax.random.key(0), rows)
    followed = functions.computing_in("bfloat16") if dtype == "bfloat16" else None
    search = pgd.PGD(settings["epsilon"], settings["step"], settings["steps"])
    substitution = text.Substitution(max_words=settings["words"], top_k=settings["top_k"])
    tokens, mask = given["tokens"], given["mask"]
    words = np.where((tokens > 2) & mask, np.arange(tokens.shape[1])[None] - 1, -1).astype(np.int32)
    lexicon = candidates.build([str(i) for i in range(3, 400)], lambda word: [int(word)], pad_id=0)

    def encode(params, e, t, m):
        return functions.text_features(params, t, m, embeddings=e)

    def attack_images(shared, rows):
        params, captions, scale = shared
        images, keys, labels = rows

        def loss(functions, x):
            logits = scale * unit(functions.image_features(params, x)) @ captions.T
            return losses.cross_entropy(logits, labels)

        surrogate = functools.partial(loss, followed) if followed else None
        return pgd.pgd(functools.partial(loss, functions), images, keys, search, surrogate=surrogate).loss

    def attack_texts(shared, rows):
        params, table = shared
        tokens, mask, words, target = rows

        def loss(e, t, m):
            return -jnp.sum(unit(encode(params, e, t, m)) * target, -1)

        weights = functions.token_table(params)
        return text.substitute(loss, weights, tokens, mask, words, table, substitution).loss

    def attack_pairs(shared, rows):
        params, table = shared
        images, tokens, mask, words, keys = rows
        surrogate = functools.partial(followed.image_features, params) if followed else None
        return pairs.craft(
            functools.partial(functions.image_features, params), functools.partial(encode, params),
            functions.token_table(params), images, tokens, mask, words, keys, search, substitution, table, recipe="sga",
            surrogate_fn=surrogate,
            scales=tuple(settings["scales"]), noise=settings["noise"],
        ).loss  # fmt: skip

    unit_text = jax.jit(lambda p: unit(functions.text_features(p, tokens, mask)))
    unit_image = jax.jit(lambda p: unit(functions.image_features(p, given["images"])))
    work, shared, inputs = {
        "pgd": lambda: (
            attack_images,
            (params, unit_text(params), functions.logit_scale(params)),
            (given["images"], keys, np.arange(rows)),
        ),
        "text": lambda: (attack_texts, (params, lexicon.table), (tokens, mask, words, np.asarray(unit_image(params)))),
        "sga": lambda: (attack_pairs, (params, lexicon.table), (given["images"], tokens, mask, words, keys)),
    }[workload.partition("_")[0]]()
    mesh = devices.make_mesh(None)
    run = RowMap(work, mesh, rows // mesh.size)
    shared = run.share(shared)
    return lambda: float(run(shared, inputs).mean())


def matmul(dtype):
    a = jax.random.normal(jax.random.key(0), (SIDE, SIDE), jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)

    def run():
        product(a).block_until_ready()
        return 0.0

    run()
    return run


def main():
    folder, workload, dtype, parts = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    compile_cache.enable(folder / "cache")
    if platforms.chosen() == "cpu":
        cpu.split_devices(parts)
    run = None
    for line in sys.stdin:
        if line.strip() == "end":
            break
        if run is None:
            run = build(folder, workload, dtype)
        began, busy = time.perf_counter(), time.process_time()
        loss = run()
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        peak = platforms.jax_peak_mb(peak_mb)
        print(json.dumps({"seconds": seconds, "cpu": busy, "loss": loss, "peak_mb": peak}), flush=True)


if __name__ == "__main__":
    main()
