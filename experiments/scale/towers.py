"""The shape of a config's dual encoder without its weights: from its keys, or from the config.json of what it names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ranjax.core.errors import ConfigError
from ranjax.models import DualEncoderConfig
from ranjax.models.checkpoints.bert_files import read_bert_config
from ranjax.models.checkpoints.transformers_layouts import vision_files
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
    bert = read_bert_config(_content(config, "text_weights"), model["bert"]["pooling"])
    image: Any = new_image_tower(config)
    options = run_options(config)
    if model.image_weights:
        content = _content(config, "image_weights")
        image = replace(vision_files(content).read(content, {}), image_size=config.data.image_size)
    if image.channels == 1:
        options.pop("grey_to_rgb")
    return DualEncoderConfig(image=image, text=bert, embed_dim=model.embed_dim, **options)


def _content(config: Any, key: str) -> Any:
    folder = Path(config.model[key])
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"model.{key}", str(folder), f"a folder with a {CONFIG}; experiments/scale/shapes holds some")
    return read_config(folder)
