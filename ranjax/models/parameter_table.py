"""What a parameter pytree holds, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ranjax.models.checkpoints.naming import paths


def count(params: Mapping[str, Any]) -> int:
    """Numbers in a parameter pytree."""
    return sum(int(np.prod(leaf.shape)) for leaf in paths(dict(params)).values())


def describe_parameters(params: Mapping[str, Any], depth: int = 2) -> str:
    """A table of parameter groups: name, arrays, numbers, share of all numbers, dtype.

    Args:
      params: nested dict of arrays.
      depth: how many parts of a path make a group's name, 1 or more.
    """
    groups: dict[str, list] = {}
    for path, leaf in paths(dict(params)).items():
        groups.setdefault("/".join(path[:depth]), []).append(leaf)
    total = count(params)
    rows = [("parameters", "arrays", "numbers", "share", "dtype")]
    for name, leaves in groups.items():
        numbers = sum(int(np.prod(leaf.shape)) for leaf in leaves)
        dtypes = ", ".join(sorted({str(leaf.dtype) for leaf in leaves}))
        rows.append((name, str(len(leaves)), f"{numbers:,}", f"{numbers / max(total, 1):.2%}", dtypes))
    arrays = sum(len(leaves) for leaves in groups.values())
    rows.append(("total", str(arrays), f"{total:,}", f"{1:.2%}", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
