"""docs/guides/add_a_defence.md as it stands: a defence from outside ranjax, hidden, seen through and listed."""

import re
import sys
from pathlib import Path

import pytest

from ranjax.cli import console
from ranjax.methods.defences import DEFENCES

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "add_a_defence.md").read_text()
MODULE, LIBRARY = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
LIST = next(line.split()[1:] for line in GUIDE.splitlines() if line.startswith("ranjax list"))


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A working directory with the guide's module, which is forgotten afterwards."""
    (tmp_path / "my_lab").mkdir()
    (tmp_path / "my_lab" / "rounding.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]
    DEFENCES._entries.pop("round", None)
    DEFENCES._sources.pop("round", None)


def test_the_defence_of_the_guide_is_listed_beside_the_built_in_ones(lab, capsys):
    assert console.call(LIST) == 0
    said = capsys.readouterr().out
    assert "Rounding" in said
    assert all(entry.label in said for entry in DEFENCES.values())


@pytest.mark.slow
def test_the_defence_of_the_guide_is_masked_as_long_as_its_gradient_hides(lab):
    names = {"__name__": "guide"}
    exec(compile(LIBRARY, "add_a_defence.md", "exec"), names)
    assert names["hidden"].masked
    assert names["hidden"].headline is None
    assert not names["found"].masked
    assert names["found"].worst.mean() < names["hidden"].by_gradient.mean()
