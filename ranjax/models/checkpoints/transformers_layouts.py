"""The dual encoders of transformers: CLIPModel, SiglipModel, VisionTextDualEncoderModel; config.json and keys."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ranjax.core.errors import ConfigError, nearest
from ranjax.models.checkpoints.bert_files import modern_keys
from ranjax.models.checkpoints.layout import Layout
from ranjax.models.checkpoints.naming import SAME, Arrangement, Content, Json, Keys, Weights, linear, under
from ranjax.models.checkpoints.padding_token import padding_id
from ranjax.models.checkpoints.transformers_towers import PREPROCESSOR, read_pixels
from ranjax.models.checkpoints.weight_files import CONFIG
from ranjax.models.encoder_config import DualEncoderConfig
from ranjax.models.towers.contract import TowerFiles
from ranjax.models.towers.projection_head import LINEAR, Projection
from ranjax.models.towers.tower_configs import TextTransformerConfig
from ranjax.models.towers.tower_table import CannotHoldError, all_files, files_of, files_reading

_ALIASES = {"clip": "clip_vision_model", "siglip": "siglip_vision_model"}


@dataclasses.dataclass(frozen=True)
class _DualEncoderClass:
    """A class of transformers.

    Attributes:
      name: ``model_type``.
      architecture: the class.
      joined: how it joins the towers, in words.
      keys: of what joins the towers.
      image, text: ``model_type`` of the tower that it has; "": any.
      image_projection, text_projection, scale_limited, logit_bias_init: as in `DualEncoderConfig`.
      logit_scale_init: where config.json does not say.
    """

    name: str
    architecture: str
    joined: str
    keys: Keys
    image: str = ""
    text: str = ""
    image_projection: Projection = LINEAR
    text_projection: Projection = LINEAR
    scale_limited: bool = True
    logit_bias_init: float | None = None
    logit_scale_init: float = 2.6592

    def layout(self) -> Layout:
        """Return the layout of its folders."""
        return Layout(
            name=self.name,
            label=f"transformers, {self.architecture}",
            recognises=lambda content: content.get("model_type") == self.name,
            read=self.read,
            keys=self.all_keys,
            check=self.check,
            write=self.write,
            tidy=_tidy,
        )

    def read(self, content: Content, folder: Path, weights: Weights) -> DualEncoderConfig:
        """Return the config of a config.json, see `Layout.read`."""
        if content.get("model_type") != self.name:
            raise ConfigError("config.json: model_type", content.get("model_type"), repr(self.name))
        # Where *_config_dict is present, transformers lets it win.
        vision, written = (
            {**(content.get(f"{part}_config") or {}), **(content.get(f"{part}_config_dict") or {})}
            for part in ("vision", "text")
        )
        files = vision_files(vision | ({"model_type": self.image} if self.image else {}))
        image = files.read(vision, {})
        pixels = read_pixels(folder, files, image.channels)
        text = next(f for f in all_files("transformers", "text") if f.kind == self.text).read(written, {})
        embed_dim = content.get("projection_dim", 512)
        if self.image_projection.kind == "none":
            embed_dim, projected = image.outputs, written.get("projection_size") or text.outputs
            if projected != embed_dim:
                expected = f"{embed_dim}, the image tower's width"
                raise ConfigError("config.json: text_config.projection_size", projected, expected)
        if isinstance(text, TextTransformerConfig) and text.pooling == "last":
            text = dataclasses.replace(text, pad_id=padding_id(folder, text.pad_id, text.vocab_size))
        return DualEncoderConfig(
            image=image,
            text=text,
            embed_dim=embed_dim,
            image_projection=self.image_projection,
            text_projection=self.text_projection,
            scale_limited=self.scale_limited,
            logit_bias_init=self.logit_bias_init,
            logit_scale_init=float(content.get("logit_scale_init_value", self.logit_scale_init)),
            layout=self.name,
            pixel_mean=pixels["pixel_mean"],
            pixel_std=pixels["pixel_std"],
        )

    def check(self, config: DualEncoderConfig) -> None:
        """Raise CannotHoldError for a config that the class has no place for, see `Layout.check`."""
        image, _ = self._towers(config)
        if image.alone:
            raise CannotHoldError(f"{self.architecture} cannot run the tower {image.kind!r}")
        same = (config.logit_bias_init is None) == (self.logit_bias_init is None) and all(
            getattr(config, name) == getattr(self, name)
            for name in ("image_projection", "text_projection", "scale_limited")
        )
        if not same:
            raise CannotHoldError(f"{self.architecture} has {self.joined}")

    def all_keys(self, config: DualEncoderConfig) -> Keys:
        """Return every parameter's key."""
        image, text = self._towers(config)
        vision = under(image.keys(config.image), ("vision",), "vision_model.")
        return self.keys | vision | under(text.keys(config.text), ("text",), "text_model.")

    def write(self, config: DualEncoderConfig, dtype: str) -> dict[str, Json]:
        """Return the JSON files, see `Layout.write`."""
        image, text = self._towers(config)
        parts = {"vision_config": image.write(config.image), "text_config": text.write(config.text)}
        content: Json = {"architectures": [self.architecture], "model_type": self.name, "dtype": dtype}
        if self.image_projection.kind == "none":
            parts["text_config"]["projection_size"] = config.embed_dim
        else:
            content |= {"projection_dim": config.embed_dim, "logit_scale_init_value": config.logit_scale_init}
            if self.image:
                for part in parts.values():
                    part["projection_dim"] = config.embed_dim
        return {CONFIG: content | parts, PREPROCESSOR: _preprocessor(config)}

    def _towers(self, config: DualEncoderConfig) -> tuple[TowerFiles, TowerFiles]:
        image = files_of(config.image, "transformers", (self.image,) if self.image else ())
        return image, files_of(config.text, "transformers", (self.text,))


def vision_files(content: Content) -> TowerFiles:
    """Return how transformers keeps the image tower with that config.

    Raises:
      ConfigError: a kind that no entry of the table of towers reads.
    """
    kind = str(content.get("model_type"))
    content = {**content, "model_type": _ALIASES.get(kind, kind)}
    files = files_reading(content, "transformers", "image")
    if files is None:
        known = [files.kind for files in all_files("transformers", "image")]
        key, expected = "config.json: vision_config.model_type", f"one of {', '.join(known)}"
        raise ConfigError(key, content["model_type"], expected, nearest(kind, known))
    return files


def _preprocessor(config: DualEncoderConfig) -> Json:
    """Return the content of preprocessor_config.json."""
    size = config.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.pixel_mean or ()),
        "image_std": list(config.pixel_std or ()),
        "do_convert_rgb": config.channels == 3,
    }


def _tidy(weights: Weights) -> Weights:
    """Return tensors under today's keys; older files of VisionTextDualEncoder nest the image tower once more."""
    old, new = "vision_model.vision_model.", "vision_model."
    return modern_keys({key.replace(old, new, 1): value for key, value in weights.items()})


_PLAIN: Keys = {
    ("log_scale",): ("logit_scale", SAME),
    **linear("visual_projection", "visual_projection", bias=False),
    **linear("text_projection", "text_projection", bias=False),
}
_LEAD = Arrangement("lead", (1,))
_PLAIN_WORDS = "linear projections without bias, a limited logit scale, and no bias of the logits"
CLIP = _DualEncoderClass(
    name="clip",
    architecture="CLIPModel",
    joined=_PLAIN_WORDS,
    keys=_PLAIN,
    image="clip_vision_model",
    text="clip_text_model",
).layout()
VISION_TEXT = _DualEncoderClass(
    name="vision-text-dual-encoder",
    architecture="VisionTextDualEncoderModel",
    joined=_PLAIN_WORDS,
    keys=_PLAIN,
    text="bert",
).layout()
SIGLIP = _DualEncoderClass(
    name="siglip",
    architecture="SiglipModel",
    joined="a linear map with bias behind texts and none behind images, a free logit scale and a bias of the logits",
    keys={
        ("free_log_scale",): ("logit_scale", _LEAD),
        ("bias",): ("logit_bias", _LEAD),
        **linear("text_projection", "text_model.head"),
    },
    image="siglip_vision_model",
    text="siglip_text_model",
    image_projection=Projection(kind="none"),
    text_projection=Projection(bias=True),
    scale_limited=False,
    # ln 10 and -10: where the paper starts (section 3.2), for encoders that are initialised here.
    logit_bias_init=-10.0,
    logit_scale_init=2.3026,
).layout()
