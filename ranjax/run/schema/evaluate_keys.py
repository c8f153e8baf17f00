"""Keys of the evaluation."""

from ml_collections import ConfigDict

from ranjax.core.checks import Key, at_least, epsilon, pixel_step, some_of
from ranjax.core.errors import ConfigError
from ranjax.core.pixels import pixel_units

ATTACKS = ("pgd", "apgd_ce", "apgd_dlr")
PAIR_ATTACKS = ("image_only", "text_only", "sep", "sequential", "coattack", "sga")


def _radii(value: tuple[str, ...]) -> str:
    good = all(v == "" or (epsilon(v) == "" and pixel_units(v) > 0) for v in value) and len(set(value)) == len(value)
    return "" if good else "different radii above 0 in pixel units, e.g. ('1/255', '2/255', '8/255')"


def _names(*known: str) -> object:
    def check(value: tuple[str, ...]) -> str:
        good = all(v in ("", *known) for v in value) and len(set(value)) == len(value)
        return "" if good else "different names out of " + ", ".join(map(repr, known))

    return check


KEYS = (
    Key("evaluate.epsilon", "4/255", "Radius of the white-box attack.", "pixel units", epsilon),
    Key("evaluate.step", "1/255", "Step of the white-box PGD.", "pixel units", pixel_step),
    Key("evaluate.steps", 10, "Steps of the white-box PGD.", "steps", at_least(1)),
    Key("evaluate.restarts", 1, "Random restarts; the worst counts.", "restarts", at_least(1)),
    Key(
        "evaluate.attacks",
        ("pgd",),
        "Attacks whose worst case is the robust accuracy; pgd must be one of them.",
        "",
        some_of(*ATTACKS, needed="pgd"),
    ),
    Key("evaluate.apgd_steps", 20, "Steps of APGD.", "steps", at_least(1)),
    Key("evaluate.radii", ("",), "Further radii, for the curve of robust accuracy.", "pixel units", _radii),
    Key("evaluate.attacked_splits", ("test",), "Splits that are attacked.", "", some_of("test", "ood_test")),
    Key("evaluate.attacked_seeds", 1, "How many of the heads are attacked.", "seeds", at_least(0)),
    Key("evaluate.attacked_examples", 128, "Test images that are attacked; 0 takes all.", "images", at_least(0)),
    Key("evaluate.draws", 4, "Draws of a random defence that each step of an attack averages.", "draws", at_least(1)),
    Key("evaluate.masking_examples", 24, "Test images of the masking checks; 0: no checks.", "images", at_least(0)),
    Key("evaluate.masking_queries", 30, "Forward passes of their random search.", "queries", at_least(1)),
    Key("evaluate.prompt_words", 0, "Words of each zero-shot prompt that an attack may change.", "words", at_least(0)),
    Key(
        "evaluate.pair_attacks",
        ("",),
        "Attacks on image-report pairs that retrieval is tried under, e.g. ('text_only', 'coattack').",
        "",
        _names(*PAIR_ATTACKS),
    ),
    Key("evaluate.pairs", 128, "Test pairs of those attacks, which are also the gallery.", "pairs", at_least(2)),
    Key("evaluate.pair_words", 3, "Words of a report that they may change.", "words", at_least(0)),
    Key("evaluate.captions", 1, "Captions an image in retrieval; above 1: its report's sentences.", "", at_least(1)),
    Key(
        "evaluate.groups",
        ("",),
        "Columns to group accuracy by; empty: of side, severity, sex, age and view those that the records carry.",
        "columns",
    ),
    Key(
        "evaluate.smallest_group",
        10,
        "Images, or patients where several are of one, that a group needs to count.",
        "",
        at_least(1),
    ),
    Key("evaluate.corruption_examples", 0, "Test images corrupted in 5 ways and strengths; 0: none.", "", at_least(0)),
    Key("evaluate.question_seeds", 0, "Heads that answer questions; 0: no questions.", "", at_least(0)),
    Key("evaluate.projected", 96, "Test images whose features are drawn in a plane.", "images", at_least(0)),
    Key("evaluate.batch_size", 64, "Images at a time on each device.", "images", at_least(1)),
    Key("evaluate.bootstrap", 1000, "Resamples behind each 95 % interval.", "resamples", at_least(10)),
)


def check(config: ConfigDict) -> None:
    """Raises a ConfigError where keys do not fit each other."""
    evaluate = config.evaluate
    if evaluate.question_seeds and config.data.source not in ("radiographs", "prepared"):
        raise ConfigError(
            "evaluate.question_seeds",
            evaluate.question_seeds,
            f"0 where data.source = {config.data.source!r}: questions come with a prepared set of questions, or are "
            "made from the generator's exact findings",
        )
    radii = [pixel_units(v) for v in evaluate.radii if v]
    if radii and pixel_units(evaluate.epsilon) == 0:
        raise ConfigError("evaluate.epsilon", evaluate.epsilon, "above 0 where evaluate.radii are given")
