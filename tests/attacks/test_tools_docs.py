"""The example of docs/attacks_tools.md runs as it stands, under the strict settings of the tests."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "attacks_tools.md"


@pytest.mark.slow
def test_the_block_runs_and_its_attack_lowers_the_cosine(capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {"__name__": "tools_page"}
    exec(compile(block, PAGE.name, "exec"), names)
    assert "cosine" in capsys.readouterr().out
    assert (names["result"].loss > names["result"].clean_loss).all()
