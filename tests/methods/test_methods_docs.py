"""The examples of docs/methods.md run as they stand, in order, under the strict settings of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


@pytest.mark.slow
def test_every_block_runs_and_learns(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    names: dict = {"__name__": "methods_page"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    assert "worst" in capsys.readouterr().out
    assert names["fitted"].history.max() > 0.5
    assert names["found"].history[names["found"].chosen] > 0.7
    # The filter of RAN's scope is in what was trained, and the attack was on the encoder behind it.
    assert "input_filter" in names["weights"][0]
    assert names["robust"].accuracy[-1] <= names["robust"].accuracy[0] <= np.mean(names["robust"].clean)
