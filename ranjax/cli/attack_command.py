"""Attacks a folder of images and a CSV of reports with a given checkpoint: adversarial images, texts and a summary.

    ranjax attack --checkpoint=clip/ --images=films/ --reports=reports.csv --out=attacked/
    ranjax attack --checkpoint=runs/ran --images=films/ --reports=reports.csv --out=attacked/ --recipe=sga

The checkpoint is a folder as `transformers` saves it, with its tokenizer, or the workdir of a run (its clean encoder).
The CSV has a column with the image's path below --images, and one with a report of it; an image may stand on several
lines, with another report each. Images are read as grey, or in colour (--image_mode=rgb), and resized to what the
checkpoint takes; the attack, and what is written, is at that size. Words are replaced by other words of the reports,
or of a list (--words_from); --candidates and --masked_lm narrow them down. Written to --out:

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ranjax.cli import outcome
from ranjax.core import files
from ranjax.core.errors import ConfigError, nearest

# The least that these numbers may be.
LEAST = {"steps": 0, "restarts": 1, "words": 0, "top_k": 1, "beam": 1, "max_queries": 0, "neighbours": 1,
         "masked_lm_k": 1, "batch_size": 1}  # fmt: skip


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--checkpoint", required=True, type=Path, metavar="FOLDER", help="a model folder, or a run's workdir"
    )
    p.add_argument("--images", required=True, type=Path, metavar="FOLDER", help="folder of the images")
    p.add_argument("--reports", required=True, type=Path, metavar="CSV", help="table of images and their reports")
    p.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the results go; made where absent")
    p.add_argument("--image_column", default="image", metavar="NAME", help="column of the paths (default: image)")
    p.add_argument("--report_column", default="report", metavar="NAME", help="column of the reports (default: report)")
    p.add_argument(
        "--recipe",
        default="coattack",
        metavar="NAME",
        help="coattack (default), sga, sep, sequential, image_only, text_only",
    )
    p.add_argument("--epsilon", default="8/255", metavar="LENGTH", help="radius, pixels from 0 to 1 (default: 8/255)")
    p.add_argument("--step", default="", metavar="LENGTH", help="length of a step (default: a quarter of epsilon)")
    p.add_argument("--steps", default=10, type=int, metavar="N", help="steps of PGD (default: 10)")
    p.add_argument("--restarts", default=1, type=int, metavar="N", help="random starts, the worst is kept (default: 1)")
    p.add_argument("--norm", default="linf", choices=("linf", "l2"), help="norm of the ball (default: linf)")
    p.add_argument(
        "--gradient_dtype",
        default="float32",
        choices=("float32", "bfloat16"),
        help="what PGD's gradients are computed in (default: float32); losses are float32 either way",
    )
    p.add_argument("--words", default=3, type=int, metavar="N", help="most words changed in a report (default: 3)")
    p.add_argument("--top_k", default=8, type=int, metavar="N", help="words scored a round (default: 8)")
    p.add_argument(
        "--share", default=1.0, type=float, metavar="SHARE", help="most words changed, as a share of a report's words"
    )
    p.add_argument("--beam", default=1, type=int, metavar="N", help="texts kept from round to round (default: 1)")
    p.add_argument(
        "--max_queries", default=0, type=int, metavar="N", help="most texts scored for a report (default: no bound)"
    )
    p.add_argument(
        "--text_search",
        default="gradient",
        choices=("gradient", "importance"),
        help="words by their first-order gain (default), or in the order of importance, as BERT-Attack; that needs "
        "--masked_lm or --candidates",
    )
    p.add_argument(
        "--similarity", default=-1.0, type=float, metavar="COSINE", help="least cosine to the original report"
    )
    p.add_argument(
        "--labels", default="", metavar="WORDS", help="finding words, with commas, that must stay as they are"
    )
    p.add_argument(
        "--lists",
        action="append",
        metavar="KIND=FILE",
        help="a file in place of a bundled list of protected words, e.g. negation=mine.txt, or laterality=off: these "
        "words are not protected; may be given several times",
    )
    p.add_argument("--words_from", default=None, type=Path, metavar="FILE", help="more words to replace by, one a line")
    p.add_argument(
        "--candidates",
        default="",
        metavar="NAMES",
        help="neighbours, thesaurus, or both with a comma: what may replace a word (default: every word)",
    )
    p.add_argument(
        "--thesaurus",
        default="radiology_synonyms",
        metavar="FILE",
        help="groups of synonyms, a bundled list or a file (default: radiology_synonyms)",
    )
    p.add_argument(
        "--neighbours", default=50, type=int, metavar="N", help="nearest words in the token embedding (default: 50)"
    )
    p.add_argument(
        "--neighbour_cosine", default=0.0, type=float, metavar="COSINE", help="least cosine of a neighbour (default: 0)"
    )
    p.add_argument(
        "--masked_lm", default=None, type=Path, metavar="FOLDER", help="a BERT with its head, which proposes words"
    )
    p.add_argument(
        "--masked_lm_k", default=10, type=int, metavar="N", help="words that it proposes for a word (default: 10)"
    )
    p.add_argument("--image_mode", default="grey", choices=("grey", "rgb"), help="how images are read (default: grey)")
    p.add_argument(
        "--deidentify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="marks in place of names, dates and numbers in reports (default; images keep their file names)",
    )
    p.add_argument("--resize", default="pad", metavar="HOW", help="pad (default), crop or stretch to the square")
    p.add_argument(
        "--batch_size", default=16, type=int, metavar="N", help="pairs at a time on each device (default: 16)"
    )
    p.add_argument(
        "--cpu_devices",
        default=0,
        type=int,
        metavar="N",
        help="parts that a CPU is split into, each with its own pairs (default: one a core, at most 4)",
    )
    p.add_argument(
        "--compile_cache",
        default="",
        metavar="FOLDER",
        help="where compiled programs are kept (default: the user's cache folder); off: nowhere",
    )
    p.add_argument("--seed", default=0, type=int, metavar="N", help="of the random starts (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    from ranjax.training import compile_cache, cpu, signals

    cpu.keep_freed_memory()
    cpu.split_devices(arguments.cpu_devices)
    if arguments.compile_cache != "off":
        compile_cache.enable(arguments.compile_cache or None)
    with signals.StopFlag() as stop:
        return _run(arguments, stop)


def _run(arguments: argparse.Namespace, stop: Any) -> int:
    from ranjax.attacks.pairs import RECIPES
    from ranjax.attacks.pgd import PGD
    from ranjax.attacks.text.substitution import Substitution
    from ranjax.data.images.reading import RESIZE_MODES
    from ranjax.run.stages import attack_file_pairs as attack_pairs
    from ranjax.run.stages import attack_file_words as attack_words
    from ranjax.run.stages import attack_files as attack

    # Everything that can be refused is refused before weights are read or anything compiles.
    if arguments.recipe not in RECIPES:
        raise ConfigError("--recipe", arguments.recipe, f"one of {sorted(RECIPES)}", nearest(arguments.recipe, RECIPES))
    if arguments.cpu_devices < 0:
        raise ConfigError("--cpu_devices", arguments.cpu_devices, "0 (one a core, at most 4), or a number of parts")
    if not 0 <= arguments.seed < 2**32:
        raise ConfigError("--seed", arguments.seed, "0 to 2**32 - 1")
    for name, least in LEAST.items():
        if getattr(arguments, name) < least:
            raise ConfigError(f"--{name}", getattr(arguments, name), f"at least {least}")
    for name in ("similarity", "neighbour_cosine"):
        if not -1 <= getattr(arguments, name) <= 1:
            raise ConfigError(f"--{name}", getattr(arguments, name), "a cosine, -1 to 1")
    if arguments.resize not in RESIZE_MODES:
        raise ConfigError("--resize", arguments.resize, f"one of {', '.join(RESIZE_MODES)}")
    if arguments.masked_lm is not None and not arguments.masked_lm.is_dir():
        raise ConfigError("--masked_lm", str(arguments.masked_lm), "a folder with a BERT and its head")
    if arguments.text_search == "importance" and not (arguments.masked_lm or arguments.candidates):
        raise ConfigError("--text_search", "importance", "gradient, unless --masked_lm or --candidates name candidates")
    attack_words.check_files(arguments)
    image_settings = PGD(arguments.epsilon, 1.0, arguments.steps, norm=arguments.norm, restarts=arguments.restarts)
    step = arguments.step or max(image_settings.epsilon / 4, 1e-9)
    image_settings = dataclasses.replace(image_settings, step_size=step)
    text_settings = Substitution(
        max_words=arguments.words,
        share=arguments.share,
        top_k=arguments.top_k,
        beam=arguments.beam,
        max_queries=arguments.max_queries or None,
    )
    columns = arguments.image_column, arguments.report_column
    pairs = attack_pairs.read_pairs(arguments.images, arguments.reports, *columns, arguments.deidentify)
    attack_pairs.targets(arguments.images, arguments.out, pairs)
    victim = attack.load(arguments.checkpoint, colour=arguments.image_mode == "rgb")
    count, size = sum(len(pair.reports) for pair in pairs), victim.functions.config.image_size
    print(f"{len(pairs)} images, {count} reports; checkpoint {arguments.checkpoint}, {size} pixels", flush=True)
    for note in attack.notes(pairs, victim):
        print(f"note: {note}", flush=True)
    done = attack.attack(arguments, pairs, victim, image_settings, text_settings, stop)
    if not done:
        print(f"stopped; finished pairs are in {arguments.out / 'store'}. The same command goes on from here.")
        return outcome.STOPPED
    _write(arguments, pairs, victim)
    return outcome.DONE


def _write(arguments: argparse.Namespace, pairs: Sequence[Any], victim: Any) -> None:
    from ranjax.data.images.reading import encode_png16
    from ranjax.data.store import NoisyStore
    from ranjax.run.stages import attack_file_pairs as attack_pairs
    from ranjax.run.stages import attack_files as attack

    store = NoisyStore.open(arguments.out / "store")
    for name, path in attack_pairs.targets(arguments.images, arguments.out, pairs).items():
        files.write_bytes(path, encode_png16(store[name]["pixels"]))
    told = {pair.id: store.provenance(pair.id) for pair in pairs}
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    fields = ("loss_before", "loss_after", "norm", "words_changed", "queries", "success")
    writer.writerow(("image", "report", "attacked_report", *fields))
    for pair in pairs:
        found = told[pair.id]
        parts = (found[name] for name in ("reports", "losses_before", "losses_after", "changed"))
        for report, attacked, before, after, changed in zip(pair.reports, *parts, strict=True):
            whole = found["norm"], len(changed), found["queries"], after > before
            writer.writerow((pair.id, report, attacked, before, after, *whole))
    files.write_text(arguments.out / "pairs.csv", table.getvalue())
    means = {name: float(np.mean([told[pair.id][name] for pair in pairs])) for name in fields}
    reports = sum(len(pair.reports) for pair in pairs)
    summary = {
        **store.shared,
        "images": len(pairs),
        "reports": reports,
        "mean": means,
        "recall@1": attack.recalls(pairs, store, victim),
    }
    files.write_json(arguments.out / "summary.json", summary)
    print(_table(summary))
    print(f"written: {arguments.out / 'images'}, pairs.csv, summary.json")


def _table(summary: dict[str, Any]) -> str:
    mean, recall = summary["mean"], summary["recall@1"]
    lines = [
        f"cosine of a pair      {-mean['loss_before']:.3f} -> {-mean['loss_after']:.3f}  (mean)",
        f"raised the loss of    {100 * mean['success']:.1f} % of the images",
        f"norm, words changed   {mean['norm']:.5f}, {mean['words_changed']:.2f}  (means)",
    ]
    for way, label in (("image_to_text", "R@1 image to text    "), ("text_to_image", "R@1 text to image    ")):
        turned = recall[way]["turned_wrong"]
        share = "none was right before" if turned is None else f"{100 * turned:.1f} % of the right ones turned wrong"
        lines.append(f"{label} {100 * recall[way]['before']:.1f} -> {100 * recall[way]['after']:.1f} %  ({share})")
    return "\n".join(lines)
