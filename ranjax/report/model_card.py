"""The model card (README.md) of an encoder that leaves a run: its making, its figures, its intended use and limits.

Everything in it is read from the run: its resolved config, its data card and, once evaluated, the rows of results.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ranjax.data.recipe_table import RECIPES
from ranjax.report import entry_labels as labels
from ranjax.report import wording
from ranjax.report.stored_results import Row, pooled

FILE = "README.md"
SIMULATED = (
    "**Simulated lesions, one real patient, no clinical claim.** All images are projections of one person's chest with "
    "lesions placed by a program, and all reports were written by a grammar."
)
NO_CLAIM = "No clinical claim is made. It has not been validated on patients, and must not inform care."
_OBJECTIVES = {"info_nce": "InfoNCE", "sigmoid": "pairwise sigmoid loss"}
_LAYOUTS = {
    "open_clip": ("open_clip", "open_clip_config.json, open_clip_model.safetensors", "open_clip_config.json"),
    "medclip": ("medclip", "model.safetensors", "that of MedCLIP's code, whose files do not hold it"),
    "ranjax": ("ranjax", "config.json, model.safetensors", "config.json"),
}
"""Of layouts that are not transformers': the library, its files, and where mean and deviation of pixels are."""
_SHOWN = ("accuracy", "macro_auroc", "recall@1")


@dataclass(frozen=True)
class Facts:
    """The facts that a card states of an encoder.

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
    licence = str(facts.data.get("licence") or "that of your own data")
    library, files, pixels = _LAYOUTS.get(facts.kind, ("transformers", "", "preprocessor_config.json"))
    layout = f"{facts.kind} in the layout of `transformers` (config.json, model.safetensors)"
    if files:
        layout = f"in the layout of {library} ({files})"
    sections = {
        "What it is": [
            f"Files: {layout}, {facts.parameters:,} parameters.",
            f"Tokenizer: tokenizer.json beside the weights, id `{facts.tokenizer}`. Another one gives the text tower "
            "other words than were meant.",
            f"Image normalisation: {pixels}.",
        ],
        "How it was made": _training(facts),
        "Figures": _figures(facts),
        "Intended use and limits": [
            "Intended: research on how adversarial noise in upstream data changes what encoders learn, and how "
            "to repair "
            "them.",
            "Not intended: diagnosis, triage, report writing, or any other use on patients.",
            wording.RECONSTRUCTION,
            f"Limits of the data: {wording.plain(facts.data['limits'])}" if facts.data.get("limits") else "",
            "Robustness figures hold for the attacks named above and no others." if facts.method else "",
        ],
        "Licence of the sources": [
            f"Training data: {licence}.",
            f"Cite: {wording.plain(facts.data['citation'])}" if facts.data.get("citation") else "",
            f"The starting weights keep their own licence: {facts.start}." if facts.start else "",
        ],
    }
    parts = [
        f"---\nlibrary_name: {library}\nlicense: other\nlicense_name: {json.dumps(licence, ensure_ascii=False)}\n"
        "tags: [medical-imaging, vision-language, adversarial-robustness, research-only]\n---",
        f"# ranjax {facts.condition}" + (f", {facts.method}" if facts.method else ""),
        SIMULATED if _is_simulated(facts) else NO_CLAIM,
    ]
    for title, content in sections.items():
        text = content if isinstance(content, str) else "\n".join(f"* {line}" for line in content if line)
        parts.append(f"## {title}\n\n{text}")
    return "\n\n".join(parts) + "\n"


def _is_simulated(facts: Facts) -> bool:
    """Return whether the data are the bundled radiographs."""
    return facts.config.get("data.source") == "radiographs" or "simulated" in facts.data


def _training(facts: Facts) -> list[str]:
    config, data = facts.config, facts.data
    name = data.get("title") or data.get("source") or config.get("data.source")
    counts = ", ".join(f"{split} {count}" for split, count in facts.counts.items())
    if config.get("pretrain.skip"):
        return [
            f"Start: {facts.start}; it was trained no further here.",
            f"Audited on, and adapted to: {wording.plain(name)} ({counts}); seed {config.get('seed')}.",
            *facts.adaptation,
        ]
    return [
        f"Data: {wording.plain(name)} ({counts}).",
        f"Start: {facts.start or 'random weights'}; seed {config.get('seed')}.",
        f"Contrastive pre-training ({_OBJECTIVES[str(config.get('pretrain.objective', 'info_nce'))]}): "
        f"{config.get('pretrain.steps')} steps, batches of "
        f"{config.get('pretrain.batch_size')}, learning rate {config.get('pretrain.learning_rate'):g}.",
        f"Upstream noise: {_noise(facts)}",
        *facts.adaptation,
    ]


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
        return "Not evaluated when this card was written: the run had no results.json yet."
    found = _chosen(facts)
    if not found:
        return "This run's results.json holds no row for this encoder."
    lines = ["| method | task | split | attack | metric | value [interval] | n |", "|---|---|---|---|---|---|---|"]
    for row in found:
        where = (row["method"], row["task"], row["split"], row["attack"], row["metric"])
        lines.append(f"| {' | '.join(where)} | {wording.estimate(row)} | {row['n']} |")
    source = "From the run's results.json; 95 % bootstrap intervals where given. Accuracies and recalls in per cent; "
    source += "n counts test images, or patients where several are of one."
    return source + "\n\n" + "\n".join(lines)


def _chosen(facts: Facts) -> list[Row]:
    """Return headline rows of this condition, no curves or groups: of its method, or of those that keep the encoder."""
    names = (facts.recipe, facts.condition)
    found = [row for row in pooled(facts.rows or ()) if not facts.ratio or row["condition"] in names]
    found = [row for row in found if abs(row["ratio"] - facts.ratio) < 1e-9 and row["metric"].lower() in _SHOWN]
    found = [row for row in found if "@" not in row["attack"]]
    if facts.method:
        return [row for row in found if row["method"] == facts.method]
    # Methods that change the encoder have files of their own, by `ranjax export`.
    found = [row for row in found if row["task"] in ("finding", "retrieval")]
    return [row for row in found if labels.method(row["method"]).family != "tower"]
