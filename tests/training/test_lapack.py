"""LAPACK on one thread within a block, and as before after it."""

import jax.numpy as jnp
import numpy as np
import pytest

from ranjax.training import lapack


def test_one_thread_within_the_block_and_as_before_after_it():
    library = lapack._openblas()
    if library is None:
        with lapack.one_thread() as taken:
            assert not taken
        pytest.skip("SciPy stands on another LAPACK")
    before = library.scipy_openblas_get_num_threads()
    library.scipy_openblas_set_num_threads(2)
    try:
        with lapack.one_thread() as taken:
            assert taken
            assert library.scipy_openblas_get_num_threads() == 1
            np.testing.assert_allclose(jnp.linalg.eigvalsh(jnp.diag(jnp.arange(1.0, 4.0))), [1, 2, 3], rtol=1e-6)
        assert library.scipy_openblas_get_num_threads() == 2
        with pytest.raises(RuntimeError, match="stop"), lapack.one_thread():
            raise RuntimeError("stop")
        assert library.scipy_openblas_get_num_threads() == 2
    finally:
        library.scipy_openblas_set_num_threads(before)
