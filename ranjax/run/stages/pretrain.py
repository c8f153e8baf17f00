"""Pretrain: a dual encoder on the pairs of one upstream condition, data-parallel, from checkpoint to checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ranjax.core import host_memory, keys
from ranjax.core.errors import ConfigError, DataError
from ranjax.core.types import Params
from ranjax.data.batches import Batches
from ranjax.data.images.augment import Augmentation
from ranjax.data.noisy_pairs import mix
from ranjax.data.sources import Source
from ranjax.data.store import NoisyStore
from ranjax.methods import search
from ranjax.models.checkpoints.assemble import beside_bert, image_alone
from ranjax.models.checkpoints.layouts import load, save
from ranjax.models.checkpoints.packaged import weights_path
from ranjax.models.checkpoints.weight_files import folder_of
from ranjax.models.dual_encoder import DualEncoder, DualEncoderFunctions, split
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.resize import resize_positions
from ranjax.models.towers.contract import ImageTowerConfig, TextTowerConfig
from ranjax.models.trainable import describe_trainable, select
from ranjax.run import config as configs
from ranjax.run.context import Context, Stopped
from ranjax.run.schema import model_keys
from ranjax.run.schema.entry_keys import Config
from ranjax.run.stages import cards, labels
from ranjax.run.stages import inputs as common
from ranjax.training import devices, fsdp, hosts, loop, profiling
from ranjax.training.checkpoints import Checkpoints
from ranjax.training.contrastive_step import Program, held_out_loss, program
from ranjax.training.metrics_log import MetricsLog
from ranjax.training.optimizer import AdamWSettings
from ranjax.training.progress import Progress


def run(context: Context) -> dict[str, Any]:
    """Train the encoder of a condition; leave ``encoder/``, in its layout of files, and metrics.jsonl.

    All conditions share the seed: the same first weights, the same order of the same ids; only the noisy pairs differ.
    """
    config, data = context.config, common.data(context)
    settings = config.pretrain
    # Prepare said so before; a config of other methods or shots may have come since, and hours would be lost.
    labels.refuse(config, data.prepared)
    functions, params = first_weights(context)
    search.check_scopes(config.adapt, params)
    if settings.skip:
        return _as_given(context, functions, params)
    trainable = select(params, [pattern for pattern in settings.trainable if pattern], "pretrain.trainable")
    for line in describe_trainable(params, trainable).splitlines():
        context.say(f"  {line}")
    if settings.objective == "sigmoid" and functions.config.logit_bias_init is None:
        allowed = "info_nce for this encoder: the sigmoid loss needs a bias of the logits, which SigLIP's has"
        raise ConfigError("pretrain.objective", settings.objective, allowed)
    # None where all is trained: the program and the optimizer's state are then those of a run without the key.
    moving = None if all(jax.tree.leaves(trainable)) else trainable
    made = context.memoize(
        ("pretrain", functions), lambda: make_program(functions, params, config, context.mesh, moving)
    )
    of_data = config.data
    augment = Augmentation(
        of_data.augment_crop, of_data.augment_flip, of_data.augment_contrast, of_data.augment_sentences
    )
    batches = Batches(
        upstream(context),
        settings.batch_size,
        config.seed,
        data.tokenizer,
        config.text.max_length,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        threads=config.data.threads,
        augment=None if augment == Augmentation() else augment,
    )
    # Keys of steps and batches are functions of the seed in the config and of the step: nothing else needs keeping.
    meta = {
        "fingerprint": context.fingerprint,
        "tokenizer": data.tokenizer.fingerprint,
        "config": configs.flatten(config),
    }
    like = made.abstract(params)
    with Checkpoints(context.folder / "checkpoints", settings.keep, settings.keep_best) as checkpoints:
        found = checkpoints.restore(like)
        start = 0 if found is None else int(found.step)
        if start:
            context.say(f"  goes on at step {start}")
        state = made.start(params) if found is None else found
        del params
        with (
            MetricsLog(context.folder, start, examples=settings.batch_size, stage=context.stage_run.id)
            if hosts.first()
            else nullcontext() as log,
            Progress(f"pretrain {context.stage_run.condition}", settings.steps, start) as progress,
            profiling.of_steps(
                config.profile if hosts.first() else "", context.stage_run.id, context.folder, start, settings.steps
            ) as trace,
        ):

            def show(done: int, metrics: Any) -> None:
                if log is not None:
                    log(done, metrics | {"attacked_share": attacked_share(batches, done - 1)})
                context.say(_line(done, metrics))

            try:
                state = loop.train(
                    made.step,
                    state,
                    lambda k: _batch(batches[k]),
                    settings.steps,
                    key=keys.stream(config.seed, "pretrain"),
                    place=lambda batch: devices.shard_batch(batch, context.mesh),
                    checkpoints=checkpoints,
                    meta=meta,
                    log=show,
                    progress=progress,
                    log_every=settings.log_every,
                    save_every=settings.checkpoint_every,
                    should_stop=context.stop_every(8),
                    before_step=trace,
                    validate=_validation(context, functions) if settings.keep_best else None,
                )
            except loop.Interrupted as stop:
                raise Stopped(
                    f"pretraining of {context.stage_run.condition} at step {stop.step} of {settings.steps}"
                ) from stop
        best = hosts.agree(checkpoints.best()) if settings.keep_best else None
        chosen = settings.steps
        if settings.choose == "best" and best not in (None, settings.steps):
            # A step that is named is restored or refused, so that this is no None.
            state, chosen = cast(Any, checkpoints.restore(like, step=best)), best
            context.say(f"  goes on with the encoder of step {best}, the best of the checkpoints")
    # Of the process since its start: it must not grow with the steps.
    context.say(f"  peak memory of the host {host_memory.peak() >> 20} MiB")
    params = jax.device_get(fsdp.whole(state.params, context.mesh))

    def write() -> None:
        save(context.folder / "encoder", functions, params)
        data.tokenizer.save(context.folder / "encoder" / "tokenizer.json")
        cards.write_card(context, context.stage_run.condition)

    hosts.first_does(write)
    return {
        "parameters": int(sum(np.size(leaf) for leaf in jax.tree.leaves(params))),
        "steps": settings.steps,
        "chosen_step": chosen,
        "pairs": len(batches.loader),
        "logit_scale": float(common.logit_scale(functions, params)),
    }


def _as_given(context: Context, functions: DualEncoderFunctions, params: Params) -> dict[str, Any]:
    """Leave the checkpoint as it is in ``encoder/``."""

    def write() -> None:
        save(context.folder / "encoder", functions, params)
        common.data(context).tokenizer.save(context.folder / "encoder" / "tokenizer.json")
        cards.write_card(context, context.stage_run.condition)

    hosts.first_does(write)
    parameters = int(sum(np.size(leaf) for leaf in jax.tree.leaves(params)))
    return {"parameters": parameters, "steps": 0, "logit_scale": float(functions.logit_scale(params))}


def attacked_share(batches: Batches, step: int) -> float:
    """Return the share of the pairs of a step's batch that are adversarial pairs (or a control's)."""
    changed: frozenset[int] = getattr(batches.loader.source, "changed", frozenset())
    return float(np.mean([int(i) in changed for i in batches.index(step)]))


def _validation(context: Context, functions: DualEncoderFunctions) -> Callable[[Params], float]:
    """Return the trained objective on the first (at most 512) validation pairs, all of them each other's negatives."""
    data, objective = common.data(context), context.config.pretrain.objective
    held = data.split("validation")
    held = held.take(np.arange(len(held.ids))[:VALIDATED])
    tokens = data.encode(held.reports)

    def loss(params: Params) -> float:
        params = jax.device_get(fsdp.whole(params, context.mesh))
        # A stop saves the state it stops at, and that needs its figure.
        with context.uninterrupted():
            image = common.image_features(context, functions, params, held.images)
            text = common.text_features(context, functions, params, tokens)
        figure = _held_out_loss(functions, params, image, text, objective)
        context.say(f"  validation loss {float(figure):.4f}")
        return float(figure)

    return loss


_held_out_loss = jax.jit(held_out_loss, static_argnums=(0, 4))
VALIDATED = 512
"""Validation pairs behind a checkpoint's figure."""


def make_program(
    functions: DualEncoderFunctions, params: Params, config: Config, mesh: Mesh, trainable: Params | None = None
) -> Program:
    """Return the step that a config describes, as `program`; `params` may be shapes, `trainable` a tree of bools
    (None: all).
    """
    settings = config.pretrain
    return program(
        functions,
        params,
        AdamWSettings(
            learning_rate=settings.learning_rate,
            steps=settings.steps,
            warmup_steps=round(settings.warmup * settings.steps),
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm or None,
        ),
        mesh,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        chunk=settings.loss_chunk or None,
        objective=settings.objective,
        trainable=trainable,
    )


def upstream(context: Context) -> Source:
    """Return the training pairs of this condition: clean, or with the ratio's share replaced by their noisy pairs."""
    source = common.data(context).prepared.splits["train"]
    if context.stage_run.ratio == 0:
        return source
    store = NoisyStore.open(context.folder_of(context.craft_id) / "store")
    if faults := context.memoize(("damaged", store.fingerprint), store.damaged):
        repair = f"ranjax verify {context.workdir} --repair"
        raise DataError(f"{faults[0].what} {repair} sets it aside; the same command then crafts it again.")
    return mix(source, store, context.stage_run.ratio, context.config.seed)


def first_weights(context: Context) -> tuple[DualEncoderFunctions, Params]:
    """Return functions and parameters before the first step: random from the seed, or the user's checkpoint.

    Raises:
      ConfigError: the checkpoint does not fit the data or the tokenizer.
    """
    config, data = context.config, common.data(context)
    model, tokenizer = config.model, data.tokenizer
    given = weights_path(model.weights or model.text_weights)
    if not (model.weights or model.text_weights):
        special = {name: getattr(tokenizer, name) for name in ("eos_id", "bos_id", "pad_id")}
        if model.image_weights:
            text = _new_text_tower(config, tokenizer.vocab_size, **special)
            rngs = nnx.Rngs(keys.stream(config.seed, "init"))
            tower = weights_path(model.image_weights)
            functions, params, _ = image_alone(tower, text=text, rngs=rngs, **common.run_options(config))
            return resize_positions(functions, params, config.data.image_size, config.text.max_length)
        shape = encoder_shape(config, tokenizer.vocab_size, **special)
        return split(DualEncoder(shape, nnx.Rngs(keys.stream(config.seed, "init"))))
    if model.weights:
        functions, params, shape = load(given, **common.run_options(config))
    else:
        # New projections, and the tower of `model.image_weights` or a new one, beside the BERT.
        functions, params, shape = beside_bert(
            given,
            image=weights_path(model.image_weights) if model.image_weights else new_image_tower(config),
            embed_dim=model.embed_dim,
            pooling=model["bert"]["pooling"],
            projection=model.projection,
            rngs=nnx.Rngs(keys.stream(config.seed, "init")),
            **common.run_options(config),
        )
    longest = max(shape.max_length, config.text.max_length)
    functions, params = resize_positions(functions, params, config.data.image_size, longest)
    named = config.text.tokenizer or str(given)
    common.check_tokenizer(tokenizer, shape, folder_of(given), "text.tokenizer", named)
    return functions, params


def new_image_tower(config: Config) -> ImageTowerConfig:
    """Return the image tower that a config describes where it names no weights of one."""
    found = model_keys.new_tower(config, model_keys.IMAGE, image_size=config.data.image_size, channels=1)
    assert isinstance(found, ImageTowerConfig)
    return found


def encoder_shape(config: Config, vocab_size: int, *, eos_id: int, bos_id: int, pad_id: int) -> DualEncoderConfig:
    """Return the dual encoder that a config describes where it names no weights, for a tokenizer of that vocabulary."""
    model = config.model
    text = _new_text_tower(config, vocab_size, eos_id=eos_id, bos_id=bos_id, pad_id=pad_id)
    return DualEncoderConfig(
        image=new_image_tower(config),
        text=text,
        embed_dim=model.embed_dim,
        compute_dtype=model.compute_dtype,
        remat=model.remat,
        scan=model.scan,
        attention=model.attention,
    )


def _new_text_tower(config: Config, vocab_size: int, **special: int) -> TextTowerConfig:
    sizes = {"vocab_size": vocab_size, "max_length": config.text.max_length}
    text = model_keys.new_tower(config, model_keys.TEXT, **sizes, **special)
    assert isinstance(text, TextTowerConfig)
    return text


def _batch(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {"image": rows["images"], "tokens": rows["tokens"], "mask": rows["mask"], "ids": rows["ids"]}


def _line(done: int, metrics: Mapping[str, Any]) -> str:
    shown = {"loss": metrics["loss"], "gradient": metrics["gradient_norm"], "scale": metrics["logit_scale"]}
    shown |= {name: value for name, value in metrics.items() if "accuracy" in name}
    return f"  step {done}: " + ", ".join(f"{name} {value:.3g}" for name, value in shown.items())
