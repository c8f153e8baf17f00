"""TPU chips that are not there: the real compiler for a named topology, by the package `libtpu`.

Nothing runs; memory, collectives and compile time are the compiler's own. The environment is set before jax is
imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import MutableMapping
from typing import Any, NamedTuple

from ranjax.core.errors import ConfigError


class Kind(NamedTuple):
    """A generation of TPUs: the name of an accelerator for the environment, and the axes of its torus."""

    accelerator: str
    axes: int


KINDS = {"v5e": Kind("v5litepod-4", 2), "v5p": Kind("v5p-8", 3), "v6e": Kind("v6e-4", 2)}
"""The key is also the chip's name in `chips.CHIPS`."""
_NAME = re.compile(r"(\w+):(\d+(?:x\d+)+)")


class Topology(NamedTuple):
    """A slice of TPUs: its name, kind and number of chips."""

    name: str
    kind: str
    chips: int


def parse(text: str) -> Topology:
    """Read ``KIND:AxB`` or ``KIND:AxBxC``, e.g. "v5e:4x4".

    Raises:
      ConfigError: another kind, shape, or more than 256 chips.
    """
    allowed = f"KIND:SHAPE of {', '.join(KINDS)}, e.g. v5e:4x4, v5p:2x2x4, v6e:2x4"
    found = _NAME.fullmatch(text)
    if found is None or found[1] not in KINDS:
        raise ConfigError("--tpu", text, allowed)
    kind, sides = found[1], [int(side) for side in found[2].split("x")]
    axes = KINDS[kind].axes
    if len(sides) == 3 and axes == 2 and sides[2] == 1:
        sides = sides[:2]
    if len(sides) != axes or min(sides) < 1:
        raise ConfigError("--tpu", text, f"{axes} sides, as a slice of {kind} has")
    chips = 1
    for side in sides:
        chips *= side
    if chips > 256:
        raise ConfigError("--tpu", text, "at most 256 chips")
    # The compiler asks for three sides of every kind.
    return Topology(f"{kind}:{'x'.join(map(str, [*sides, 1][:3]))}", kind, chips)


def is_installed() -> bool:
    """Return whether the compiler is there."""
    return importlib.util.find_spec("libtpu") is not None


def prepare(topology: Topology, environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what the compiler reads when jax first looks for it; jax itself stays on the CPU.

    Raises:
      ConfigError: `libtpu` is not installed.
    """
    if not is_installed():
        expected = "the TPU compiler, package libtpu: pip install -e '.[tpu-compile]'"
        raise ConfigError("--tpu", topology.name, expected, "Without --tpu, XLA's CPU compiler estimates.")
    environment["JAX_PLATFORMS"] = "cpu"
    environment["TPU_SKIP_MDS_QUERY"] = "1"
    environment["TPU_ACCELERATOR_TYPE"] = KINDS[topology.kind].accelerator
    environment["TPU_WORKER_HOSTNAMES"] = "localhost"


def devices(topology: Topology) -> list[Any]:
    """Return the devices of a topology for `ranjax.training.devices.make_mesh`.

    Raises:
      ConfigError: the compiler does not know it, or does not fit this jax.
    """
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology.name)
    except Exception as error:  # whatever the plugin raises
        said = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise ConfigError("--tpu", topology.name, f"a topology that this libtpu knows ({said})") from error
    return list(found.devices)
