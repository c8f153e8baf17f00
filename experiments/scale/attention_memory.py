"""Memory of a chip that attention and its gradient take, written out and by splash attention, by the TPU's compiler.

    python -m experiments.scale.attention_memory                     # prints the table of docs/scale.md

256 rows a chip in bfloat16, in heads of 64 channels, on four chips of v5e that need not be there.
"""

from __future__ import annotations

import sys
import time

from experiments.scale import topology
from ranjax.core.errors import ConfigError

ROWS, DEPTH = 256, 64
SHAPES = ((128, 8, True), (197, 12, False), (512, 12, True), (577, 12, False), (1024, 12, False))
"""Tokens, heads, and whether it is a text's: causal, with padding."""


def main() -> int:
    """Print the table."""
    slice_ = topology.parse("v5e:2x2")
    try:
        topology.prepare(slice_)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    import jax
    import jax.numpy as jnp

    from ranjax.models import attention
    from ranjax.training import devices

    mesh = devices.make_mesh(topology.devices(slice_))
    print("| tokens | heads | | plain | splash |\n|---|---|---|---|---|")
    for tokens, heads, of_text in SHAPES:

        def slopes(q, k, v, mask, tokens=tokens, heads=heads, of_text=of_text):
            def loss(q, k, v):
                seen = attention.visible(mask, True, tokens) if of_text else None
                out = attention.dot_product_attention(q, k, v, seen, heads)
                return jax.lax.pmean(jnp.sum(out.astype(jnp.float32)), devices.AXIS)

            return jax.grad(loss, argnums=(0, 1, 2))(q, k, v)

        operand = jax.ShapeDtypeStruct((ROWS * mesh.size, tokens, heads * DEPTH), jnp.bfloat16)
        mask = jax.ShapeDtypeStruct(operand.shape[:2], jnp.bool_)
        cells = []
        for form in ("plain", "splash"):
            begun = time.monotonic()
            with attention.switch(form):
                split = jax.shard_map(slopes, mesh=mesh, in_specs=jax.P(devices.AXIS), out_specs=jax.P(devices.AXIS))
                traced = jax.jit(split).trace(operand, operand, operand, mask)
                sizes = traced.lower(lowering_platforms=("tpu",)).compile().memory_analysis()
            cells.append(f"{sizes.temp_size_in_bytes / 1e9:.2f} GB, {time.monotonic() - begun:.1f} s")
        kind = "causal, padding" if of_text else ""
        print(f"| {tokens} | {heads} | {kind} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
