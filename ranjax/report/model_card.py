"""A model card (README.md) beside an encoder that leaves a run: how it was made, what it does, what it is not for.

Everything in it is read from the run: its resolved config, its data card and, once evaluated, the rows of results.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ranjax.data.recipe_table import RECIPES
from ranjax.methods.table import METHODS
from ranjax.report import wording
from ranjax.report.stored_results import Row, pooled

FILE = "README.md"
SIMULATED = (
    "**Simulated lesions, one real patient, no clinical claim.** All images are projections of one person's chest with "
    "lesions placed by a program, and all reports were written by a grammar."
)
NO_CLAIM = "No clinical claim is made. It has not been validated on patients, and must not inform care."
_SHOWN = ("accuracy", "macro_auroc", "recall@1")


@dataclass(frozen=True)
class Facts:
    """Everything that a card says of an encoder.

    Attributes:
      condition, ratio, recipe: of the upstream run ("clean" has ratio 0).
      config: the run's keys, flat.
      data: the prepared set's card.
      counts: records by split.
      kind: of the files, e.g. "CLIPModel".
      parameters: numbers in the encoder.
      tokenizer: its id.
      start: the checkpoint that training began from, in words; empty: random weights.
      method: that adapted the encoder; empty: the upstream encoder itself.
      adaptation: what was trained by `method`, in words.
      rows: of results.json; None where the run has not been evaluated.
    """

    condition: str
    ratio: float
    recipe: str
    config: Mapping[str, object]
    data: Mapping[str, object]
    counts: Mapping[str, int]
    kind: str
    parameters: int
    tokenizer: str
    start: str = ""
    method: str = ""
    adaptation: Sequence[str] = ()
    rows: Sequence[Row] | None = None


def write(facts: Facts) -> str:
    """Return the card as Markdown, with the front matter that model hubs read."""
    title = f"ranjax {facts.condition}" + (f", {facts.method}" if facts.method else "")
    licence = str(facts.data.get("licence") or "that of your own data")
    front = {
        "library_name": _OF_OTHERS.get(facts.kind, ("transformers",))[0],
        "license": "other",
        "license_name": json.dumps(licence, ensure_ascii=False),
        "tags": "[medical-imaging, vision-language, adversarial-robustness, research-only]",
    }
    parts = [
        "---\n" + "\n".join(f"{key}: {value}" for key, value in front.items()) + "\n---",
        f"# {title}\n\n{_notice(facts)}",
        _made(facts),
        _training(facts),
        _figures(facts),
        _use(facts),
        _licence(licence, facts),
    ]
    return "\n\n".join(parts) + "\n"


def simulated(facts: Facts) -> bool:
    """Return whether the data are the bundled radiographs."""
    return facts.config.get("data.source") == "radiographs" or "simulated" in facts.data


def _notice(facts: Facts) -> str:
    return SIMULATED if simulated(facts) else NO_CLAIM


_OBJECTIVES = {"info_nce": "InfoNCE", "sigmoid": "pairwise sigmoid loss"}


# Of layouts that are not transformers': the library, its files, and where pixels' mean and deviation are.
_OF_OTHERS = {
    "open_clip": ("open_clip", "open_clip_config.json, open_clip_model.safetensors", "open_clip_config.json"),
    "medclip": ("medclip", "model.safetensors", "that of MedCLIP's code, whose files do not hold it"),
}


def _layout(kind: str) -> str:
    if kind in _OF_OTHERS:
        library, files, _ = _OF_OTHERS[kind]
        return f"in the layout of {library} ({files})"
    return f"{kind} in the layout of `transformers` (config.json, model.safetensors)"


def _pixels(kind: str) -> str:
    return _OF_OTHERS[kind][2] if kind in _OF_OTHERS else "preprocessor_config.json"


def _made(facts: Facts) -> str:
    lines = [
        f"* Files: {_layout(facts.kind)}, {facts.parameters:,} parameters.",
        f"* Tokenizer: tokenizer.json beside the weights, id `{facts.tokenizer}`. Another one gives the text tower "
        "other words than were meant.",
        f"* Image normalisation: {_pixels(facts.kind)}.",
    ]
    return "## What it is\n\n" + "\n".join(lines)


def _training(facts: Facts) -> str:
    config, data = facts.config, facts.data
    name = data.get("title") or data.get("source") or config.get("data.source")
    counts = ", ".join(f"{split} {count}" for split, count in facts.counts.items())
    lines = [
        f"* Data: {wording.plain(name)} ({counts}).",
        f"* Start: {facts.start or 'random weights'}; seed {config.get('seed')}.",
        f"* Contrastive pre-training ({_OBJECTIVES[config.get('pretrain.objective', 'info_nce')]}): "
        f"{config.get('pretrain.steps')} steps, batches of "
        f"{config.get('pretrain.batch_size')}, learning rate {config.get('pretrain.learning_rate'):g}.",
        f"* Upstream noise: {_noise(facts)}",
    ]
    lines += [f"* {line}" for line in facts.adaptation]
    return "## How it was made\n\n" + "\n".join(lines)


def _noise(facts: Facts) -> str:
    if not facts.ratio:
        return "none; every pair is as its source has it."
    config, share = facts.config, f"{100 * facts.ratio:g} % of the pairs"
    if facts.recipe in RECIPES and RECIPES[facts.recipe].kind == "control":
        return f"{share} replaced by noisy pairs of the control `{facts.recipe}`, made without an attack."
    attack = config["noise.image_attack"]
    settings = "".join(
        f", {name.rpartition('.')[2]} {value}" for name, value in config.items() if name.startswith(f"noise.{attack}.")
    )
    return (
        f"{share} replaced by adversarial pairs, recipe `{facts.recipe}`, made against this run's clean encoder: "
        f"images within {config['noise.image_epsilon']} (Linf; {attack}{settings}), words changed in a report: at most "
        f"{config['noise.max_words']}. "
        "**This encoder was trained on poisoned pairs on purpose**, to study what that does."
    )


def _figures(facts: Facts) -> str:
    if facts.rows is None:
        return "## Figures\n\nNot evaluated when this card was written: the run had no results.json yet."
    found = _chosen(facts)
    if not found:
        return "## Figures\n\nThis run's results.json holds no row for this encoder."
    lines = ["| method | task | split | attack | metric | value [interval] | n |", "|---|---|---|---|---|---|---|"]
    for row in found:
        cells = (
            row["method"],
            row["task"],
            row["split"],
            row["attack"],
            row["metric"],
            wording.estimate(row),
            row["n"],
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    held = "From the run's results.json; 95 % bootstrap intervals where given. Accuracies and recalls in per cent; "
    held += "n counts test images, or patients where several are of one."
    return "## Figures\n\n" + held + "\n\n" + "\n".join(lines)


def _chosen(facts: Facts) -> list[Row]:
    """Return headline rows of this condition, no curves or groups: of its method, or of all methods that leave the encoder alone."""
    of_condition = [
        row
        for row in pooled(facts.rows or ())
        if abs(row["ratio"] - facts.ratio) < 1e-9
        and (not facts.ratio or row["condition"] in (facts.recipe, facts.condition))
    ]
    of_condition = [row for row in of_condition if "@" not in row["attack"] and row["metric"].lower() in _SHOWN]
    if facts.method:
        return [row for row in of_condition if row["method"] == facts.method]
    # Methods that change the encoder have files of their own, by `ranjax export`.
    return [row for row in of_condition if row["task"] in ("finding", "retrieval") and row["method"] not in _TOWER]


_TOWER = [name for name, method in METHODS.items() if method.family == "tower"]


def _use(facts: Facts) -> str:
    lines = [
        "* Intended: research on how adversarial noise in upstream data changes what encoders learn, and how to repair "
        "them.",
        "* Not intended: diagnosis, triage, report writing, or any other use on patients.",
        f"* {wording.RECONSTRUCTION}",
    ]
    if facts.data.get("limits"):
        lines.append(f"* Limits of the data: {wording.plain(facts.data['limits'])}")
    if facts.method:
        lines.append("* Robustness figures hold for the attacks named above and no others.")
    return "## Intended use and limits\n\n" + "\n".join(lines)


def _licence(licence: str, facts: Facts) -> str:
    lines = [f"* Training data: {licence}."]
    if facts.data.get("citation"):
        lines.append(f"* Cite: {wording.plain(facts.data['citation'])}")
    if facts.start:
        lines.append(f"* The starting weights keep their own licence: {facts.start}.")
    return "## Licence of the sources\n\n" + "\n".join(lines)
