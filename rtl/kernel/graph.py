"""The kernel graph: exact fixed-point values, each the result of one primitive.

A :class:`Node` stands for the real number ``code * 2**-f`` with ``lo <= code <= hi``; the bounds are
exact interval arithmetic, so a width is never guessed and a sum never overflows. A :class:`Graph` owns the
nodes, in an order in which arguments come first, and makes every node once (common subexpressions).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from amaranth.hdl import Shape

if TYPE_CHECKING:
    from .primitives.base import Primitive

__all__ = ["MULTIPLIER_WIDTH", "Graph", "Node", "Range", "substitute"]

MULTIPLIER_WIDTH = 18
"""Widest signed operand of a multiplication: one FPGA multiplier (numeric contract, point 1)."""


@dataclass(frozen=True)
class Range:
    """What is known of a value before it exists: ``lo <= code <= hi``, ``f`` fractional bits."""

    f: int
    lo: int
    hi: int

    def at(self, f: int) -> Range:
        """The same real interval with more fractional bits."""
        return Range(f, self.lo << (f - self.f), self.hi << (f - self.f))


@dataclass(eq=False)
class Node:
    """One value of a kernel; supports ``+ - * << >>``, comparisons and ``abs``.

    ``x << k`` and ``x >> k`` multiply by a power of two: they move the binary point and cost nothing.

    Members
    -------
    primitive : Primitive
        The operation and its static attributes.
    arguments : tuple of Node
    range : Range
        Exact bounds of the code and the fractional bits.
    name : str
        Appears in the Verilog; kernels may give one with :meth:`named`.
    """

    graph: Graph
    primitive: Primitive
    arguments: tuple[Node, ...]
    range: Range
    index: int
    name: str = ""
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def f(self) -> int:
        """Fractional bits."""
        return self.range.f

    @property
    def shape(self) -> Shape:
        """The narrowest Amaranth shape that holds every code between ``lo`` and ``hi``."""
        lo, hi = self.range.lo, self.range.hi
        if lo < 0:
            return Shape(max((-lo - 1).bit_length(), hi.bit_length()) + 1, signed=True)
        return Shape(max(hi.bit_length(), 1), signed=False)

    @property
    def width(self) -> int:
        """Bits of the shape."""
        return self.shape.width

    @property
    def constant(self) -> int | None:
        """The code if only one is possible."""
        return self.range.lo if self.range.lo == self.range.hi else None

    @property
    def is_zero(self) -> bool:
        """True if the value can only be 0."""
        return self.constant == 0

    def named(self, name: str) -> Node:
        """Give the value a name that waveforms and Verilog will show."""
        self.name = name
        return self

    def _apply(self, function: str, *others: Any) -> Node:
        from . import primitives

        return getattr(primitives, function)(self, *others)

    def __add__(self, other: Any) -> Node:
        return self._apply("add", other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Node:
        return self._apply("sub", other)

    def __rsub__(self, other: Any) -> Node:
        return self._apply("neg")._apply("add", other)

    def __neg__(self) -> Node:
        return self._apply("neg")

    def __mul__(self, other: Any) -> Node:
        return self._apply("mul", other)

    __rmul__ = __mul__

    def __lshift__(self, k: int) -> Node:
        return self._apply("shift", k)

    def __rshift__(self, k: int) -> Node:
        return self._apply("shift", -k)

    def __abs__(self) -> Node:
        return self._apply("absolute")

    def __lt__(self, other: Any) -> Node:
        return self._apply("less", other)

    def __le__(self, other: Any) -> Node:
        return self._apply("less_equal", other)

    def __gt__(self, other: Any) -> Node:
        return self._apply("constant_like", other)._apply("less", self)

    def __ge__(self, other: Any) -> Node:
        return self._apply("constant_like", other)._apply("less_equal", self)

    def __and__(self, other: Node) -> Node:
        return self._apply("both", other)

    def __or__(self, other: Node) -> Node:
        return self._apply("either", other)

    def __invert__(self) -> Node:
        return self._apply("inverse")

    def __bool__(self) -> bool:
        raise TypeError(
            f"the value {self} is not known while a kernel is traced; use where(condition, a, b) instead of 'if'"
        )

    def __str__(self) -> str:
        return self.name or f"{self.primitive.mnemonic}_{self.index}"

    __repr__ = __str__


class Graph:
    """The nodes of one kernel, arguments before results, each made once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Hashable, Node] = {}

    def node(self, primitive: Primitive, arguments: Sequence[Node] = ()) -> Node:
        """The node of a primitive applied to arguments: an existing one where there is one."""
        for argument in arguments:
            if argument.graph is not self:
                raise ValueError(
                    f"{argument} belongs to another kernel; trace the function that uses it anew"
                )
        key = (primitive, tuple(a.index for a in arguments))
        if key not in self._known:
            node = Node(self, primitive, tuple(arguments), primitive.range(*arguments), len(self.nodes))
            self.nodes.append(node)
            self._known[key] = node
        return self._known[key]

    def constant(self, value: int | float) -> Node:
        """A constant; a float must be a dyadic rational, as every float is."""
        from .primitives.source import Constant

        numerator, denominator = value.as_integer_ratio()
        return self.node(Constant(numerator, denominator.bit_length() - 1))

    def live(self, outputs: Sequence[Node]) -> list[Node]:
        """The nodes that the outputs need, arguments before results."""
        needed: set[int] = set()
        stack = list(outputs)
        while stack:
            node = stack.pop()
            if node.index not in needed:
                needed.add(node.index)
                stack.extend(node.arguments)
        return [node for node in self.nodes if node.index in needed]


def substitute(nodes: Mapping[str, Node], replacements: Mapping[int, Node]) -> dict[str, Node]:
    """The nodes, with other nodes of the same graph in place of some, by their indices, that they are or depend on."""
    result: dict[int, Node] = {}
    for node in next(iter(nodes.values())).graph.live(list(nodes.values())) if nodes else []:
        if node.index in replacements:
            result[node.index] = replacements[node.index]
            continue
        again = node.graph.node(node.primitive, [result[a.index] for a in node.arguments])
        again.name = again.name or node.name
        result[node.index] = again
    return {name: result[node.index] for name, node in nodes.items()}
