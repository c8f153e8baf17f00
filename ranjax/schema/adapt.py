"""Keys of the light-weight fine-tuning."""

from ranjax.schema.checks import Key, above, at_least, epsilon, some_of

METHODS = ("lp", "mlp", "nmtune", "ran")

KEYS = (
    Key("adapt.methods", METHODS, "Light-weight fine-tuning methods to fit.", "", some_of(*METHODS)),
    Key("adapt.seeds", 5, "Heads of each method, with seeds 0, 1, ...", "seeds", at_least(1)),
    Key("adapt.epochs", 15, "Passes over the labelled features.", "epochs", at_least(1)),
    Key("adapt.batch_size", 64, "Features a step.", "features", at_least(2)),
    Key("adapt.learning_rate", 1e-3, "AdamW's for residual heads (cosine to 0).", "", above(0)),
    Key("adapt.lp_learning_rate", 1e-2, "AdamW's for the linear probe.", "", above(0)),
    Key("adapt.weight_decay", 1e-4, "AdamW's.", "", at_least(0)),
    Key("adapt.mse", 1.0, "Weight of the consistency term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.cov", 0.04, "Weight of the covariance term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.svd", 0.001, "Weight of the dominant-singular-value term (NMTune and RAN).", "", at_least(0)),
    Key("adapt.top_k", 1, "Singular values counted as dominant.", "values", at_least(1)),
    Key("adapt.defence_ce", 1.0, "RAN: weight of cross-entropy on attacked features.", "", at_least(0)),
    Key("adapt.defence_consistency", 1.0, "RAN: weight of feature consistency under attack.", "", at_least(0)),
    Key("adapt.defence_kl", 1.0, "RAN: weight of prediction consistency under attack.", "", at_least(0)),
    Key("adapt.epsilon", "4/255", "RAN: radius of the ball of its defence examples.", "pixel units", epsilon),
    Key("adapt.step", "1/255", "RAN: step of its PGD.", "pixel units", epsilon),
    Key("adapt.attack_steps", 5, "RAN: steps of its PGD against the frozen encoder.", "steps", at_least(1)),
)
