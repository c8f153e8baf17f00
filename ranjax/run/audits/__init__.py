"""Audits: how fragile is a given model, what repairs it, and is that answer to be trusted.

No pre-training and no crafted data: the stages of a run are carried out on the checkpoint as it is.
"""

from __future__ import annotations

from ranjax.core.lazy import exports

_HOMES = {
    "audited_checkpoint": ("AuditedCheckpoint", "open_checkpoint"),
    "carry_out": ("audit_checkpoint",),
    "function_audit": ("AuditReport", "audit"),
    "repairs": ("Repaired", "load", "repair"),
}
__getattr__, __dir__, __all__ = exports(__name__, _HOMES)
