"""Keys of the report page."""

from ranjax.core.checks import Key, at_least

KEYS = (Key("report.examples", 6, "Attacked pairs shown on the page.", "pairs", at_least(0)),)
