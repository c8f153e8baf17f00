"""The examples that docs/methods.md links run as they stand, under the strict settings of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.slow
def test_every_example_runs_and_learns(capsys):
    linked = re.findall(r"\]\((examples/\w+\.py)\)", (DOCS / "methods.md").read_text())
    assert linked == ["examples/heads.py", "examples/own_encoder.py"]
    names: dict = {"__name__": "methods_page"}
    for file in linked:
        exec(compile((DOCS / file).read_text(), file, "exec"), names)
    assert "worst" in capsys.readouterr().out
    assert names["fitted"].history.max() > 0.5
    assert names["found"].history[names["found"].chosen] > 0.7
    # The filter of RAN's scope is in what was trained, and the attack was on the encoder behind it.
    assert "input_filter" in names["weights"][0]
    assert names["robust"].accuracy[-1] <= names["robust"].accuracy[0] <= np.mean(names["robust"].clean)
