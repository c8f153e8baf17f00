"""Checkpoints of sentence-transformers: the pooling that they state is the one that is used, or they are refused."""

import json

import pytest
from flax import nnx

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints.assemble import beside_bert
from ranjax.models.checkpoints.bert_files import load_bert, save_bert
from ranjax.models.towers.bert import Bert, BertConfig, split_bert
from ranjax.models.towers.tower_configs import ViTConfig

MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


@pytest.fixture
def words(tmp_path):
    bert = BertConfig(vocab_size=20, width=8, layers=1, heads=2, mlp_width=16, max_length=9, pooling="pooler")
    save_bert(tmp_path, *split_bert(Bert(bert, nnx.Rngs(0))))
    return tmp_path


def state(folder, content, parts=()):
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8} | content))
    named = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(("Transformer", "Pooling", *parts))
    ]
    (folder / "modules.json").write_text(json.dumps(named))


def flags(*chosen):
    return {f"pooling_mode_{mode}": mode in chosen for mode in MODES}


@pytest.mark.parametrize(
    ("content", "pooling"),
    [
        (flags("cls_token"), "cls"),
        (flags("mean_tokens") | {"include_prompt": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_the_stated_pooling_is_used(words, content, pooling):
    assert load_bert(words)[2].pooling == "pooler"
    state(words, content, ("Normalize",))
    assert load_bert(words)[2].pooling == pooling
    how = {
        "image": ViTConfig(image_size=32, channels=1, width=8, layers=1, heads=2),
        "embed_dim": 6,
        "rngs": nnx.Rngs(1),
    }
    assert beside_bert(words, pooling=pooling, **how)[2].text.pooling == pooling
    other = "mean" if pooling == "cls" else "cls"
    for given in ({"pooling": other}, {}):
        with pytest.raises(ConfigError, match=f"expected {pooling}, which the checkpoint's own pooling states"):
            beside_bert(words, **how, **given)


@pytest.mark.parametrize(
    ("content", "parts", "words_said"),
    [
        (flags("max_tokens"), (), "pooling_mode = 'max': expected one of"),
        (flags("cls_token", "mean_tokens"), (), "pooling_mode = 'cls, mean': expected one of"),
        (flags(), (), "pooling_mode = 'none': expected one of"),
        ({"pooling_mode": "weightedmean"}, (), "pooling_mode = 'weightedmean': expected one of"),
        ({"pooling_mode": ["cls", "mean"]}, (), "pooling_mode = 'cls, mean': expected one of"),
        (flags("mean_tokens") | {"pooling_mode_median_tokens": True}, (), "pooling_mode_median_tokens"),
        (flags("mean_tokens") | {"word_embedding_dimension": 16}, (), "expected 8, the width of the text tower"),
        (flags("mean_tokens"), ("Dense",), "2_Dense is not implemented"),
    ],
)
def test_another_pooling_is_refused_by_name(words, content, parts, words_said):
    state(words, content, parts)
    with pytest.raises(ConfigError, match=words_said):
        load_bert(words)


def test_a_pooling_that_is_named_and_absent_is_one_line(words):
    state(words, flags("cls_token"))
    (words / "1_Pooling" / "config.json").unlink()
    with pytest.raises(DataError, match="in which the pooling stands"):
        load_bert(words)
    (words / "modules.json").write_text("{")
    with pytest.raises(DataError, match="no list of the parts"):
        load_bert(words)
