"""Fit heads of several methods on features of your own."""

import numpy as np

from ranjax.methods import METHODS, Examples, Fit, fit_heads, fit_method, predict

rng = np.random.default_rng(0)
means = rng.normal(size=(3, 16))


def split(count):  # stands for your arrays
    labels = rng.integers(0, 3, count)
    features = (means[labels] + rng.normal(size=(count, 16))).astype(np.float32)
    return Examples(features, labels, attacked=features + np.float32(0.3) * np.sign(rng.normal(size=features.shape)))


train, validation, test = split(120), split(60), split(60)
settings = Fit(epochs=6, class_weights="balanced")
methods = [METHODS[name].settings for name in ("ran_v1", "ran_v1_without_mse")]
fitted = fit_heads(methods, train, validation, classes=3, seeds=range(2), settings=settings)
z, logits = predict(fitted.head, fitted.select(0, 1), test.features)  # method 0, its second seed
print(float(np.mean(np.argmax(logits, axis=1) == test.labels)), fitted.chosen, fitted.notes)

probe = fit_method(METHODS["lp"], METHODS["lp"].settings, train, validation, classes=3, seeds=[0], shared=Fit())
print(probe.facts, float(probe.history[0, 0, 0]))  # its penalty, its last gradient; validation accuracy
