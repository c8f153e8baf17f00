"""How the fuzzers run: a few fixed examples by default, and for some seconds each among the slow tests."""

import contextlib
import io
import itertools
import os
import time

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

SECONDS = float(os.environ.get("RANJAX_FUZZ_SECONDS", "15"))
"""Of each fuzzer in its long form; CI's ten of them take about two minutes."""
SEED = int(os.environ.get("RANJAX_FUZZ_SEED", "0"))
"""Of the first round of the long form; another one tries examples that no run has seen."""

ROUND = 25
"""Examples of a round; in its long form a fuzzer goes on round after round until its seconds are over."""


def fuzzed(quick, **strategies):
    """Make two tests of a check of drawn values: "short" with `quick` fixed examples (0: none), "long" with rounds of
    others (slow)."""

    def both(check):
        def run(count, fixed, number=0):
            always = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
            # A failure among slow tests is shown as it was drawn: making it smaller takes minutes.
            phases = tuple(phase for phase in Phase if fixed or phase not in (Phase.shrink, Phase.explain))
            chosen = settings(max_examples=count, derandomize=fixed, print_blob=True, phases=phases, **always)
            test = chosen(given(**strategies)(check))
            (test if fixed else seed(number)(test))()

        @pytest.mark.filterwarnings("ignore")
        @pytest.mark.parametrize("length", [*["short"] * (quick > 0), pytest.param("long", marks=pytest.mark.slow)])
        def test(length):
            if length == "short":
                run(quick, fixed=True)
                return
            begun = time.monotonic()
            for number in itertools.count(SEED):
                if time.monotonic() - begun > SECONDS:
                    break
                run(ROUND, fixed=False, number=number)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return both


def check_line(text):
    """Fail where an error or a reason is empty, of several lines, or holds an address of memory."""
    text = str(text)
    assert text, "no word is said"
    assert "\n" not in text, text
    assert " at 0x" not in text, text


def said_by(command):
    """Run a command and return (its exit code, standard output, standard error)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = command()
    return code, out.getvalue(), err.getvalue()
