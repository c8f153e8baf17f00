"""Model cards of a run's encoders, written when an encoder is, and again with its figures when the report is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ranjax import config as configs
from ranjax import files
from ranjax.models.layouts import kind_of, weights_of
from ranjax.pipeline import Context
from ranjax.reporting import model_card
from ranjax.stages import common


def write_card(context: Context, arm: str, results: dict[str, Any] | None = None) -> None:
    """Writes README.md beside the encoder of an upstream arm; with `results`, the figures of its evaluation too."""
    folder = common.encoder_folder(context, arm)
    parameters = context.manifest_of(f"pretrain/{arm}")["parameters"] if results else _count(context, folder)
    files.write_text(folder / model_card.FILE, model_card.write(facts(context, arm, folder, parameters, results)))


def facts(
    context: Context, arm: str, folder: Path, parameters: int, results: dict[str, Any] | None
) -> model_card.Facts:
    """What the card of an arm's encoder, read from `folder`, is written from."""
    run = next(run for run in context.plan if run.stage == "pretrain" and run.arm == arm)
    data, prepared = common.data(context), context.manifest_of("prepare")
    flat = configs.flatten(context.config)
    given = context.config.model.weights or context.config.model.text_weights
    return model_card.Facts(
        arm=arm,
        ratio=run.ratio,
        recipe=run.recipe or context.config.noise.recipe,
        config=flat,
        data=data.prepared.card,
        counts=prepared["counts"],
        kind=kind_of(folder),
        parameters=parameters,
        tokenizer=data.tokenizer.fingerprint,
        start=_start(given, whole=bool(context.config.model.weights)) if given else "",
        rows=None if results is None else results["rows"],
    )


def _start(folder: str, whole: bool) -> str:
    """A checkpoint in words: the folder's name, and the licence that its own card gives."""
    name, card = Path(folder).name, Path(folder) / model_card.FILE
    found = "not stated in its folder"
    if card.is_file():
        head = card.read_text(errors="replace").split("---")[1:2]
        lines = [line.partition(":")[2].strip() for part in head for line in part.splitlines() if "license" in line]
        found = lines[-1] if lines else found
    what = "the checkpoint" if whole else "a new image tower beside the text tower"
    return f"{what} `{name}` (licence: {found})"


def _count(context: Context, folder: Path) -> int:
    return sum(int(np.size(x)) for x in weights_of(folder).values())
