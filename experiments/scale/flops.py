"""Floating-point operations of the products in a traced function: exact, and the same on every backend."""

from __future__ import annotations

import math
from typing import Any

from jax.extend import core


def products(jaxpr: Any, turns: int = 1) -> int:
    """FLOPs of all matrix products and convolutions in a (closed) jaxpr, loops included.

    A multiplication and an addition count as two. Inside `shard_map` shapes are those of one device, so the count is
    per device there. A loop whose number of turns is not known when it is traced counts `turns` times. What is not a
    product (norms, softmax, the optimizer) is left out: a few per cent of an encoder.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "dot_general":
            total += _dot(equation)
        elif name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "cond":
            total += max(products(branch, turns) for branch in params["branches"])
        elif name == "while":
            total += turns * products(params["body_jaxpr"], turns)
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(products(inner, turns) for value in params.values() for inner in _jaxprs(value))
    return total


def _dot(equation: Any) -> int:
    (contract, _), _ = equation.params["dimension_numbers"]
    depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contract)
    return 2 * depth * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    numbers = equation.params["dimension_numbers"]
    taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[1:])  # input channels of a group, times the window
    return 2 * taps * math.prod(equation.outvars[0].aval.shape)


def _jaxprs(value: Any) -> list[Any]:
    values = value if isinstance(value, (tuple, list)) else (value,)
    return [v for v in values if isinstance(v, (core.Jaxpr, core.ClosedJaxpr))]
