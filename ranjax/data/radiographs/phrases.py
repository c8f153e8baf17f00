"""The phrases that reports are made of, from phrases.toml."""

from __future__ import annotations

from ranjax.core.files import read_toml

_STORED = read_toml("ranjax.data.radiographs", "phrases.toml")

TERMS: dict[str, tuple[str, ...]] = _STORED["terms"]
NORMAL_TERMS: tuple[str, ...] = _STORED["normal_terms"]
NEGATIONS: tuple[str, ...] = _STORED["negations"]
SEVERITY: dict[str, dict[str, str]] = _STORED["severity"]
PLACES: dict[str, str] = _STORED["places"]
FINDINGS: dict[tuple[str, str], tuple[str, ...]] = {
    (kind, pattern): phrases for kind, patterns in _STORED["findings"].items() for pattern, phrases in patterns.items()
}
IMPRESSIONS: dict[str, tuple[str, ...]] = _STORED["impressions"]
NORMAL_FINDINGS: tuple[str, ...] = _STORED["normal_findings"]
NEGATIVES: tuple[tuple[tuple[str, ...], str], ...] = _STORED["negatives"]
REMARKS: dict[str, tuple[str, ...]] = _STORED["remarks"]
