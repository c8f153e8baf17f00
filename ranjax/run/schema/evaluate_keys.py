"""Keys of the evaluation."""

import itertools
from dataclasses import dataclass

from ranjax.attacks.attack_table import ATTACKS, raises_any_loss
from ranjax.core.checks import at_least, epsilon, one_of, pixel_step, some_of
from ranjax.core.errors import ConfigError
from ranjax.core.pixels import pixel_units
from ranjax.core.settings import Group, group, keys_of, setting
from ranjax.data.recipe_table import RECIPES, searches_words
from ranjax.evaluation.modalities import MODALITIES
from ranjax.methods.fusion_settings import FusionTraining
from ranjax.methods.table import METHODS
from ranjax.run.schema.entry_keys import Config, EntryKeys, EntryNames


def _radii(value: tuple[str, ...]) -> str:
    good = all(v == "" or pixel_step(v) == "" for v in value) and len(set(value)) == len(value)
    return "" if good else "different radii above 0 in pixel units, e.g. ('1/255', '2/255', '8/255')"


def _rising_words(value: tuple[int, ...]) -> str:
    good = value and value[0] >= 1 and all(b > a for a, b in itertools.pairwise(value))
    return "" if good else "rising numbers of words from 1, e.g. (1, 2, 4)"


@dataclass(frozen=True)
class Evaluate(Group):
    """How adapted encoders are judged: clean, attacked, corrupted, by retrieval."""

    attacks: tuple[str, ...] = setting(
        ("standard",),
        "Attacks on images, by name or module:NAME, or the suite 'standard' (apgd_ce, apgd_t, square); their worst "
        "case is the robust accuracy, the first is the one that rows and masking checks show by itself. Settings of "
        "each: evaluate.ATTACK.SETTING.",
        check=EntryNames(ATTACKS),
    )
    epsilon: str = setting("4/255", "Radius of the white-box attacks.", "pixel units", epsilon)
    restarts: int = setting(1, "Random restarts of each attack; the worst counts.", "restarts", at_least(1))
    radii: tuple[str, ...] = setting(("",), "Further radii, for the curve of robust accuracy.", "pixel units", _radii)
    attacked_splits: tuple[str, ...] = setting(
        ("test",), "Splits that are attacked.", check=some_of("test", "ood_test")
    )
    attacked_seeds: int = setting(1, "How many of the heads are attacked.", "seeds", at_least(0))
    attacked_examples: int = setting(128, "Test images that are attacked; 0 takes all.", "images", at_least(0))
    texts: bool = setting(True, "Whether the text tower is judged, too: zero-shot by prompts, and retrieval.")
    draws: int = setting(4, "Draws of a random defence that each step of an attack averages.", "draws", at_least(1))
    masking_examples: int = setting(24, "Test images of the masking checks; 0: no checks.", "images", at_least(0))
    masking_methods: tuple[str, ...] = setting(
        ("",),
        "Methods that are checked besides the reference, the most robust one and your own.",
        check=EntryNames(METHODS),
    )
    masking_queries: int = setting(500, "Forward passes of their random search, Square.", "queries", at_least(1))
    prompt_words: int = setting(0, "Words of each zero-shot prompt that an attack may change.", "words", at_least(0))
    pair_attacks: tuple[str, ...] = setting(
        ("",),
        "Attacks on image-report pairs that retrieval is tried under, e.g. ('text_only', 'coattack').",
        check=EntryNames(RECIPES),
    )
    image_attack: str = setting("pgd", "Attack on the images of those pairs, with evaluate.epsilon.")
    pairs: int = setting(128, "Test pairs of those attacks, which are also the gallery.", "pairs", at_least(2))
    pair_words: int = setting(3, "Words of a report that they may change.", "words", at_least(0))
    text_attacks: tuple[str, ...] = setting(
        ("",),
        "Searches that change words of those reports, and of the prompts: by 'gradient', by 'importance' with near "
        "words, 'masked_lm' (BERT-Attack), 'typos'.",
        check=some_of("", "gradient", "importance", "masked_lm", "typos"),
    )
    text_words: tuple[int, ...] = setting(
        (1, 2, 4), "Words that they may change, for the curve.", "words", _rising_words
    )
    captions: int = setting(1, "Captions an image in retrieval; above 1: its report's sentences.", check=at_least(1))
    groups: tuple[str, ...] = setting(
        ("",),
        "Columns to group accuracy by; empty: of side, severity, sex, age and view those that the records carry.",
        "columns",
    )
    smallest_group: int = setting(
        10, "Images, or patients where several are of one, that a group needs to count.", check=at_least(1)
    )
    corruption_examples: int = setting(
        0, "Test images corrupted in several ways, each in 5 strengths; 0: none.", check=at_least(0)
    )
    modalities: tuple[str, ...] = setting(
        ("",), "What made the images, which decides how they are corrupted.", check=some_of("", *MODALITIES)
    )
    question_seeds: int = setting(0, "Heads that answer questions; 0: no questions.", check=at_least(0))
    question_methods: tuple[str, ...] = setting(
        ("lp", "mlp"),
        "Heads that answer them, on the fused features of image and question.",
        check=EntryNames(METHODS),
    )
    fusion: str = setting(
        "product",
        "How a question is fused with its image: both embeddings and their product, or co-attention of both towers' "
        "states (evaluate.coattention).",
        check=one_of("product", "coattention"),
    )
    coattention: FusionTraining = group(FusionTraining)
    question_attacks: tuple[str, ...] = setting(
        ("",),
        "What is attacked of questions about images, through the fusion end to end: 'image' (evaluate.image_attack), "
        "'question' (words by their gradient, as noise.protect allows) or 'both'; or the question's words by the "
        "searches of evaluate.text_attacks, 'importance', 'masked_lm' (BERT-Attack), 'typos'.",
        check=some_of("", "image", "question", "both", "importance", "masked_lm", "typos"),
    )
    question_words: int = setting(1, "Words of a question that its attack may change.", "words", at_least(1))
    question_examples: int = setting(256, "Questions of a split that are attacked; 0: all.", check=at_least(0))
    projected: int = setting(96, "Test images whose features are drawn in a plane.", "images", at_least(0))
    batch_size: int = setting(64, "Images at a time on each device.", "images", at_least(1))
    bootstrap: int = setting(1000, "Resamples behind each 95 % interval.", "resamples", at_least(10))


KEYS = keys_of("evaluate", Evaluate)
IMAGE_ATTACKS = EntryKeys(ATTACKS, ("evaluate.attacks", "evaluate.image_attack"), "evaluate")
PAIR_ATTACKS = EntryKeys(RECIPES, ("evaluate.pair_attacks",), "evaluate", accepts=searches_words)
TABLES = (IMAGE_ATTACKS, PAIR_ATTACKS)
RENAMED = {
    "evaluate.step": "evaluate.pgd.step",
    "evaluate.steps": "evaluate.pgd.steps",
    "evaluate.apgd_steps": "evaluate.apgd_ce.steps and evaluate.apgd_dlr.steps",
}


def check(config: Config) -> None:
    """Raise a ConfigError where keys do not fit each other."""
    evaluate = config.evaluate
    if evaluate.question_seeds and config.data.source not in ("radiographs", "prepared"):
        origin = "questions come with a prepared set of questions, or are made from the generator's exact findings"
        expected = f"0 where data.source = {config.data.source!r}: {origin}"
        raise ConfigError("evaluate.question_seeds", evaluate.question_seeds, expected)
    _check_questions(config)
    radii = [pixel_units(v) for v in evaluate.radii if v]
    if radii and pixel_units(evaluate.epsilon) == 0:
        raise ConfigError("evaluate.epsilon", evaluate.epsilon, "above 0 where evaluate.radii are given")
    if not evaluate.texts:
        for name, off in (("prompt_words", 0), ("pair_attacks", ("",)), ("text_attacks", ("",)), ("question_seeds", 0)):
            if evaluate[name] != off:
                raise ConfigError(f"evaluate.{name}", evaluate[name], f"{off} where evaluate.texts = False")
    if not any(evaluate.attacks):
        raise ConfigError("evaluate.attacks", evaluate.attacks, "at least one attack")
    for attack in IMAGE_ATTACKS.named(config, "evaluate.attacks").values():
        if config.adapt.task == "multi" and "single_label" in attack.needs:
            expected = f"attacks without {attack.name!r} where adapt.task = 'multi': its loss takes one label"
            raise ConfigError("evaluate.attacks", evaluate.attacks, expected)
        attack.check(IMAGE_ATTACKS.settings_of(config, attack), restarts=evaluate.restarts, prefix="evaluate")
    for attack in IMAGE_ATTACKS.named(config, "evaluate.image_attack").values():
        if expected := raises_any_loss(attack):
            raise ConfigError("evaluate.image_attack", evaluate.image_attack, expected)
        attack.check(IMAGE_ATTACKS.settings_of(config, attack), prefix="evaluate")


def _check_questions(config: Config) -> None:
    evaluate = config.evaluate
    network = evaluate.coattention
    if network.width % network.heads:
        expected = f"a multiple of evaluate.coattention.heads = {network.heads}"
        raise ConfigError("evaluate.coattention.width", network.width, expected)
    for name in METHODS.names_of(evaluate.question_methods, "evaluate.question_methods"):
        method = METHODS[name]
        if method.family != "head" or "questions" in method.needs:
            expected = "heads on features of both image and question; either alone is always tried, too"
            raise ConfigError("evaluate.question_methods", name, expected)
        if "filter" in method.needs and not config.adapt.filter:
            raise ConfigError("adapt.filter", config.adapt.filter, f"above 0 where {name!r} answers questions")
    if any(evaluate.question_attacks) and not evaluate.question_seeds:
        expected = "at least 1 where evaluate.question_attacks are given"
        raise ConfigError("evaluate.question_seeds", evaluate.question_seeds, expected)
