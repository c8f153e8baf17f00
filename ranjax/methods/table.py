"""The table of methods: zero-shot, heads on frozen features, methods that tune the image tower, test-time methods.

One entry a method. Configuration keys, labels, colours, order, groups and choices everywhere are derived from it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from ranjax.core.errors import ConfigError, nearest
from ranjax.core.registry import Table, check_entry
from ranjax.core.settings import Node, read
from ranjax.methods.method_settings import (
    TERMS,
    TTC,
    HeadTraining,
    LogisticSettings,
    RidgeSettings,
    RobustRidgeSettings,
    TowerTraining,
)

NEEDS = ("attack", "attacked", "filter", "questions", "single_label")


@dataclass(frozen=True)
class Style:
    """How a plot draws something: a colour, matplotlib's marker and line style."""

    color: str
    marker: str
    line: str | tuple[float | int, tuple[float | int, ...]]


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
      name: as the config and results.json have it.
      label: as a page has it.
      settings: an instance of a frozen dataclass of `ranjax.core.settings.setting` fields; None: nothing to set.
        `HeadTraining` is trained by `fit_heads`, `TowerTraining` by `tune`, `TTC` changes images at test
        time; any other kind is a head on frozen features that brings `fit` and `predict`.
      keys: the fields that are configuration keys ``adapt.<name>.<field>``; None: all.
      fit: ``(train, validation, settings, *, classes, seeds, shared) -> variables``: two `Examples`, the settings, C,
        the seeds and a `Fit`; a nested dict of arrays with a leading axis of seeds, or a `HeadFit` that holds it. Or
        ``"module:NAME"`` of it, imported when it is used.
      predict: ``(variables, features f32[N, D]) -> logits f32[N, C]`` with the variables of one seed; differentiable.
        Or ``"module:NAME"``.
      style: of its lines and bars; None: the page chooses one.
      needs: some of `NEEDS`: "attack" (a handle that attacks images through the encoder and a head, `Fit.attack`),
        "attacked" (cached features under attack), "filter" (a low-pass filter, adapt.filter above 0), "questions" (a
        set of questions), "single_label" (one label an image).
      variant_of: the method whose settings it takes, but for `changes`.
      changes: the settings in which a variant differs.
      leaves_out: of an ablation, the part of its base that it is without.
      source: the paper.
    """

    name: str
    label: str
    settings: Any = None
    keys: tuple[str, ...] | None = None
    fit: Callable[..., Any] | str | None = None
    predict: Callable[..., Any] | str | None = None
    style: Style | None = None
    needs: tuple[str, ...] = ()
    variant_of: str = ""
    changes: Mapping[str, object] = field(default_factory=dict)
    leaves_out: str = ""
    source: str = ""

    @property
    def family(self) -> str:
        """One of "zero_shot", "head", "tower", "test_time"."""
        kinds = ((type(None), "zero_shot"), (TowerTraining, "tower"), (TTC, "test_time"))
        return next((family for kind, family in kinds if isinstance(self.settings, kind)), "head")

    @property
    def functions(self) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
        """Return `fit` and `predict` of a head that brings its own, imported; None: it brings none."""
        if self.fit is None or self.predict is None:
            return None
        return _loaded(self.fit), _loaded(self.predict)

    def variant(self, name: str, label: str, style: Style | None = None, **others: Any) -> Method:
        """Return a method with the settings of this one; `changes`, `needs` and more are given by name."""
        settings = replace(self.settings, **others.get("changes", {}))
        own = {"style": style, "keys": (), "variant_of": self.name, "needs": self.needs, **others}
        return replace(self, name=name, label=label, settings=settings, **own)

    def __post_init__(self) -> None:
        """Check the contract.

        Raises:
          ConfigError: names the field that is missing or wrong, and what it should be.
        """
        own = self.family == "head" and not isinstance(self.settings, HeadTraining)
        check_entry(self, *(name for name in ("fit", "predict") if own and not isinstance(getattr(self, name), str)))
        for need in self.needs:
            if need not in NEEDS:
                raise ConfigError("Method.needs", need, f"some of {', '.join(NEEDS)}", nearest(need, NEEDS))
        known = [item.name for item in fields(self.settings)] if self.settings else []
        for name in (*(self.keys or ()), *self.changes):
            if name not in known:
                raise ConfigError("Method.keys", name, f"fields of its settings: {', '.join(known)}")
        if self.style is not None and not isinstance(self.style, Style):
            raise ConfigError("Method.style", self.style, "a Style(color, marker, line), or None")


def _loaded(reference: Any) -> Any:
    """Return what ``"module:NAME"`` names, or what is no text as it is."""
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


_DASHED, _DOTTED, _DASH_DOTTED = (0, (4, 1.5)), (0, (1, 1.6)), (0, (4, 1.5, 1, 1.5))
_INPUT = ("features", "filtered", "copies")
_FIXED = ("learning_rate", "weight_decay", "attacked_share", *_INPUT)
_HEAD = (*_FIXED, "patience", "most_hidden")
_TERMS_OF_NMTUNE = ("mse", "cov", "svd", "top_k", "svd_every")
_NMTUNE = (*_HEAD, *_TERMS_OF_NMTUNE)
_DEFENCE = ("defence_ce", "defence_consistency", "defence_kl")
_LORA = ("learning_rate", "head_learning_rate", "weight_decay", "rank", "targets")
_TERMS = (*TERMS, "top_k")
_FULL = ("learning_rate", "weight_decay", "trainable")
_Changes = dict[str, Any]
_TO_THE_END: _Changes = {"standardised": True, "patience": 8}
_FROM_PAPER: _Changes = {"mse": 1.0, "cov": 0.04, "svd": 0.001}
_OF_RAN: _Changes = {**_FROM_PAPER, "defence_ce": 1.0, "defence_consistency": 1.0, "defence_kl": 1.0}

_RIDGE = (*_INPUT, "penalties", "rank")
_ROBUST_RIDGE = (*_RIDGE, "mus", "rounds", "displaced", "examples", "attack_loss")
_LINEAR = "ranjax.methods.linear_solution:predict"
_COPIES = 7

# MLP and NMTune as published (arXiv 2309.17002 and its public code); RAN is this project's reconstruction.
_LP = Method(
    "lp",
    "LP",
    LogisticSettings(),
    keys=(*_INPUT, "penalties"),
    fit="ranjax.methods.logistic:fit",
    predict=_LINEAR,
    style=Style("#0072B2", "s", "-"),
    source="a linear probe: logistic regression at its optimum",
)
_RIDGE_METHOD = Method(
    "ridge",
    "Ridge",
    RidgeSettings(),
    keys=_RIDGE,
    fit="ranjax.methods.ridge:fit",
    predict=_LINEAR,
    style=Style("#332288", "p", "-"),
    source="Hoerl & Kennard 1970",
)
_ROBUST_RIDGE_METHOD = Method(
    "robust_ridge",
    "Robust ridge",
    RobustRidgeSettings(),
    keys=_ROBUST_RIDGE,
    fit="ranjax.methods.ridge:fit_robust",
    predict=_LINEAR,
    style=Style("#661100", "o", _DASH_DOTTED),
    needs=("attack",),
    source="ridge regression that weighs its outputs' displacement under attack; this project's",
)
_MLP = Method(
    "mlp",
    "MLP",
    HeadTraining(**_TO_THE_END),
    keys=_HEAD,
    style=Style("#56B4E9", "^", _DASHED),
    source="NMTune's head",
)
_NMTUNE_METHOD = Method(
    "nmtune",
    "NMTune",
    HeadTraining(**_FROM_PAPER, **_TO_THE_END),
    keys=_NMTUNE,
    style=Style("#009E73", "D", _DASH_DOTTED),
    source="Chen et al. 2024, arXiv 2309.17002",
)
_RAN = Method(
    "ran",
    "RAN",
    RobustRidgeSettings(features="tokens", filtered=True, copies=_COPIES, rank=7, displaced=512),
    keys=_ROBUST_RIDGE,
    fit="ranjax.methods.ridge:fit_robust",
    predict=_LINEAR,
    style=Style("#D55E00", "o", "-"),
    needs=("attack",),
    source="this project's reconstruction: the robust ridge on tokens behind the filter, fitted on varied copies, too",
)
_RAN_V1 = Method(
    "ran_v1",
    "RAN v1",
    HeadTraining(
        **_OF_RAN, head="narrow", learning_rate=1e-2, svd_every=8, epochs_share=0.2, attacked_share=0.5, filtered=True
    ),
    keys=(*_FIXED, *_TERMS_OF_NMTUNE, *_DEFENCE, "epochs_share"),
    style=Style("#DDCC77", "o", _DASHED),
    source="this project's first reconstruction, with its former recipe of training",
)
_AT = Method(
    "at",
    "AT",
    HeadTraining(ce=0.0, defence_ce=1.0, attacked_share=0.5, **_TO_THE_END),
    keys=_HEAD,
    style=Style("#E69F00", "P", _DASHED),
    source="Madry et al. 2018, arXiv 1706.06083: NMTune's head on attacked features alone",
)
_LORA_METHOD = Method(
    "lora",
    "LoRA",
    TowerTraining(learning_rate=3e-3),
    keys=_LORA,
    style=Style("#999933", "d", _DASHED),
    source="Hu et al. 2022, arXiv 2106.09685",
)
_AT_LORA = Method(
    "at_lora",
    "AT (LoRA)",
    TowerTraining(learning_rate=3e-3, objective="at"),
    keys=_LORA,
    style=Style("#E69F00", "h", _DASH_DOTTED),
    source="Madry et al. 2018, arXiv 1706.06083, in LoRA's scope",
)
_RAN_LORA = Method(
    "ran_lora",
    "RAN (LoRA)",
    TowerTraining(objective="ran", learning_rate=3e-3, ce=0.0, defence_ce=1.0, defence_kl=1.0, filtered=True),
    keys=(*_LORA, *_TERMS),
    style=Style("#CC79A7", "v", "-"),
    source="this project's reconstruction, in LoRA's scope",
)
_PROMPTED: _Changes = {"scope": "full", "head": "prompts"}


class Part(NamedTuple):
    """A part of a method that an ablation leaves out: its label, and the settings of a method without it."""

    label: str
    changes: _Changes


_WITHOUT_FILTER = Part("low-pass filter", {"filtered": False})
PARTS = {
    "mse": Part("consistency", {"mse": 0.0}),
    "cov": Part("covariance", {"cov": 0.0}),
    "svd": Part("dominant singular value", {"svd": 0.0}),
    "defence_ce": Part("cross-entropy under attack", {"defence_ce": 0.0}),
    "defence_consistency": Part("feature consistency under attack", {"defence_consistency": 0.0}),
    "defence_kl": Part("prediction consistency under attack", {"defence_kl": 0.0}),
    "filter": _WITHOUT_FILTER,
    "tokens": Part("tokens", {"features": "embedding"}),
    "copies": Part("copies", {"copies": 0}),
    "displacement": Part("displacement under attack", {"mus": (0.0,), "rounds": 1}),
}
"""The parts that an ablation leaves out: RAN's own, the terms of its relatives, and the filter."""
_TERM_PARTS = (*TERMS[1:], "filter")
_RAN_PARTS = ("tokens", "copies", "displacement", "filter")


def _ablations(base: Method, parts: Sequence[str]) -> list[Method]:
    """Return a method without each of the parts in turn."""
    return [
        base.variant(
            f"{base.name}_without_{part}",
            f"{base.label} without {PARTS[part].label}",
            changes=PARTS[part].changes,
            leaves_out=part,
        )
        for part in parts
    ]


METHODS: Table[Method] = Table(
    "method",
    Method,
    (
        Method("zero_shot", "Zero-shot", style=Style("#000000", "x", _DOTTED), needs=("single_label",)),
        _LP,
        # What the filter alone is worth: LP behind it.
        _LP.variant(
            "lp_filter", "LP (filter)", Style("#CC79A7", "v", _DOTTED), changes={"filtered": True}, needs=("filter",)
        ),
        _RIDGE_METHOD,
        _MLP,
        _NMTUNE_METHOD,
        _ROBUST_RIDGE_METHOD,
        # What RAN's parts are worth: its features behind its filter, then with its copies, both without its term.
        _RIDGE_METHOD.variant(
            "ridge_tokens",
            "Ridge (tokens)",
            Style("#332288", "p", _DOTTED),
            changes={"features": "tokens", "filtered": True},
            needs=("filter",),
        ),
        _RIDGE_METHOD.variant(
            "ridge_copies",
            "Ridge (copies)",
            Style("#332288", "P", _DASH_DOTTED),
            changes={"features": "tokens", "filtered": True, "copies": _COPIES},
            needs=("filter",),
        ),
        _RAN,
        _RAN_V1,
        # What the light head costs: RAN v1 with NMTune's wide one, at the rate of the other wide heads.
        _RAN_V1.variant(
            "ran_wide",
            "RAN v1 (wide head)",
            Style("#882255", "o", _DASHED),
            changes={"head": "residual", "learning_rate": 1e-3},
        ),
        # The paper's loss has three components, as its public reviews say; each reading that the sources allow is one.
        _RAN_V1.variant(
            "ran_regularisers",
            "RAN (three regularisers)",
            Style("#AA4499", "D", _DASHED),
            changes={**dict.fromkeys(_DEFENCE, 0.0), "attacked_share": 0.0},
            source="three components read as NMTune's regularisers, behind RAN's filter",
        ),
        _RAN_V1.variant(
            "ran_adversarial",
            "RAN (cross-entropy, consistency, adversarial)",
            Style("#44AA99", "D", _DOTTED),
            changes={"mse": 0.0, "cov": 0.0, "svd": 0.0, "defence_kl": 0.0},
            source="three components read as cross-entropy, consistency under attack and cross-entropy under attack",
        ),
        # Of a set of questions: what the image alone tells, and what the question alone does (the prior of language).
        _LP.variant("lp_image", "LP (image alone)", changes={"modality": "image"}, needs=("questions",)),
        _LP.variant("lp_question", "LP (question alone)", changes={"modality": "question"}, needs=("questions",)),
        _LORA_METHOD,
        Method(
            "fft",
            "FFT",
            TowerTraining(scope="full"),
            keys=(*_FULL, "head_learning_rate"),
            style=Style("#767676", "8", "-"),
            source="full fine-tuning",
        ),
        _AT,
        _AT_LORA,
        _LORA_METHOD.variant(
            "lora_filter",
            "LoRA (filter)",
            Style("#117733", "d", _DOTTED),
            changes={"filtered": True},
            needs=("filter",),
            source="LoRA behind RAN's filter",
        ),
        _AT_LORA.variant(
            "at_lora_filter",
            "AT (LoRA, filter)",
            Style("#882255", "h", _DOTTED),
            changes={"filtered": True},
            needs=("filter",),
            source="adversarial training in LoRA's scope behind it",
        ),
        Method(
            "ran_live",
            "RAN (live)",
            TowerTraining(scope="head", head="narrow", objective="ran", filtered=True, **_OF_RAN),
            keys=("head_learning_rate", "weight_decay", *_TERMS),
            style=Style("#D55E00", "X", _DOTTED),
            source="RAN's head, its defence examples made on the fly against both",
        ),
        _RAN_LORA,
        Method(
            "tecoa",
            "TeCoA",
            TowerTraining(objective="tecoa", **_PROMPTED),
            keys=_FULL,
            style=Style("#AA4499", "<", _DASHED),
            needs=("single_label",),
            source="Mao et al. 2023, arXiv 2212.07016",
        ),
        Method(
            "fare",
            "FARE",
            TowerTraining(objective="fare", **_PROMPTED),
            keys=_FULL,
            style=Style("#009E73", ">", "-"),
            needs=("single_label",),
            source="Schlarmann et al. 2024, arXiv 2402.12336",
        ),
        Method(
            "pmg_aft",
            "PMG-AFT",
            TowerTraining(objective="pmg_aft", pull=1.0, **_PROMPTED),
            keys=(*_FULL, "pull"),
            style=Style("#0072B2", "p", _DOTTED),
            needs=("single_label",),
            source="Wang et al. 2024, arXiv 2401.04350",
        ),
        Method(
            "ttc",
            "TTC",
            TTC(),
            style=Style("#56B4E9", "*", _DASH_DOTTED),
            needs=("single_label",),
            source="Xing et al. 2025, arXiv 2503.03613",
        ),
        *_ablations(_RAN, _RAN_PARTS),
        *_ablations(_RAN_V1, _TERM_PARTS),
        *_ablations(_RAN_LORA, _TERM_PARTS),
    ),
    key="adapt.methods",
)


def selected(names: Sequence[str]) -> dict[str, Method]:
    """Return the entries that `adapt.methods` names, by their own names and in their order."""
    return {name: METHODS[name] for name in METHODS.names_of(names)}


def settings_of(adapt: Node, name: str) -> Any:
    """Return the settings of a method as a config has them; a variant's are those of its base, but for its changes.

    Args:
      adapt: the group of keys, or a nested mapping of the same shape: {"lp": {"learning_rate": 0.01}, ...}.
      name: of an entry of `METHODS`.
    """
    method = METHODS[name]
    if method.variant_of:
        return replace(settings_of(adapt, method.variant_of), **method.changes)
    return method.settings if method.settings is None or name not in adapt else read(method.settings, adapt[name])
