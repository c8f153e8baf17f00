"""Craft: a noisy pair of every pair that the highest ratio takes, attacked against the model of ratio 0, or a control."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ranjax.attacks import pairs as joint
from ranjax.attacks import pgd as image_attacks
from ranjax.attacks.text import candidates as candidate_words
from ranjax.attacks.text import substitution as text_attacks
from ranjax.core import files
from ranjax.core.pixels import pixel_units, to_float
from ranjax.data import noisy_pairs as conditions
from ranjax.evaluation.retrieval import unit
from ranjax.run.context import Context
from ranjax.run.schema.noise_keys import CONTROLS
from ranjax.run.stages import inputs as common
from ranjax.run.stages import word_candidates as candidates
from ranjax.training import devices, hosts
from ranjax.training.progress import Progress
from ranjax.training.row_map import RowFunction, RowMap

NoisyPairs = Callable[[common.Split], Iterator[dict[str, Any]]]


def run(context: Context) -> dict[str, Any]:
    """Leaves a noisy store; shards that an earlier, interrupted run finished are kept as they are."""
    from ranjax.data.store import NoisyStore, StoreWriter, set_aside

    # Processes share the shards out: each works through its own, on its own devices.
    context = dataclasses.replace(context, mesh=devices.local_mesh(context.mesh))
    config, data = context.config, common.data(context)
    recipe = context.stage_run.recipe or config.noise.recipe
    train = data.split("train")
    chosen = train.take(np.flatnonzero(conditions.select(train.ids, max(config.noise.ratios), config.seed)))
    surrogate = common.encoder_folder(context, common.clean_condition(context)) / "model.safetensors"
    open_store = functools.partial(
        StoreWriter,
        context.folder / "store",
        ids=chosen.ids,
        shard_size=config.noise.shard_size,
        epsilon=pixel_units(config.noise.image_epsilon),
        provenance={
            "attack": recipe,
            "settings": {name: _plain(config.noise[name]) for name in SETTINGS},
            "seed": config.seed,
            "surrogate": files.sha256(surrogate),
            "files": candidates.files_of(config.noise),
        },
        key="noise",
    )

    def begin() -> None:
        for fault in open_store().damaged():
            context.say(f"  {fault.what} It is set aside and crafted again.")
            set_aside(context.folder / "store", fault.shard)

    hosts.first_does(begin)  # the plan is written, and lies there when the others read it
    writer = open_store()
    own = writer.missing(jax.process_index(), jax.process_count())
    rounds = max(hosts.gather(len(own)))
    noisy_pairs = noisy_pairs_of(context, recipe, chosen) if rounds else None
    with Progress(f"craft {recipe}", len(chosen.ids), writer.done, unit="pairs") as progress:
        for number in itertools.islice(itertools.chain(own, itertools.repeat(None)), rounds):
            context.check_stop(f"{writer.done} of {len(chosen.ids)} pairs crafted")
            if noisy_pairs is None or number is None:
                continue
            part = chosen.take(np.array(writer.positions(number)))
            writer.write(number, list(noisy_pairs(part)))
            progress.update(writer.done)
    hosts.barrier()
    store = NoisyStore.open(context.folder / "store")
    return _summary(context, recipe, store, [store.provenance(i) for i in chosen.ids])


SETTINGS = (
    "image_epsilon", "image_step", "image_steps", "gradient_dtype", "max_words", "share", "max_queries", "top_k",
    "beam", "text_search", "candidates",
    "masked_lm", "masked_lm_k", "masked_lm_steps", "neighbours", "neighbour_cosine", "thesaurus", "same_class",
    "similarity", "protect", "protect_labels", "lists",
)  # fmt: skip
"""Keys of `noise` that decide what a noisy pair looks like."""


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _summary(context: Context, recipe: str, store: Any, records: list[dict[str, Any]]) -> dict[str, Any]:
    rise = np.array([r["loss_after"] - r["loss_before"] for r in records])
    words = np.array([r["words_changed"] for r in records])
    success = float(np.mean(rise > 0))
    context.say(
        f"  {len(records)} noisy pairs; cosine of the pair lowered by {rise.mean():.3f} on average, on {100 * success:.1f} % "
        f"of the pairs; {words.mean():.2f} words changed a report"
    )
    return {
        "recipe": recipe,
        "pairs": len(records),
        "store": store.fingerprint,
        "surrogate": store.shared["surrogate"],
        "mean_loss_rise": float(rise.mean()),
        "success": success,
        "mean_words_changed": float(words.mean()),
    }


def noisy_pairs_of(context: Context, recipe: str, chosen: common.Split) -> NoisyPairs:
    """A function from a part of the chosen pairs to their noisy pairs, as `StoreWriter.write` takes them."""
    if recipe in CONTROLS:
        return _control(context, recipe, chosen)
    functions, params = common.encoder(context, common.clean_condition(context))
    return attack_of(context, recipe, functions, params, chosen.reports)


def attack_of(context: Context, recipe: str, functions: Any, params: Any, reports: Sequence[str]) -> NoisyPairs:
    """The attack `recipe` on an encoder, compiled once for all shards; `reports` are all that it will meet."""
    config, data = context.config, common.data(context)
    noise = config.noise
    words = candidates.allowed(context, np.asarray(functions.token_table(params)))
    proposer = words.proposer
    propose = candidates.proposer_of(proposer, noise.masked_lm_k) if proposer else None
    attack_rows = rows_attack(functions, noise, recipe, data.tokenizer.unk_id, propose)
    run_rows = RowMap(attack_rows, context.mesh, noise.batch_size, context.poll)
    shared = run_rows.share((params, words.lexicon.table, (proposer.params, proposer.table) if proposer else ()))
    # Of all reports, not of a shard: a shard that is made later must meet the same program.
    length = text_attacks.needed_length(data.encode(reports).mask, words.lexicon.table, substitution_of(noise))

    def attack(split: common.Split) -> Iterator[dict[str, Any]]:
        tokens = data.encode(split.reports)
        keys = common.example_keys(context, "craft", split.ids)
        whole = tokens.ids.shape[1]
        lm_rows = candidates.lm_rows(proposer, data.tokenizer, split.reports, length) if proposer else ()
        rows = (x[:, :length] for x in (tokens.ids, tokens.mask, tokens.words))
        found = run_rows(shared, (split.images, *rows, keys, lm_rows))
        padding = ((0, 0), (0, whole - length))
        found["tokens"] = np.pad(found["tokens"], padding, constant_values=data.tokenizer.pad_id)
        found["mask"] = np.pad(found["mask"], padding)
        for i, name in enumerate(split.ids):
            changed = np.flatnonzero(found["changed"][i])
            yield {
                "id": name,
                "image": found["images"][i],
                "clean_image": split.images[i],
                # A report without a changed word stays as it was written, case and rare words included.
                "report": data.tokenizer.decode(found["tokens"][i], found["mask"][i])
                if len(changed)
                else split.reports[i],
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


def substitution_of(noise: Any) -> text_attacks.Substitution:
    """The word search that the config's group ``noise`` describes."""
    return text_attacks.Substitution(
        max_words=noise.max_words,
        share=noise.share if noise.share < 1 else None,
        top_k=noise.top_k,
        beam=noise.beam,
        max_queries=noise.max_queries or None,
    )


def rows_attack(
    functions: Any, noise: Any, recipe: str, unk_id: int, propose: Callable[..., Any] | None = None
) -> RowFunction:
    """The attack that the config's group ``noise`` describes, as `RowMap` maps it over pairs.

    Args:
      functions: of the surrogate.
      recipe: one of `schema.noise.ATTACKS`.
      unk_id: token that hides a word while its importance is measured.
      propose: of a masked language model, where it narrows the candidates down.
    """
    image_settings = image_attacks.PGD(noise.image_epsilon, noise.image_step, noise.image_steps)
    text_settings = substitution_of(noise)

    def attack_rows(shared: Any, rows: Any) -> dict[str, jax.Array]:
        params, table, lm_shared = shared
        *pairs, lm_rows = rows
        offered: joint.Allowed = table
        if propose:
            _, tokens, _, words, _ = pairs
            lists = propose(lm_shared, lm_rows, tokens.shape[1])
            offered = candidate_words.for_rows(table, tokens, words, lists)
        result = common.craft_pairs(
            functions,
            params,
            pairs,
            image_settings,
            text_settings,
            offered,
            gradient_dtype=noise.gradient_dtype,
            recipe=recipe,
            similarity=noise.similarity if noise.similarity > -1 else None,
            hide_id=unk_id if noise.text_search == "importance" else None,
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

    return attack_rows


def _control(context: Context, recipe: str, chosen: common.Split) -> NoisyPairs:
    """Noisy pairs without an attack: the norm of one with random signs, or captions moved among the chosen pairs."""
    config, data = context.config, common.data(context)
    source = data.prepared.splits["train"]
    if recipe == "gaussian":
        view: conditions.View = conditions.gaussian(
            source, chosen.ids, config.seed, pixel_units(config.noise.image_epsilon)
        )
    else:
        view = conditions.caption_shuffle(source, chosen.ids, config.seed)
    place = {name: index for index, name in enumerate(source.ids)}

    def control(split: common.Split) -> Iterator[dict[str, Any]]:
        records = [view[place[name]] for name in split.ids]
        images = np.stack([to_float(r["image"]) for r in records])
        reports = [str(r["report"]) for r in records]
        tokens = data.encode(reports)
        before = pair_losses(context, split.images, split.reports)
        after = pair_losses(context, images, reports)
        for i, name in enumerate(split.ids):
            yield {
                "id": name,
                "image": images[i],
                "clean_image": split.images[i],
                "report": reports[i],
                "tokens": tokens.ids[i],
                "mask": tokens.mask[i],
                "provenance": {
                    "loss_before": float(before[i]),
                    "loss_after": float(after[i]),
                    "words_changed": 0,
                    "changed": [],
                    "queries": 0,
                    "success": bool(after[i] > before[i]),
                },
            }

    return control


def pair_losses(
    context: Context, images: np.ndarray, reports: list[str] | None = None, tokens: Any = None
) -> np.ndarray:
    """f[N], minus the cosine of each image and its report (or its tokens) under the surrogate: what attacks raise."""
    functions, params = common.encoder(context, common.clean_condition(context))
    tokens = common.data(context).encode(reports) if tokens is None else tokens
    image = unit(common.image_features(context, functions, params, images))
    text = unit(common.text_features(context, functions, params, tokens))
    return -np.sum(np.asarray(image) * np.asarray(text), axis=-1)
