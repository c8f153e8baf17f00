"""Errors keep what they say on their way from another process."""

import pickle

import pytest

from ranjax.core.errors import ConfigError, DataError, RunError


@pytest.mark.parametrize(
    "error", [ConfigError("a.b", 1, "a text", "did you mean 'c'?"), DataError("no rows"), RunError("no memory")]
)
def test_an_error_of_another_process_is_the_same(error):
    found = pickle.loads(pickle.dumps(error))
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))
