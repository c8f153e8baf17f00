"""What is written here loads in transformers and open_clip to the same features. Needs torch (the `parity` extra)."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_torch_references import read
from test_tower_references import REFERENCE, folder_of

from ranjax.models import load, save

torch = pytest.importorskip("torch", reason="the parity extra is not installed")


def written(name, folder):
    """(folder that `save` wrote, images, tokens, features by this package) of a reference's encoder."""
    stored = read(name)
    source = folder / "source"
    source.mkdir()
    functions, params, _ = load(folder_of(name, source))
    save(folder / "out", functions, params)
    images, tokens = jnp.asarray(stored["image/images"], jnp.float32), jnp.asarray(stored["text/tokens"])
    encode = jax.jit(lambda: (functions.image_features(params, images), functions.text_features(params, tokens, mask)))
    mask = jnp.asarray(stored["text/mask"])
    pixels = (np.asarray(images) - REFERENCE["mean"]) / REFERENCE["std"]
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2)).float()
    return folder / "out", pixels, torch.tensor(np.asarray(tokens)).long(), encode()


@pytest.mark.filterwarnings("default")
def test_an_exported_siglip_gives_the_same_features_in_transformers(tmp_path):
    from transformers import SiglipModel

    folder, pixels, tokens, ours = written("siglip", tmp_path)
    model, report = SiglipModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        theirs = model.eval().get_image_features(pixels), model.get_text_features(tokens)
    for their, our in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(their.pooler_output, our, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["open_clip_vit", "open_clip_modified_resnet"])
def test_an_exported_folder_gives_the_same_features_in_open_clip(name, tmp_path):
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from experiments.parity.peers import stand_in_for_torchvision

    stand_in_for_torchvision()
    open_clip = pytest.importorskip("open_clip", reason="open_clip is not installed")
    folder, pixels, tokens, ours = written(name, tmp_path)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        theirs = model.encode_image(pixels), model.encode_text(tokens)
    for their, our in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(their, our, rtol=1e-4, atol=1e-4)
