"""The contrasts that claims and the bed's verdict stand on: heads on encoders, paired by test image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from ranjax.evaluation import statistics
from ranjax.evaluation.questions import BOTH
from ranjax.methods.table import METHODS, Method
from ranjax.report import claim_table as claims
from ranjax.report import entry_labels
from ranjax.run.stages.evaluation.noise_effects import Condition
from ranjax.run.stages.evaluation.result_record import Entry, clusters_of, figures

Validation = Mapping[tuple[str, float], Mapping[str, float]]
"""Mean validation score of each method, by name and ratio of a condition."""


class Roles:
    """Which encoder and which head stand for the names of `claim_table`.

    Args:
      conditions: with their answers.
      settings: of the methods, by name, as the config has them.
      validation: scores that heads are chosen by.
      filtered: whether there is a filter (adapt.filter above 0).
    """

    def __init__(
        self, conditions: Sequence[Condition], settings: Mapping[str, Any], validation: Validation, filtered: bool
    ):
        self.settings, self.validation, self.filtered = settings, validation, filtered
        clean = next((one for one in conditions if one.is_clean), None)
        noisy = [one for one in conditions if one.ratio > 0]
        noisy = sorted((one for one in noisy if one.name == noisy[0].name), key=lambda one: one.ratio)
        self._encoders: dict[str, Condition | None] = {one.name: one for one in conditions if not one.ratio}
        self._encoders[claims.CLEAN] = clean
        several = len(noisy) > 1
        self._encoders[claims.MOST] = noisy[-1] if noisy else clean
        if noisy and (several or noisy[0].ratio <= claims.MODERATE):
            self._encoders[claims.LEAST] = noisy[0]
        if noisy and (several or noisy[-1].ratio > claims.MODERATE):
            self._encoders[claims.HIGH] = noisy[-1]

    def encoder(self, name: str) -> Condition | None:
        """Return the condition of an encoder's name; None: this run has none."""
        return self._encoders.get(name)

    def head(self, role: str, condition: Condition, endpoint: claims.Endpoint, attack: str) -> str | None:
        """Return the method of a role on a condition; None: this run has none."""
        clean = self.encoder(claims.CLEAN)
        if role == claims.PLAIN:
            return self._best(condition, self._is_plain)
        if role in (claims.STRONGEST, claims.REFERENCE):
            return clean and self._best(
                clean,
                lambda name: self._is_plain(name) and (role == claims.STRONGEST or self._input(name)[0] == _EMBEDDING),
            )
        if role == claims.PROBE:
            return "lp" if "lp" in self.settings else clean and self._best(clean, self._is_plain)
        if role == claims.OTHER:
            return self._most_accurate(self._others(), condition, endpoint, attack)
        if role == claims.COUNTERPART:
            return self._counterpart()
        return role

    def _is_head(self, name: str) -> bool:
        method, modality = METHODS[name], getattr(self.settings[name], "modality", BOTH)
        return method.family == "head" and not method.leaves_out and modality == BOTH

    def _is_plain(self, name: str) -> bool:
        """Return whether a head has none of RAN's terms: it sees neither attacked images nor varied copies."""
        return self._is_unattacked(name) and not getattr(self.settings[name], "copies", 0)

    def _is_unattacked(self, name: str) -> bool:
        """Return whether a head sees no attacked images, nor does what it is made of."""
        base = METHODS[name].variant_of
        if name == claims.RAN or _is_attacked(METHODS[name], self.settings[name]):
            return False
        return self._is_head(name) and not (base and _is_attacked(METHODS[base], METHODS[base].settings))

    def _input(self, name: str) -> tuple[str, bool]:
        settings = self.settings[name]
        return getattr(settings, "features", _EMBEDDING), self.filtered and getattr(settings, "filtered", False)

    def _others(self) -> list[str]:
        """Return the heads that RAN is held against: those that read what it reads, or else the nearest to that."""
        if claims.RAN not in self.settings:
            return []
        every = [
            name
            for name in self.settings
            if name != claims.RAN and METHODS[name].variant_of != claims.RAN and self._is_head(name)
        ]
        same = [name for name in every if self._input(name) == self._input(claims.RAN)]
        return same or [name for name in every if self._input(name)[1] == self._input(claims.RAN)[1]] or every

    def _counterpart(self) -> str | None:
        """Return the head of RAN's kind without attacks, on its input, that has most settings in common with it."""
        ran = self.settings.get(claims.RAN)
        if ran is None:
            return None

        def in_common(name: str) -> int:
            other = self.settings[name]
            return sum(getattr(ran, one.name) == getattr(other, one.name) for one in dataclasses.fields(other))

        found = [
            name
            for name, other in self.settings.items()
            if self._is_unattacked(name)
            and isinstance(ran, type(other))
            and self._input(name) == self._input(claims.RAN)
        ]
        found = [name for name in found if getattr(ran, "head", "") == getattr(self.settings[name], "head", "")]
        return max(found, key=in_common, default=None)

    def _best(self, condition: Condition, accepts: Callable[[str], bool]) -> str | None:
        scores = self.validation.get((condition.name, condition.ratio), {})
        names = [name for name in self.settings if name in scores and accepts(name) and math.isfinite(scores[name])]
        return max(names, key=scores.__getitem__, default=None)

    def _most_accurate(
        self, names: Sequence[str], condition: Condition, endpoint: claims.Endpoint, attack: str
    ) -> str | None:
        means = {
            name: float(condition.answers[key].mean())
            for name in names
            if (key := (endpoint.task, endpoint.split, attack, name)) in condition.answers
        }
        return max(means, key=means.__getitem__, default=None)


_EMBEDDING = "embedding"


def _is_attacked(method: Method, settings: Any) -> bool:
    """Return whether a method is fitted on attacked images or features."""
    return bool(getattr(settings, "uses_attacked", False) or {"attack", "attacked"} & {*method.needs})


def contrasts(
    roles: Roles, chance: Mapping[str, float], resamples: int, seed: int, level: float | int = 0.95
) -> list[Entry]:
    """Return every contrast of `claim_table` that a run's answers allow, with intervals and tests.

    Args:
      roles: of encoders and heads.
      chance: levels of chance, with the share of the most frequent class as ``"majority/SPLIT"``.
      resamples, seed, level: of the bootstrap.
    """
    found = (_contrast(endpoint, roles, chance, resamples, seed, level) for endpoint in claims.endpoints())
    return [entry for entry in found if entry is not None]


def _contrast(
    endpoint: claims.Endpoint, roles: Roles, chance: Mapping[str, float], resamples: int, seed: int, level: float | int
) -> Entry | None:
    resolved = _resolve(endpoint.terms, endpoint, roles)
    if resolved is None:
        return None
    conditions, heads, attack, answers = resolved
    weighted: dict[tuple[int, str], float] = {}
    for condition, head, (weight, _) in zip(conditions, heads, answers):
        weighted[id(condition), head] = weighted.get((id(condition), head), 0.0) + weight
    if not all(weighted.values()):
        return None  # such as noise less none where a run has no noise
    values = _paired([answer for _, answer in answers])
    if values is None:
        return None
    task, split = endpoint.task, endpoint.split
    clusters = clusters_of(conditions[0].clusters, task, split, values[0].shape[1], heads[0])
    weights = [weight for weight, _ in answers]
    gap = statistics.contrast(list(zip(weights, values)), resamples, seed, level, clusters, endpoint.margin)
    noisy = next((one for one in conditions if one.ratio), conditions[0])
    entry = {
        "endpoint": endpoint.name,
        "condition": noisy.name,
        "ratio": noisy.ratio,
        "heads": {term.head: head for term, head in zip(endpoint.terms, heads)},
        "task": task,
        "split": split,
        "attack": attack,
        "metric": endpoint.metric,
        "margin": endpoint.margin,
        **figures(gap),
        "seeds": len(values[0]),
    }
    first = statistics.bootstrap(values[0], resamples, seed, level, clusters)
    entry["first"] = dict(zip(("value", "low", "high"), first))
    levels = [chance.get(name) for name in (endpoint.metric, f"majority/{split}")] if task == "finding" else []
    entry["chance"] = max((one for one in levels if one is not None), default=None)
    if endpoint.whole:
        entry["share"] = _share(endpoint, roles, values, weights, clusters, resamples, seed, level)
    return entry


def _share(
    endpoint: claims.Endpoint,
    roles: Roles,
    values: Sequence[np.ndarray],
    weights: Sequence[float],
    clusters: np.ndarray | None,
    resamples: int,
    seed: int,
    level: float | int,
) -> Entry | None:
    """Return the contrast as a share of the endpoint's whole; ends that are not defined are None."""
    resolved = _resolve(endpoint.whole, endpoint, roles)
    whole = None if resolved is None else _paired([values[0], *(answer for _, answer in resolved[3])])
    if resolved is None or whole is None:
        return None
    below = sum(weight * one for (weight, _), one in zip(resolved[3], whole[1:]))
    above = sum(weight * one for weight, one in zip(weights, values))
    found = statistics.share_of_difference(above, below, resamples, seed, level, clusters)
    return {name: end if math.isfinite(end) else None for name, end in zip(("value", "low", "high"), found)}


_Resolved = tuple[list[Condition], list[str], str, list[tuple[float, np.ndarray]]]


def _resolve(terms: Sequence[claims.Term], endpoint: claims.Endpoint, roles: Roles) -> _Resolved | None:
    """Return conditions, heads, the attack, and (weight, answers) of terms; None where the run lacks one of them."""
    conditions, heads, answers = [], [], []
    attack = endpoint.attack
    for term in terms:
        condition = roles.encoder(term.encoder)
        if condition is None:
            return None
        if attack == claims.ATTACKED:
            names = {name for task, _, name, _ in condition.answers if task == "finding"}
            attack = entry_labels.main_attack(names)
        head = roles.head(term.head, condition, endpoint, attack)
        answer = condition.answers.get((endpoint.task, endpoint.split, attack, head or ""))
        if head is None or answer is None:
            return None
        conditions.append(condition)
        heads.append(head)
        answers.append((term.weight, answer))
    return conditions, heads, attack, answers


def _paired(answers: Sequence[np.ndarray]) -> list[Float64[np.ndarray, "seeds examples"]] | None:
    """Return answers as floats with one seed a row: the seeds that all share, or every seed against the one of a head.

    None where the numbers of examples differ.
    """
    if len({one.shape[1] for one in answers}) > 1:
        return None
    count = min((len(one) for one in answers if len(one) > 1), default=1)
    return [np.broadcast_to(one[:count].astype(np.float64), (count, one.shape[1])) for one in answers]
