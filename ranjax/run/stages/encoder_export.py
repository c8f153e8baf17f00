"""Encoders out of a run, for the rest of the world: weights, tokenizer and model card in one folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors.numpy import save_file

from ranjax import models
from ranjax.core import files
from ranjax.core.errors import ConfigError, DataError, nearest
from ranjax.evaluation.questions import BOTH
from ranjax.methods import linear_solution
from ranjax.methods.method_settings import HeadTraining, TowerTraining
from ranjax.methods.table import METHODS, selected
from ranjax.methods.tower_methods import FROZEN, encoder_of
from ranjax.models import input_filter
from ranjax.models.heads import INPUT
from ranjax.report import model_card
from ranjax.run.context import Context
from ranjax.run.stages import cards
from ranjax.run.stages import inputs as common
from ranjax.run.stages.adapt_outputs import flat, load_heads, load_tower
from ranjax.run.stages.cached_features import settings_given

HEAD, HEAD_FACTS = "head.safetensors", "head.json"


class Exported(NamedTuple):
    """The folder of an encoder, how many of its arrays differ from the upstream encoder's, and whether a head is
    beside it.
    """

    folder: Path
    changed: int
    head: bool


def export(
    context: Context, condition: str, method: str, seed: int, out: Path, results: dict[str, Any] | None
) -> Exported:
    """Write the encoder of an upstream condition, as `method` left it, in its layout of files.

    What LoRA trained is merged into the kernels. A head, and a filter in front of the image tower, go beside it: that
    layout has no place for them.

    Args:
      context: of a finished run.
      condition, method, seed: e.g. "coattack_10", "ran_lora" and 0; an empty method: the upstream encoder itself.
      out: folder, absent or empty.
      results: of results.json, for the card.

    Raises:
      ConfigError: a condition, method or seed that the run does not have, or a folder that holds something.
      DataError: the run has not come so far.
    """
    _check(context, condition, method, out)
    functions, params = common.encoder(context, condition)
    trained = _trained(context, condition, method, seed) if method else {}
    asked = common.data(context).has_questions
    settings = settings_given(context.config.adapt, method, asked) if method else None
    adapted = dict(params)
    if trained.get("encoder"):
        adapted = encoder_of(settings if isinstance(settings, TowerTraining) else FROZEN, params, trained)
    # Of the model as it was adapted and attacked, but nothing that the layout knows.
    front = adapted.pop(input_filter.NAME, None)
    source = common.encoder_folder(context, condition)
    models.save(out, functions, jax.device_get(adapted))
    common.data(context).tokenizer.save(out / "tokenizer.json")
    if getattr(settings, "head", "") == "prompts":
        # What classifies is the classes' prompts, which the text tower would have to be asked for again.
        classes = common.class_embeddings(context, functions, params)
        trained["head"] = {"params": {"prompts": classes, "scale": common.logit_scale(functions, params)}}
    if trained.get("head"):
        kind = _kind(method, settings)
        asks = asked and not isinstance(settings, TowerTraining)
        modality = getattr(settings, "modality", BOTH) if asks else ""
        reads = getattr(settings, "features", "embedding")
        _write_head(out, method, kind, trained["head"], front, common.data(context), modality, reads)
    pairs = zip(jax.tree.leaves(adapted), jax.tree.leaves(dict(params)), strict=True)
    changed = sum(not np.array_equal(a, b) for a, b in pairs)
    facts = cards.facts(context, condition, source, int(sum(np.size(x) for x in jax.tree.leaves(adapted))), results)
    lines = _adaptation(context, condition, method, seed, changed, trained, front is not None)
    facts = dataclasses.replace(facts, method=method, adaptation=lines)
    files.write_text(out / model_card.FILE, model_card.write(facts))
    return Exported(out, changed, bool(trained.get("head")))


def _check(context: Context, condition: str, method: str, out: Path) -> None:
    conditions = [run.condition for run in context.plan if run.stage == "pretrain"]
    if condition not in conditions:
        raise ConfigError("--condition", condition, f"one of {', '.join(conditions)}", nearest(condition, conditions))
    methods = selected(context.config.adapt.methods)
    known = [name for name, entry in methods.items() if entry.family in ("head", "tower")]
    if method and method not in known:
        raise ConfigError("--method", method, f"a method of this run: {', '.join(known)}", nearest(method, known))
    for stage in ("pretrain", "adapt") if method else ("pretrain",):
        if not (context.folder_of(f"{stage}/{condition}") / "manifest.json").is_file():
            unfinished = f"{context.workdir}: {stage}/{condition} is not finished"
            raise DataError(f"{unfinished}; the run's own command goes on with it.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError("--out", str(out), "a folder that is absent or empty")


def _trained(context: Context, condition: str, method: str, seed: int) -> dict[str, Any]:
    """Return {"encoder", "head"} of one seed, either absent where the method trains none."""
    folder = context.folder_of(f"adapt/{condition}")
    if METHODS[method].family == "tower":
        every = load_tower(folder, method)
    else:
        head = load_heads(folder)[method]
        every = {"encoder": head.pop("encoder", {}), "head": head}
    seeds = int(jax.tree.leaves(every)[0].shape[0])
    if not 0 <= seed < seeds:
        raise ConfigError("--seed", seed, f"0 to {seeds - 1}, the seeds of {method} in this run")
    return jax.tree.map(lambda x: x[seed], every)


def _kind(method: str, settings: Any) -> str:
    """Return what the head is: one of `HEADS`, a linear map, or what a method's own `predict` makes of its arrays."""
    if isinstance(settings, (HeadTraining, TowerTraining)):
        return settings.head
    functions = METHODS[method].functions
    linear = functions is not None and functions[1] is linear_solution.predict
    return "linear" if linear else f"the predict of {method}"


_READS = {
    "embedding": "image_embeds, not normalised",
    "tokens": (
        "the image tower's last tokens after its final norm, patches averaged to a grid of 4 x 4 at most, in reading "
        "order, one after the other; then the class token (a convolutional tower: its pooled vector)"
    ),
    "blocks": "of each block (stage) of the image tower: class token where there is one, mean, and maximum over places",
}
"""What a head reads of an image, in the words of a file that goes to others."""
_ASKED = {"both": "[w i, w t, w w i t]", "image": "w i", "question": "w t"}
"""Of a set of questions, what `questions.fuse` gives a head."""


def _write_head(
    out: Path, method: str, kind: str, head: Any, front: Any, data: common.Data, modality: str, reads: str
) -> None:
    save_file(flat(head if front is None else {**head, input_filter.NAME: front}), out / HEAD)
    said: dict[str, object] = {"kind": kind, "input": _READS[reads], "features": reads, "method": method}
    said["classes"] = list(data.classes)
    said["multi_label"] = data.multi_label
    several = "a logit a class, sigmoid: any number may be right"
    said["output"] = several if data.multi_label else "logits, softmax: one is right"
    if modality:
        made = "i and t the unit embeddings of image and question, w the root of their width, products entry by entry"
        said["input"] = f"{_ASKED[modality]}, {made}"
    if front is not None:
        taps = "correlated with these taps along rows and columns, edge pixels repeating"
        said[input_filter.NAME] = f"images in [0, 1] are first {taps}"
    if INPUT in head.get("stats", {}):
        said["standardised"] = f"its input is first less stats/{INPUT}/mean, times stats/{INPUT}/inverse"
    files.write_json(out / HEAD_FACTS, said)


def _adaptation(
    context: Context, condition: str, method: str, seed: int, changed: int, trained: dict[str, Any], filtered: bool
) -> list[str]:
    if not method:
        return []
    facts, entry = context.manifest_of(f"adapt/{condition}")["methods"][method], METHODS[method]
    source = entry.source if entry.family == "tower" else "a head on frozen features"
    lines = [f"Adapted by `{method}`, seed {seed} ({source}); {changed} of the encoder's arrays changed."]
    if getattr(entry.settings, "scope", "") == "lora":
        lines.append("LoRA's adapters are merged into the kernels: `transformers` loads them as they are.")
    if "share" in facts:
        lines.append(f"Trained: {100 * facts['share']:.2f} % as many numbers as the encoder has, the head's included.")
    if trained.get("head"):
        lines.append(f"The head lies beside the encoder: {HEAD}, described by {HEAD_FACTS}.")
    if filtered:
        lines.append(
            "It was fitted and measured behind a low-pass filter, which is no part of this layout: pass images through "
            f"the taps `{input_filter.NAME}` of {HEAD} first."
        )
    return lines
