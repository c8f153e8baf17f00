"""Keys of the upstream noise: ratios, the attack that makes the noisy pairs."""

from ml_collections import ConfigDict

from ranjax.core.checks import Key, at_least, between, epsilon, one_of, pixel_step, ratios, some_of
from ranjax.core.errors import ConfigError

ATTACKS = ("coattack", "sga", "sep", "sequential", "image_only", "text_only")
CONTROLS = ("gaussian", "caption_shuffle")
RECIPES = (*ATTACKS, *CONTROLS)
KINDS = ("negation", "laterality", "stop_words", "numbers", "units")
CANDIDATES = ("vocabulary", "masked_lm", "neighbours", "thesaurus")

KEYS = (
    Key("noise.ratios", (0.0, 0.1, 0.3), "Shares of the upstream pairs that are adversarial.", "shares", ratios),
    Key(
        "noise.recipe", "coattack", "Which attack, or control without one, makes the noisy pairs.", "", one_of(*RECIPES)
    ),
    Key(
        "noise.controls",
        ("",),
        "Further recipes, each with conditions of its own, e.g. ('gaussian', 'caption_shuffle').",
        "",
        lambda v: "" if all(x in ("", *RECIPES) for x in v) else "names out of " + ", ".join(map(repr, RECIPES)),
    ),
    Key(
        "noise.control_ratios",
        (0.0,),
        "Ratios of the controls' conditions, some of noise.ratios; (0.0,): all of them.",
        "shares",
        ratios,
    ),
    Key("noise.image_epsilon", "8/255", "Radius of the Linf ball.", "pixel units", epsilon),
    Key("noise.image_step", "2/255", "Step of PGD.", "pixel units", pixel_step),
    Key("noise.image_steps", 10, "Steps of PGD.", "steps", at_least(0)),
    Key(
        "noise.gradient_dtype",
        "float32",
        "What PGD's gradients are computed in; the losses that are recorded are float32 either way.",
        "",
        one_of("float32", "bfloat16"),
    ),
    Key("noise.max_words", 3, "Words that may change in a report.", "words", at_least(0)),
    Key(
        "noise.share",
        1.0,
        "Words that may change as a share of a report's words, rounded up; noise.max_words holds as well.",
        "share",
        between(0, 1),
    ),
    Key(
        "noise.max_queries",
        0,
        "Forward passes on changed texts that a search may spend on a report (SGA searches twice); 0: no bound.",
        "passes",
        at_least(0),
    ),
    Key("noise.top_k", 8, "Substitutions re-scored by a true forward pass each round.", "candidates", at_least(1)),
    Key("noise.beam", 1, "Texts kept from round to round; 1 is greedy.", "texts", at_least(1)),
    Key(
        "noise.text_search",
        "gradient",
        "Words in the order of their first-order gain, or of their importance (as BERT-Attack; needs candidate lists).",
        "",
        one_of("gradient", "importance"),
    ),
    Key(
        "noise.candidates",
        ("vocabulary",),
        "Where replacements come from; with several, what all of them allow.",
        "",
        some_of(*CANDIDATES),
    ),
    Key("noise.masked_lm", "corpus", "Folder of a BERT with its head; 'corpus': a small one is trained here.", "path"),
    Key("noise.masked_lm_k", 10, "Words that the masked language model proposes for a word.", "words", at_least(1)),
    Key("noise.masked_lm_steps", 400, "Steps of the one that is trained here.", "steps", at_least(1)),
    Key("noise.neighbours", 50, "Nearest words in the surrogate's token embedding.", "words", at_least(1)),
    Key("noise.neighbour_cosine", 0.0, "Least cosine of such a neighbour.", "cosine", between(-1, 1)),
    Key("noise.thesaurus", "radiology_synonyms", "Bundled list or file of groups of synonyms.", "name or path"),
    Key("noise.same_class", False, "Replace a word by one of its own class, where both are known."),
    Key(
        "noise.similarity", -1.0, "Least cosine to the original report's embedding; -1: none.", "cosine", between(-1, 1)
    ),
    Key("noise.protect", True, "Keep negations, sides, numbers and finding words as they are.", ""),
    Key(
        "noise.protect_labels",
        True,
        "Of these, the words of the classes and the label words of the data; the rest stays kept.",
    ),
    Key(
        "noise.lists",
        ("",),
        "Files in place of the bundled lists of protected words, e.g. ('negation=mine.txt', 'laterality=sides.txt').",
        "kind=path",
        lambda v: (
            "" if all(x == "" or (x.partition("=")[0] in KINDS and "=" in x) for x in v) else f"kind=path, of {KINDS}"
        ),
    ),
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
    unknown = [ratio for ratio in config.noise.control_ratios if ratio not in config.noise.ratios]
    if unknown:
        raise ConfigError("noise.control_ratios", unknown[0], f"of noise.ratios {tuple(config.noise.ratios)}")
    attacked = [name for name in (config.noise.recipe, *controls) if name in ATTACKS and name != "text_only"]
    if len(config.noise.ratios) > 1 and attacked and config.noise.image_steps == 0:
        raise ConfigError("noise.image_steps", 0, f"at least 1 where {attacked[0]} attacks images")
    if config.noise.text_search == "importance" and config.noise.candidates == ("vocabulary",):
        allowed = "'masked_lm', 'neighbours' or 'thesaurus' among them where noise.text_search = 'importance'"
        raise ConfigError("noise.candidates", config.noise.candidates, allowed)
