"""Decisions: which branches the forward took, as sources of the pullback.

A selection has the derivative of the branch that the forward took. To know the branch again the pullback would
have to compute everything that the forward compared; the forward knows it, and it is one bit.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..numeric import UQ
from .graph import Node, Range, substitute
from .primitives.source import Cotangent, Decision, Source, Tap

__all__ = ["tape_decisions"]


def tape_decisions(nodes: Mapping[str, Node]) -> tuple[dict[str, Node], dict[str, Node]]:
    """The nodes of a pullback with the forward's decisions as sources, and those decisions by their labels.

    A decision is a condition on pixels, but on no cotangent, that decides about a cotangent. Conditions on the
    site or on parameters alone are computed again, for they need no pixel.
    """
    if not nodes:
        return {}, {}
    graph = next(iter(nodes.values())).graph
    live = graph.live(list(nodes.values()))
    of_pixels: set[int] = set()
    of_cotangents: set[int] = set()
    for node in live:
        for kind, found in ((Tap, of_pixels), (Cotangent, of_cotangents)):
            if isinstance(node.primitive, kind) or any(a.index in found for a in node.arguments):
                found.add(node.index)

    decisions: dict[str, Node] = {}
    taped: dict[int, Node] = {}
    for node in live:
        for a in node.arguments if node.index in of_cotangents else ():
            condition = a.range == Range(0, 0, 1) and not isinstance(a.primitive, Source)
            if condition and a.index in of_pixels - of_cotangents:
                source = graph.node(Decision(UQ(1, 0), f"{a.name or a.primitive.mnemonic}_{a.index}"))
                decisions[source.primitive.label] = a
                taped[a.index] = source
    return substitute(nodes, taped), decisions
