"""Keys of the evaluation."""

from ranjax.schema.checks import Key, at_least, epsilon

KEYS = (
    Key("evaluate.epsilon", "4/255", "Radius of the white-box attack.", "pixel units", epsilon),
    Key("evaluate.step", "1/255", "Step of the white-box PGD.", "pixel units", epsilon),
    Key("evaluate.steps", 10, "Steps of the white-box PGD.", "steps", at_least(1)),
    Key("evaluate.restarts", 1, "Random restarts; the worst counts.", "restarts", at_least(1)),
    Key("evaluate.attacked_seeds", 1, "How many of the heads are attacked.", "seeds", at_least(0)),
    Key("evaluate.attacked_examples", 128, "Test images that are attacked; 0 takes all.", "images", at_least(0)),
    Key("evaluate.masking_examples", 24, "Test images of the masking checks; 0: no checks.", "images", at_least(0)),
    Key("evaluate.masking_queries", 30, "Forward passes of their random search.", "queries", at_least(1)),
    Key("evaluate.batch_size", 64, "Images at a time on each device.", "images", at_least(1)),
    Key("evaluate.bootstrap", 1000, "Resamples behind each 95 % interval.", "resamples", at_least(10)),
)
