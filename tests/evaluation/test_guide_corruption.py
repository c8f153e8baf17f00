"""docs/guides/add_a_corruption.md as it stands: its corruption beside a built-in one, at rising levels."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "add_a_corruption.md"


def test_the_guides_corruption_darkens_the_grid_alone_and_more_by_level():
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict = {"__name__": "guide"}
    exec(compile(block, PAGE.name, "exec"), names)
    images, keys = names["images"], names["keys"]
    moved = [np.asarray(names["grid"](images, keys, level)) for level in names["LEVELS"]]
    assert all(np.array_equal(one[:, 1:], images[:, 1:]) for one in moved)
    assert np.all(np.diff([one[:, 0].mean() for one in moved]) < 0)
    assert set(names["accuracy"]) == {(name, severity) for name in ("grid", "noise") for severity in range(1, 6)}
    assert all(0 <= value <= 1 for value in names["accuracy"].values())
