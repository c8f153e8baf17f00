"""The notebooks run from top to bottom, each in a folder of its own, and are kept with their outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
RUN = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("run", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.executed(Path(sys.argv[2]))
"""


def test_there_are_notebooks_and_every_cell_of_them_that_prints_is_kept_with_its_output():
    assert len(NOTEBOOKS) >= 4
    for path in NOTEBOOKS:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        for cell in cells:
            source = "".join(cell["source"])
            assert bool(cell["outputs"]) or not ("print(" in source or "imshow(" in source), (path.name, source[:80])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "agg", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", RUN, str(ROOT / "docs" / "tutorials" / "run.py"), str(path)]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
