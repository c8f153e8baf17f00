"""The shell script that works through runs one after the other on a machine, and goes on after any interruption."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from experiments.batch.sweep import Run

LOOP = """\
go() {{ # name, then the arguments of python -m; 75: stopped on request, 2: refused, 3: cannot go on
  local name="$1"; shift
  local tries=0
  while [ ! -e "{shared}/$name/report/manifest.json" ] && [ $tries -lt {attempts} ]; do
    tries=$((tries + 1))
    echo "$(date -u +%FT%TZ) $name attempt $tries"
    {python} -m "$@" && break
    code=$?
    {{ [ $code -eq 2 ] || [ $code -eq 3 ]; }} && echo "$name given up, exit code $code" && break
    sleep 10
  done
}}"""


def sequence(runs: Sequence[Run], *, code: str, shared: str, python: str, attempts: int = 20) -> str:
    """A bash script that carries out `runs` in order; what is done is skipped, so it can be started again at any time.

    Args:
      runs: what to carry out.
      code: folder of the repository on that machine.
      shared: folder of the workdirs there; on several hosts one that all of them see.
      python: the interpreter there.
      attempts: how often a run that crashes is tried again in one go.
    """
    lines = ["#!/usr/bin/env bash", "set -u", f"cd {shlex.quote(code)}"]
    lines.append(LOOP.format(shared=shared, attempts=attempts, python=shlex.quote(python)))
    lines += [f"go {shlex.quote(run.name)} {shlex.join(run.arguments(f'{shared}/{run.name}'))}" for run in runs]
    return "\n".join([*lines, "echo finished"]) + "\n"


def probe(runs: Sequence[Run], shared: str) -> str:
    """A shell line that prints ``name<TAB>done|unfinished|not started`` for every run, then whether a process works."""
    names = shlex.join([run.name for run in runs])
    return (
        f"cd {shlex.quote(shared)} 2>/dev/null; for n in {names}; do "
        'if [ -e "$n/report/manifest.json" ]; then s=done; '
        'elif [ -d "$n" ]; then s=unfinished; else s="not started"; fi; '
        'printf "%s\\t%s\\n" "$n" "$s"; done; '
        "if pgrep -f '[r]anjax.main' >/dev/null; then printf 'process\\tworks\\n'; else printf 'process\\tnone\\n'; fi"
    )


def answers(output: str) -> dict[str, str]:
    """What `probe` printed, as {name: state}; other lines are passed over."""
    pairs = [line.split("\t") for line in output.splitlines() if line.count("\t") == 1]
    return {pair[0]: pair[1] for pair in pairs}
