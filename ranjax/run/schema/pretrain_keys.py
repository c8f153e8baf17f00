"""Keys of upstream pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from ranjax.core.checks import above, at_least, between, one_of, patterns
from ranjax.core.errors import ConfigError
from ranjax.core.settings import Group, keys_of, setting
from ranjax.run.schema.entry_keys import Config


@dataclass(frozen=True)
class Pretrain(Group):
    """Settings of the upstream runs."""

    steps: int = setting(260, "Steps of each upstream run.", "steps", at_least(1))
    batch_size: int = setting(64, "Global batch; its pairs are each other's negatives.", "pairs", at_least(2))
    objective: str = setting(
        "info_nce",
        "Symmetric InfoNCE, or the pairwise sigmoid loss for encoders with a bias of the logits (SigLIP).",
        check=one_of("info_nce", "sigmoid"),
    )
    learning_rate: float = setting(1e-3, "Peak of the schedule.", check=above(0))
    warmup: float = setting(0.1, "Share of the steps with a linear warm-up; then cosine to 0.", "share", between(0, 1))
    weight_decay: float = setting(0.1, "AdamW's; not on biases, norms, logit scale.", check=at_least(0))
    clip_norm: float = setting(1.0, "Largest gradient norm; 0 switches clipping off.", check=at_least(0))
    trainable: tuple[str, ...] = setting(
        (".",),
        "Regular expressions; parameters whose path holds one are trained, the rest stays bit-equal. '.': all.",
        check=patterns,
    )
    accumulate: int = setting(
        1,
        "Parts in which each device's encoders work through its pairs; all pairs stay each other's negatives.",
        "parts",
        at_least(1),
    )
    loss_chunk: int = setting(
        0,
        "Rows of the batch's matrix of cosines that exist at one time on a device; 0: all of a device's rows.",
        "rows",
        at_least(0),
    )
    checkpoint_every: int = setting(130, "Steps between checkpoints.", "steps", at_least(1))
    keep: int = setting(2, "Newest checkpoints that stay.", "checkpoints", at_least(1))
    keep_best: int = setting(
        0,
        "Checkpoints that stay besides, by the objective on up to 512 validation pairs, taken at each; 0: none.",
        "checkpoints",
        at_least(0),
    )
    choose: str = setting("last", "Encoder that a condition goes on with.", check=one_of("last", "best"))
    log_every: int = setting(50, "Steps between lines of figures.", "steps", at_least(1))
    skip: bool = setting(
        False,
        "No pre-training: the checkpoint of model.weights as it is, or of model.image_weights alone, without texts.",
    )


KEYS = keys_of("pretrain", Pretrain)


def check(config: Config) -> None:
    """Check how keys fit each other.

    Raises:
      ConfigError: two do not.
    """
    if config.pretrain.skip:
        _check_skip(config)
        return
    if config.pretrain.choose == "best" and not config.pretrain.keep_best:
        raise ConfigError("pretrain.keep_best", 0, "at least 1 where pretrain.choose = 'best'")
    batch, count = config.pretrain.batch_size, config.data.radiographs.train
    if config.data.source == "radiographs" and batch > count:
        raise ConfigError("pretrain.batch_size", batch, f"at most data.radiographs.train = {count}")


def _check_skip(config: Config) -> None:
    if not (config.model.weights or config.model.image_weights):
        expected = "a checkpoint, as pretrain.skip = True trains none"
        raise ConfigError("model.weights", config.model.weights, expected)
    if any(ratio > 0 for ratio in config.noise.ratios):
        raise ConfigError("noise.ratios", config.noise.ratios, "(0.0,) where pretrain.skip = True: nothing is trained")
    if not config.model.weights and config.evaluate.texts:
        expected = "False where pretrain.skip = True takes an image tower alone"
        raise ConfigError("evaluate.texts", config.evaluate.texts, expected)
