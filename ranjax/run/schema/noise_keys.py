"""Keys of the upstream noise: ratios, the attack that makes the noisy pairs."""

from dataclasses import dataclass

from ranjax.attacks.attack_table import ATTACKS, PGDSettings, raises_any_loss
from ranjax.attacks.text.constraints import KINDS
from ranjax.core import checks
from ranjax.core.checks import at_least, between, one_of, some_of
from ranjax.core.errors import ConfigError
from ranjax.core.pixels import pixel_units
from ranjax.core.settings import Group, keys_of, setting
from ranjax.data.recipe_table import MEANINGS, RECIPES, KeywordSettings, Recipe
from ranjax.run.schema.entry_keys import Config, EntryKeys, EntryNames

MOVES = ("replace", "insert", "delete")
CANDIDATES = ("vocabulary", "masked_lm", "neighbours", "thesaurus")


def _l2_radius(value: str) -> str:
    return "a length above 0, or nothing for an Linf ball" if value and checks.length(value) else ""


def _lists(value: tuple[str, ...]) -> str:
    named = [item.partition("=") for item in value if item]
    good = all(kind in KINDS and path for kind, _, path in named)
    return "" if good else f"KIND=FILE or KIND=off, with a kind of {', '.join(KINDS)}"


@dataclass(frozen=True)
class Noise(Group):
    """Which pairs are noisy, and the search that makes them."""

    ratios: tuple[float, ...] = setting(
        (0.0, 0.1, 0.3), "Shares of the upstream pairs that are adversarial.", "shares", checks.ratios
    )
    recipe: str = setting(
        "coattack", "Attack, or control without one, that makes the noisy pairs: a name, or yours as module:NAME."
    )
    controls: tuple[str, ...] = setting(
        ("",),
        "Further recipes, each with conditions of its own, e.g. ('gaussian', 'caption_shuffle').",
        "",
        EntryNames(RECIPES),
    )
    control_ratios: tuple[float, ...] = setting(
        (0.0,),
        "Ratios of the controls' conditions, some of noise.ratios; (0.0,): all of them.",
        "shares",
        checks.ratios,
    )
    meaning: str = setting(
        "recipe",
        "What changed captions say: 'contradict', they are false; 'keep', they stay true; 'recipe': as each declares.",
        check=one_of("recipe", *MEANINGS),
    )
    image_attack: str = setting(
        "pgd", "Attack on the images of pairs, by name or module:NAME; its settings are noise.ATTACK.SETTING."
    )
    image_epsilon: str = setting("8/255", "Radius of the Linf ball around each image.", "pixel units", checks.epsilon)
    l2_epsilon: str = setting(
        "", "Radius of an L2 ball in place of the Linf one: the length of all pixels' changes.", "", _l2_radius
    )
    restarts: int = setting(1, "Random starts of the attack on images; the worst counts.", "starts", at_least(1))
    gradient_dtype: str = setting(
        "float32",
        "Precision of the gradients of the attack on images; the losses that are recorded are float32 either way.",
        check=one_of("float32", "bfloat16"),
    )
    max_words: int = setting(3, "Words that may change in a report.", "words", at_least(0))
    share: float = setting(
        1.0,
        "Words that may change as a share of a report's words, rounded up; noise.max_words holds as well.",
        "share",
        between(0, 1),
    )
    max_queries: int = setting(
        0,
        "Forward passes on changed texts that a search may spend on a report (SGA searches twice); 0: no bound.",
        "passes",
        at_least(0),
    )
    top_k: int = setting(8, "Substitutions re-scored by a true forward pass each round.", "candidates", at_least(1))
    beam: int = setting(1, "Texts kept from round to round; 1 is greedy.", "texts", at_least(1))
    moves: tuple[str, ...] = setting(
        ("replace",),
        "What the gradient's search may do to a word: replace it, put another one after it, leave it out.",
        check=some_of(*MOVES),
    )
    text_search: str = setting(
        "gradient",
        "Words in the order of their first-order gain, or of their importance (as BERT-Attack; needs candidate lists).",
        check=one_of("gradient", "importance"),
    )
    candidates: tuple[str, ...] = setting(
        ("masked_lm",),
        "Where replacements come from; with several, the words that all of them allow.",
        check=some_of(*CANDIDATES),
    )
    masked_lm: str = setting("corpus", "Folder of a BERT with its head; 'corpus': a small one is trained here.", "path")
    masked_lm_k: int = setting(10, "Words that the masked language model proposes for a word.", "words", at_least(1))
    masked_lm_steps: int = setting(400, "Steps of the one that is trained here.", "steps", at_least(1))
    neighbours: int = setting(50, "Nearest words in the surrogate's token embedding.", "words", at_least(1))
    neighbour_cosine: float = setting(0.0, "Least cosine of such a neighbour.", "cosine", between(-1, 1))
    thesaurus: str = setting("radiology_synonyms", "Bundled list or file of groups of synonyms.", "name or path")
    same_class: bool = setting(True, "Replace a word by one of its own class or part of speech, where both are known.")
    similarity: float = setting(
        0.5, "Least cosine to the original report's embedding; -1: none.", "cosine", between(-1, 1)
    )
    protect: bool = setting(True, "Keep negations, sides, numbers and finding words as they are.")
    protect_labels: bool = setting(
        True, "Of these, the words of the classes and the label words of the data; the rest stays protected."
    )
    lists: tuple[str, ...] = setting(
        ("",),
        "Files in place of the bundled lists of protected words, e.g. ('negation=mine.txt', 'laterality=off').",
        "kind=path",
        _lists,
    )
    plausible_pairs: int = setting(
        64,
        "Noisy captions whose perplexity under the masked language model is measured; 0: none, and none is trained.",
        "captions",
        at_least(0),
    )
    batch_size: int = setting(64, "Pairs attacked at a time on each device.", "pairs", at_least(1))
    shard_size: int = setting(
        256, "Pairs a shard of the noisy store; a finished shard is never redone.", "pairs", at_least(1)
    )


KEYS = keys_of("noise", Noise)
IMAGE_ATTACKS = EntryKeys(
    ATTACKS, ("noise.image_attack",), "noise", {"pgd": PGDSettings(step="2/255")}, accepts=raises_any_loss
)
RECIPE_KEYS = EntryKeys(RECIPES, ("noise.recipe", "noise.controls"), "noise")
TABLES = (IMAGE_ATTACKS, RECIPE_KEYS)
RENAMED = {"noise.image_step": "noise.pgd.step", "noise.image_steps": "noise.pgd.steps"}
NOT_IN_A_PAIR = ("ratios", "recipe", "controls", "control_ratios", "plausible_pairs", "batch_size", "shard_size")
"""Keys of `noise` that do not decide what a noisy pair looks like, or that are recorded apart."""


def check(config: Config) -> None:
    """Raise a ConfigError where keys do not fit each other."""
    noise = config.noise
    RECIPE_KEYS.one(config, "noise.recipe")
    recipes = RECIPE_KEYS.named(config)
    if len(recipes) < 1 + sum(map(bool, noise.controls)):
        raise ConfigError("noise.controls", noise.controls, "different recipes, noise.recipe not among them")
    unknown = [ratio for ratio in noise.control_ratios if ratio not in noise.ratios]
    if unknown:
        raise ConfigError("noise.control_ratios", unknown[0], f"some of noise.ratios {tuple(noise.ratios)}")
    if noise.text_search == "importance" and tuple(noise.moves) != ("replace",):
        raise ConfigError("noise.moves", noise.moves, "('replace',) where noise.text_search = 'importance'")
    if noise.text_search == "importance" and noise.candidates == ("vocabulary",):
        expected = "'masked_lm', 'neighbours' or 'thesaurus' among them where noise.text_search = 'importance'"
        raise ConfigError("noise.candidates", noise.candidates, expected)
    controls = [recipe.name for recipe in recipes.values() if recipe.kind == "control" and "image" in recipe.changes]
    if noise.l2_epsilon and controls:
        raise ConfigError("noise.l2_epsilon", noise.l2_epsilon, f"nothing with the control {controls[0]!r}")
    for recipe in recipes.values():
        if recipe.kind == "attack" and noise.meaning not in ("recipe", *recipe.meanings):
            allowed = " or ".join(map(repr, ("recipe", *recipe.meanings)))
            raise ConfigError("noise.meaning", noise.meaning, f"{allowed} with the recipe {recipe.name!r}")
    if "captions" in recipes and not caption_file(config):
        raise ConfigError("noise.captions.file", "", "a CSV with the columns 'id' and 'caption'")
    for attack in IMAGE_ATTACKS.named(config).values():
        if noise.l2_epsilon and "l2" not in attack.takes:
            raise ConfigError("noise.l2_epsilon", noise.l2_epsilon, f"nothing with the attack {attack.name!r}")
        settings = IMAGE_ATTACKS.settings_of(config, attack)
        attack.check(settings, norm=ball(config)[0], restarts=noise.restarts, prefix="noise")
        if noise.gradient_dtype != "float32" and "surrogate" not in attack.takes:
            expected = f"'float32' with the attack {attack.name!r}"
            raise ConfigError("noise.gradient_dtype", noise.gradient_dtype, expected)


def ball(config: Config) -> tuple[str, float]:
    """Return the norm and the radius in pixels of the ball around each image."""
    noise = config.noise
    return ("l2", pixel_units(noise.l2_epsilon)) if noise.l2_epsilon else ("linf", pixel_units(noise.image_epsilon))


def meaning_of(config: Config, recipe: Recipe) -> str:
    """Return the regime of a recipe's captions, of `MEANINGS`; "" where it changes none."""
    if "text" not in recipe.changes:
        return ""
    declared: str = config.noise.meaning
    return declared if declared in recipe.meanings else recipe.meanings[0]


def text_of(config: Config, recipe: Recipe) -> str:
    """Return where a recipe's changed captions come from, "words", "keywords" or "captions"; "" of a control."""
    if recipe.kind == "control" or "text" not in recipe.changes:
        return ""
    if recipe.text:
        return recipe.text
    brought = "captions" if caption_file(config) else "keywords"
    return {"keep": "words", "contradict": brought}[meaning_of(config, recipe)]


def caption_file(config: Config) -> str:
    """Return the path of the captions that the user brings; "" for none."""
    found: str = RECIPE_KEYS.settings_of(config, RECIPES["captions"]).file
    return found


def keyword_settings(config: Config) -> KeywordSettings:
    """Return the settings of the exchange of keywords, which several recipes may use."""
    found: KeywordSettings = RECIPE_KEYS.settings_of(config, RECIPES["keywords"])
    return found


def notes(config: Config) -> list[str]:
    """Return a line for each setting of an entry that no key names and no recipe uses."""
    used = {text_of(config, recipe) for recipe in RECIPE_KEYS.named(config).values()}
    return [*IMAGE_ATTACKS.unused(config), *RECIPE_KEYS.unused(config, *used)]


def recorded(config: Config) -> dict[str, object]:
    """Return the settings that decide what a noisy pair looks like, as plain JSON, for its provenance."""
    noise = config.noise
    names = [name for name in (key.name.removeprefix("noise.") for key in KEYS) if name not in NOT_IN_A_PAIR]
    found = {name: list(noise[name]) if isinstance(noise[name], tuple) else noise[name] for name in names}
    found |= IMAGE_ATTACKS.recorded(config) | RECIPE_KEYS.recorded(config, "noise.recipe")
    recipe = RECIPE_KEYS.one(config, "noise.recipe")
    text = text_of(config, recipe)
    more = RECIPE_KEYS.settings_of(config, RECIPES[text]) if text in ("keywords", "captions") else None
    return found if more is None else found | {text: dict(vars(more))}
