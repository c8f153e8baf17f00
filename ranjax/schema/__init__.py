"""Every configuration key: its default, its unit, what it means, and what is allowed.

One file a group; each has `KEYS`, and `check(config)` where its keys demand something of each other or of other
groups.
"""

from types import ModuleType

from ranjax.schema import adapt, data, evaluate, general, model, noise, pretrain, report, text

GROUPS: tuple[ModuleType, ...] = (general, data, text, model, pretrain, noise, adapt, evaluate, report)
