import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints.bert_files import load_bert, load_bert_mlm, read_bert_config, save_bert

BOS, EOS, CLS, SEP, MASK = 1022, 1023, 3, 4, 2


@pytest.fixture(scope="module")
def logits():
    return jax.jit(lambda functions, *inputs: functions.logits(*inputs), static_argnums=0)


@pytest.fixture
def texts(reference_cases):
    with np.load(reference_cases / "text_micro.npz") as stored:
        tokens, mask = stored["ids"], stored["mask"] > 0
    tokens = np.where(tokens == BOS, CLS, np.where(tokens == EOS, SEP, tokens))
    return jnp.asarray(tokens, jnp.int32), jnp.asarray(mask)


def top(logits, k):
    order = np.argsort(-np.asarray(logits), axis=-1, kind="stable")[..., :k]
    return order, np.take_along_axis(np.asarray(logits), order, axis=-1)


def same_order(ids, stored, dtype):
    """In float32 two of these logits lie within rounding of each other, so a few neighbours may change places."""
    assert np.mean(ids != stored) <= (0.002 if dtype == "float32" else 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
def test_masked_lm_logits_equal_those_of_transformers_on_torch(reference_cases, texts, logits, dtype, tolerance):
    tokens, mask = texts
    real = np.asarray(mask)
    with jax.enable_x64(dtype == "float64"), np.load(reference_cases / "text_micro.npz") as stored:
        functions, params, _ = load_bert_mlm(reference_cases / "mlm_micro", dtype=dtype)
        ids, values = top(logits(functions, params, tokens, mask), 16)
        np.testing.assert_allclose(values[real], stored[f"mlm_plain_top_logit_{dtype}"][real], atol=tolerance)
        same_order(ids[real], stored[f"mlm_plain_top_id_{dtype}"][real], dtype)
        # "masked": position p of a row, with that token replaced by MASK.
        for p in (1, 4):
            rows = np.asarray(logits(functions, params, tokens.at[:, p].set(MASK), mask))[:, p]
            ids, values = top(rows, 16)
            same_order(ids, stored[f"mlm_masked_top_id_{dtype}"][:, p], dtype)
            np.testing.assert_allclose(values, stored[f"mlm_masked_top_logit_{dtype}"][:, p], atol=tolerance)


def test_a_round_trip_is_bit_equal_and_keeps_the_keys(reference_cases, tmp_path):
    source = reference_cases / "mlm_micro"
    functions, params, config = load_bert_mlm(source)
    save_bert(tmp_path, functions, params)
    again, loaded, same = load_bert_mlm(tmp_path)
    assert (again, same) == (functions, config)
    jax.tree.map(np.testing.assert_array_equal, params, loaded)
    assert load_file(source / "model.safetensors").keys() == load_file(tmp_path / "model.safetensors").keys()


def test_files_of_other_ages_and_heads_are_read(reference_cases, tmp_path):
    source = reference_cases / "mlm_micro"
    params = load_bert_mlm(source)[1]
    weights = load_file(source / "model.safetensors")
    old = {key.replace("LayerNorm.weight", "LayerNorm.gamma"): value for key, value in weights.items()}
    old["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"].copy()
    old["cls.seq_relationship.weight"] = np.zeros((2, 32), np.float16)
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file(old, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, params, load_bert_mlm(tmp_path)[1])

    encoder = load_bert(tmp_path)[1]
    assert "head" not in encoder
    np.testing.assert_array_equal(encoder["token_embedding"], params["token_embedding"])

    old["cls.predictions.decoder.weight"] = np.zeros((1024, 32), np.float16)
    save_file(old, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="tied"):
        load_bert_mlm(tmp_path)


def test_pooled_features_ignore_padding(reference_cases, texts):
    tokens, mask = texts
    functions, params, _ = load_bert(reference_cases / "mlm_micro")
    encode = jax.jit(functions.features, static_argnames="pooling")
    states = jax.jit(functions.hidden)(params, tokens[:4], mask[:4])
    mean = encode(params, tokens[:4], mask[:4], pooling="mean")
    by_hand = [np.asarray(state)[np.asarray(real)].mean(0) for state, real in zip(states, mask[:4])]
    np.testing.assert_allclose(mean, by_hand, atol=1e-5)
    other = jnp.where(mask[:4], tokens[:4], 77)
    np.testing.assert_allclose(encode(params, other, mask[:4], pooling="mean"), mean, atol=1e-5)
    with pytest.raises(ConfigError, match="no pooler"):
        functions.features(params, tokens[:4], mask[:4], pooling="pooler")
    with pytest.raises(ConfigError, match="masked_lm"):
        functions.logits(params, tokens[:4], mask[:4])
    with pytest.raises(ConfigError, match="max_length = 64"):
        functions.hidden(params, jnp.zeros((1, 65), jnp.int32), jnp.ones((1, 65), bool))


def test_a_config_that_is_not_bert_s_is_refused():
    for change in ({"model_type": "roberta"}, {"is_decoder": True}, {"hidden_act": "relu6"}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            read_bert_config({"model_type": "bert"} | change)
