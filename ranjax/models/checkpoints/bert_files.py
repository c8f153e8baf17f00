"""BERTs of transformers: BertModel and BertForMaskedLM folders, in and out; the text tower of a dual encoder."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from ranjax.core.errors import ConfigError, DataError
from ranjax.core.types import Params
from ranjax.models.checkpoints.naming import Content, Keys, Weights, blocks, named, read_tree, write_tree
from ranjax.models.checkpoints.sentence_pooling import stated_pooling
from ranjax.models.checkpoints.transformers_towers import Fields
from ranjax.models.checkpoints.weight_files import CONFIG, folder_of, read_config, read_weights, write_weights
from ranjax.models.towers.bert import Bert, BertFunctions, split_bert
from ranjax.models.towers.contract import TowerFiles
from ranjax.models.towers.tower_configs import BertConfig

FIELDS = Fields(
    {
        "vocab_size": "vocab_size",
        "hidden_size": "width",
        "num_hidden_layers": "layers",
        "num_attention_heads": "heads",
        "intermediate_size": "mlp_width",
        "max_position_embeddings": "max_length",
        "type_vocab_size": "types",
        "hidden_act": "activation",
        "layer_norm_eps": "layer_norm_eps",
        "pad_token_id": "pad_id",
    },
    {"vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu"}
    | {"layer_norm_eps": 1e-12, "pad_token_id": 0},
    only={"position_embedding_type": "absolute", "is_decoder": False, "tie_word_embeddings": True},
)
_NAMES = {
    "token_embedding": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "types": "embeddings.token_type_embeddings.weight",
    "norm": "embeddings.LayerNorm.*",
    **blocks(
        "encoder.layer.{}.",
        {
            "attention/query": "attention.self.query.*",
            "attention/key": "attention.self.key.*",
            "attention/value": "attention.self.value.*",
            "attention/out": "attention.output.dense.*",
            "norm1": "attention.output.LayerNorm.*",
            "mlp/fc1": "intermediate.dense.*",
            "mlp/fc2": "output.dense.*",
            "norm2": "output.LayerNorm.*",
        },
    ),
}
_HEAD_NAMES = {
    "head/transform": "cls.predictions.transform.dense.*",
    "head/norm": "cls.predictions.transform.LayerNorm.*",
    "head/bias": "cls.predictions.bias",
}
_DECODER = "cls.predictions.decoder."
_TODAY = {"gamma": "weight", "beta": "bias"}
# Parts of published checkpoints that neither use needs: next-sentence head, and the pooler where none is wanted.
_UNUSED = ("cls.seq_relationship.", "pooler.")


def load_bert_mlm(folder: str | Path, dtype: str = "float32") -> tuple[BertFunctions, Params, BertConfig]:
    """Read a masked language model (BertForMaskedLM or BertForPreTraining, as `transformers` saves them).

    Raises:
      DataError: files absent, damaged, pickled or stand-ins; an output matrix that is not tied to the token table.
      WeightsError: a DataError with the lists of missing, extra and mis-shaped keys.
      ConfigError: a config that is not BERT's, or asks for what is not implemented.
    """
    config = read_bert_config(read_config(folder))
    return _load(folder, dataclasses.replace(config, masked_lm=True), dtype, _read(folder))


def load_bert(folder: str | Path, dtype: str = "float32") -> tuple[BertFunctions, Params, BertConfig]:
    """Read a text encoder (BertModel, or any BERT with a head, which is left out); raises as `load_bert_mlm`.

    Its pooling is what a folder of sentence-transformers states; else BERT's pooler where the files hold one, else the
    first token's state.
    """
    weights = {key: value for key, value in _read(folder).items() if not key.startswith("cls.")}
    config = read_bert_config(read_config(folder), "pooler" if "pooler.dense.weight" in weights else "cls")
    stated = stated_pooling(folder_of(folder), config.width)
    return _load(folder, dataclasses.replace(config, pooling=stated or config.pooling), dtype, weights)


def save_bert(folder: str | Path, functions: BertFunctions, params: Params) -> None:
    """Write a folder that `transformers` reads as BertForMaskedLM (with that head) or else as BertModel."""
    config = functions.config
    content = write_bert_config(config)
    content["architectures"] = ["BertForMaskedLM" if config.masked_lm else "BertModel"]
    content["dtype"] = str(params["token_embedding"].dtype)
    prefix = "bert." if config.masked_lm else ""
    weights = write_tree(params, bert_keys(config))
    named = {key if key.startswith("cls.") else prefix + key: value for key, value in weights.items()}
    write_weights(folder, named, {CONFIG: content})


def read_bert_config(content: Content, pooling: str = "cls") -> BertConfig:
    """Return the config of a BERT's config.json. Raises ConfigError for what is not implemented."""
    if content.get("model_type") != "bert":
        raise ConfigError("config.json: model_type", content.get("model_type"), "'bert'")
    fields = FIELDS.read(content)
    return BertConfig(**fields | {"pad_id": fields["pad_id"] or 0}, pooling=pooling)


def write_bert_config(config: BertConfig) -> dict[str, object]:
    """Return the content of config.json, but for architecture and dtype."""
    return {"model_type": "bert", **FIELDS.write(config), "tie_word_embeddings": True}


def bert_keys(config: BertConfig) -> Keys:
    """Return every parameter's key, without the "bert." in front of the encoder's."""
    pooler = {"pooler": "pooler.dense.*"} if config.pooling == "pooler" else {}
    return named(_NAMES | pooler | (_HEAD_NAMES if config.masked_lm else {}), config.layers)


BERT = TowerFiles(
    library="transformers",
    kind="bert",
    read=lambda content, weights: read_bert_config(content, "pooler"),
    write=write_bert_config,
    keys=bert_keys,
    refuses=lambda config: (
        ""
        if config.pooling == "pooler"
        else "transformers takes a BERT with pooling 'pooler' and knows no other pooling"
    ),
)


def _load(
    folder: str | Path, config: BertConfig, dtype: str, weights: dict[str, np.ndarray]
) -> tuple[BertFunctions, Params, BertConfig]:
    table = weights.get("embeddings.word_embeddings.weight")
    decoder = weights.pop(_DECODER + "weight", None)
    if decoder is not None and table is not None and not np.array_equal(decoder, table):
        raise DataError(f"{folder}: the output matrix differs from the token table, to which BERT's is tied")
    bias = weights.pop(_DECODER + "bias", None)
    if bias is not None:
        weights.setdefault("cls.predictions.bias", bias)
    keys = bert_keys(config)
    known = {key for key, _ in keys.values()}
    weights = {key: value for key, value in weights.items() if key in known or not key.startswith(_UNUSED)}
    template = jax.eval_shape(lambda: split_bert(Bert(config, nnx.Rngs(0)))[1])
    return BertFunctions(config), read_tree(weights, keys, template, folder, dtype=dtype), config


def _read(folder: str | Path) -> dict[str, np.ndarray]:
    """Read a folder's tensors under today's keys, without "bert."."""
    return modern_keys({key.removeprefix("bert."): value for key, value in read_weights(folder).items()})


def modern_keys(weights: Weights) -> dict[str, np.ndarray]:
    """Return tensors with the layer norms of the oldest files (gamma, beta) under today's names."""
    old = re.compile(r"(?<=LayerNorm\.)(gamma|beta)")
    return {old.sub(lambda found: _TODAY[found[0]], key): value for key, value in weights.items()}
