"""Keep compiled programs on the disk: a second start of the same program skips most of its compilation."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import jax

MIN_COMPILE_SECONDS = 0.0


def enable(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Turn JAX's persistent compilation cache on, before anything compiles.

    Args:
      folder: where compiled programs are kept; None: JAX_COMPILATION_CACHE_DIR if set, else ``ranjax/xla`` in
        XDG_CACHE_HOME or ``~/.cache``.

    Returns:
      The folder, or None where it cannot be written: a warning says so, and the run goes on without a cache.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ranjax" / "xla"
    path = Path(folder or os.environ.get("JAX_COMPILATION_CACHE_DIR") or default).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        logging.getLogger("ranjax").warning("no compilation cache: %s cannot be written (%s)", path, reason)
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    return path
