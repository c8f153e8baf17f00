"""Two short runs: shows how a sweep goes, in about two minutes."""

CONFIG = "configs/ran.py:smoke"
GRID = {"seed": [0, 1]}
