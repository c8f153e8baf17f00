"""Audit a checkpoint on your images: how fragile it is, which light-weight repair helps, and can that be trusted.

    ranjax audit --checkpoint clip/ --data prepared/my_set --out audit/
    ranjax audit --checkpoint clip/ --data films.csv --out audit/ --quick
    ranjax audit --checkpoint resnet50.safetensors --data images/ --out audit/

The checkpoint: a folder in any layout of `ranjax list layouts`, an image tower alone (transformers, timm, torchvision),
the workdir of a run or its pretrain/CONDITION/encoder, or package:NAME. The data: a set of `ranjax prepare`, a table
with images (--option names its columns where they are not recognised), or a folder with a class a folder.

Nothing is pre-trained and nothing downloaded. Classes and prompts come from the data, sizes from the checkpoint.
Written to --out:

    index.html       one page that opens without a network: what to do, and every figure behind it
    results.json     the same as data, with the protocol and hashes of model and data, for `ranjax compare`
    repaired/        the checkpoint as it came, head and filter beside it, a card, and how to load it
    run/, data/      the stages and the prepared set; the same command goes on from these after a stop or a kill

Exit codes: 0 done; 2 the input was refused (one line says why); 3 it cannot go on (no space, no memory); 75 stopped on
request, everything saved; 130 stopped at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ranjax.cli import outcome
from ranjax.core import extras
from ranjax.evaluation.modalities import MODALITIES

NEEDED = ("safetensors", "tokenizers", "tensorflow_datasets", "array_record", "grain", "PIL", "tqdm", "matplotlib",
          "jinja2", "pandas")  # fmt: skip


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--checkpoint", required=True, metavar="FOLDER", help="the model: a folder or file, or package:NAME")
    p.add_argument("--data", required=True, metavar="PATH", help="a prepared set, a table of images, or class folders")
    p.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where everything goes; made where absent")
    p.add_argument("--quick", action="store_true", help="at most 500 images and small budgets")
    p.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: 0)")
    p.add_argument(
        "--modality",
        action="append",
        default=[],
        choices=tuple(MODALITIES),
        help="what made the images, for their corruptions; by default as classes, title or reports say",
    )
    p.add_argument(
        "--repair",
        action="append",
        default=[],
        metavar="NAME",
        help="a repair to try beside LP, of those in docs/audit.md; by default those of the form",
    )
    p.add_argument(
        "--defences", metavar="NAMES", help="defences at test time (ranjax list defences), with commas; none: '-'"
    )
    p.add_argument(
        "--option", action="append", default=[], metavar="NAME=TEXT", help="of a table: image=COLUMN, label=COLUMN, ..."
    )


def run(arguments: argparse.Namespace) -> int:
    extras.require(*NEEDED)
    from ranjax.training import signals

    with signals.StopFlag(at_once=outcome.INTERRUPTED) as stop:
        from ranjax.data.images import decode
        from ranjax.run.audits import audit_checkpoint
        from ranjax.run.context import Stopped
        from ranjax.training import compile_cache, cpu

        cpu.keep_freed_memory()
        compile_cache.enable(None)
        out, given = arguments.out.absolute(), arguments.defences
        try:
            results = audit_checkpoint(
                arguments.checkpoint,
                arguments.data,
                out,
                quick=arguments.quick,
                seed=arguments.seed,
                options=tuple(arguments.option),
                repairs=tuple(dict.fromkeys(arguments.repair)),
                modalities=tuple(dict.fromkeys(arguments.modality)),
                defences=None if given is None else tuple(name for name in given.split(",") if name not in ("", "-")),
                stop=stop,
                say=lambda line: print(line, flush=True),
            )
        except (Stopped, decode.Interrupted) as stopped:
            where = f" in {stopped}" if str(stopped) else ""
            print(f"stopped{where}. Everything is saved; the same command goes on from here.")
            return outcome.STOPPED
    print("\n".join(["", *results["recommendation"]["words"], "", f"page: {out / 'index.html'}"]))
    return outcome.DONE
