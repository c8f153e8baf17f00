"""Whether a loss is given probabilities in the place of logits, told before an attack runs.

A loss of probabilities is another loss, with gradients that vanish; its attack looks weak, and the model robust. Under
`jax.jit` a loss sees no values. So the losses note what they take for logits (`noted`), and `refuse_probabilities`
looks at the values of that: one forward pass on the batch, and none where a linear map gives them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float, PyTree

from ranjax.core.errors import DataError

_CLOSE = 1e-4
_LINEAR = ("dot_general", "conv_general_dilated")
_SUMS = ("add", "sub")
_SCALED = ("mul", "div", "neg")
_SAME = ("convert_element_type", "copy", "reshape", "squeeze", "stop_gradient", "reduce_precision", "transpose")

_noted: ContextVar[list[jax.Array] | None] = ContextVar("noted_logits", default=None)


def note_logits(logits: jax.Array) -> None:
    """Tell `refuse_probabilities`, where it is tracing, what a loss takes for logits [B, C]."""
    notes = _noted.get()
    if notes is not None:
        notes.append(logits)


@contextlib.contextmanager
def _noting() -> Iterator[list[jax.Array]]:
    notes: list[jax.Array] = []
    token = _noted.set(notes)
    try:
        yield notes
    finally:
        _noted.reset(token)


def refuse_values(logits: Float[Array | np.ndarray, "batch classes"]) -> None:
    """Raise DataError for values that are probabilities: none below 0, and every row sums to 1."""
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.size:
        return
    held = np.asarray(logits, np.float64)
    if held.min() >= 0 and np.all(np.abs(held.sum(axis=1) - 1) < _CLOSE):
        raise DataError("logits lie in [0, 1] and sum to 1: probabilities? Give the logits before the softmax.")


def refuse_probabilities(loss: Callable[..., PyTree], *arguments: PyTree) -> None:
    """Raise DataError where what `loss` takes for logits are probabilities, for these arguments.

    Taken on trust: traced arguments, and what a loss does under transformations of its own (`vmap`, loops of unknown
    length).
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(arguments)):
        return

    def logits_of(*given: PyTree) -> list[jax.Array]:
        with _noting() as notes:
            loss(*given)
        return notes

    try:
        sigmoid, values = _outputs(logits_of, arguments)
    # What is wrong with the loss itself, the attack says; what cannot be laid open is taken on trust.
    except Exception:
        return
    if sigmoid:
        raise DataError("logits are what a sigmoid gives: probabilities? Give the logits before the sigmoid.")
    for logits in values:
        refuse_values(logits)


def _outputs(logits_of: Callable[..., list[jax.Array]], arguments: tuple[PyTree, ...]) -> tuple[bool, list[np.ndarray]]:
    """Return whether a sigmoid gives some logits, and the values of all where not all come from a linear map."""
    # Programs within the loss are laid open, so that what is noted there is known here.
    with jax.disable_jit():
        closed = jax.make_jaxpr(logits_of)(*arguments)
    made = {var: eqn for eqn in closed.jaxpr.eqns for var in eqn.outvars}
    found = closed.jaxpr.outvars
    if any(_is_sigmoid(var, made) for var in found):
        return True, []
    if all(_is_linear(var, made) for var in found):
        return False, []
    return False, [np.asarray(x) for x in jax.jit(core.jaxpr_as_fun(closed))(*jax.tree.leaves(arguments))]


def refuse_outputs(logits_fn: Callable[..., jax.Array], *arguments: PyTree) -> None:
    """Raise DataError where what a model gives for these arguments are probabilities, as `refuse_probabilities`."""
    refuse_probabilities(lambda *given: note_logits(logits_fn(*given)), *arguments)


_Made = Mapping[core.Var, core.JaxprEqn]


def _is_linear(var: object, made: _Made) -> bool:
    """Return whether a linear map gives a value, but for a bias or a scale: no softmax does."""
    eqn = made.get(var) if isinstance(var, core.Var) else None
    if eqn is None:
        return False
    name = eqn.primitive.name
    sides = eqn.invars if name in _SUMS else eqn.invars[:1] if name in (*_SAME, *_SCALED) else []
    return name in _LINEAR or any(_is_linear(side, made) for side in sides)


def _is_sigmoid(var: object, made: _Made) -> bool:
    eqn = made.get(var) if isinstance(var, core.Var) else None
    if eqn is None:
        return False
    return eqn.primitive.name == "logistic" or (eqn.primitive.name in _SAME and _is_sigmoid(eqn.invars[0], made))
