"""TPU VMs by gcloud: slices are created, set up on all workers, kept at work until every run is done, and deleted.

A preempted slice is deleted and created anew; its runs go on from their checkpoints, since the workdirs lie in a folder
that outlives it (``--shared``: a Filestore share or a bucket mounted by ``--setup`` on every worker).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.batch import script
from experiments.batch.commands import Carry, Command
from experiments.batch.sweep import Run

GONE = ("PREEMPTED", "TERMINATED", "STOPPED", "SUSPENDED", "FAILED", "")
CODE = "ranjax-code"


@dataclass(frozen=True)
class TPU:
    """Settings of the slices, all of one kind.

    Attributes:
      prefix: slices are named ``<prefix>-0``, ``<prefix>-1``, ...
      project, zone: of Google Cloud.
      accelerator: e.g. "v5litepod-16".
      runtime: the VM's image, e.g. "v2-alpha-tpuv5-lite".
      shared: folder of the workdirs, seen by all workers.
      slices: how many slices share the runs.
      spot: preemptible capacity.
      setup: a shell line run once on every worker first, e.g. to mount `shared`.
    """

    prefix: str
    project: str
    zone: str
    accelerator: str
    runtime: str
    shared: str
    slices: int = 1
    spot: bool = True
    setup: str = ""

    def parts(self, runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
        """(slice, its runs): dealt out in turn, no slice without a run."""
        return [(f"{self.prefix}-{i}", list(runs[i :: self.slices])) for i in range(min(self.slices, len(runs)))]

    def create(self, name: str) -> list[Command]:
        """The commands that make a slice and put the code on all its workers."""
        words = ["create", name, f"--accelerator-type={self.accelerator}", f"--version={self.runtime}"]
        archive = "/tmp/ranjax-code.tar.gz"
        install = (
            f"mkdir -p {CODE} && tar -xzf ranjax-code.tar.gz -C {CODE} && cd {CODE} && python3 -m venv .venv && "
            ".venv/bin/pip install -q -c constraints.txt -e '.[all,tpu]'"
        )
        found = [
            self._vm(*words, *(["--spot"] if self.spot else []), purpose=f"create the slice {name}"),
            Command(("git", "archive", "--format=tar.gz", "-o", archive, "HEAD"), "pack the committed code"),
            self._vm("scp", archive, f"{name}:ranjax-code.tar.gz", "--worker=all", purpose="copy it to every worker"),
        ]
        if self.setup:
            found.append(self.on(name, self.setup, "prepare every worker"))
        return [*found, self.on(name, install, "install it on every worker")]

    def start(self, name: str, runs: Sequence[Run]) -> list[Command]:
        """The command that starts (or takes up again) a slice's runs on all its workers."""
        home = f'"$HOME/{CODE}"'
        text = script.sequence(runs, code=".", shared=self.shared, python=".venv/bin/python")
        line = (
            f"mkdir -p {shlex.quote(self.shared)} && cd {home} && printf %s {shlex.quote(text)} > sweep.sh && "
            "(nohup setsid bash sweep.sh > sweep.log 2>&1 < /dev/null &)"
        )
        return [self.on(name, line, f"start {len(runs)} run(s) on all workers of {name}")]

    def stop(self, name: str) -> Command:
        """Ends the runs on all workers; they save first."""
        # Neither pattern matches the shell that carries this line.
        line = "pkill -f '^bash [s]weep.sh'; pkill -TERM -f '[p]ython -m ranjax.main'; sleep 5"
        return self.on(name, line, f"stop what is left on the workers of {name}", may_fail=True)

    def state(self, name: str) -> Command:
        return self._vm("describe", name, "--format=value(state)", purpose=f"state of {name}", may_fail=True)

    def look(self, name: str, runs: Sequence[Run]) -> Command:
        return self.on(name, script.probe(runs, self.shared), f"where the runs of {name} stand", "0", may_fail=True)

    def delete(self, name: str, may_fail: bool = True) -> Command:
        return self._vm("delete", name, "--quiet", purpose=f"delete {name}", may_fail=may_fail)

    def on(self, name: str, line: str, purpose: str, worker: str = "all", may_fail: bool = False) -> Command:
        return self._vm("ssh", name, f"--worker={worker}", f"--command={line}", purpose=purpose, may_fail=may_fail)

    def _vm(self, *words: str, purpose: str, may_fail: bool = False) -> Command:
        where = (f"--project={self.project}", f"--zone={self.zone}")
        return Command(("gcloud", "compute", "tpus", "tpu-vm", *words, *where), purpose, may_fail)

    def up(self, runs: Sequence[Run]) -> list[Command]:
        return [c for name, part in self.parts(runs) for c in (*self.create(name), *self.start(name, part))]

    def down(self, runs: Sequence[Run]) -> list[Command]:
        return [self.delete(name) for name, _ in self.parts(runs)]

    def look_after(self, runs: Sequence[Run], carry: Carry) -> dict[str, str]:
        """One round over all slices: what is gone is made again, what stands still is started again.

        Returns {run: "done", "unfinished", "not started" or "lost" (its slice is being made again)}.
        """
        found: dict[str, str] = {}
        for name, part in self.parts(runs):
            state = carry(self.state(name)).strip()
            if state in GONE:
                for command in (self.delete(name), *self.create(name), *self.start(name, part)):
                    carry(command)
                found |= {run.name: "lost" for run in part}
                continue
            said = script.answers(carry(self.look(name, part)))
            states = {run.name: said.get(run.name, "not started") for run in part}
            found |= states
            if said.get("process") == "none" and any(s != "done" for s in states.values()):
                # Worker 0 has ended; whatever waits for it on the others would be in the way.
                for command in (self.stop(name), *self.start(name, part)):
                    carry(command)
        return found
