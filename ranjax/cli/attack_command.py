"""Attack a folder of images and a CSV of reports with a given checkpoint: adversarial images, texts and a summary.

    ranjax attack --checkpoint=clip/ --images=films/ --reports=reports.csv --out=attacked/
    ranjax attack --checkpoint=runs/ran --images=films/ --reports=reports.csv --out=attacked/ --recipe=sga

The checkpoint is a folder as `transformers` saves it, with its tokenizer, or the workdir of a run (its clean encoder).
The CSV has a column with the image's path below --images, and one with a report of it; an image may stand on several
lines, with another report each. Images are read as grey, or in colour (--image_mode=rgb), and resized to what the
checkpoint takes; the attack, and what is written, is at that size. Words are replaced by other words of the reports,
or of a list (--words_from); --candidates and --masked_lm narrow them down.

Attacked reports stay true (regime "keep": findings, sides, numbers and negations are protected) unless
--meaning=contradict makes them false by exchanged keywords. Without --labels the bundled words of findings are
protected, with a warning.

The attack is that of the craft stage: each option below with a key is that key of `noise`, and any of its keys may be
given as --noise.KEY=VALUE, e.g. --noise.pgd.steps=20 or --noise.image_attack=my_lab.rfgsm:RFGSM. Written to --out:

    images/...png   16 bits a channel: steps of 1/65535, so that the perturbation survives (8 bits would round it away)
    pairs.csv       each pair: report, attacked report, loss (minus the cosine) before and after, norm, words changed
    summary.json    the settings, the SHA-256 of the weights, means, and recall@1 both ways before and after
    store/          the finished pairs with all of their provenance; a run that is cut off goes on from these

Exit codes: 0 done; 2 the input was refused (one line says why); 75 stopped on request, finished pairs are saved.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ranjax.attacks.attack_table import ATTACKS
from ranjax.cli import outcome
from ranjax.core import files
from ranjax.core.errors import ConfigError
from ranjax.core.settings import keys_of
from ranjax.data.images import RESIZE_MODES
from ranjax.data.recipe_table import RECIPES, is_attack_alone
from ranjax.run import config as configs
from ranjax.run.schema import RunConfig, general_keys
from ranjax.run.schema.noise_keys import Noise, ball

if TYPE_CHECKING:
    from ranjax.data.store import NoisyStore
    from ranjax.run.stages.attack_files import Pair
else:  # the command's help must not wait for JAX
    NoisyStore = Pair = object

OVERRIDES = ("--noise.",)
OF_RUNS = (
    *("noise.ratios", "noise.controls", "noise.control_ratios"),
    *("noise.masked_lm_steps", "noise.plausible_pairs"),
)
"""Keys of `noise` that are refused here: every pair is attacked, and no model is trained."""
GENERAL = ("seed", "cpu_devices", "compile_cache")
SHORT = {"noise.max_words": "--words", "noise.image_epsilon": "--epsilon"}
DEFAULTS: Mapping[str, object] = {
    "noise.batch_size": 16,
    "noise.shard_size": 64,
    "noise.masked_lm": "",
    "noise.candidates": "vocabulary",
    "cpu_devices": 0,
}
"""Where a few files differ from a run: a shard is the most that a cut loses, and each core works on pairs of its own.

"""


def add_arguments(p: argparse.ArgumentParser) -> None:
    for name, metavar, meaning in (
        ("--checkpoint", "FOLDER", "a model folder, or a run's workdir"),
        ("--images", "FOLDER", "folder of the images"),
        ("--reports", "CSV", "table of images and their reports"),
        ("--out", "FOLDER", "where the results go; made where absent"),
    ):
        p.add_argument(name, required=True, type=Path, metavar=metavar, help=meaning)
    p.add_argument("--image_column", default="image", metavar="NAME", help="column of the paths (default: image)")
    p.add_argument("--report_column", default="report", metavar="NAME", help="column of the reports (default: report)")
    p.add_argument("--image_mode", default="grey", choices=("grey", "rgb"), help="how images are read (default: grey)")
    p.add_argument("--resize", default="pad", choices=RESIZE_MODES, help="how images become square (default: pad)")
    p.add_argument(
        "--deidentify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="marks in place of names, dates and numbers in reports (default; images keep their file names)",
    )
    labels = "finding words, with commas, that must stay as they are"
    p.add_argument("--labels", default=(), type=_labels, metavar="WORDS", help=labels)
    p.add_argument("--words_from", default=None, type=Path, metavar="FILE", help="more words to replace by, one a line")
    p.add_argument("--norm", default="linf", choices=("linf", "l2"), help="norm of the ball (default: linf)")
    p.add_argument("--step", metavar="LENGTH", help="length of a step of the attack (default: a quarter of epsilon)")
    p.add_argument("--steps", metavar="N", help="steps of the attack (default: its own)")
    for key in (*keys_of("noise", Noise), *general_keys.KEYS):
        option = key.name.removeprefix("noise.")
        if key.name in OF_RUNS or (key.name == option and option not in GENERAL):
            continue
        default = DEFAULTS.get(key.name, key.default)
        meaning = f"{key.meaning.rstrip('.')} (default: {default})".replace("%", "%%")
        unit = (key.unit or "value").upper().replace(" ", "_")
        names = [name for name in (f"--{option}", SHORT.get(key.name)) if name]
        several = {"action": "append"} if option == "lists" else {}
        p.add_argument(*names, dest=key.name, metavar=unit, help=meaning, **several)  # type: ignore[arg-type]


def _labels(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word.strip())


def config_of(arguments: argparse.Namespace) -> RunConfig:
    """Return the config that the options stand for.

    Raises:
      ConfigError: an option that is refused; it is named as its key.
    """
    config = configs.default_config()
    configs.override_all(config, [(name, str(value)) for name, value in DEFAULTS.items()])
    given = {name: value for name, value in vars(arguments).items() if value is not None and name in configs.BY_NAME}
    for option, value in arguments.overrides:
        if option.removeprefix("--") in OF_RUNS:
            raise ConfigError(option, value, "a key that says how a pair is attacked")
        given[option.removeprefix("--")] = value
    if arguments.norm == "l2":
        given.setdefault("noise.l2_epsilon", given.pop("noise.image_epsilon", config.noise.image_epsilon))
    lists = given.pop("noise.lists", config.noise.lists)
    with config.unlocked():
        config.noise.lists = tuple(lists.split(",")) if isinstance(lists, str) else tuple(lists)
    if given.get("noise.masked_lm"):
        # To name a model is to ask for its words.
        others = [name for name in given.get("noise.candidates", "").split(",") if name]
        given["noise.candidates"] = ",".join(dict.fromkeys([*others, "masked_lm"]))
    configs.override_all(config, list(given.items()))
    attack = ATTACKS.resolve(config.noise.image_attack).name
    for name in ("step", "steps"):
        key, text = f"noise.{attack}.{name}", getattr(arguments, name)
        if text is not None and key in given:
            raise ConfigError(f"--{name}", text, f"only one of --{name} and --{key}")
        if text is None and key == "noise.pgd.step" and key not in given:
            text = str(max(ball(config)[1] / 4, 1e-9))
        if text is not None:
            configs.override(config, key, text)
    configs.validate(config)
    return configs.typed(config)


def run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    from ranjax.training import compile_cache, cpu, signals

    cpu.keep_freed_memory()
    cpu.split_devices(config.cpu_devices)
    if config.compile_cache != "off":
        compile_cache.enable(config.compile_cache or None)
    with signals.StopFlag() as stop:
        return _run(arguments, config, stop)


def _run(arguments: argparse.Namespace, config: RunConfig, stop: Callable[[], bool]) -> int:
    from ranjax.data.images.reading import encode_png16
    from ranjax.run.context import Stopped
    from ranjax.run.stages import attack_files

    # Everything that can be refused is refused before weights are read or anything compiles.
    if expected := is_attack_alone(RECIPES.resolve(config.noise.recipe)):
        raise ConfigError("noise.recipe", config.noise.recipe, expected)
    names = [field.name for field in dataclasses.fields(attack_files.Given)]
    given = attack_files.Given(**{name: getattr(arguments, name) for name in names})
    attack_files.check_words(config, given)
    columns = arguments.image_column, arguments.report_column
    pairs = attack_files.read_pairs(arguments.images, arguments.reports, *columns, arguments.deidentify)
    places = attack_files.targets(arguments.images, arguments.out, pairs)
    surrogate = attack_files.load(arguments.checkpoint, colour=arguments.image_mode == "rgb")
    count = sum(len(pair.reports) for pair in pairs)
    size = surrogate.functions.config.image_size
    print(f"{len(pairs)} images, {count} reports; checkpoint {arguments.checkpoint}, {size} pixels", flush=True)
    for note in (attack_files.regime(config, given), *attack_files.notes(pairs, surrogate)):
        print(f"note: {note}", flush=True)

    def check_stop(where: str) -> None:
        if stop():
            raise Stopped(where)

    try:
        store = attack_files.attack(config, given, pairs, surrogate, check_stop)
    except Stopped:
        print(f"stopped; finished pairs are in {arguments.out / 'store'}. The same command goes on from here.")
        return outcome.STOPPED
    for name, path in places.items():
        files.write_bytes(path, encode_png16(store[name]["pixels"]))
    _write(arguments.out, pairs, store, attack_files.recalls(pairs, store, surrogate, config.noise.batch_size))
    return outcome.DONE


def _write(out: Path, pairs: Sequence[Pair], store: NoisyStore, recalls: dict[str, Any]) -> None:
    provenance = {pair.id: store.provenance(pair.id) for pair in pairs}
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    fields = ("loss_before", "loss_after", "norm", "words_changed", "queries", "success")
    writer.writerow(("image", "report", "attacked_report", *fields))
    for pair in pairs:
        found = provenance[pair.id]
        parts = (found[name] for name in ("reports", "losses_before", "losses_after", "words"))
        for report, attacked, before, after, changed in zip(pair.reports, *parts, strict=True):
            whole = found["norm"], changed, found["queries"], after > before
            writer.writerow((pair.id, report, attacked, before, after, *whole))
    files.write_text(out / "pairs.csv", table.getvalue())
    means = {name: float(np.mean([provenance[pair.id][name] for pair in pairs])) for name in fields}
    said = [one for pair in pairs for one in provenance[pair.id]["labels_changed"]]
    means["labels_changed"] = float(np.mean(said))
    counts = {"images": len(pairs), "reports": sum(len(pair.reports) for pair in pairs)}
    files.write_json(out / "summary.json", {**store.shared, **counts, "mean": means, "recall@1": recalls})
    # The same in words.
    print(f"cosine of a pair      {-means['loss_before']:.3f} -> {-means['loss_after']:.3f}  (mean)")
    print(f"raised the loss of    {100 * means['success']:.1f} % of the images")
    print(f"norm, words changed   {means['norm']:.5f}, {means['words_changed']:.2f}  (means)")
    print(f"labels changed        {100 * means['labels_changed']:.1f} % of the reports, by the rule labeller")
    for way, found in recalls.items():
        wrong = found["turned_wrong"]
        share = "none was right before" if wrong is None else f"{100 * wrong:.1f} % of the right ones turned wrong"
        print(f"R@1 {way.replace('_', ' ')}     {100 * found['before']:.1f} -> {100 * found['after']:.1f} %  ({share})")
    print(f"written: {out / 'images'}, pairs.csv, summary.json")
