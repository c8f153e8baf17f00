"""The plan of large sets: work by hand, and a queue of shards against what is known of it."""

import math

import pytest

from experiments.scale import growth


def test_chip_hours_are_the_work_over_the_speed(capsys):
    assert growth.main(["--train_flop", "1e12", "--craft_flop", "2e12", "--epochs", "1", "--utilisation", "0.5"]) == 0
    shown = capsys.readouterr().out
    # 10^9 pairs of 1 TFLOP at half of 197 TFLOP/s.
    assert f"{1e9 / 98.5 / 3600:,.0f} ch" in shown
    assert f"{0.3e9 * 2 / 98.5 / 3600:,.0f} ch" in shown


def test_a_queue_without_preemptions_takes_its_shards_in_turn():
    assert growth.completion(10, 4, 0.5, 0.0) == (1.5, 0.0)


def test_a_queue_under_preemptions_takes_what_theory_says():
    # Of exponential gaps of rate r, a shard of d hours takes (e^(rd) - 1) (1/r + restart) in the mean.
    rate, hours, restart = 1.0, 0.5, 0.1
    expected = (math.exp(rate * hours) - 1) * (1 / rate + restart) * 20_000 / 16
    found, twice = growth.completion(20_000, 16, hours, rate, restart)
    assert found == pytest.approx(expected, rel=0.02)
    lost = (math.exp(rate * hours) - 1) / rate - hours
    assert twice == pytest.approx(lost / (lost + hours), rel=0.03)
