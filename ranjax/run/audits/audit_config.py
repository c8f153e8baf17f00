"""The protocol of an audit as the config of a run: which repairs, attacks, radii and numbers of images."""

from __future__ import annotations

import dataclasses

from ml_collections import ConfigDict

from ranjax.attacks.attack_table import ATTACKS
from ranjax.run import config as configs
from ranjax.run.audits.audited_checkpoint import AuditedCheckpoint

VERSION = "1"
"""Of the protocol: figures of two audits compare where it is the same. Raise it with any change of what is measured."""
REPAIRS = ("lp", "ridge", "mlp", "nmtune", "robust_ridge", "lp_filter", "ran")
"""Heads that are fitted on equal terms; the first is what others are held against."""
BASELINE = "lp"
CONTROLS = ("pixels", "random_init")
"""Encoders without pre-training that every head is fitted on, too."""
PAIR_ATTACKS = ("image_only", "text_only", "coattack")
"""Attacks on retrieval, where images have reports of their own."""
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


FULL = Form("full", 0, 256, 128, 256, 24, 20, 1000, 32, 1000, (512, 192), 7, (30.0, 100.0, 300.0, 1000.0, 3000.0), 3)
QUICK = Form("quick", 200, 32, 24, 48, 16, 10, 100, 16, 500, (64, 32), 1, (100.0, 1000.0), 1)
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
    adapt.task, adapt.methods, adapt.seeds = task, REPAIRS, form.seeds
    for name in (name for name in ("robust_ridge", "ran") if name in REPAIRS):
        adapt[name].penalties, adapt[name].displaced, adapt[name].examples = form.grid, *form.defence
        adapt[name].rounds = 3 if form is FULL else 1
        adapt[name].mus = adapt[name].mus if form is FULL else (1.0,)
    if "ran" in REPAIRS:
        adapt.ran.copies = form.copies
    adapt.controls = CONTROLS
    # What is judged, and how.
    evaluate = config.evaluate
    evaluate.attacks, evaluate.epsilon, evaluate.radii = suite(multi_label), MAIN, RADII
    evaluate.attacked_examples, evaluate.masking_examples = form.attacked, form.masking
    evaluate.masking_methods = (BASELINE,)
    evaluate.masking_queries, evaluate.corruption_examples = form.queries, form.corrupted
    evaluate.batch_size, evaluate.bootstrap = form.batch, form.bootstrap
    evaluate.projected = 0
    if checkpoint.texts and reports:
        evaluate.pair_attacks, evaluate.pairs = PAIR_ATTACKS, form.pairs
    configs.add_settings(config)
    for name in (*evaluate.attacks, "pgd"):
        settings = evaluate.get(name, {})
        if "steps" in settings:
            settings.steps = form.steps
        if "queries" in settings:
            settings.queries = form.queries
    configs.validate(config)
    return config
