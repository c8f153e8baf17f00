"""What was compiled is counted by name, and what is being compiled is known meanwhile."""

import jax
import jax.numpy as jnp
from jax import monitoring

from ranjax.training import compilations


def test_programs_are_counted_by_name_and_only_while_they_are_listened_for():
    x = jnp.arange(3.0)

    @jax.jit
    def doubled(x):
        return x * 2

    with compilations.counting() as found:
        doubled(x)
        doubled(x)
        doubled(x[None])
    doubled(x[None, None])
    assert found.programs["doubled"] == 2
    assert found.count == found.record()["count"] >= 2
    assert found.seconds > 0
    assert found.preparing > 0


class Heard:
    def __init__(self):
        self.said = []

    def began(self, name, preparing):
        self.said.append(("began", name, preparing))

    def ended(self, name, seconds):
        self.said.append(("ended", name, seconds))


def test_a_listener_hears_of_a_program_before_and_after_it_is_compiled():
    heard = Heard()
    with compilations.counting(heard) as found:
        monitoring.record_event_duration_secs(compilations._LOWERED, 0.1, fun_name="jit(step)")
        assert heard.said == [("began", "step", 0.1)]
        monitoring.record_event_duration_secs(compilations._COMPILED, 2.0, fun_name="jit(step)")
    assert heard.said[1:] == [("ended", "step", 2.0)]
    assert found.record() == {"count": 1, "seconds": 2.0, "tracing_seconds": 0.1, "programs": {"step": 1}}
