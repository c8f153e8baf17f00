"""Keys of config files that change nothing about what a tower computes; every other key is used or refused."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ranjax.core.errors import ConfigError, nearest

_OF_TRAINING = (
    "attention_dropout attention_probs_dropout_prob classifier_dropout dropout hidden_dropout_prob initializer_factor "
    "initializer_range gradient_checkpointing drop_path_rate layerdrop loss_type problem_type finetuning_task"
)
_OF_FILES = (
    "ranjax _attn_implementation_autoset _commit_hash _name_or_path architectures auto_map dtype model_type "
    "name_or_path torch_dtype torchscript transformers_version tf_legacy_loss use_bfloat16 use_cache use_return_dict "
    "return_dict attn_implementation _attn_implementation experts_implementation transformers_weights"
)
_OF_OUTPUTS = (
    "output_attentions output_hidden_states output_past tie_word_embeddings tie_encoder_decoder "
    "chunk_size_feed_forward "
    "id2label label2id num_labels task_specific_params tokenizer_class prefix projection_dim "
    "sep_token_id decoder_start_token_id cross_attention_hidden_size bos_token_id eos_token_id pad_token_id "
    "projection_size directionality "
    "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type out_features "
    "out_indices stage_names"
)
# Of generating text, which no tower here does; older configs hold all of them.
_OF_GENERATION = (
    "bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size "
    "exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id length_penalty max_length min_length "
    "no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_scores remove_invalid_values "
    "repetition_penalty return_dict_in_generate suppress_tokens temperature top_k top_p typical_p"
)
_OF_PICTURES = (
    "crop_pct crop_size data_format default_to_square device disable_grouping do_center_crop "
    "do_convert_rgb do_normalize do_pad do_rescale do_resize feature_extractor_type image_mean image_processor_type "
    "image_std input_data_format max_num_patches model_input_names pad_size patch_size processor_class resample "
    "rescale_factor return_tensors size _valid_processor_keys image_size"
)
HARMLESS = frozenset(f"{_OF_TRAINING} {_OF_FILES} {_OF_OUTPUTS} {_OF_GENERATION}".split())
"""Names by transformers' `PretrainedConfig`; a key of theirs has no part in the features of a text or image."""
_ONLY_OFF = ("add_cross_attention", "is_decoder", "is_encoder_decoder", "pruned_heads", "quantization_config",
             "output_stride", "adapters", "do_convert_grayscale")  # fmt: skip

OF_PICTURES = frozenset(_OF_PICTURES.split())
"""Keys of preprocessor_config.json: those that `read_pixels` uses, and those of resizing, which is done here by
`ranjax prepare`."""


def refuse_unknown(
    content: Mapping[str, object], known: Iterable[str], prefix: str, harmless: frozenset[str] = HARMLESS
) -> None:
    """Raise ConfigError for a key that is neither `known` nor harmless; one that is null or empty is passed.

    False is no way to say nothing: it may switch off what is always on here.
    """
    names = {*known, *harmless}
    for key, value in content.items():
        if key in _ONLY_OFF and value:
            raise ConfigError(prefix + key, value, "none: what it asks for is not implemented")
        # What begins with "_" is a note of some program to itself.
        if key not in names and key not in _ONLY_OFF and not key.startswith("_") and not is_nothing(value):
            expected = "a key that is used here, or known to change nothing"
            raise ConfigError(prefix + key, value, expected, nearest(key, names))


def is_nothing(value: object) -> bool:
    """Return whether a value of JSON is null or empty."""
    return value is None or (isinstance(value, list | tuple | Mapping | str) and not value)


def object_of(content: Mapping[str, Any], key: str, prefix: str) -> dict[str, Any]:
    """Return the object under `key`, an empty one for null or where it is absent. Raises ConfigError for any other."""
    found = content.get(key)
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(prefix + key, found, "an object")
    return dict(found or {})


def refuse_statistics(content: Mapping[str, Any], keys: tuple[str, str], prefix: str) -> None:
    """Raise ConfigError where a mean or a deviation of pixels, by the names in `keys`, is no list of numbers."""
    for key in keys:
        value = content.get(key)
        numbers = isinstance(value, list) and value and all(type(v) in (int, float) for v in value)
        if value is not None and not (numbers and (key == keys[0] or min(value) > 0)):
            expected = "a list of numbers, one a channel" + ", above 0" * (key == keys[1])
            raise ConfigError(prefix + key, value, expected)


def refuse_type(key: str, value: object, example: object, prefix: str) -> None:
    """Raise ConfigError where a value is of another type than transformers' own default, e.g. a list for a number."""
    kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,), list: (list, tuple)}
    expected = {int: "a whole number", float: "a number", str: "a name", bool: "true or false", list: "a list"}
    kind = type(example)
    if kind in kinds and (not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind is not bool)):
        raise ConfigError(prefix + key, value, expected[kind])
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(prefix + key, value, "a finite number")
