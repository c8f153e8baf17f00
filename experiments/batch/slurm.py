"""Slurm: one array job, one task a run; a task that is preempted or out of time is queued again until it is done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.batch.commands import Carry, Command
from experiments.batch.states import state_of
from experiments.batch.sweep import Run


@dataclass(frozen=True)
class Slurm:
    """Settings of the array job.

    Attributes:
      name: of the job.
      code: folder of the repository, with its ``.venv``, on a file system that the nodes see.
      shared: folder of the workdirs, on such a file system too.
      at_a_time: tasks that run at once.
      nodes, tasks_per_node: processes of one run; more than one makes it a multi-host run.
      options: further options of sbatch, e.g. ("--partition=gpu", "--gres=gpu:4", "--time=12:00:00").
    """

    name: str
    code: str
    shared: str
    at_a_time: int = 4
    nodes: int = 1
    tasks_per_node: int = 1
    options: tuple[str, ...] = ()

    def script(self, runs: Sequence[Run]) -> str:
        """The batch script: a case per run, a signal two minutes before the end, and a place in the queue again."""
        cases = [
            f"  {i}) arguments=({shlex.join(run.arguments(f'{self.shared}/{run.name}'))}) ;;"
            for i, run in enumerate(runs)
        ]
        head = [
            "#!/usr/bin/env bash",
            f"#SBATCH --job-name={self.name}",
            f"#SBATCH --array=0-{len(runs) - 1}%{self.at_a_time}",
            f"#SBATCH --nodes={self.nodes}",
            f"#SBATCH --ntasks-per-node={self.tasks_per_node}",
            "#SBATCH --requeue",
            "#SBATCH --open-mode=append",
            "#SBATCH --signal=B:TERM@120",
            f"#SBATCH --output={self.shared}/{self.name}_%a.log",
            *(f"#SBATCH {option}" for option in self.options),
        ]
        body = [
            f"cd {shlex.quote(self.code)}",
            'case "$SLURM_ARRAY_TASK_ID" in',
            *cases,
            "esac",
            'srun .venv/bin/python -m "${arguments[@]}" &',
            "work=$!",
            "# The batch shell gets the signal; srun passes it to every process, which save and leave with 75.",
            "trap 'kill -TERM $work' TERM",
            "wait $work; code=$?",
            "if kill -0 $work 2>/dev/null; then wait $work; code=$?; fi",
            "# 75: stopped on request, everything saved. Queue this task again; it goes on from there.",
            'if [ $code -eq 75 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"; fi',
            "exit $code",
        ]
        return "\n".join([*head, "set -u", *body]) + "\n"

    def up(self, runs: Sequence[Run]) -> list[Command]:
        return [
            Command(("mkdir", "-p", self.shared), "folder of the workdirs"),
            Command(("sbatch", "--parsable"), f"queue {len(runs)} run(s)", stdin=self.script(runs)),
        ]

    def down(self, runs: Sequence[Run]) -> list[Command]:
        return [Command(("scancel", f"--name={self.name}"), "cancel what is queued or runs", may_fail=True)]

    def look_after(self, runs: Sequence[Run], carry: Carry) -> dict[str, str]:
        """Where every run stands; where none is queued and some are not done, the array is queued again."""
        queue = Command(("squeue", "--noheader", "--array", f"--name={self.name}", "--format=%K %T"), "the queue")
        queued = carry(queue)
        found = {run.name: state_of(Path(self.shared) / run.name) for run in runs}
        if not queued.strip() and any(state != "done" for state in found.values()):
            for command in self.up(runs):
                carry(command)
        return found
