"""Prepare a set of the field, or your own files, once: checked, counted, and ready for every run.

    ranjax prepare list
    ranjax prepare explain nih
    ranjax prepare nih --data_dir=/data/ChestX-ray14 --out=prepared/nih
    ranjax prepare dicom --data_dir=/data/export --out=prepared/own --option report=Report --label_reports
    ranjax prepare table --data_dir=/data/own --out=prepared/own --dry_run
    ranjax prepare describe prepared/nih
    ranjax prepare verify prepared/nih
    ranjax prepare iu_reports torchxrayvision-1.5.7-py3-none-any.whl
    ranjax run --config configs/ran.py --workdir=runs/nih --config.data.source=prepared \\
        --config.data.prepared.dir=prepared/nih --config.data.image_size=224

What is cut off, by Ctrl-C, a signal or a crash, goes on where it was when the same command is given again. No file of
the set is changed, and nothing is downloaded.

Before anything is written it says how it understood the files: which columns became what, counts by class, patient,
split and view, what is left out and why. --dry_run leaves that page alone, dry_run.html in --out, with pictures.

Reports go through a pass of patterns and ids become keyed pseudonyms before anything is written, see --deidentify and
--patient_key.

--on ray decodes the images on the machines of a Ray cluster, which must see --data_dir and --out: the same records.

verify reads every record of a prepared set; array_record's checksums tell which is damaged.

Exit codes: 0 done; 1 a record is damaged; 2 refused (one line says why); 3 a process died or memory ran out; 75 stopped
on request, what is decoded is kept.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ranjax.cli import engine_options, outcome
from ranjax.core.buckets import workdirs
from ranjax.core.checks import maps
from ranjax.core.errors import ConfigError
from ranjax.core.settings import keys_of, read

if TYPE_CHECKING:
    from ranjax.core.engines.task_pool import Pool
    from ranjax.data.set_settings import SetSettings


def add_arguments(p: argparse.ArgumentParser) -> None:
    """Add the arguments of the command; each field of `SetSettings` is an option."""
    from ranjax.data.set_settings import SetSettings

    p.add_argument(
        "name", metavar="NAME", help="a set, or: list, explain NAME, describe FOLDER, verify FOLDER, iu_reports PATH"
    )
    p.add_argument(
        "what", nargs="?", default="", metavar="NAME|PATH", help="for explain, describe, verify and iu_reports"
    )
    p.add_argument("--out", default="", metavar="FOLDER", help="where prepared sets are kept, or s3://, gs://, az://")
    p.add_argument("--workers", type=int, default=0, help="processes that decode images (default: one per core)")
    engine_options.add_engine(p)
    p.add_argument("--dry_run", action="store_true", help="only say how the files are understood, as a page in --out")
    for key in keys_of("", SetSettings):
        # argparse reads a per cent sign as a format.
        flag, about = f"--{key.name}", key.meaning.replace("%", "%%")
        if key.name == "name":
            continue
        if isinstance(key.default, bool):
            p.add_argument(flag, action=argparse.BooleanOptionalAction, default=key.default, help=about)
        elif key.check is maps:
            flags = (flag, "--option") if key.name == "options" else (flag,)
            p.add_argument(*flags, action="append", default=[], metavar="NAME=TEXT", help=f"{about} May come again.")
        else:
            convert = _names if isinstance(key.default, tuple) else type(key.default)
            p.add_argument(flag, type=convert, default=key.default, help=about)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def settings_of(arguments: argparse.Namespace) -> SetSettings:
    """Return the settings of a command line.

    Raises:
      ConfigError: a folder is missing, or a value is refused.
    """
    from ranjax.data.set_settings import SetSettings
    from ranjax.data.sets import SETS

    SETS.resolve(arguments.name, "NAME")
    for name in ("data_dir", "out"):
        if not getattr(arguments, name):
            raise ConfigError(f"--{name}", "", "a folder")
    if arguments.what:
        raise ConfigError("NAME", arguments.what, "no second word after the name of a set")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(arguments).items()}
    try:
        return read(SetSettings(), given)
    except ConfigError as error:
        raise ConfigError(error.key.replace("data.set.", "--"), error.value, error.expected, error.hint) from error


def explain(name: str) -> str:
    """Return a set's facts as text: what to download and how it must lie, classes, licence, citation, notes."""
    from ranjax.data.sets import SETS

    spec = SETS.resolve(name, "NAME")
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


def listing(name: str = "") -> str:
    """Return a line a set with its kind and title, that of `name`, which may be yours, among them."""
    from ranjax.data.sets import SETS

    SETS.load_entry_points()
    if name:
        SETS.resolve(name, "NAME")
    width = max(map(len, SETS)) + 2
    return "\n".join(f"{spec.name:<{width}}{spec.kind:<16}{spec.title}" for spec in SETS.values())


def describe(folder: str) -> str:
    """Describe what a prepared set holds: its audit as text, and where its contact sheet lies.

    Raises:
      DataError: no prepared set lies there, or several.
    """
    from ranjax.core import files
    from ranjax.data import set_page as audit
    from ranjax.data.prepared import MANIFEST, open_prepared
    from ranjax.data.set_writing import PAGE, SHEET

    place = open_prepared(folder).folder
    text = audit.describe(files.read_json(place / MANIFEST))
    shown = {"contact sheet of 64": place / SHEET, "page": place / PAGE}
    return "\n".join([text, f"folder: {place}", *(f"{name}: {p}" for name, p in shown.items() if p.is_file())])


def verify(folder: str) -> int:
    """Read every record of a prepared set, print which are damaged, and return the exit code."""
    from ranjax.data.prepared import damaged, open_prepared

    prepared = open_prepared(folder)
    wrong = 0
    for line in damaged(prepared):
        wrong += 1
        print(line, flush=True)
    count = sum(prepared.counts.values())
    print(f"{prepared.folder}: {count} records, " + (f"{wrong} damaged" if wrong else "all sound"))
    return outcome.WRONG if wrong else outcome.DONE


def iu_reports(path: str) -> str:
    """Describe the Indiana University reports at `path`; they are read where they lie, and nothing is written.

    Raises:
      DataError: none lie there.
    """
    import collections
    from pathlib import Path

    from ranjax.data.text import openi

    reports = openi.read_reports(Path(path))
    texts = openi.read_corpus(Path(path))
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


def _say(line: str) -> None:
    """Print a line; in red on a terminal where it must not be overlooked."""
    red = line.startswith("! ") and sys.stdout.isatty()
    print(f"\033[31m{line}\033[0m" if red else line, flush=True)


def prepare(arguments: argparse.Namespace) -> int:
    """Prepare the set that the command line names, and return the exit code."""
    settings = settings_of(arguments)
    with workdirs.opened(arguments.out, "--out") as (folder, mirror):
        return _prepare(settings, arguments, folder.expanduser(), mirror is not None)


def _pool(arguments: argparse.Namespace, out: Path) -> AbstractContextManager[Pool | None]:
    """Return the pool of the engine that decodes the images; none for this machine, where ``--workers`` says it."""
    from ranjax.core.engines.engine_table import opened

    if engine_options.is_local(arguments, "--workers says how many processes decode"):
        return nullcontext()
    if arguments.workers:
        raise ConfigError(
            "--workers", arguments.workers, f"no number beside --on {arguments.on}, whose machines decode"
        )
    return opened(arguments.on, arguments.settings, out.absolute() / ".jobs")


def _prepare(settings: SetSettings, arguments: argparse.Namespace, out: Path, in_store: bool) -> int:
    from ranjax.data.images import decode
    from ranjax.data.set_writing import dry_run, prepare_set
    from ranjax.data.sets import SETS
    from ranjax.training.progress import Progress
    from ranjax.training.signals import StopFlag

    shown: list[Progress] = []
    if arguments.dry_run:
        page = dry_run(settings, out, _say)
        print(f"nothing was prepared; the page is {page}")
        return outcome.DONE

    def update(done: int, total: int) -> None:
        if not shown:
            shown.append(Progress("decode", total, unit="images"))
        shown[0].update(done)

    # The signals last: Ray takes them when it is joined.
    with _pool(arguments, out) as pool, StopFlag() as stop:
        try:
            prepared = prepare_set(settings, out, arguments.workers, update, stop, _say, pool)
        except decode.Interrupted:
            print("stopped. What is decoded is kept; the same command goes on from here.")
            return outcome.STOPPED
        finally:
            for progress in shown:
                progress.close()
    print(describe(str(prepared.folder)))
    place = f"{arguments.out.rstrip('/')}/{prepared.folder.relative_to(out)}" if in_store else prepared.folder
    print(
        f"to use it: ranjax run --config configs/ran.py --workdir=runs/{SETS.resolve(settings.name).name} "
        f"--config.data.source=prepared --config.data.prepared.dir={place} "
        f"--config.data.image_size={settings.image_size}"
    )
    return outcome.DONE


def run(arguments: argparse.Namespace) -> int:
    if arguments.name == "list":
        print(listing(arguments.what))
    elif arguments.name == "explain":
        print(explain(arguments.what))
    elif arguments.name == "describe":
        print(describe(arguments.what or "."))
    elif arguments.name == "verify":
        return verify(arguments.what or ".")
    elif arguments.name == "iu_reports":
        print(iu_reports(arguments.what or arguments.data_dir))
    else:
        return prepare(arguments)
    return outcome.DONE
