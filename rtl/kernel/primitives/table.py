"""Tables: a piecewise linear curve is a segment, a fraction, and two reads of its knots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ...numeric import Format
from ..graph import Node, Range
from .arithmetic import shift
from .base import Delay, Primitive

__all__ = ["Floor", "Fraction", "Read", "segment"]


@dataclass(frozen=True)
class Floor(Primitive):
    """``floor(a)``; no derivative."""

    mnemonic: ClassVar[str] = "floor"

    def range(self, a: Node) -> Range:
        return Range(0, a.range.lo >> a.f, a.range.hi >> a.f)

    def evaluate(self, node: Node, a: Any) -> Any:
        return a >> node.arguments[0].f

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        return a >> node.arguments[0].f


@dataclass(frozen=True)
class Fraction(Primitive):
    """``a - floor(a)``; derivative 1."""

    mnemonic: ClassVar[str] = "fraction"

    def range(self, a: Node) -> Range:
        return Range(a.f, 0, (1 << a.f) - 1)

    def evaluate(self, node: Node, a: Any) -> Any:
        return a & ((1 << node.f) - 1)

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [cotangent]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        return tangents[0]

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        return a[: node.f]


@dataclass(frozen=True)
class Read(Primitive):
    """``table[base + index]``: one read of a parameter that lives in RAM.

    The derivative with respect to the entry is collected by :class:`~pullback.rtl.kernel.vjp.Adjoint` as a
    contribution to ``base + index``; there is none with respect to the index.
    """

    parameter: str
    base: int
    entries: int
    format: Format
    mnemonic: ClassVar[str] = "read"
    latency: ClassVar[int] = 2

    def range(self, index: Node) -> Range:
        if not 0 <= index.range.lo <= index.range.hi < self.entries:
            raise ValueError(
                f"index {index} of table {self.parameter} runs over {index.range.lo}..{index.range.hi}; "
                f"the table has entries 0..{self.entries - 1}"
            )
        return Range(self.format.f, self.format.lo, self.format.hi)

    def evaluate(self, node: Node, index: Any) -> Any:
        raise TypeError("a table is read by the interpreter, which knows its entries")

    def delay(self, node: Node) -> float:
        return Delay.LUT

    def lower(self, lowering: Any, node: Node, index: Any) -> Any:
        return lowering.table(node, index)


def segment(a: Node, segments: int) -> tuple[Node, Node]:
    """The segment that ``a`` in [0, 1) falls into and the position in it: ``a * segments = s + t``."""
    bits = segments.bit_length() - 1
    if segments != 1 << bits:
        raise ValueError(f"a curve has a power of two of segments, not {segments}")
    if a.range.lo < 0:
        raise ValueError(f"{a} may be negative; a curve takes values in [0, 1)")
    scaled = shift(a, bits)
    return a.graph.node(Floor(), (scaled,)), a.graph.node(Fraction(), (scaled,))
