"""Splits whose labels allow no fit are refused before anything is trained; what they merely lack is said."""

from pathlib import Path

import numpy as np
import pytest

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.prepared import PreparedSet
from ranjax.data.sources import Source
from ranjax.run import pipeline
from ranjax.run.config import default_config, typed
from ranjax.run.stages import labels
from ranjax.training.devices import make_mesh

CLASSES = ("normal", "mass", "oedema")
FULL = [0, 1, 2] * 4


class _Source(Source):
    def __init__(self, single):
        hot = [np.eye(3)[max(i, 0)] * (i >= 0) for i in single]
        self.columns = {"label": single, "labels": hot, "group": [{}] * len(single)}

    def column(self, name):
        return self.columns[name]


def _prepared(**splits):
    every = {"train": FULL, "adapt": FULL, "validation": FULL, "test": FULL, **splits}
    return PreparedSet(
        folder=Path(),
        splits={name: _Source(single) for name, single in every.items()},
        classes=CLASSES,
        prompts={},
        label_words=(),
        card={},
        counts={name: len(single) for name, single in every.items()},
        exclusions=(),
        fingerprint="",
        content="",
    )


def _check(multi=False, shots=0, methods=("lp",), **splits):
    config = default_config()
    adapt = config.adapt
    adapt.task, adapt.shots, adapt.methods = "multi" if multi else "single", shots, methods
    found = labels.of_splits(_prepared(**splits), multi)
    labels.check(typed(config).adapt, found, CLASSES)
    return labels.notes(found, CLASSES, multi)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"adapt": [0, 2, 2]}, DataError, "no example of split 'adapt' has class 'mass'"),
        ({"adapt": [0, 0, 0], "multi": True}, DataError, "every example of split 'adapt' has class 'normal'"),
        ({"adapt": [0, 1, 1, 2, 2], "shots": 2}, ConfigError, "at most 1: split 'adapt' .* of class 'normal'"),
        ({"validation": [1, 1]}, DataError, "'validation' has examples of class 'mass' alone"),
        ({"validation": [1, 1], "multi": True}, DataError, "no class that some of its examples have"),
        ({"test": [-1, -1]}, DataError, "split 'test' has no example with exactly one"),
        ({"ood_test": [-1]}, DataError, "split 'ood_test' has no example"),
    ],
)
def test_splits_that_allow_no_fit_are_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        _check(**arguments)


def test_what_splits_merely_lack_is_said_with_what_is_done_instead():
    assert _check() == _check(shots=4) == []
    (said,) = _check(validation=[0, 1])
    assert "'validation' has no examples of 'oedema'" in said
    assert "the other classes" in said
    one, two = _check(test=[1, 1, -1], ood_test=[0, 1])
    assert "'test' has no examples of 'normal', 'oedema': AUROC is not defined" in one
    assert "'ood_test'" in two
    assert "means over the other classes" in two
    assert "with and without 'normal'" in _check(multi=True, test=[-1, 1, 2])[0]
    # A defence at test time is fitted to nothing.
    _check(methods=("ttc",), adapt=[0], validation=[0])


@pytest.mark.parametrize(("key", "value"), [("shots", 1), ("share", 0.01)])
def test_a_choice_without_a_negative_example_is_refused_before_anything_is_trained(key, value):
    config = default_config()
    adapt = config.adapt
    adapt.task, adapt[key] = "multi", value
    # The first class is in every example but one, the second in all of those and in that one.
    found = np.ones((40, 2), bool)
    found[7, 0] = found[8:, 1] = False
    ids = [f"image-{i}" for i in range(40)]
    with pytest.raises(ConfigError, match=rf"adapt\.{key} = {value}: expected .* has class 'mass'") as error:
        labels.check_chosen(typed(config).adapt, 0, ids, found, ["mass", "oedema"])
    assert error.value.key == f"adapt.{key}"
    adapt[key] = {"shots": 8, "share": 1.0}[key]
    labels.check_chosen(typed(config).adapt, 0, ids, found, ["mass", "oedema"])


@pytest.mark.slow
def test_what_adapt_cannot_do_is_refused_before_an_condition_is_trained(tmp_path):
    config = default_config()
    data = config.data.radiographs
    data.train, data.adapt, data.validation, data.test, data.ood_test = 16, 16, 16, 16, 16
    config.data.image_size, config.pretrain.batch_size = 32, 8

    def run(until):
        pipeline.execute(config, tmp_path, mesh=make_mesh(1), stop=lambda: False, say=lambda line: None, until=until)

    run("prepare")
    config.adapt.shots = 99
    with pytest.raises(ConfigError, match="split 'adapt' has no more examples of class") as error:
        run("pretrain")
    assert error.value.key == "adapt.shots"
    config.adapt.shots, config.adapt.methods, config.adapt.lora.rank = 0, ("lora",), 999
    with pytest.raises(ConfigError, match=r"adapt\.lora\.rank = 999") as error:
        run("pretrain")
    assert not (tmp_path / "pretrain" / "clean" / "checkpoints").exists()


def test_examples_of_which_a_class_is_unknown_are_not_of_the_multi_label_task():
    prepared = _prepared()
    prepared.splits["test"].columns["group"] = [{"unknown": "mass"}, *[{}] * (len(FULL) - 1)]
    found = labels.of_splits(prepared, True)
    assert [len(found[name]) for name in ("adapt", "test")] == [len(FULL), len(FULL) - 1]
    np.testing.assert_array_equal(found["test"], np.stack(prepared.splits["test"].column("labels"))[1:] > 0.5)
    assert len(labels.of_splits(prepared, False)["test"]) == len(FULL)
    assert labels.left_out(prepared) == [
        "split 'test': 1 examples of which a class is unknown leave the multi-label task"
    ]
