"""Keys of the report page."""

from dataclasses import dataclass

from ranjax.core.checks import at_least
from ranjax.core.settings import keys_of, setting


@dataclass(frozen=True)
class Report:
    """Settings of the report page."""

    examples: int = setting(6, "Attacked pairs shown on the page.", "pairs", at_least(0))


KEYS = keys_of("report", Report)
