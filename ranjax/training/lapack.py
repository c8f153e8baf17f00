"""Keep LAPACK to one thread while many small matrices are decomposed, one a training step.

On a CPU, JAX takes eigenvalues by the LAPACK that SciPy ships (OpenBLAS). Some of its releases share even a 64 x 64
matrix out over all cores, whose threads then wait for each other actively: with SciPy 1.18 on 2 cores that takes 4 to
6 times the time of one thread, and training RAN's head with it 3 times.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scipy


@contextlib.contextmanager
def one_thread() -> Iterator[bool]:
    """Within it SciPy's OpenBLAS uses one thread; then as many as before. Changes no result beyond rounding.

    Also a decorator. Wait within it for what JAX is to compute: JAX returns before it has.

    Yields:
      Whether it took effect; False, and nothing else, where SciPy stands on another LAPACK.
    """
    library = _openblas()
    if library is None:
        yield False
        return
    before = library.scipy_openblas_get_num_threads()
    library.scipy_openblas_set_num_threads(1)
    try:
        yield True
    finally:
        library.scipy_openblas_set_num_threads(before)


@functools.cache
def _openblas() -> Any:
    """The OpenBLAS in SciPy's wheel, which JAX calls too; None: there is none."""
    package = Path(scipy.__file__).parent
    for folder in (package.parent / "scipy.libs", package / ".dylibs"):  # Linux and Windows, macOS
        for path in sorted(folder.glob("libscipy_openblas*")):
            try:
                library = ctypes.CDLL(str(path))
                library.scipy_openblas_get_num_threads.restype = ctypes.c_int
                library.scipy_openblas_set_num_threads.argtypes = (ctypes.c_int,)
            except (OSError, AttributeError):
                continue
            return library
    return None
