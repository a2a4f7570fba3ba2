"""Tracing: what a stage's kernel function sees, and the graph it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..numeric import UQ, Format
from .graph import Graph, Node
from .primitives.source import Entry, Flag, SiteValue, Tap
from .primitives.table import Read

__all__ = ["CFA_COLOURS", "Kernel", "Parameter", "Site", "Taps", "Theta", "trace"]

CFA_COLOURS = ("R", "Gr", "Gb", "B")
"""The colours of a Bayer CFA, as :attr:`Site.colour` numbers them."""


@dataclass(frozen=True)
class Parameter:
    """A run-time parameter of a stage: ``entries`` codes of one format, each with its own gradient.

    Parameters
    ----------
    entries : int
    format : Format
    default : tuple of float
        One value an entry, or one for all.
    doc : str
        What it means and its unit: goes into the register map.
    table : int
        0: registers. Otherwise the entries live in RAM as curves of ``table`` knots each, and are read
        with :meth:`Theta.knots`.
    """

    entries: int
    format: Format
    default: tuple[float, ...]
    doc: str
    table: int = 0

    def __post_init__(self) -> None:
        if len(self.default) not in (1, self.entries):
            raise ValueError(f"a parameter of {self.entries} entries takes 1 or {self.entries} defaults, not "
                             f"{len(self.default)}")  # fmt: skip
        if self.table and self.entries % self.table:
            raise ValueError(f"{self.entries} entries are no whole number of curves of {self.table} knots")

    @property
    def codes(self) -> list[int]:
        """The default codes, one an entry."""
        codes = [self.format.encode(value) for value in self.default]
        return codes * (self.entries // len(codes))


class Taps:
    """The pixels around a site: ``x.g`` is channel g of the site, ``x.at("g", dy, dx)`` of a neighbour."""

    def __init__(self, graph: Graph, channels: Mapping[str, Format], radius: int) -> None:
        self._graph, self._channels, self._radius = graph, channels, radius

    def at(self, channel: str, dy: int, dx: int) -> Node:
        """Channel ``channel`` of the pixel ``dy`` lines below and ``dx`` pixels right of the site."""
        if channel not in self._channels:
            raise ValueError(f"no channel {channel!r}: this stage's input has {', '.join(self._channels)}")
        if max(abs(dy), abs(dx)) > self._radius:
            raise ValueError(f"tap ({dy}, {dx}) lies outside a window of radius {self._radius}")
        return self._graph.node(Tap(self._channels[channel], channel, dy, dx))

    def __getattr__(self, channel: str) -> Node:
        if channel.startswith("_"):
            raise AttributeError(channel)
        return self.at(channel, 0, 0)

    def __getitem__(self, channel: str) -> Node:
        return self.at(channel, 0, 0)


class Theta:
    """The parameters: ``theta["gain", k]`` is entry k; ``theta.knots("curve", c, s)`` two neighbours of a curve."""

    def __init__(self, graph: Graph, parameters: Mapping[str, Parameter]) -> None:
        self._graph, self._parameters = graph, parameters

    def _declared(self, name: str, *, table: bool) -> Parameter:
        parameter = self._parameters.get(name)
        if parameter is None:
            raise ValueError(f"no parameter {name!r}: this stage has {', '.join(self._parameters) or 'none'}")
        if bool(parameter.table) != table:
            how = 'theta.knots("{}", curve, index)' if parameter.table else 'theta["{}", index]'
            raise ValueError(f"read parameter {name!r} as {how.format(name)}")
        return parameter

    def __getitem__(self, key: tuple[str, int]) -> Node:
        name, index = key
        parameter = self._declared(name, table=False)
        if not 0 <= index < parameter.entries:
            raise ValueError(f"entry {index} of parameter {name!r}, which has 0..{parameter.entries - 1}")
        return self._graph.node(Entry(parameter.format, name, index))

    def knots(self, name: str, curve: int, index: Node) -> tuple[Node, Node]:
        """Knots ``index`` and ``index + 1`` of a curve."""
        parameter = self._declared(name, table=True)
        curves = parameter.entries // parameter.table
        if not 0 <= curve < curves:
            raise ValueError(f"curve {curve} of parameter {name!r}, which has 0..{curves - 1}")
        base, segments = curve * parameter.table, parameter.table - 1
        low, high = (Read(name, base + k, segments, parameter.format) for k in (0, 1))
        return self._graph.node(low, (index,)), self._graph.node(high, (index,))


class Site:
    """Where the output pixel lies: ``x``, ``y`` and the CFA ``colour`` (0..3 = R, Gr, Gb, B)."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def _value(self, what: str, width: int) -> Node:
        return self._graph.node(SiteValue(UQ(width, 0), what))

    @property
    def x(self) -> Node:
        """The column, 0 at the left."""
        return self._value("x", 16)

    @property
    def y(self) -> Node:
        """The line, 0 at the top."""
        return self._value("y", 16)

    @property
    def colour(self) -> Node:
        """The CFA colour of the site."""
        return self._value("colour", 2)


@dataclass
class Kernel:
    """A traced kernel: its graph and its named outputs."""

    graph: Graph
    outputs: dict[str, Node]

    def sources(self) -> list[Node]:
        """The values that come from outside."""
        return [node for node in self.graph.live(list(self.outputs.values())) if not node.arguments
                and node.constant is None]  # fmt: skip


def trace(
    function: Callable[[Taps, Theta, Site], Mapping[str, Node]],
    *,
    channels: Mapping[str, Format],
    parameters: Mapping[str, Parameter],
    radius: int = 0,
) -> Kernel:
    """Run a kernel function once over symbolic values; the result has one node an output channel."""
    graph = Graph()
    outputs = function(Taps(graph, channels, radius), Theta(graph, parameters), Site(graph))
    return Kernel(graph, dict(outputs))


def bypass_flag(graph: Graph) -> Node:
    """The stage's run-time bypass."""
    return graph.node(Flag(UQ(1, 0), "bypass"))
