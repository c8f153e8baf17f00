"""Known vulnerabilities of the pinned dependencies, where an advisory service answers; says plainly where none does.

    python -m experiments.reliability.audit

Runs pip-audit in an environment of its own on constraints.txt. An old release with published vulnerabilities is asked
for beside them: a service that knows none of it (an index without advisories, a mirror) has audited nothing, though
pip-audit would say "No known vulnerabilities found".

Exit codes: 0 no vulnerability is known, or nothing could be asked (the last line says which); 1 there are some.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CANARY = "pillow==8.0.0"
"""Has had published vulnerabilities since 2021."""
SECONDS = 120


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "canary.txt").write_text(CANARY + "\n")
        venv.create(place / "venv", with_pip=True)
        python = place / "venv" / "bin" / "python"
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "pip-audit>=2.9,<3"]
        try:
            subprocess.run(install, check=True, timeout=SECONDS, capture_output=True)
            found, canary = (_audit(python, path) for path in (ROOT / "constraints.txt", place / "canary.txt"))
        except (subprocess.SubprocessError, OSError) as error:
            found, canary = {}, {}
            print(f"pip-audit could not be run: {str(error)[:200]}")
    code, text = verdict(found, canary)
    print(text)
    return code


def _audit(python: Path, requirements: Path) -> dict[str, Any]:
    """pip-audit's report; empty where it wrote none."""
    out = requirements.with_suffix(".json") if requirements.parent != ROOT else python.parent / "found.json"
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", f"--output={out}"]
    line = [str(python), "-m", "pip_audit", "-r", str(requirements), *options]
    subprocess.run(line, check=False, timeout=SECONDS, capture_output=True)
    return json.loads(out.read_text()) if out.is_file() else {}


def verdict(found: Mapping[str, Any], canary: Mapping[str, Any]) -> tuple[int, str]:
    """Exit code and words for two reports of pip-audit: that of the pins, and that of `CANARY`."""
    rows = found.get("dependencies", [])
    wrong = [(row, vulnerability) for row in rows for vulnerability in row.get("vulns", ())]
    if wrong:
        lines = [
            f"{row['name']} {row['version']}: {vulnerability['id']}, fixed in "
            f"{', '.join(vulnerability.get('fix_versions', ())) or 'no release yet'}"
            for row, vulnerability in wrong
        ]
        return 1, "\n".join([*lines, f"dependency audit: {len(wrong)} known vulnerabilities"])
    if not any(row.get("vulns") for row in canary.get("dependencies", ())):
        return 0, f"dependency audit: NOT DONE, no advisory service answers here (it knows nothing of {CANARY})"
    skipped = [row["name"] for row in rows if "skip_reason" in row]
    left_out = f"; not known to the service: {', '.join(skipped)}" if skipped else ""
    return 0, f"dependency audit: no vulnerability is known in {len(rows) - len(skipped)} packages{left_out}"


if __name__ == "__main__":
    sys.exit(main())
