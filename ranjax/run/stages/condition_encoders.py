"""The encoder of any condition, a control's included, and the methods that are fitted on it."""

from __future__ import annotations

from typing import Any

from flax import nnx

from ranjax.core import keys
from ranjax.core.types import Params
from ranjax.methods.table import Method, selected
from ranjax.models import DualEncoder, DualEncoderFunctions, split
from ranjax.models.controls import CONTROLS
from ranjax.run.context import Context
from ranjax.run.stages import inputs
from ranjax.run.stages.pretrain import first_weights


def condition_encoder(context: Context, condition: str) -> tuple[Any, Params]:
    """Return functions and parameters of a condition: as `pretrain` left them, or of a control.

    A control has no such stage: its functions are those of a dual encoder, or others with `image_features` and
    `config.embed_dim`.
    """
    if condition not in CONTROLS:
        return inputs.encoder(context, condition)

    def make() -> tuple[Any, Params]:
        images = inputs.data(context).task_split("validation").images
        return CONTROLS[condition].encoder(lambda: fresh_encoder(context), *images.shape[2:])

    found: tuple[Any, Params] = context.memoize(("encoder", condition), make)
    return found


def fresh_encoder(context: Context) -> tuple[DualEncoderFunctions, Params]:
    """Return the run's encoder with random weights from its seed: those before the first step, where none are given."""
    functions, _ = first_weights(context)
    return split(DualEncoder(functions.config, nnx.Rngs(keys.stream(context.config.seed, "init"))))


def methods_of(context: Context, condition: str) -> dict[str, Method]:
    """Return the methods of `adapt.methods` that a condition is evaluated with; of a control the heads alone.

    A set of questions has none on a control without text features.
    """
    methods = selected(context.config.adapt.methods)
    if condition not in CONTROLS:
        return methods
    if inputs.data(context).has_questions and not CONTROLS[condition].reads_text:
        return {}
    return {name: method for name, method in methods.items() if method.family == "head"}
