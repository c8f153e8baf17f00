import jax
import numpy as np
import pytest

from ranjax.core.errors import ConfigError
from ranjax.models import lora
from ranjax.models.trainable import combine, describe_adapters, describe_trainable, partition, select


def test_patterns_choose_and_the_two_parts_make_the_whole(tiny):
    _, params = tiny
    chosen = select(params, [r"^vision/.*bias$", "projection"])
    trained, frozen = partition(params, chosen)
    assert sum(map(bool, jax.tree.leaves(chosen))) == len(jax.tree.leaves(trained))
    assert set(trained) == {"vision", "visual_projection", "text_projection"}
    assert "visual_projection" not in frozen
    jax.tree.map(np.testing.assert_array_equal, combine(trained, frozen), params)


def test_the_table_counts_both_sides(tiny):
    _, params = tiny
    table = describe_trainable(params, select(params, ["log_scale", "text/positions"])).splitlines()
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert table[1].split()[:3] == ["trained", "2", str(8 * 12 + 1)]
    assert "text/positions" in table[1]
    assert f"{total - 97:,}" in table[2]


def test_a_pattern_that_meets_nothing_is_refused(tiny):
    with pytest.raises(ConfigError, match="'vison/'"):
        select(tiny[1], ["vison/"])
    with pytest.raises(ConfigError, match="regular expression"):
        select(tiny[1], ["("])


def test_the_table_of_adapters_sets_them_beside_the_frozen_encoder(tiny):
    _, params = tiny
    adapters = jax.eval_shape(lambda p: lora.add(p, 2, jax.random.key(0)), params)
    table = describe_adapters(params, adapters).splitlines()
    number, total = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (adapters, params))
    assert table[1].split()[:4] == ["trained", "48", f"{number:,}", f"{number / (number + total):.2%}"]
    assert "lora/text/blocks/layers/0/mlp/fc1/kernel/down" in table[1]
    assert f"{total:,}" in table[2]
