"""What an adapted encoder is: how the config reads each method, and what the adapt stage left of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from ranjax.methods.head_methods import WITHOUT
from ranjax.methods.head_training import METHODS, Method
from ranjax.methods.tower_methods import TUNED, Tuned
from ranjax.models import input_filter
from ranjax.objectives.rectification import Weights

FILE = "heads.safetensors"


def tuned_of(adapt: Any, name: str) -> Tuned | None:
    """What a method does to the encoder, or None where it leaves it as it is: RAN follows `adapt.ran_scope`."""
    if name in TUNED and name != "ran_lora":
        return TUNED[name]
    if name != "ran_lora" and (adapt.ran_scope == "head" or not (name == "ran" or name.startswith(WITHOUT))):
        return None
    left_out = name.removeprefix(WITHOUT) if name.startswith(WITHOUT) else ""
    without = tuple(term for term in Weights._fields if term not in adapt.lora_terms or term == left_out)
    return dataclasses.replace(TUNED["ran_lora"], without=without, filtered=left_out != "filter")


def behind_filter(adapt: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's parameters with the config's filter in front."""
    return {**params, input_filter.NAME: input_filter.gaussian(adapt.filter)}


def rate_key(method: Method) -> str:
    """The key of ``adapt.*`` that sets a method's learning rate."""
    return "learning_rate" if method.head == "residual" else "lp_learning_rate"


def method_of(adapt: Any, name: str) -> Method:
    """A method of `METHODS` with the config's weights in the terms that the method has."""
    base = METHODS[name]
    terms = {"mse": adapt.mse, "cov": adapt.cov, "svd": adapt.svd}
    terms |= {term: adapt[term] for term in ("defence_ce", "defence_consistency", "defence_kl")}
    weights = base.weights._replace(**{term: v for term, v in terms.items() if getattr(base.weights, term)})
    own = name.startswith("ran")  # published methods keep their schedule
    return dataclasses.replace(
        base,
        weights=weights,
        learning_rate=adapt[rate_key(base)],
        weight_decay=adapt.weight_decay,
        svd_every=adapt.ran_svd_every if own else 1,
        epochs_share=adapt.ran_epochs_share if own else 1.0,
        top_k=adapt.top_k,
        filtered=base.filtered and adapt.filter > 0,
    )


def uses_attacked(method: Method) -> bool:
    return method.attacked_share > 0 or any(
        getattr(method.weights, t) for t in method.weights._fields if "defence" in t
    )


def load_heads(folder: Path) -> dict[str, Any]:
    """{method: {"params", "stats", "encoder" where a filter stands in front}} with a leading axis of seeds."""
    found = _nested(load_file(folder / FILE))
    for heads in found.values():
        heads.setdefault("stats", {})
    return found


def load_tuned(folder: Path, name: str) -> dict[str, Any]:
    """{"encoder", "head" where there is one} of a tuned method with a leading axis of seeds."""
    found = _nested(load_file(folder / "tuned" / f"{name}.safetensors"))
    found.setdefault("encoder", {})
    if "head" in found:
        found["head"].setdefault("stats", {})
    return found


def _nested(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in tensors.items():
        node = found
        *parts, last = path.split("/")
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = jnp.asarray(value)
    return found
