"""Hugging Face BertModel and BertForMaskedLM folders, in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from ranjax.core.errors import ConfigError, DataError
from ranjax.models.checkpoints.naming import SAME, Layout, linear, norm, read_tree, write_tree
from ranjax.models.checkpoints.weight_files import CONFIG, read_config, read_weights, write_weights
from ranjax.models.towers.bert import Bert, BertConfig, BertFunctions, Params, split_bert

_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
_DECODER = "cls.predictions.decoder."
# Parts of published checkpoints that neither use needs: next-sentence head, and the pooler where none is wanted.
_UNUSED = ("cls.seq_relationship.", "pooler.")


def load_bert_mlm(folder: str | Path, dtype: str = "float32") -> tuple[BertFunctions, Params, BertConfig]:
    """Reads a masked language model (BertForMaskedLM or BertForPreTraining, as `transformers` saves them).

    Raises:
      DataError: files absent, damaged, pickled or stand-ins; an output matrix that is not tied to the token table.
      WeightsError: a DataError with the lists of missing, extra and mis-shaped keys.
      ConfigError: a config that is not BERT's, or asks for what is not implemented.
    """
    config = bert_config_from_transformers(read_config(folder), masked_lm=True)
    return _load(folder, config, dtype)


def load_bert(folder: str | Path, dtype: str = "float32") -> tuple[BertFunctions, Params, BertConfig]:
    """Reads a text encoder (BertModel, or any BERT with a head, which is left out); raises as `load_bert_mlm`.

    The pooler is kept where the files hold one.
    """
    weights = _rename(read_weights(folder))
    pooler = "pooler.dense.weight" in weights
    config = bert_config_from_transformers(read_config(folder), pooler=pooler)
    weights = {key: value for key, value in weights.items() if not key.startswith("cls.")}
    return _load(folder, config, dtype, weights)


def save_bert(folder: str | Path, functions: BertFunctions, params: Params) -> None:
    """Writes a folder that `transformers` reads as BertForMaskedLM (with that head) or else as BertModel."""
    config = functions.config
    content = bert_config_to_transformers(config)
    content["architectures"] = ["BertForMaskedLM" if config.masked_lm else "BertModel"]
    content["dtype"] = str(params["token_embedding"].dtype)
    prefix = "bert." if config.masked_lm else ""
    weights = write_tree(params, bert_layout(config))
    named = {key if key.startswith("cls.") else prefix + key: value for key, value in weights.items()}
    write_weights(folder, named, {CONFIG: content})


def bert_config_to_transformers(config: BertConfig) -> dict:
    """The content of config.json, but for architecture and dtype."""
    activation = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}[config.activation]
    return {
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_length,
        "type_vocab_size": config.types,
        "hidden_act": activation,
        "layer_norm_eps": config.layer_norm_eps,
        "pad_token_id": config.pad_id,
        "tie_word_embeddings": True,
    }


def bert_config_from_transformers(content: Mapping, masked_lm: bool = False, pooler: bool = False) -> BertConfig:
    """The config of a BERT's config.json. Raises ConfigError for what is not implemented."""
    if content.get("model_type") != "bert":
        raise ConfigError("config.json: model_type", content.get("model_type"), "'bert'")
    for key, wanted in (("position_embedding_type", "absolute"), ("is_decoder", False), ("tie_word_embeddings", True)):
        if content.get(key, wanted) != wanted:
            raise ConfigError(f"config.json: {key}", content[key], repr(wanted))
    activation = content.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise ConfigError("config.json: hidden_act", activation, f"one of {', '.join(_ACTIVATIONS)}")
    return BertConfig(
        vocab_size=content.get("vocab_size", 30522),
        width=content.get("hidden_size", 768),
        layers=content.get("num_hidden_layers", 12),
        heads=content.get("num_attention_heads", 12),
        mlp_width=content.get("intermediate_size", 3072),
        max_length=content.get("max_position_embeddings", 512),
        types=content.get("type_vocab_size", 2),
        activation=_ACTIVATIONS[activation],
        layer_norm_eps=content.get("layer_norm_eps", 1e-12),
        pad_id=content.get("pad_token_id") or 0,
        pooler=pooler,
        masked_lm=masked_lm,
    )


def bert_layout(config: BertConfig) -> Layout:
    """Every parameter's key, without the "bert." in front of the encoder's."""
    layout: Layout = {
        ("token_embedding",): ("embeddings.word_embeddings.weight", SAME),
        ("positions",): ("embeddings.position_embeddings.weight", SAME),
        ("types",): ("embeddings.token_type_embeddings.weight", SAME),
        **norm(("norm",), "embeddings.LayerNorm"),
    }
    for i in range(config.layers):
        path, prefix = ("blocks", "layers", str(i)), f"encoder.layer.{i}"
        layout |= norm((*path, "norm1"), f"{prefix}.attention.output.LayerNorm")
        layout |= norm((*path, "norm2"), f"{prefix}.output.LayerNorm")
        for group, ours, theirs in (
            ("attention", "query", "attention.self.query"),
            ("attention", "key", "attention.self.key"),
            ("attention", "value", "attention.self.value"),
            ("attention", "out", "attention.output.dense"),
            ("mlp", "fc1", "intermediate.dense"),
            ("mlp", "fc2", "output.dense"),
        ):
            layout |= linear((*path, group, ours), f"{prefix}.{theirs}")
    if config.pooler:
        layout |= linear(("pooler",), "pooler.dense")
    if config.masked_lm:
        layout |= linear(("head", "transform"), "cls.predictions.transform.dense")
        layout |= norm(("head", "norm"), "cls.predictions.transform.LayerNorm")
        layout[("head", "bias")] = ("cls.predictions.bias", SAME)
    return layout


def _load(
    folder: str | Path, config: BertConfig, dtype: str, weights: dict[str, np.ndarray] | None = None
) -> tuple[BertFunctions, Params, BertConfig]:
    weights = _rename(read_weights(folder)) if weights is None else weights
    table = weights.get("embeddings.word_embeddings.weight")
    decoder = weights.pop(_DECODER + "weight", None)
    if decoder is not None and table is not None and not np.array_equal(decoder, table):
        raise DataError(f"{folder}: the output matrix differs from the token table, to which BERT's is tied")
    bias = weights.pop(_DECODER + "bias", None)
    if bias is not None:
        weights.setdefault("cls.predictions.bias", bias)
    layout = bert_layout(config)
    known = {key for key, _ in layout.values()}
    weights = {key: value for key, value in weights.items() if key in known or not key.startswith(_UNUSED)}
    template = jax.eval_shape(lambda: split_bert(Bert(config, nnx.Rngs(0)))[1])
    weights = dict(weights)
    return BertFunctions(config), read_tree(weights, layout, template, folder, dtype=dtype), config


def _rename(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keys without "bert.", as today's."""
    return today_s_keys({key.removeprefix("bert."): value for key, value in weights.items()})


def today_s_keys(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Layer norms of the oldest files (gamma, beta) under today's names."""
    names = {".gamma": ".weight", ".beta": ".bias"}

    def renamed(key: str) -> str:
        for old, new in names.items():
            key = key.replace(f"LayerNorm{old}", f"LayerNorm{new}")
        return key

    return {renamed(key): value for key, value in weights.items()}
