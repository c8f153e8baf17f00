"""Plain hosts over ssh: the runs are dealt out to them, each host works through its own, one after the other."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.batch import script
from experiments.batch.commands import Carry, Command
from experiments.batch.sweep import Run


@dataclass(frozen=True)
class Hosts:
    """Settings: the hosts (as ssh knows them), the folder of the code there, and the folder of the workdirs there."""

    hosts: tuple[str, ...]
    code: str = "ranjax-code"
    shared: str = "ranjax-runs"
    python: str = "python3"

    def parts(self, runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
        return [(host, list(runs[i :: len(self.hosts)])) for i, host in enumerate(self.hosts) if i < len(runs)]

    def up(self, runs: Sequence[Run]) -> list[Command]:
        """The commands that copy the code to every host, install it, and start its runs."""
        archive = "/tmp/ranjax-code.tar.gz"
        found = [Command(("git", "archive", "--format=tar.gz", "-o", archive, "HEAD"), "pack the committed code")]
        for host, part in self.parts(runs):
            install = (
                f"mkdir -p {self.code} {self.shared} && tar -xzf ranjax-code.tar.gz -C {self.code} && "
                f"cd {self.code} && {self.python} -m venv .venv && .venv/bin/pip install -q -c constraints.txt "
                f"-e '.[all]'"
            )
            found += [
                Command(("scp", archive, f"{host}:ranjax-code.tar.gz"), f"copy it to {host}"),
                Command(("ssh", host, install), f"install it on {host}"),
                *self.start(host, part),
            ]
        return found

    def start(self, host: str, runs: Sequence[Run]) -> list[Command]:
        shared = self.shared if self.shared.startswith("/") else f"../{self.shared}"
        text = script.sequence(runs, code=".", shared=shared, python=".venv/bin/python")
        line = (
            f"cd {self.code} && printf %s {shlex.quote(text)} > sweep.sh && "
            "(nohup setsid bash sweep.sh > sweep.log 2>&1 < /dev/null &)"
        )
        return [Command(("ssh", host, line), f"start {len(runs)} run(s) on {host}")]

    def down(self, runs: Sequence[Run]) -> list[Command]:
        """Stops the hosts' runs (what they did is saved); the workdirs stay."""
        stop = "pkill -f '[s]weep.sh'; pkill -TERM -f '[r]anjax.main'"
        return [Command(("ssh", host, stop), f"stop the runs on {host}", may_fail=True) for host, _ in self.parts(runs)]

    def look_after(self, runs: Sequence[Run], carry: Carry) -> dict[str, str]:
        """One round: where every run stands; a host that stands still is started again."""
        found: dict[str, str] = {}
        for host, part in self.parts(runs):
            probe = Command(("ssh", host, script.probe(part, self.shared)), f"where {host} stands", may_fail=True)
            said = script.answers(carry(probe))
            states = {run.name: said.get(run.name, "unreachable") for run in part}
            found |= states
            if said.get("process") == "none" and any(s != "done" for s in states.values()):
                for command in self.start(host, part):
                    carry(command)
        return found
