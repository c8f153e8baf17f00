"""Takes an encoder out of a run, as `transformers` loads it: config, weights, tokenizer, with a model card.

    python -m ranjax export runs/ran --out encoders/clean
    python -m ranjax export runs/study --condition coattack_10 --method ran_lora --seed 0 --out encoders/ran_lora

Without --method: the upstream encoder of the condition. With one: what the method made of it, LoRA merged into the kernels;
the method's head, which that layout has no place for, lies beside it as head.safetensors with head.json.

Exit codes: 0 done; 2 the input was refused (one line says why).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ranjax.core.errors import ConfigError, DataError
from ranjax.run import config as configs

EXIT_REFUSED = 2


def parser() -> argparse.ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    p = argparse.ArgumentParser(
        prog="python -m ranjax export",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("workdir", type=Path, metavar="WORKDIR", help="folder of a run")
    p.add_argument("--condition", default="clean", help="upstream condition, e.g. coattack_10 (default: clean)")
    p.add_argument("--method", default="", help="method of the adapt stage (default: none, the upstream encoder)")
    p.add_argument("--seed", type=int, default=0, help="which of the method's seeds (default 0)")
    p.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where it goes: absent or empty")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv`; returns 0, or 2 where the input is refused (one line says why)."""
    arguments = parser().parse_args(argv)
    try:
        exported = _export(arguments)
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_REFUSED
    print(exported)
    return 0


def _export(arguments: argparse.Namespace) -> str:
    workdir = arguments.workdir.absolute()
    config = configs.of_run(workdir)
    from ranjax.core import files
    from ranjax.run import plan as planning
    from ranjax.run.context import context_of
    from ranjax.run.stages import encoder_export as export
    from ranjax.training import devices

    prepare = planning.plan(config)[0]
    context = context_of(config, workdir, prepare, devices.make_mesh(1), {})
    path = workdir / "results.json"
    results = files.read_json(path) if path.is_file() else None
    done = export.export(
        context, arguments.condition, arguments.method, arguments.seed, arguments.out.absolute(), results
    )
    beside = "; its head lies beside it" if done.head else ""
    figures = "" if results else "; the run has no results.json yet, so that the card holds no figures"
    return f"{done.folder}: {done.changed} arrays differ from the upstream encoder's{beside}{figures}"


if __name__ == "__main__":
    sys.exit(main())
