"""Augmentation in the loader: a function of seed, epoch and id; bounds; what must not change; files decoded as read."""

import numpy as np
import pytest
from small_data import ListSource, records, source

from ranjax.core.errors import ConfigError
from ranjax.data.batches import Batches, Loader
from ranjax.data.images.augment import Augmentation, generator
from ranjax.data.text.tokenizer import Tokenizer

ALL = Augmentation(crop=0.6, flip=0.5, contrast=0.4, sentences=1.0)


@pytest.fixture(scope="module")
def pairs():
    return source(24)


@pytest.fixture(scope="module")
def tokenizer(pairs):
    return Tokenizer.build([*pairs.column("report"), "a b c d e f g h"])


def same(left, right):
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def test_neither_threads_nor_memory_nor_processes_nor_resuming_change_a_batch(pairs, tokenizer):
    def batches(**more):
        return Batches(pairs, 8, seed=1, tokenizer=tokenizer, length=16, augment=ALL, **more)

    plain = batches()
    threaded = batches(threads=3, memory_limit=0)
    halves = [batches(process_index=i, process_count=2) for i in range(2)]
    for step in (4, 0, 7):
        same(plain[step], threaded[step])
        for name, value in plain[step].items():
            np.testing.assert_array_equal(value, np.concatenate([half[step][name] for half in halves]))
    iterator = batches(threads=2, memory_limit=0).iterate(start=5, threads=3)
    same(next(iterator), plain[5])


def test_an_example_depends_on_seed_epoch_and_id_alone(pairs, tokenizer):
    def pictures(seed, batch_size, epoch):
        batches = Batches(pairs, batch_size, seed, tokenizer, 16, augment=ALL)
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        return {str(i): x for s in steps for i, x in zip(batches[s]["ids"], batches[s]["images"])}

    first, other_batches = pictures(0, 8, 0), pictures(0, 12, 0)
    assert first.keys() == other_batches.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], other_batches[name])
    assert all((first[name] != pictures(0, 8, 1)[name]).any() for name in list(first)[:3])
    assert all((first[name] != pictures(1, 8, 0)[name]).any() for name in list(first)[:3])


def test_pictures_stay_in_range_and_keep_their_mean_under_contrast():
    image = np.random.default_rng(0).random((16, 16, 1), dtype=np.float32)
    for i in range(20):
        changed = ALL.image(image, "clear", generator(0, 0, str(i), "image"))
        assert changed.shape == image.shape
        assert changed.dtype == np.float32
        assert changed.min() >= 0
        assert changed.max() <= 1
    quiet = 0.5 + 0.1 * (image - 0.5)
    changed = Augmentation(contrast=0.5).image(quiet, "", generator(0, 0, "a", "image"))
    np.testing.assert_allclose(changed.mean(), quiet.mean(), atol=1e-6)
    ratio = (changed - changed.mean()) / (quiet - quiet.mean())
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-3)
    assert 0.5 <= ratio[0, 0, 0] <= 1.5


def test_a_crop_is_a_window_of_the_picture():
    # A plane is a plane through any window: x + y stays linear, and its range shrinks by the share that is kept.
    ramp = (np.arange(32)[:, None] + np.arange(32)[None]).astype(np.float32) / np.float32(62)
    for i in range(10):
        changed = Augmentation(crop=0.5).image(ramp[:, :, None], "", generator(0, 0, str(i), "image"))[:, :, 0]
        steps = np.diff(changed, axis=0)[2:-2, 2:-2]
        np.testing.assert_allclose(steps, steps[0, 0], atol=1e-4)
        assert 0.49 / 62 <= steps[0, 0] <= 1.01 / 62


def test_a_report_that_names_a_side_is_never_mirrored():
    image = np.random.default_rng(0).random((8, 8, 1), dtype=np.float32)
    always = Augmentation(flip=1.0)
    np.testing.assert_array_equal(always.image(image, "Clear lungs.", generator(0, 0, "a", "image")), image[:, ::-1])
    for report in ("Left effusion.", "The RIGHT lung.", "bilaterally"):
        np.testing.assert_array_equal(always.image(image, report, generator(0, 0, "a", "image")), image)


def test_sentences_change_places_and_none_is_lost(tokenizer):
    text = "A b. C d. E f. G h."
    seen = {ALL.report(text, generator(0, 0, str(i), "report")) for i in range(50)}
    assert len(seen) > 10
    assert {tuple(sorted(s.split(". "))) for s in (t.rstrip(".") for t in seen)} == {("A b", "C d", "E f", "G h")}
    assert Augmentation().report(text, generator(0, 0, "a", "report")) == text


def test_tokens_that_were_crafted_stay(tokenizer):
    made = records(8)
    crafted = np.array([tokenizer.unk_id] * 15 + [tokenizer.eos_id], np.int32)
    made[3] |= {"tokens": crafted, "mask": np.ones(16, bool), "report": "A b. C d. E f."}
    made[4] |= {"report": "A b. C d. E f. G h."}
    batches = Batches(ListSource(made), 8, 0, tokenizer, 16, augment=Augmentation(sentences=1.0))
    rows = [{str(i): t for i, t in zip(batches[step]["ids"], batches[step]["tokens"])} for step in range(6)]
    assert all((row["case-3"] == crafted).all() for row in rows)
    assert any((row["case-4"] != rows[0]["case-4"]).any() for row in rows)


def test_values_outside_are_refused():
    for changes in ({"crop": 0.0}, {"flip": 1.5}, {"contrast": -0.1}, {"sentences": 2.0}):
        with pytest.raises(ConfigError, match=f"augment_{next(iter(changes))}"):
            Augmentation(**changes)
    with pytest.raises(ConfigError, match=r"data\.threads"):
        Loader(ListSource(records(2)), threads=-1)


def test_the_first_batch_warns_where_the_declared_range_is_wrong():
    for dtype, high in ((np.uint8, 1), (np.uint16, 255)):
        dark = [record | {"image": (record["image"] % min(high + 1, 251)).astype(dtype)} for record in records(8)]
        batches = Batches(ListSource(dark), 4, seed=0)
        with pytest.warns(UserWarning, match="no pixel above"):
            batches[0]
        batches[1]
