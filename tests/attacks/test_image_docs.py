"""The examples of docs/attacks.md, and the one that it links, run as they stand under the tests' strict settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "attacks.md"


@pytest.mark.slow
def test_every_block_runs(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 9
    names: dict = {"__name__": "attacks_page"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "robust accuracy" in printed
    assert float(names["result"].success.mean()) > 0


@pytest.mark.slow
def test_the_linked_example_runs():
    (file,) = re.findall(r"\]\((examples/\w+\.py)\)", PAGE.read_text())
    names: dict = {"__name__": "attack_parts"}
    exec(compile((PAGE.parent / file).read_text(), file, "exec"), names)
    assert float(names["own"].norm.max()) <= 8 / 255 + 1e-6
    assert (names["averaged"].loss > names["averaged"].clean_loss).mean() > 0.5
