"""Craft: an adversarial twin of every pair that the highest ratio takes, against the model of ratio 0."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np

from ranjax import config as configs
from ranjax import files
from ranjax.attacks import candidates, constraints, joint
from ranjax.attacks import image as image_attacks
from ranjax.attacks import text as text_attacks
from ranjax.pipeline import Context
from ranjax.stages import common
from ranjax.training.pretrain import as_float
from ranjax.training.progress import Progress
from ranjax.training.rows import RowMap


def run(context: Context) -> dict[str, Any]:
    """Leaves a noisy store; shards that an earlier, interrupted run finished are kept as they are."""
    from ranjax.data.noise import select
    from ranjax.data.store import NoisyStore, StoreWriter

    config, data = context.config, common.data(context)
    train = data.split("train")
    ratio = max(config.noise.ratios)
    chosen = train.take(np.flatnonzero(select(train.ids, ratio, config.seed)))
    arm = common.clean_arm(context)
    functions, params = common.encoder(context, arm)
    surrogate = files.sha256(common.encoder_folder(context, arm) / "model.safetensors")
    attack = build_attack(context, functions, params)
    settings = {name: config.noise[name] for name in SETTINGS}
    writer = StoreWriter(
        context.folder / "store",
        ids=chosen.ids,
        shard_size=config.noise.shard_size,
        epsilon=configs.pixel_units(config.noise.image_epsilon),
        provenance={"attack": config.noise.recipe, "settings": settings, "seed": config.seed, "surrogate": surrogate},
    )
    with Progress("craft", len(chosen.ids), writer.done, unit="pairs") as progress:
        for number in writer.missing():
            context.check_stop(f"{writer.done} of {len(chosen.ids)} pairs crafted")
            part = chosen.take(np.array(writer.positions(number)))
            writer.write(number, list(attack(part)))
            progress.update(writer.done)
    store = NoisyStore.open(context.folder / "store")
    records = [store.provenance(i) for i in chosen.ids]
    rise = np.array([r["loss_after"] - r["loss_before"] for r in records])
    words = np.array([r["words_changed"] for r in records])
    success = float(np.mean(rise > 0))
    context.say(
        f"  {len(records)} twins; cosine of the pair lowered by {rise.mean():.3f} on average, on {100 * success:.1f} % "
        f"of the pairs; {words.mean():.2f} words changed a report"
    )
    return {
        "pairs": len(records),
        "store": store.fingerprint,
        "surrogate": surrogate,
        "mean_loss_rise": float(rise.mean()),
        "success": success,
        "mean_words_changed": float(words.mean()),
    }


SETTINGS = ("image_epsilon", "image_step", "image_steps", "max_words", "top_k", "protect")
"""Keys of `noise` that decide what a twin looks like."""


def build_attack(context: Context, functions: Any, params: Any) -> Any:
    """A function `Split -> iterator of twins`, compiled once for all shards."""
    config, data = context.config, common.data(context)
    noise = config.noise
    table = vocabulary_table(data, noise.protect).table
    image_settings = image_attacks.PGD(noise.image_epsilon, noise.image_step, noise.image_steps)
    text_settings = text_attacks.Substitution(max_words=noise.max_words, top_k=noise.top_k)

    def attack_rows(shared: Any, rows: Any) -> dict[str, jax.Array]:
        params, table = shared
        images, tokens, mask, words, keys = rows
        result = joint.craft(
            functools.partial(functions.image_features, params),
            lambda e, t, m: functions.text_features(params, t, m, embeddings=e),
            functions.token_table(params),
            as_float(images),
            tokens,
            mask,
            words,
            keys,
            image_settings,
            text_settings,
            table,
            recipe=noise.recipe,
        )
        return {
            "images": result.image.images,
            "tokens": result.text.tokens,
            "mask": result.text.mask,
            "changed": result.text.changed,
            "norm": result.image.norm,
            "loss": result.loss,
            "clean_loss": result.clean_loss,
            "queries": result.text.queries,
        }

    run_rows = RowMap(attack_rows, context.mesh, noise.batch_size)
    shared = run_rows.share((params, table))

    def attack(split: common.Split):
        tokens = data.encode(split.reports)
        keys = common.example_keys(context, "craft", split.ids)
        found = run_rows(shared, (split.images, tokens.ids, tokens.mask, tokens.words, keys))
        for i, name in enumerate(split.ids):
            changed = np.flatnonzero(found["changed"][i])
            yield {
                "id": name,
                "image": found["images"][i],
                "clean_image": split.images[i],
                "report": data.tokenizer.decode(found["tokens"][i], found["mask"][i]),
                "tokens": found["tokens"][i],
                "mask": found["mask"][i],
                "provenance": {
                    "loss_before": float(found["clean_loss"][i]),
                    "loss_after": float(found["loss"][i]),
                    "norm": float(found["norm"][i]),
                    "words_changed": len(changed),
                    "changed": changed.tolist(),
                    "queries": int(found["queries"][i]),
                    "success": bool(found["loss"][i] > found["clean_loss"][i]),
                },
            }

    return attack


def vocabulary_table(data: common.Data, protect: bool) -> candidates.Lexicon:
    """Candidate words: the tokenizer's own words; with `protect`, without those that carry the medical statement."""
    tokenizer = data.tokenizer
    names = tokenizer.words()
    if protect:
        protected = constraints.protection(labels=data.prepared.classes, extra=data.prepared.label_words)
    else:
        protected = constraints.protection(kinds=("stop_words",))
    return candidates.build(names, tokenizer.pieces, pad_id=tokenizer.pad_id, protected=protected)
