"""How plausible noisy captions are: parts of speech, perplexity under a masked language model, similarity, labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ranjax.attacks.text import candidate_sources
from ranjax.data.captions.parts_of_speech import same_parts_of_speech
from ranjax.data.store import NoisyStore
from ranjax.evaluation.retrieval import unit
from ranjax.run.context import Context
from ranjax.run.stages import inputs as common
from ranjax.run.stages import word_candidates
from ranjax.training.row_map import RowMap

SHOWN = 10
"""Noisy captions that the page shows beside their originals, drawn by their ids."""
ROWS = 16
"""Captions whose words are hidden at a time; the logits of a row are words times vocabulary."""


def measure(context: Context, store: NoisyStore, originals: Mapping[str, str]) -> dict[str, Any]:
    """Measure the captions of a noisy store against the originals, by id, and draw some to be shown.

    Returns plain JSON: regime, pairs, share "changed", "same_parts_of_speech" and "cosine" (mean, under the surrogate)
    of the changed ones, shares "labels_changed" and "false" (of "judged" ones), "left" by reason, "perplexity" (see
    `perplexity_ratios`), and "examples".
    """
    drawn = sorted(store.ids, key=lambda name: hashlib.blake2b(name.encode(), digest_size=8).digest())
    written = {name: store.caption(name) for name in drawn}
    records = {name: origin for name, (_, origin) in written.items()}
    texts = [(originals[name], written[name][0]) for name in drawn]
    changed = [pair for pair in texts if pair[0] != pair[1]]
    judged = [one["false"] for one in records.values() if one["false"] is not None]
    sample = changed[: context.config.noise.plausible_pairs]
    return {
        "meaning": records[drawn[0]]["meaning"] if drawn else "",
        "pairs": len(drawn),
        "changed": len(changed) / len(drawn) if drawn else 0.0,
        "same_parts_of_speech": _mean([same_parts_of_speech(*pair) for pair in changed]),
        "cosine": _mean(_cosines(context, changed)) if changed else None,
        "labels_changed": _mean([one["labels_changed"] for one in records.values()]),
        "false": _mean(judged),
        "judged": len(judged),
        "left": dict(Counter(one["left"] for one in records.values() if one["left"]).most_common()),
        "perplexity": perplexity_ratios(context, sample) if sample else None,
        "examples": [
            {"id": name, "before": before, "after": after, "exchanges": records[name]["exchanges"]}
            for name, (before, after) in list(zip(drawn, texts))[:SHOWN]
        ],
    }


def lines(measured: Mapping[str, Any]) -> list[str]:
    """Return what `measure` found in words; nothing where no caption changed and none was to change."""
    if not measured["changed"] and not measured["left"]:
        return []
    parts = [f"labels changed in {100 * measured['labels_changed']:.1f} %"]
    if measured["false"] is not None:
        parts.append(f"{100 * measured['false']:.1f} % of {measured['judged']} false by the exact findings")
    if measured["perplexity"]:
        parts.append(f"perplexity {measured['perplexity']['ratio']:.2f} times the original's")
    found = [f"captions ({measured['meaning']}): {', '.join(parts)}"]
    if measured["left"]:
        left = ", ".join(f"{count} ({reason})" for reason, count in measured["left"].items())
        found.append(f"captions left as they are: {left}")
    return found


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _cosines(context: Context, texts: Sequence[tuple[str, str]]) -> Sequence[float]:
    functions, params = common.encoder(context, common.clean_condition(context))
    data = common.data(context)
    before, after = (unit(common.text_features(context, functions, params, data.encode(side))) for side in zip(*texts))
    cosines: list[float] = np.sum(np.asarray(before) * np.asarray(after), axis=-1).tolist()
    return cosines


def perplexity_ratios(context: Context, texts: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return what a change of captions does to their pseudo-perplexity under the masked language model.

    A word counts by its probability with all of its pieces hidden (Salazar et al., ACL 2020, arXiv 1910.14659). "ratio"
    is the geometric mean over pairs of noisy over original, "ninth" what one pair in ten is above, "before" and "after"
    the geometric means of the two.
    """
    model = word_candidates.masked_lm(context)
    data = common.data(context)

    def rows_of(params: PyTree, rows: PyTree) -> Float[Array, "captions"]:
        tokens, mask, words = rows
        own = lambda t, m: model.functions.logits(params, t, m)  # noqa: E731
        logits = candidate_sources.masked_logits(own, tokens, mask, words, model.mask_id)
        each = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
        inside = words >= 0
        return -jnp.sum(jnp.where(inside, each, 0), axis=1) / jnp.maximum(inside.sum(1, dtype=each.dtype), 1)

    run = RowMap(rows_of, context.mesh, ROWS, context.poll)
    surprise = [
        run(
            model.params,
            word_candidates.masked_lm_rows(model, data.tokenizer, list(side), data.max_length),
        )
        for side in zip(*texts)
    ]
    before, after = surprise
    rise = after - before
    return {
        "pairs": len(texts),
        "ratio": float(np.exp(rise.mean())),
        "ninth": float(np.exp(np.quantile(rise, 0.9))),
        "before": float(np.exp(before.mean())),
        "after": float(np.exp(after.mean())),
    }
