"""Packages that only some parts need, and the command that installs them."""

from __future__ import annotations

import importlib.util

_MODULES = {
    "hf": ("transformers", "tokenizers", "safetensors"),
    "data": ("tensorflow_datasets", "array_record", "grain", "PIL", "pyarrow"),
    "dicom": ("pydicom",),
    "report": ("matplotlib", "jinja2", "pandas"),
    "log": ("tqdm", "tensorboardX"),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
    "cloud": ("obstore",),
    "ray": ("ray",),
    "slurm": ("submitit",),
}
EXTRAS = {module: extra for extra, modules in _MODULES.items() for module in modules}
"""By top-level module, the extra that installs it."""


class MissingExtraError(ImportError):
    """A package that an extra brings is not installed; the message names the command that installs it."""

    def __init__(self, module: str):
        extra = EXTRAS[module]
        super().__init__(f"{module} is not installed. Install it with: pip install 'ranjax[{extra}]'", name=module)


def require(*modules: str) -> None:
    """Check that the modules can be imported.

    Args:
      modules: names out of `EXTRAS`, e.g. "pandas".

    Raises:
      MissingExtraError: one cannot be.
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module)
