"""Differentiation of a kernel graph: reverse mode (VJP) and forward mode (JVP).

``y = f(x, theta)``. The VJP extends the graph by ``xbar = (df/dx)^T ybar`` and
``thetabar = (df/dtheta)^T ybar``; the JVP by ``ydot = (df/dx) xdot + (df/dtheta) thetadot``. Both apply one
rule a primitive (:mod:`~pullback.rtl.kernel.primitives`), and both are exact: the new nodes are fixed-point
values like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..numeric import Format
from .graph import Graph, Node
from .primitives import total
from .primitives.source import Cotangent, Entry, Source, Tangent, Tap
from .primitives.table import Read

__all__ = ["Pullback", "Pushforward", "TableContribution", "jvp", "vjp"]


@dataclass(frozen=True)
class TableContribution:
    """``thetabar[base + index] += value`` of one pixel, for a parameter that lives in RAM."""

    read: Read
    index: Node
    value: Node


@dataclass
class Pullback:
    """Cotangents of everything a kernel depends on.

    Members
    -------
    taps : dict of (channel, dy, dx) to Node
        Cotangent of each tap, exact.
    entries : dict of (parameter, index) to Node
        What one pixel contributes to the cotangent of each parameter entry, exact.
    tables : list of TableContribution
    """

    taps: dict[tuple[str, int, int], Node] = field(default_factory=dict)
    entries: dict[tuple[str, int], Node] = field(default_factory=dict)
    tables: list[TableContribution] = field(default_factory=list)


def vjp(graph: Graph, outputs: Mapping[str, Node], cotangents: Mapping[str, Format]) -> Pullback:
    """Reverse-mode derivative: one sweep from the outputs' cotangents to the sources'.

    ``cotangents`` gives the format in which each output's cotangent arrives.
    """
    terms: dict[int, list[Node]] = {}
    for channel, output in outputs.items():
        terms.setdefault(output.index, []).append(graph.node(Cotangent(cotangents[channel], channel)))
    pullback = Pullback()
    for node in reversed(graph.live(list(outputs.values()))):
        if node.index not in terms:
            continue
        cotangent = total(terms.pop(node.index))
        if cotangent.is_zero:
            continue
        if node.name and not cotangent.name:
            cotangent.named(f"{node.name}_bar")
        primitive = node.primitive
        if isinstance(primitive, Tap):
            pullback.taps[primitive.channel, primitive.dy, primitive.dx] = cotangent
        elif isinstance(primitive, Entry):
            pullback.entries[primitive.parameter, primitive.index] = cotangent
        elif isinstance(primitive, Read):
            pullback.tables.append(TableContribution(primitive, node.arguments[0], cotangent))
        else:
            for argument, term in zip(node.arguments, primitive.vjp(node, cotangent), strict=True):
                if term is not None and not term.is_zero:
                    terms.setdefault(argument.index, []).append(term)
    return pullback


@dataclass
class Pushforward:
    """Tangents of the outputs; the tangents of the sources are :class:`Tangent` sources of the graph.

    ``reads`` are the tangents of table reads: the entry read, with the tangent of the table in its place.
    """

    outputs: dict[str, Node | None]


def jvp(
    graph: Graph, outputs: Mapping[str, Node], format: Format, *, along: set[type[Source]]
) -> Pushforward:
    """Forward-mode derivative along the sources of the given kinds (:class:`Tap`, :class:`Entry`).

    ``format`` is that of every source's tangent. The tangent of a table is a table of the same shape,
    named ``<parameter>_dot``.
    """
    tangents: dict[int, Node | None] = {}
    for node in graph.live(list(outputs.values())):
        primitive = node.primitive
        if isinstance(primitive, Source):
            known = type(primitive) in along
            tangents[node.index] = graph.node(Tangent(format, primitive)) if known else None
        elif isinstance(primitive, Read):
            read = Read(f"{primitive.parameter}_dot", primitive.base, primitive.entries, format)
            tangents[node.index] = graph.node(read, node.arguments) if Entry in along else None
        else:
            arguments = [tangents[a.index] for a in node.arguments]
            tangents[node.index] = (
                primitive.jvp(node, arguments) if any(t is not None for t in arguments) else None
            )
    return Pushforward({channel: tangents[node.index] for channel, node in outputs.items()})
