"""Execute the notebooks of this folder, in a fresh folder each, and keep their outputs in them.

python docs/tutorials/run.py               all of them
python docs/tutorials/run.py NAME ...      those whose names begin so

Cells run as in Jupyter, without it: one namespace, printed text and open figures of matplotlib as outputs.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def executed(path: Path) -> dict:
    """Return a notebook with the outputs of its cells, executed in the working folder.

    Raises:
      Exception: a cell's own.
    """
    notebook = json.loads(path.read_text())
    names: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] != "code":
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
        cell["outputs"] = [*_text(said.getvalue().replace(os.getcwd(), ".")), *_figures()]
    return notebook


def _text(said: str) -> list[dict]:
    lines = said.splitlines(keepends=True)
    return [{"output_type": "stream", "name": "stdout", "text": lines}] if lines else []


def _figures() -> list[dict]:
    """Return the open figures of matplotlib as outputs, and close them."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    plt = sys.modules["matplotlib.pyplot"]
    found = []
    for number in plt.get_fignums():
        drawn = io.BytesIO()
        plt.figure(number).savefig(drawn, format="png", dpi=80, bbox_inches="tight", metadata={"Software": None})
        data = {"image/png": base64.b64encode(drawn.getvalue()).decode()}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    plt.close("all")
    return found


def main(names: list[str]) -> None:
    """Execute notebooks, and say how long each took."""
    os.environ.setdefault("MPLBACKEND", "agg")
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and not path.stem.startswith(tuple(names)):
            continue
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            notebook = executed(path)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
        print(f"{path.name}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
