"""Cuts: the only places where a value narrows. Round half up, then saturate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from amaranth.hdl import Cat, Const, Mux

from ...numeric import Format
from ..graph import Node, Range
from .base import Delay, Primitive
from .select import both, either, inverse, less, where

__all__ = ["ClipMode", "Clips", "Round", "Saturate", "clips", "cut"]

ClipMode = Literal["disconnected", "identity", "identity_if_towards"]
"""Derivative of a saturation where it clips: 0; 1; or 1 only if a descent step leads back into range."""


@dataclass(frozen=True)
class Round(Primitive):
    """``floor(a * 2**f + 1/2) * 2**-f``; derivative 1."""

    f: int
    mnemonic: ClassVar[str] = "round"

    def range(self, a: Node) -> Range:
        drop = a.f - self.f
        half = 1 << (drop - 1)
        return Range(self.f, (a.range.lo + half) >> drop, (a.range.hi + half) >> drop)

    def evaluate(self, node: Node, a: Any) -> Any:
        drop = node.arguments[0].f - self.f
        return (a + (1 << (drop - 1))) >> drop

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [cotangent]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        return tangents[0]

    def delay(self, node: Node) -> float:
        return Delay.carry(node.width)

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        # The bits below the half cannot carry into the result: they never enter the adder.
        drop = node.arguments[0].f - self.f
        return (a >> (drop - 1)) + Const(1, 2) >> 1


@dataclass(frozen=True)
class Clips(Primitive):
    """Whether a code lies outside a format: above, below, or either; no derivative."""

    format: Format
    side: Literal["above", "below", "outside"]
    mnemonic: ClassVar[str] = "clips"

    def range(self, a: Node) -> Range:
        return Range(0, 0, 1)

    def evaluate(self, node: Node, a: Any) -> Any:
        above, below = np.asarray(a > self.format.hi), np.asarray(a < self.format.lo)
        chosen = {"above": above, "below": below, "outside": above | below}[self.side]
        return chosen.astype(np.int64)

    def delay(self, node: Node) -> float:
        return Delay.LUT * (1 if node.arguments[0].width - self.format.width < 4 else 2)

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        # A code fits if all bits from the format's sign upwards are equal (signed) or zero (unsigned).
        shape = node.arguments[0].shape
        width = self.format.width - self.format.signed
        top = Cat(*(a[k] for k in range(min(width, shape.width), shape.width)))
        negative = a[-1] if shape.signed else Const(0, 1)
        above = top.any() & ~negative
        below = negative & ~top.all() if self.format.signed else negative
        return {"above": above, "below": below, "outside": above | below}[self.side]


@dataclass(frozen=True)
class Saturate(Primitive):
    """The nearest code of a format; the derivative where it clips is chosen by ``mode``."""

    format: Format
    mode: ClipMode
    mnemonic: ClassVar[str] = "saturate"

    def range(self, a: Node) -> Range:
        lo, hi = self.format.lo, self.format.hi
        return Range(a.f, min(max(a.range.lo, lo), hi), min(max(a.range.hi, lo), hi))

    def evaluate(self, node: Node, a: Any) -> Any:
        return np.clip(a, self.format.lo, self.format.hi)

    def _passed(self, node: Node, cotangent: Node) -> Node:
        (a,) = node.arguments
        zero = node.graph.constant(0)
        if self.mode == "identity":
            return cotangent
        blocked = clips(a, self.format)
        if self.mode == "identity_if_towards":
            # A descent step moves against the cotangent: above range a positive one leads back.
            stuck_above = both(clips(a, self.format, "above"), inverse(less(zero, cotangent)))
            stuck_below = both(clips(a, self.format, "below"), inverse(less(cotangent, zero)))
            blocked = either(stuck_above, stuck_below)
        return where(blocked, zero, cotangent)

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [self._passed(node, cotangent)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        if tangents[0] is None or self.mode == "identity":
            return tangents[0]
        if self.mode == "identity_if_towards":
            raise ValueError(
                "a cut in mode 'identity_if_towards' has no JVP: its derivative depends on the cotangent; "
                "trace the kernel with 'disconnected' or 'identity'"
            )
        return where(clips(node.arguments[0], self.format), node.graph.constant(0), tangents[0])

    def delay(self, node: Node) -> float:
        return 2 * Delay.LUT if node.arguments[0].width - self.format.width < 4 else 3 * Delay.LUT

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        shape = node.arguments[0].shape
        outside = Clips(self.format, "outside").lower(lowering, node, a)
        limit = Mux(a[-1], self.format.lo, self.format.hi) if shape.signed else Const(self.format.hi)
        return Mux(outside, limit, a)


def clips(a: Node, format: Format, side: Literal["above", "below", "outside"] = "outside") -> Node:
    """The condition that a code lies outside the format (on one side of it)."""
    above, below = a.range.hi > format.hi, a.range.lo < format.lo
    if not {"above": above, "below": below, "outside": above or below}[side]:
        return a.graph.constant(0)
    return a.graph.node(Clips(format, side), (a,))


def cut(a: Node, format: Format, mode: ClipMode = "disconnected") -> Node:
    """``saturate(round(a))`` into a format: ``floor(a * 2**f + 1/2)``, limited to its codes."""
    if a.f > format.f:
        a = a.graph.node(Round(format.f), (a,))
    elif a.f < format.f:
        a = a.graph.node(Extend(format.f), (a,))
    if format.lo <= a.range.lo and a.range.hi <= format.hi:
        return a
    return a.graph.node(Saturate(format, mode), (a,))


@dataclass(frozen=True)
class Extend(Primitive):
    """The same value with more fractional bits: zeros below; derivative 1."""

    f: int
    mnemonic: ClassVar[str] = "extend"

    def range(self, a: Node) -> Range:
        return a.range.at(self.f)

    def evaluate(self, node: Node, a: Any) -> Any:
        return a << (self.f - node.arguments[0].f)

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [cotangent]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        return tangents[0]

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        return a << (self.f - node.arguments[0].f)
