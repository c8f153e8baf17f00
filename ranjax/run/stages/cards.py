"""Model cards of a run's encoders, written when an encoder is, and again with its figures when the report is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ranjax.core import files
from ranjax.models.checkpoints.layouts import kind_of, weights_of
from ranjax.models.checkpoints.packaged import PACKAGES, PREFIX, weights_path
from ranjax.models.checkpoints.weight_files import folder_of
from ranjax.report import model_card
from ranjax.report.stored_results import Results
from ranjax.run import config as configs
from ranjax.run.context import Context
from ranjax.run.stages import inputs as common


def write_card(context: Context, condition: str, results: Results | None = None) -> None:
    """Write README.md into the encoder's folder of an upstream condition; with `results`, also the figures of its
    evaluation.
    """
    folder = common.encoder_folder(context, condition)
    if results:
        parameters = context.manifest_of(f"pretrain/{condition}")["parameters"]
    else:
        parameters = sum(int(np.size(x)) for x in weights_of(folder).values())
    files.write_text(folder / model_card.FILE, model_card.write(facts(context, condition, folder, parameters, results)))


def facts(context: Context, condition: str, folder: Path, parameters: int, results: Results | None) -> model_card.Facts:
    """Return everything that the card of a condition's encoder, read from `folder`, says."""
    run = next(run for run in context.plan if run.stage == "pretrain" and run.condition == condition)
    data, prepared = common.data(context), context.manifest_of("prepare")
    flat = configs.flatten(context.config)
    model = context.config.model
    return model_card.Facts(
        condition=condition,
        ratio=run.ratio,
        recipe=run.recipe or context.config.noise.recipe,
        config=flat,
        data=data.prepared.card,
        counts=prepared["counts"],
        kind=kind_of(folder),
        parameters=parameters,
        tokenizer=data.tokenizer.fingerprint,
        start=_start(model.weights, model.text_weights, model.image_weights),
        rows=None if results is None else results["rows"],
    )


def _start(weights: str, text: str, image: str) -> str:
    """Return what the model keys of these names start from, in words; "": nothing."""
    if weights:
        return f"the checkpoint {_published(weights)}"
    if image and not text:
        return f"the image tower {_published(image)} alone; its text tower is new and means nothing"
    beside = f"the image tower {_published(image)}" if image else "a new image tower"
    return f"{beside} beside the text tower {_published(text)}" if text else ""


def _published(given: str) -> str:
    """Return published weights in words: their name, and the licence that their own card or package gives."""
    path = weights_path(given)
    package = PACKAGES.get(given.removeprefix(PREFIX))
    name, card = given.removeprefix(PREFIX) if package else path.name, folder_of(path) / model_card.FILE
    found = package.licence if package else "not stated in its folder"
    if card.is_file():
        head = card.read_text(errors="replace").split("---")[1:2]
        lines = [line.partition(":")[2].strip() for part in head for line in part.splitlines() if "license" in line]
        found = lines[-1] if lines else found
    return f"`{name}` (licence: {found})"
