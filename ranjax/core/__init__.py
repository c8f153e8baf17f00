"""The ground of all packages: errors, settings, tables, files, random keys. ``from ranjax.core import Table,
setting``.
"""

from ranjax.core import lazy

__getattr__, __dir__, __all__ = lazy.exports(
    __name__,
    {
        "errors": ("ConfigError", "DataError", "RunError", "nearest"),
        "registry": ("Table",),
        "settings": ("Group", "group", "keys_of", "read", "setting"),
        "keys": ("example_keys", "stream"),
        "files": (),
        "checks": (),
        "pixels": (),
    },
)
