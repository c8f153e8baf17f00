"""Keys of upstream pre-training."""

from ml_collections import ConfigDict

from ranjax.core.checks import Key, above, at_least, between, one_of, patterns
from ranjax.core.errors import ConfigError

KEYS = (
    Key("pretrain.steps", 260, "Steps of each upstream run.", "steps", at_least(1)),
    Key("pretrain.batch_size", 64, "Global batch; its pairs are each other's negatives.", "pairs", at_least(2)),
    Key(
        "pretrain.objective",
        "info_nce",
        "Symmetric InfoNCE, or the pairwise sigmoid loss for encoders with a bias of the logits (SigLIP).",
        "",
        one_of("info_nce", "sigmoid"),
    ),
    Key("pretrain.learning_rate", 1e-3, "Peak of the schedule.", "", above(0)),
    Key("pretrain.warmup", 0.1, "Share of the steps with a linear warm-up; then cosine to 0.", "share", between(0, 1)),
    Key("pretrain.weight_decay", 0.1, "AdamW's; not on biases, norms, logit scale.", "", at_least(0)),
    Key("pretrain.clip_norm", 1.0, "Largest gradient norm; 0 switches clipping off.", "", at_least(0)),
    Key(
        "pretrain.trainable",
        (".",),
        "Regular expressions; parameters whose path holds one are trained, the rest stays bit-equal. '.': all.",
        "",
        patterns,
    ),
    Key(
        "pretrain.accumulate",
        1,
        "Parts in which each device's encoders work through its pairs; all pairs stay each other's negatives.",
        "parts",
        at_least(1),
    ),
    Key(
        "pretrain.loss_chunk",
        0,
        "Rows of the batch's matrix of cosines that exist at one time on a device; 0: all of a device's rows.",
        "rows",
        at_least(0),
    ),
    Key("pretrain.checkpoint_every", 130, "Steps between checkpoints.", "steps", at_least(1)),
    Key("pretrain.keep", 2, "Newest checkpoints that stay.", "checkpoints", at_least(1)),
    Key(
        "pretrain.keep_best",
        0,
        "Checkpoints that stay besides, by the objective on up to 512 validation pairs, taken at each; 0: none.",
        "checkpoints",
        at_least(0),
    ),
    Key("pretrain.choose", "last", "Encoder that a condition goes on with.", "", one_of("last", "best")),
    Key("pretrain.log_every", 50, "Steps between lines of figures.", "steps", at_least(1)),
)


def check(config: ConfigDict) -> None:
    """Raises a ConfigError where keys do not fit each other."""
    if config.pretrain.choose == "best" and not config.pretrain.keep_best:
        raise ConfigError("pretrain.keep_best", 0, "at least 1 where pretrain.choose = 'best'")
    if config.data.source == "radiographs" and config.pretrain.batch_size > config.data.radiographs.train:
        raise ConfigError(
            "pretrain.batch_size",
            config.pretrain.batch_size,
            f"at most data.radiographs.train = {config.data.radiographs.train}",
        )
