"""Accelerators as their makers state them, for estimates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      flops: peak of dense bf16 products, FLOP/s.
      memory: bytes of high-bandwidth memory.
      link: bytes a second that it can send to its peers within the fast domain.
      domain: chips in that domain (a TPU pod's torus, an NVLink node).
      outside: bytes a second beyond the domain.
      price: dollars a chip-hour that estimates assume, see `PRICES`.
    """

    flops: float
    memory: float
    link: float
    domain: int
    outside: float
    price: float

    def bandwidth(self, devices: int) -> float:
        """Of the slowest hop that a ring over `devices` crosses."""
        return self.link if devices <= self.domain else self.outside


PRICES = "assumed, of the order of list prices on demand in 2025, not looked up since: check yours, give --price"
"""Inputs of an estimate, never a quotation: prices differ by place, contract and month, and large clouds ask more for
an H100 than clouds that rent GPUs alone."""

CHIPS = {
    # 1,600 and 4,800 Gbit/s of interconnect a chip, both directions together; data-centre network beyond a pod.
    "v5e": Chip(197e12, 16e9, 100e9, 256, 6.25e9, 1.20),
    "v5p": Chip(459e12, 95e9, 300e9, 8960, 6.25e9, 4.20),
    # 3,584 Gbit/s of interconnect a chip, both directions together.
    "v6e": Chip(918e12, 32e9, 224e9, 256, 6.25e9, 2.70),
    # SXM: NVLink 900 GB/s both directions together; one 400 Gbit/s network card a GPU beyond the node.
    "h100": Chip(989e12, 80e9, 450e9, 8, 50e9, 3.00),
}
