"""The table of towers: one entry a kind of tower. Keys, files and `ranjax list towers` are derived from it."""

from __future__ import annotations

from collections.abc import Iterable

from ranjax.core.errors import ConfigError
from ranjax.core.registry import Table
from ranjax.models.towers.contract import Content, Tower, TowerConfig, TowerFiles
from ranjax.models.towers.tower_configs import (
    BertConfig,
    EfficientNetConfig,
    ModifiedResNetConfig,
    ResNetConfig,
    TextTransformerConfig,
    ViTConfig,
)

# Modules and files by name: the table is read before JAX is there.
_TRANSFORMERS = "ranjax.models.checkpoints.transformers_towers"
_OPEN_CLIP = "ranjax.models.checkpoints.open_clip_files"
_TIMM = "ranjax.models.checkpoints.timm_towers"
_EFFICIENTNET = "ranjax.models.checkpoints.efficientnet_files"

TOWERS: Table[Tower] = Table(
    "tower",
    Tower,
    (
        Tower(
            "vit",
            "Vision transformer",
            ViTConfig,
            "ranjax.models.towers.vision_transformer:VisionTransformer",
            options=("remat", "scan"),
            files=(
                f"{_TRANSFORMERS}:CLIP_VISION",
                f"{_TRANSFORMERS}:SIGLIP_VISION",
                f"{_OPEN_CLIP}:VIT",
                f"{_TIMM}:VIT",
            ),
            states="ranjax.models.towers.vision_transformer:states",
            source="Dosovitskiy et al. 2021, arXiv 2010.11929; as CLIP's, timm's and SigLIP's",
        ),
        Tower(
            "resnet",
            "Residual network",
            ResNetConfig,
            "ranjax.models.towers.resnet:ResNet",
            options=("remat",),
            files=(f"{_TRANSFORMERS}:RESNET", f"{_TIMM}:RESNET"),
            states="ranjax.models.towers.resnet:states",
            source="He et al. 2016, arXiv 1512.03385; as torchvision's",
        ),
        Tower(
            "efficientnet",
            "EfficientNet-Lite",
            EfficientNetConfig,
            "ranjax.models.towers.efficientnet:EfficientNet",
            options=("remat",),
            files=(f"{_EFFICIENTNET}:TENSORFLOW", f"{_EFFICIENTNET}:TIMM"),
            states="ranjax.models.towers.efficientnet:states",
            source="Tan & Le 2019, arXiv 1905.11946; Lite0 to 4, as timm's",
        ),
        Tower(
            "modified_resnet",
            "CLIP's residual network",
            ModifiedResNetConfig,
            "ranjax.models.towers.resnet:ModifiedResNet",
            options=("remat",),
            files=(f"{_OPEN_CLIP}:MODIFIED_RESNET",),
            states="ranjax.models.towers.resnet:states",
            source="Radford et al. 2021, arXiv 2103.00020, section 2.4",
        ),
        Tower(
            "text_transformer",
            "Text transformer",
            TextTransformerConfig,
            "ranjax.models.towers.text_transformer:TextTransformer",
            options=("remat", "scan"),
            files=(f"{_TRANSFORMERS}:CLIP_TEXT", f"{_TRANSFORMERS}:SIGLIP_TEXT", f"{_OPEN_CLIP}:TEXT"),
            states="ranjax.models.towers.text_transformer:states",
            source="Radford et al. 2021, arXiv 2103.00020; as CLIP's and SigLIP's",
        ),
        Tower(
            "bert",
            "BERT",
            BertConfig,
            "ranjax.models.towers.bert:Bert",
            options=("remat", "scan"),
            files=("ranjax.models.checkpoints.bert_files:BERT", f"{_OPEN_CLIP}:BERT"),
            states="ranjax.models.towers.bert:states",
            source="Devlin et al. 2019, arXiv 1810.04805",
        ),
    ),
    key="model.image_tower",
)


class CannotHoldError(Exception):
    """An encoder that a layout of files cannot hold; its message is the reason."""


def tower_of(config: object) -> Tower:
    """Return the entry of a tower's config.

    Raises:
      ConfigError: no entry has configs of this class.
    """
    for tower in TOWERS.values():
        if tower.config is type(config):
            return tower
    expected = f"the config of an entry of TOWERS ({', '.join(TOWERS)})"
    raise ConfigError("tower", type(config).__name__, expected, "Add your own with TOWERS.add(TOWER).")


def files_of(config: TowerConfig, library: str, kinds: Iterable[str] = ()) -> TowerFiles:
    """Return how a library's files keep a tower, out of all of its ways or of those that `kinds` names.

    Raises:
      CannotHoldError: they cannot, and why.
    """
    tower = tower_of(config)
    reason = f"{library} has no tower like {tower.name!r}"
    for files in tower.files_of(library):
        if files.kind in (tuple(kinds) or (files.kind,)):
            reason = files.refuses(config)
            if not reason:
                return files
    raise CannotHoldError(reason)


def files_reading(content: Content, library: str, kind: str) -> TowerFiles | None:
    """Return the way of a library that reads an "image" or "text" tower's part of a config; None: there is none."""
    return next((files for files in all_files(library, kind) if files.reads(content)), None)


def all_files(library: str, kind: str) -> list[TowerFiles]:
    """Return every way in which a library's files keep "image" or "text" towers."""
    return [files for tower in TOWERS.values() if tower.kind == kind for files in tower.files_of(library)]
