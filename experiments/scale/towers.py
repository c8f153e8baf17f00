"""The shape of a config's dual encoder without its weights: from its keys, or from the config.json of what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError
from ranjax.models import BertTextConfig, TowersConfig
from ranjax.models.checkpoints.bert_files import bert_config_from_transformers
from ranjax.models.checkpoints.vision_text_files import image_tower_files
from ranjax.models.checkpoints.weight_files import CONFIG, read_config
from ranjax.run.stages.inputs import run_options
from ranjax.run.stages.pretrain import encoder_shape, new_image_tower


def shape_of(config: Any, vocab_size: int) -> Any:
    """What `DualEncoder` is made of for this config; `vocab_size` where its tokenizer is not trained yet.

    Raises:
      ConfigError: `model.weights` is given, or a folder holds no config.json, or one of another kind of model.
    """
    model = config.model
    if model.weights:
        allowed = "empty: give model.image_weights and model.text_weights, or the sizes of new towers"
        raise ConfigError("model.weights", model.weights, allowed)
    if not model.text_weights:
        return encoder_shape(config, vocab_size, eos_id=1, bos_id=2, pad_id=0)
    bert = bert_config_from_transformers(_content(config, "text_weights"), pooler=model.text_pooling == "pooler")
    image: Any = new_image_tower(config)
    options = run_options(config)
    if model.image_weights:
        content = _content(config, "image_weights")
        image = image_tower_files(content).read(content).resized(config.data.image_size)
    if image.channels == 1:
        options.pop("grey_to_rgb")
    return TowersConfig(
        image=image,
        text=BertTextConfig(bert=bert, pooling=model.text_pooling),
        embed_dim=model.embed_dim,
        layout="vision-text-dual-encoder",
        **options,
    )


def _content(config: Any, key: str) -> Any:
    folder = Path(config.model[key])
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"model.{key}", str(folder), f"a folder with a {CONFIG}; experiments/scale/shapes holds some")
    return read_config(folder)
