"""The protocol of an audit as the config of a run: which repairs, attacks, radii and numbers of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from ranjax.attacks.attack_table import ATTACKS
from ranjax.core.errors import ConfigError, nearest
from ranjax.methods.table import METHODS
from ranjax.run import config as configs
from ranjax.run.audits.audited_checkpoint import AuditedCheckpoint

VERSION = "2"
"""Of the protocol: figures of two audits compare where it is the same. Raise it with any change of what is measured."""
REPAIRS = ("lp", "ridge", "mlp", "nmtune", "robust_ridge", "lp_filter", "ran")
"""Heads that are fitted on equal terms; the first is what others are held against."""
TUNED = ("at_lora", "tecoa", "fare")
"""Repairs that train in the image tower: by adapters with a head, and by the classes' prompts."""
BASELINE = "lp"
CONTROLS = ("pixels", "random_init")
"""Encoders without pre-training that every head is fitted on, too."""
PAIR_ATTACKS = ("image_only", "text_only", "coattack")
"""Attacks on retrieval, where images have reports of their own."""
TEXT_ATTACKS = ("gradient", "importance", "typos", "masked_lm")
"""Searches that change words of reports; the quick form trains no masked language model for the last."""
SUITE = ("apgd_ce", "apgd_t", "apgd_dlr", "fab_t", "square", "pgd")
"""Attacks of the suite, those of them that the table of attacks has; PGD where no other is for several labels."""
RADII = ("0.25/255", "0.5/255", "1/255", "2/255", "8/255")
MAIN = "4/255"
"""The radius at which adversarial images are kept and masking is checked."""


@dataclasses.dataclass(frozen=True)
class Form:
    """How much an audit measures.

    Attributes:
      name: part of the protocol.
      limit: images of each split at most; 0: all.
      attacked, pairs, corrupted, masking: test images of each part.
      steps: of gradient attacks.
      queries: of the random search, and of Square.
      batch: images at a time.
      bootstrap: resamples.
      defence: images that robust repairs attack in training, and to choose by.
      copies: of each labelled image in RAN.
      grid: penalties that robust repairs try.
      seeds: heads of each repair.
      tuned: whether repairs that train in the image tower are tried, too, and for how many epochs at most.
      tuned_epochs: the same of those that are asked for by name.
      defences: at test time, names of `DEFENCES`, each in front of the baseline's head and attacked through.
    """

    name: str
    limit: int
    attacked: int
    pairs: int
    corrupted: int
    masking: int
    steps: int
    queries: int
    batch: int
    bootstrap: int
    defence: tuple[int, int]
    copies: int
    grid: tuple[float, ...]
    seeds: int
    tuned: bool
    tuned_epochs: int
    defences: tuple[str, ...] = ()


DEFENCES = ("random_resize", "ttc", "scc", "r_tpt", "ttp", "dbd")
"""Defences at test time of the full form; the quick one has those that are asked for by name."""
GRID = (30.0, 100.0, 300.0, 1000.0, 3000.0)
FULL = Form("full", 0, 256, 128, 256, 24, 20, 1000, 32, 1000, (512, 192), 7, GRID, 3, True, 20, DEFENCES)
QUICK = Form("quick", 200, 32, 24, 48, 16, 10, 100, 16, 500, (64, 32), 1, (100.0, 1000.0), 1, False, 4)
"""At most 500 images in all: 200 labelled ones, 100 for validation and 200 to judge by."""
FORMS = {form.name: form for form in (FULL, QUICK)}


def suite(multi_label: bool) -> tuple[str, ...]:
    """Return the attacks of the suite that are in the table and take such labels."""
    found = [name for name in SUITE if name in ATTACKS]
    if multi_label:
        return tuple(name for name in found if "single_label" not in ATTACKS[name].needs)
    # DLR's targeted form takes the place of the untargeted one, and all of them that of PGD.
    found = [name for name in found if not (name == "apgd_dlr" and "apgd_t" in found)]
    return tuple(name for name in found if name != "pgd")


def repairs(form: Form, checkpoint: AuditedCheckpoint, task: str, asked: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the repairs that are tried: those asked for, with the baseline first, or those of the form.

    Raises:
      ConfigError: a name that is no repair, or one that this checkpoint or task does not allow.
    """
    if not asked:
        return REPAIRS + tuple(name for name in TUNED if form.tuned and not _forbidden(name, checkpoint, task))
    for name in asked:
        if name not in REPAIRS + TUNED:
            names = REPAIRS + TUNED
            raise ConfigError("--repair", name, f"one of {', '.join(names)}", nearest(name, names))
        if why := _forbidden(name, checkpoint, task):
            raise ConfigError("--repair", name, why)
    return tuple(dict.fromkeys((BASELINE, *asked)))


def _forbidden(name: str, checkpoint: AuditedCheckpoint, task: str) -> str:
    """Return what a repair would need that is not there; "": nothing."""
    settings = METHODS[name].settings
    if getattr(settings, "scope", "") == "lora" and not checkpoint.blocks:
        return "a repair without adapters: the image tower has no blocks that take them"
    if getattr(settings, "head", "") == "prompts" and not checkpoint.texts:
        return "a repair without prompts: the checkpoint has no text tower"
    if "single_label" in METHODS[name].needs and task == "multi":
        return "a repair for images of several labels: prompts compete for one"
    return ""


def protocol(form: Form, multi_label: bool) -> str:
    """Return the protocol's name, e.g. "1 full, apgd_ce apgd_dlr": the version, the form and the attacks."""
    return f"{VERSION} {form.name}, {' '.join(suite(multi_label))}"


def audit_config(
    checkpoint: AuditedCheckpoint,
    data: str,
    splits: tuple[str, ...],
    image_size: int,
    *,
    task: str,
    reports: bool,
    modalities: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    form: Form = FULL,
    seed: int = 0,
) -> ConfigDict:
    """Return the config of the run that an audit is.

    Args:
      checkpoint: which encoder.
      data: folder of the prepared set.
      splits: which of its splits serve as which, see `audit_data.splits_of`.
      image_size: of the prepared images.
      task: "single" or "multi".
      reports: whether images have reports of their own, which retrieval is attacked by.
      modalities: what made the images, which decides how they are corrupted; (): any.
      methods: `repairs` that are asked for; (): those of the form.
      form: how much is measured.
      seed: of everything that is drawn.

    Raises:
      ConfigError: as `configs.validate`.
    """
    config = configs.default_config()
    multi_label = task == "multi"
    config.seed, config.cpu_devices, config.report.examples = seed, 1, 0
    # The data and the encoder, as they are.
    config.data.source, config.data.image_size = "prepared", image_size
    prepared = config.data.prepared
    prepared.dir, prepared.splits, prepared.limit = data, splits, form.limit
    config.text.max_length = checkpoint.max_length
    config.pretrain.skip, config.noise.ratios = True, (0.0,)
    if checkpoint.texts:
        config.model.weights = str(checkpoint.path)
    else:
        config.model.image_weights, config.evaluate.texts = str(checkpoint.path), False
        tower = config.model.text_transformer
        tower.width, tower.layers, tower.heads = 16, 1, 2
    # Repairs.
    adapt = config.adapt
    adapt.task, adapt.methods, adapt.seeds = task, repairs(form, checkpoint, task, methods), form.seeds
    adapt.tower.epochs = form.tuned_epochs
    for name in (name for name in ("robust_ridge", "ran") if name in adapt.methods):
        adapt[name].penalties, adapt[name].displaced, adapt[name].examples = form.grid, *form.defence
        adapt[name].rounds = 3 if form is FULL else 1
        adapt[name].mus = adapt[name].mus if form is FULL else (1.0,)
    if "ran" in adapt.methods:
        adapt.ran.copies = form.copies
    adapt.controls = CONTROLS
    # What is judged, and how.
    evaluate = config.evaluate
    evaluate.attacks, evaluate.epsilon, evaluate.radii = suite(multi_label), MAIN, RADII
    evaluate.attacked_examples, evaluate.masking_examples = form.attacked, form.masking
    evaluate.masking_methods = (BASELINE,)
    evaluate.masking_queries, evaluate.corruption_examples = form.queries, form.corrupted
    evaluate.modalities = modalities or ("",)
    evaluate.batch_size, evaluate.bootstrap = form.batch, form.bootstrap
    evaluate.projected = 0
    if checkpoint.texts and reports:
        evaluate.pair_attacks, evaluate.pairs = PAIR_ATTACKS, form.pairs
        evaluate.text_attacks = TEXT_ATTACKS if form.tuned else TEXT_ATTACKS[:-1]
    configs.add_settings(config)
    for name in (*evaluate.attacks, "pgd"):
        settings = evaluate.get(name, {})
        if "steps" in settings:
            settings.steps = form.steps
        if "queries" in settings:
            settings.queries = form.queries
    configs.validate(config)
    return config
