"""The repaired checkpoint: its files as they came, head and filter beside them, a card, and how to load it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranjax.core import files
from ranjax.report import model_card
from ranjax.run.audits import audit_config
from ranjax.run.stages import encoder_export

if TYPE_CHECKING:
    from ranjax.run.audits.audit_results import Audit

LOADED_BY = {
    "clip": 'transformers.CLIPModel.from_pretrained("{folder}")',
    "siglip": 'transformers.SiglipModel.from_pretrained("{folder}")',
    "vision-text-dual-encoder": 'transformers.VisionTextDualEncoderModel.from_pretrained("{folder}")',
    "open_clip": 'open_clip.create_model("local-dir:{folder}")',
}
"""By layout, what loads the encoder elsewhere."""


def write(audit: Audit, results: Mapping[str, Any], out: Path) -> None:
    """Write the encoder with the recommended head into `out`, anew: nobody keeps anything there."""
    method = results["recommendation"]["method"] or audit_config.BASELINE
    beside = out.with_name(f".{out.name}.new")
    for place in (beside, out):
        if place.exists():
            shutil.rmtree(place)
    run = files.read_json(audit.workdir / "results.json")
    encoder_export.export(audit.context(), "clean", method, 0, beside, run)
    source = audit.checkpoint.path
    if not audit.checkpoint.texts:
        # The encoder stays as it is, and so do its files: those of the form that it was audited in go.
        for path in beside.iterdir():
            if path.name not in (encoder_export.HEAD, encoder_export.HEAD_FACTS, model_card.FILE):
                path.unlink()
        for path in [source] if source.is_file() else sorted(source.iterdir()):
            if path.is_file() and path.name != model_card.FILE:
                shutil.copyfile(path, beside / path.name)
    card = (beside / model_card.FILE).read_text(encoding="utf-8")
    files.write_text(beside / model_card.FILE, f"{card}\n{_section(audit, results)}")
    beside.rename(out)


def _section(audit: Audit, results: Mapping[str, Any]) -> str:
    advised = results["recommendation"]
    lines = [f"* {line}" for line in advised["words"]]
    encoder = LOADED_BY.get(audit.checkpoint.layout, "")
    code = [
        "import ranjax as rx",
        'model = rx.load("repaired")              # encoder, filter and head',
        "logits = model(images)                   # f32[N, H, W, C] in [0, 1], or uint8",
        "names = [model.classes[i] for i in model.predict(images)]",
    ]
    if encoder:
        code.append(f"encoder = {encoder.format(folder='repaired')}  # without filter and head")
    text = ["## Audit", *lines, f"* Protocol {results['protocol']['name']}; data {results['data']['fingerprint']}."]
    return "\n".join([*text, "", "## How to load it", "", "```python", *code, "```", ""])
