"""Every way to make upstream noise, each with three upstream seeds, on the default radiographs."""

CONFIG = "configs/ran.py"
GRID = {
    "noise.recipe": ["coattack", "image_only", "text_only"],
    "seed": [0, 1, 2],
}
