"""Takes an encoder out of a run, as `transformers` loads it: config, weights, tokenizer, with a model card.

    ranjax export runs/ran --out encoders/clean
    ranjax export runs/study --condition coattack_10 --method ran_lora --seed 0 --out encoders/ran_lora

Without --method: the upstream encoder of the condition. With one: what the method made of it, LoRA merged into the
kernels; the method's head, which that layout has no place for, lies beside it as head.safetensors with head.json.

Exit codes: 0 done; 2 the input was refused (one line says why).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ranjax.cli import outcome
from ranjax.core.buckets import workdirs
from ranjax.run import config as configs


def add_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("workdir", metavar="WORKDIR", help="folder of a run, or its URL")
    p.add_argument("--condition", default="clean", help="upstream condition, e.g. coattack_10 (default: clean)")
    p.add_argument("--method", default="", help="method of the adapt stage (default: none, the upstream encoder)")
    p.add_argument("--seed", type=int, default=0, help="which of the method's seeds (default 0)")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where it goes: absent or empty")


def run(arguments: argparse.Namespace) -> int:
    workdir = workdirs.fetched(arguments.workdir, "WORKDIR").absolute()
    config = configs.of_run(workdir)
    from ranjax.core import files
    from ranjax.run import plan as planning
    from ranjax.run.context import context_of
    from ranjax.run.stages import encoder_export as export
    from ranjax.training import devices

    context = context_of(config, workdir, planning.plan(config)[0], devices.make_mesh(1), {})
    path = workdir / "results.json"
    results = files.read_json(path) if path.is_file() else None
    chosen = arguments.condition, arguments.method, arguments.seed
    done = export.export(context, *chosen, arguments.out.absolute(), results)
    beside = "; its head lies beside it" if done.head else ""
    figures = "" if results else "; the run has no results.json yet, so that the card holds no figures"
    print(f"{done.folder}: {done.changed} arrays differ from the upstream encoder's{beside}{figures}")
    return outcome.DONE
