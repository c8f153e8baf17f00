"""Keys of the upstream noise: ratios, the attack that makes the twins."""

from ml_collections import ConfigDict

from ranjax.errors import ConfigError
from ranjax.schema.checks import Key, at_least, epsilon, one_of, ratios

RECIPES = ("coattack", "sga", "sep", "image_only", "text_only")

KEYS = (
    Key("noise.ratios", (0.0, 0.1, 0.3), "Shares of the upstream pairs that are adversarial.", "shares", ratios),
    Key("noise.recipe", "coattack", "Which attack makes the twins.", "", one_of(*RECIPES)),
    Key(
        "noise.controls",
        ("",),
        "Further recipes, each with arms of its own at the same ratios, e.g. ('gaussian', 'caption_shuffle').",
        "",
        lambda v: "" if all(x in ("", *RECIPES) for x in v) else "names out of " + ", ".join(map(repr, RECIPES)),
    ),
    Key("noise.image_epsilon", "8/255", "Radius of the Linf ball.", "pixel units", epsilon),
    Key("noise.image_step", "2/255", "Step of PGD.", "pixel units", epsilon),
    Key("noise.image_steps", 10, "Steps of PGD.", "steps", at_least(0)),
    Key("noise.max_words", 3, "Words that may change in a report.", "words", at_least(0)),
    Key("noise.top_k", 8, "Substitutions re-scored by a true forward pass each round.", "candidates", at_least(1)),
    Key("noise.protect", True, "Keep negations, sides, numbers and finding words as they are.", ""),
    Key("noise.batch_size", 64, "Pairs attacked at a time on each device.", "pairs", at_least(1)),
    Key(
        "noise.shard_size",
        256,
        "Pairs a shard of the noisy store; a finished shard is never redone.",
        "pairs",
        at_least(1),
    ),
)


def check(config: ConfigDict) -> None:
    """Raises a ConfigError where keys do not fit each other."""
    controls = [name for name in config.noise.controls if name]
    if len({config.noise.recipe, *controls}) <= len(controls):
        raise ConfigError("noise.controls", config.noise.controls, "different recipes, noise.recipe not among them")
    if len(config.noise.ratios) > 1 and config.noise.recipe != "text_only" and config.noise.image_steps == 0:
        raise ConfigError("noise.image_steps", 0, "at least 1 where noise.recipe attacks images")
