"""Prepares a set of the field, or your own files, once: checked, counted, and ready for every run.

    ranjax prepare list
    ranjax prepare explain nih
    ranjax prepare nih --data_dir=/data/ChestX-ray14 --out=prepared/nih
    ranjax prepare dicom --data_dir=/data/export --out=prepared/own --option report=Report --label_reports
    ranjax prepare describe prepared/nih
    ranjax prepare iu_reports torchxrayvision-1.5.7-py3-none-any.whl
    ranjax run --config configs/ran.py --workdir=runs/nih --config.data.source=prepared \\
        --config.data.prepared.dir=prepared/nih --config.data.image_size=224

What is cut off, by Ctrl-C, a signal or a crash, goes on where it was when the same command is given again. No file of
the set is changed, and nothing is downloaded.

Reports go through a pass of patterns and ids become keyed pseudonyms before anything is written, see --deidentify and
--patient_key.

Exit codes: 0 done; 2 refused (one line says why); 3 a process died or memory ran out; 75 stopped on request, what is
decoded is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ranjax.cli import outcome
from ranjax.core.errors import ConfigError

_HELP = {
    "classes": "class names in label order, comma-separated (default: the set's own)",
    "uncertain": "labels of -1: ignore (default), zero, one or exclude",
    "views": "frontal (default: lateral films are left out) or all",
    "sections": "sections of the reports, comma-separated; empty: the whole text (default findings,impression)",
    "language": "leave out reports in another language: en, es, de, fr, pt, it (default: keep all)",
    "label_reports": "labels by rules on the report text where the files bring none",
    "repeats": "keep (default) or drop a report that says the same as another of its split",
    "deidentify": "put marks in place of names, dates and numbers that patterns find in reports (default)",
    "patient_key": "file with a secret of at least 16 bytes that turns ids of patients and examples into pseudonyms; "
    "none: they are public and stay (default: RANJAX_PATIENT_KEY, or the user's own key)",
    "tokenizer": "tokenizer.json or its folder, for --max_tokens",
    "max_tokens": "cut reports to whole sentences that fit this many tokens",
    "adapt": "share of the patients of train that become adapt, where the set has no such split (default 0.1)",
    "validation": "the same for validation (default 0.1)",
    "test": "the same for test (default 0.2)",
    "seed": "of the split and of drawn selections (default 0)",
    "image_size": "side of the square images in pixels (default 224)",
    "resize": "crop (default), pad or stretch",
    "limit": "rows at most, drawn by a hash of their ids (default: all)",
    "ids": "a list of ids that selects the rows (chexpert_5x200)",
    "allow_shared_patients": "go on where splits share patients, and say so in the data card",
    "duplicates": "copies of an image across splits: report (default), drop the one nearer to training, or refuse",
    "duplicate_bits": "how many of the 256 bits of the perceptual hash may differ in a copy, 0 to 7 (default 3)",
}


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", metavar="NAME", help="a set, or: list, explain NAME, describe FOLDER, iu_reports PATH")
    p.add_argument("what", nargs="?", default="", metavar="NAME|PATH", help="for explain, describe and iu_reports")
    p.add_argument("--data_dir", default="", metavar="FOLDER", help="the set's files, as their publisher lays them out")
    p.add_argument("--out", default="", metavar="FOLDER", help="where prepared sets are kept")
    p.add_argument("--workers", type=int, default=0, help="processes that decode images (default: one per core)")
    p.add_argument("--no_checksums", action="store_true", help="do not hold files against their publisher's checksums")
    p.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the layout; see explain NAME"
    )
    from ranjax.data.sets.choices import SetSettings

    for field in dataclasses.fields(SetSettings):
        if field.name not in _HELP:
            continue
        if field.name == "deidentify":
            p.add_argument("--deidentify", action=argparse.BooleanOptionalAction, default=True, help=_HELP[field.name])
        elif field.name == "patient_key":
            p.add_argument("--patient_key", default="", metavar="FILE", help=_HELP[field.name])
        elif field.default is False:
            p.add_argument(f"--{field.name}", action="store_true", help=_HELP[field.name])
        else:
            kind = type(field.default)
            convert = _names if kind is tuple else kind
            p.add_argument(f"--{field.name}", type=convert, default=field.default, help=_HELP[field.name])


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def settings_of(arguments: argparse.Namespace) -> Any:
    """The `SetSettings` of a command line. Raises ConfigError for what is missing or not allowed."""
    from ranjax.data.sets import spec_of
    from ranjax.data.sets.choices import SetSettings

    spec_of(arguments.name)
    for name in ("data_dir", "out"):
        if not getattr(arguments, name):
            raise ConfigError(f"--{name}", "", "a folder; it must be given")
    if arguments.what:
        raise ConfigError(arguments.what, "", "no second word after the name of a set")
    options = {}
    for text in arguments.option:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError("--option", text, "of the form NAME=VALUE")
        options[name] = value
    chosen = {name: getattr(arguments, name) for name in _HELP}
    return SetSettings(
        arguments.name, arguments.data_dir, options=options, checksums=not arguments.no_checksums, **chosen
    )


def explain(name: str) -> str:
    """A set's facts as text: what to download and how it must lie, classes, licence, citation, notes."""
    from ranjax.data.sets import spec_of

    spec = spec_of(name)
    lines = [f"{spec.name}: {spec.title} ({spec.kind})"]
    for title in ("instructions", "homepage", "licence", "citation", "reports"):
        if value := getattr(spec, title):
            lines.append(f"{title}: {value}")
    lines.append("splits: " + (", ".join(spec.splits) or "none of its own; cut by patient"))
    lines.append("classes: " + (", ".join(spec.classes) or "those that occur, or --classes"))
    lines += [f"note: {note}" for note in spec.notes]
    lines += [f"checksum of {file}: {value}" for file, value in spec.checksums.items()]
    lines += [f"--option {option}=...: {meaning}" for option, meaning in spec.options.items()]
    return "\n".join(lines)


def listing() -> str:
    """Every set with its kind and title."""
    from ranjax.data.sets import SPECS

    width = max(map(len, SPECS)) + 2
    return "\n".join(f"{spec.name:<{width}}{spec.kind:<16}{spec.title}" for spec in SPECS.values())


def describe(folder: str) -> str:
    """What a prepared set holds: its audit as text, and where its contact sheet lies.

    Raises:
      DataError: no prepared set lies there, or several.
    """
    from ranjax.core import files
    from ranjax.data import set_page as audit
    from ranjax.data.prepared import MANIFEST, open_prepared
    from ranjax.data.set_writing import SHEET

    place = open_prepared(folder).folder
    text = audit.describe(files.read_json(place / MANIFEST))
    sheet = place / SHEET
    return f"{text}\nfolder: {place}" + (f"\ncontact sheet of 64: {sheet}" if sheet.is_file() else "")


def iu_reports(path: str) -> str:
    """What the Indiana University reports at `path` hold; they are read where they lie, and nothing is written.

    Raises:
      DataError: none lie there.
    """
    import collections
    from pathlib import Path

    from ranjax.data.text import corpus, openi

    reports = openi.read_reports(Path(path))
    texts = corpus.read_corpus(Path(path))
    counts = collections.Counter(kind for report in reports for kind in report.findings)
    words = sorted(len(text.split()) for text in texts)
    return "\n".join(
        [
            f"reports {len(reports)}, with findings or impression {len(texts)}, different {len(set(texts))}",
            f"words {words[0]} to {words[-1]} (median {words[len(words) // 2]})",
            "findings by main MeSH heading: " + ", ".join(f"{kind} {count}" for kind, count in counts.most_common()),
            "licence: CC BY-NC-ND 4.0, Demner-Fushman et al., JAMIA 2016; read where they lie, never copied",
            f"to use them: --config.data.radiographs.reports={path} (paired with rendered films by finding and side)",
            f"             --config.text.corpus={path} (for the vocabulary and the masked language model)",
        ]
    )


def prepare(arguments: argparse.Namespace) -> int:
    """Prepares the set that the command line names; returns the exit code."""
    from ranjax.data.images import decode
    from ranjax.data.set_writing import prepare_set
    from ranjax.training.progress import Progress
    from ranjax.training.signals import StopFlag

    settings = settings_of(arguments)
    shown: list[Progress] = []

    def update(done: int, total: int) -> None:
        if not shown:
            shown.append(Progress("decode", total, unit="images"))
        shown[0].update(done)

    with StopFlag() as stop:
        try:
            prepared = prepare_set(
                settings, arguments.out, arguments.workers, update, stop, lambda line: print(line, flush=True)
            )
        except decode.Interrupted:
            print("stopped. What is decoded is kept; the same command goes on from here.")
            return outcome.STOPPED
        finally:
            for progress in shown:
                progress.close()
    print(describe(str(prepared.folder)))
    print(
        f"to use it: ranjax run --config configs/ran.py --workdir=runs/{settings.name} "
        f"--config.data.source=prepared --config.data.prepared.dir={prepared.folder} "
        f"--config.data.image_size={settings.image_size}"
    )
    return outcome.DONE


def run(arguments: argparse.Namespace) -> int:
    if arguments.name == "list":
        print(listing())
    elif arguments.name == "explain":
        print(explain(arguments.what))
    elif arguments.name == "describe":
        print(describe(arguments.what or "."))
    elif arguments.name == "iu_reports":
        print(iu_reports(arguments.what or arguments.data_dir))
    else:
        return prepare(arguments)
    return outcome.DONE
