"""Runs: their config, plan and stages. ``from ranjax.run import resolve, execute``."""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "config": ("default_config", "describe", "flatten", "load", "override", "resolve", "typed", "validate"),
        "context": ("Context", "Stopped"),
        "pipeline": ("execute",),
        "run_status": ("status",),
        "schema": ("RunConfig",),
    },
)
