"""Strict settings for every test: 8 forced CPU devices, strict dtypes, ranks that must match, warnings as errors."""

import collections
import os

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # jax 0.10 can deadlock on forced CPU devices: fail fast rather than hang.
        "--xla_cpu_collective_call_terminate_timeout_seconds=120",
    ]
).strip()
# "gpu" where tests of the marker `gpu` find one, "rehearsal" where a second CPU device stands in its place.
os.environ["JAX_PLATFORMS"] = "cuda,cpu" if os.environ.get("RANJAX_TESTS_GPU") == "gpu" else "cpu"
# Otherwise the commands would make and use the tester's own key.
os.environ.setdefault("RANJAX_PATIENT_KEY", "a secret of the tests, and of nothing else")

from pathlib import Path

import jax
import jaxtyping
import pytest

ON_GPU = os.environ.get("RANJAX_TESTS_GPU", "")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Tests compile much and compute little: half the time goes without LLVM's expensive passes.
jax.config.update("jax_disable_most_optimizations", ON_GPU != "gpu")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not ON_GPU:
        pytest.skip("needs a GPU: RANJAX_TESTS_GPU=gpu python -m pytest -n 0 -m gpu tests/test_gpu.py")


_CHECKED = collections.Counter()


def _checked_at_first(jaxtyped):
    """`jaxtyped`, but of a function in another only the first three made are checked: a check takes 1 ms to make."""

    def of(*args, **options):
        if args:
            return jaxtyped(*args, **options)

        def decorated(function):
            if "<locals>" in getattr(function, "__qualname__", ""):
                place = (function.__code__.co_filename, function.__code__.co_firstlineno)
                _CHECKED[place] += 1
                if _CHECKED[place] > 3:
                    return function
            return jaxtyped(function, **options)

        return decorated

    return of


# Before anything of ranjax is imported: the import hook looks the decorator up by this name.
jaxtyping.jaxtyped = _checked_at_first(jaxtyping.jaxtyped)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs {path}, which is not part of the project and absent here")
    return path


@pytest.fixture(scope="session")
def reference_cases() -> Path:
    """Folder of reference values computed by other implementations; skips where it is absent."""
    return _shared("reference/cases")


@pytest.fixture(scope="session")
def nih_folder() -> Path:
    """Folder of real chest X-rays (NIH ChestX-ray14 excerpt); skips where it is absent."""
    return _shared("data/nih_cxr")


@pytest.fixture(scope="session")
def covid_folder() -> Path:
    """Folder of real chest X-rays from another source; skips where it is absent."""
    return _shared("data/covid_cxr")


@pytest.fixture
def unchecked():
    """Switches the checks of signatures off, for tests of how ranjax itself refuses wrong types and shapes."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def float64():
    """Runs the test with 64-bit floats and ints enabled."""
    with jax.enable_x64(True):
        yield
