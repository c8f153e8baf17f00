"""What is written here loads in transformers and open_clip to the same features. Needs torch (the `parity` extra)."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_torch_references import read
from test_tower_references import REFERENCE, folder_of

from ranjax.models import load, save, save_bert
from ranjax.models.checkpoints.assemble import beside_bert
from ranjax.models.towers.bert import Bert, BertConfig, split_bert

torch = pytest.importorskip("torch", reason="the parity extra is not installed")

TINY_BERT = BertConfig(vocab_size=24, width=16, layers=2, heads=2, mlp_width=24, max_length=9, pooling="pooler")


@pytest.fixture(scope="module")
def open_clip():
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from experiments.parity.peers import stand_in_for_torchvision

    stand_in_for_torchvision()
    return pytest.importorskip("open_clip", reason="open_clip is not installed")


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
def test_an_exported_folder_gives_the_same_features_in_open_clip(name, tmp_path, open_clip):
    folder, pixels, tokens, ours = written(name, tmp_path)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        theirs = model.encode_image(pixels), model.encode_text(tokens)
    for their, our in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(their, our, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("default")
def test_an_exported_siglip_gives_the_same_features_in_open_clip(tmp_path, open_clip):
    from timm.models import register_model
    from timm.models.vision_transformer import VisionTransformer

    def vit_base_patch4_siglip_12(num_classes, global_pool, **how_to_fetch):
        """The reference's tower, which timm has no name for."""
        shape = {"img_size": 12, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
        return VisionTransformer(**shape, class_token=False, num_classes=num_classes, global_pool=global_pool)

    register_model(vit_base_patch4_siglip_12)
    folder, pixels, tokens, ours = written("open_clip_siglip", tmp_path)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.no_grad():
        theirs = model.encode_image(pixels), model.encode_text(tokens)
    for their, our in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(their, our, rtol=1e-4, atol=1e-4)
    assert model.logit_bias.item() == pytest.approx(float(load(folder)[1]["bias"]))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("tower", "pooling", "projection"),
    [
        ("vit_tiny_patch16_224", "cls", "mlp"),
        ("vit_tiny_patch16_224", "pooler", "linear"),
        ("resnet18", "mean", "mlp"),
    ],
)
def test_a_tower_of_timm_beside_a_bert_gives_the_same_features_in_open_clip(
    tower, pooling, projection, tmp_path, open_clip, monkeypatch
):
    """As timm published the one and transformers the other, joined here, written, and built by open_clip by name."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    trunk = timm.create_model(tower, num_classes=0).eval()
    image = tmp_path / "image"
    image.mkdir()
    save_file(trunk.state_dict(), image / "model.safetensors")
    (image / "config.json").write_text(json.dumps({"architecture": tower}))
    functions, params = split_bert(Bert(TINY_BERT, nnx.Rngs(1)))
    save_bert(tmp_path / "bert", functions, params)

    functions, params, config = beside_bert(
        tmp_path / "bert", image=image, embed_dim=12, rngs=nnx.Rngs(2), pooling=pooling, projection=projection
    )
    folder = tmp_path / "out"
    assert save(folder, functions, params, layout="open_clip") == "open_clip"
    monkeypatch.chdir(folder)  # A BERT without a public name is called ".".
    model = open_clip.create_model("local-dir:.").eval()

    rng = np.random.default_rng(3)
    images = rng.random((2, 224, 224, 3)).astype(np.float32)
    tokens = rng.integers(1, TINY_BERT.vocab_size, (2, 7)).astype(np.int32)
    tokens[0, 5:] = TINY_BERT.pad_id
    pixels = (images - np.asarray(config.pixel_mean)) / np.asarray(config.pixel_std)
    with torch.no_grad():
        theirs = (
            model.encode_image(torch.tensor(pixels.transpose(0, 3, 1, 2)).float()),
            model.encode_text(torch.tensor(tokens).long()),
        )
    ours = (
        functions.image_features(params, jnp.asarray(images)),
        functions.text_features(params, jnp.asarray(tokens), jnp.asarray(tokens != TINY_BERT.pad_id)),
    )
    for their, our in zip(theirs, ours, strict=True):
        assert np.linalg.norm(their.numpy() - our) <= 1e-5 * np.linalg.norm(our)
