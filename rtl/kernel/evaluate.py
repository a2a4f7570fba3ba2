"""Evaluation of a kernel graph on integers: what the hardware computes, without the hardware.

An interpreter, used by tests and by whoever designs a kernel. It shares the rules of the primitives with
the RTL, so it is no golden model: those are in :mod:`pullback.sim.golden`, written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .graph import Node
from .primitives.source import Source
from .primitives.table import Read

__all__ = ["evaluate"]


def evaluate(
    outputs: Sequence[Node], sources: Mapping[str, Any], tables: Mapping[str, Sequence[int]] | None = None
) -> list[Any]:
    """The codes of the outputs.

    ``sources`` maps the label of each source to codes (Python integers, or numpy arrays of one shape; use
    dtype object where 63 bits may not suffice); ``tables`` maps each table parameter to its entries.
    A code outside its declared range is a ``ValueError``.
    """
    values: dict[int, Any] = {}
    for node in outputs[0].graph.live(outputs) if outputs else []:
        primitive = node.primitive
        if isinstance(primitive, Source):
            value = sources[primitive.label]
        elif isinstance(primitive, Read):
            entries = np.asarray((tables or {})[primitive.parameter])
            value = entries[primitive.base + np.asarray(values[node.arguments[0].index]).astype(np.int64)]
        else:
            value = primitive.evaluate(node, *(values[a.index] for a in node.arguments))
        array = np.asarray(value)
        if array.size and not (node.range.lo <= array.min() and array.max() <= node.range.hi):
            raise ValueError(
                f"{node} took codes {array.min()}..{array.max()}, outside its range "
                f"{node.range.lo}..{node.range.hi}"
            )
        values[node.index] = value
    return [values[node.index] for node in outputs]
