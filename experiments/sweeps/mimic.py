"""Paper scale: three upstream seeds of ViT-B/16 on MIMIC-CXR at all ratios; each run is one slice or one array task."""

CONFIG = "configs/mimic_vit_b16.py"
GRID = {"seed": [0, 1, 2]}
