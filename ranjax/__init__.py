"""ranjax: adversarial noise in the upstream data of medical vision-language models; craft it, measure it, rectify it.

Importing this package imports nothing heavy; import the room you need, e.g. ``from ranjax import attacks``, or begin
with ``import ranjax as rx``: `rx.audit`, `rx.repair`, `rx.load`, heads as estimators, e.g. `rx.RAN`,
``rx.AutoAttack(model, eps="4/255").run(images, labels)`` and ``rx.attacks.PGD(eps="8/255")(model, images, labels)``.
"""

from ranjax.core.lazy import exports as _exports

__version__ = "0.3.0"
_HOMES = {
    "attacks": (),
    "evaluation.autoattack": ("AutoAttack",),
    "methods.estimators": ("LP", "MLP", "NMTune", "RAN", "Ridge"),
    "run.audits.function_audit": ("audit",),
    "run.audits.repairs": ("load", "repair"),
}
__getattr__, __dir__, __all__ = _exports(__name__, _HOMES)
