"""Exact sums and products: results grow, nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ...numeric.multiplier import Multiplier
from ..graph import MULTIPLIER_WIDTH, Node, Range
from .base import Delay, Primitive
from .select import Where, where
from .source import constant_like

__all__ = ["Add", "Mul", "Neg", "Shift", "Sub", "add", "mul", "neg", "shift", "sub", "total"]


def _aligned(node: Node, codes: tuple[Any, ...]) -> list[Any]:
    """The arguments' codes, brought to the fractional bits of the result."""
    return [
        code << (node.f - a.f) if node.f > a.f else code
        for a, code in zip(node.arguments, codes, strict=True)
    ]


def _product_of_sum(a: Node, b: Node) -> tuple[Range, Range]:
    f = max(a.f, b.f)
    return a.range.at(f), b.range.at(f)


@dataclass(frozen=True)
class Add(Primitive):
    """``a + b``; both cotangents are the result's."""

    mnemonic: ClassVar[str] = "sum"

    def range(self, a: Node, b: Node) -> Range:
        x, y = _product_of_sum(a, b)
        return Range(x.f, x.lo + y.lo, x.hi + y.hi)

    def evaluate(self, node: Node, *codes: Any) -> Any:
        a, b = _aligned(node, codes)
        return a + b

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [cotangent, cotangent]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        return total([t for t in tangents if t is not None])

    def delay(self, node: Node) -> float:
        return Delay.carry(node.width)

    def lower(self, lowering: Any, node: Node, *values: Any) -> Any:
        a, b = _aligned(node, values)
        return a + b


@dataclass(frozen=True)
class Sub(Primitive):
    """``a - b``; the cotangent of b is minus the result's."""

    mnemonic: ClassVar[str] = "difference"

    def range(self, a: Node, b: Node) -> Range:
        x, y = _product_of_sum(a, b)
        return Range(x.f, x.lo - y.hi, x.hi - y.lo)

    def evaluate(self, node: Node, *codes: Any) -> Any:
        a, b = _aligned(node, codes)
        return a - b

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [cotangent, neg(cotangent)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        a, b = tangents
        if b is None:
            return a
        return neg(b) if a is None else sub(a, b)

    def delay(self, node: Node) -> float:
        return Delay.carry(node.width)

    def lower(self, lowering: Any, node: Node, *values: Any) -> Any:
        a, b = _aligned(node, values)
        return a - b


@dataclass(frozen=True)
class Neg(Primitive):
    """``-a``."""

    mnemonic: ClassVar[str] = "minus"

    def range(self, a: Node) -> Range:
        return Range(a.f, -a.range.hi, -a.range.lo)

    def evaluate(self, node: Node, a: Any) -> Any:
        return -a

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [neg(cotangent)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        return None if tangents[0] is None else neg(tangents[0])

    def delay(self, node: Node) -> float:
        return Delay.carry(node.width)

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        return -a


@dataclass(frozen=True)
class Shift(Primitive):
    """``a * 2**k``: the binary point moves, the code stays."""

    k: int
    mnemonic: ClassVar[str] = "shift"

    def range(self, a: Node) -> Range:
        return Range(a.f - self.k, a.range.lo, a.range.hi)

    def evaluate(self, node: Node, a: Any) -> Any:
        return a

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [shift(cotangent, self.k)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        return None if tangents[0] is None else shift(tangents[0], self.k)

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        return a


@dataclass(frozen=True)
class Mul(Primitive):
    """``a * b`` in one pipelined multiplier: operands of at most 18 bits, signed."""

    mnemonic: ClassVar[str] = "product"
    latency: ClassVar[int] = Multiplier.latency

    def range(self, a: Node, b: Node) -> Range:
        for x in (a, b):
            width = x.width + (not x.shape.signed)
            if width > MULTIPLIER_WIDTH:
                raise ValueError(
                    f"operand {x} of a product is {width} bits wide, signed; a multiplier takes "
                    f"{MULTIPLIER_WIDTH}: narrow it with cut()"
                )
        corners = [p * q for p in (a.range.lo, a.range.hi) for q in (b.range.lo, b.range.hi)]
        return Range(a.f + b.f, min(corners), max(corners))

    def evaluate(self, node: Node, a: Any, b: Any) -> Any:
        return a * b

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        a, b = node.arguments
        return [mul(cotangent, b), mul(cotangent, a)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        (a, b), (ta, tb) = node.arguments, tangents
        return total([mul(t, x) for t, x in ((ta, b), (tb, a)) if t is not None])

    def delay(self, node: Node) -> float:
        return Delay.MULTIPLIER

    def lower(self, lowering: Any, node: Node, a: Any, b: Any) -> Any:
        multiplier = Multiplier(node.arguments[0].shape, node.arguments[1].shape, family=lowering.family)
        lowering.submodule(f"mul_{node}", multiplier)
        lowering.connect(multiplier.a, a)
        lowering.connect(multiplier.b, b)
        return multiplier.p


def _merge(a: Node, b: Node) -> Node | None:
    """``a + b`` without an adder, where at most one of the two is ever non-zero; None if that is not plain.

    Both are taken as decision trees over their conditions, ordered as :func:`where` orders them, so that
    selections by the same condition meet. The sum of what the branches of one selection send back, which is
    what reverse mode makes of every selection, is a selection again.
    """
    if a.is_zero:
        return b
    if b.is_zero:
        return a
    conditions = [x.arguments[0] for x in (a, b) if isinstance(x.primitive, Where)]
    if not conditions:
        return None
    first = min(conditions, key=lambda c: c.index)

    def branches(x: Node) -> tuple[Node, Node]:
        split = isinstance(x.primitive, Where) and x.arguments[0] is first
        return (x.arguments[1], x.arguments[2]) if split else (x, x)

    taken, other = (_merge(x, y) for x, y in zip(branches(a), branches(b), strict=True))
    return None if taken is None or other is None else where(first, taken, other)


def add(a: Node, b: Any) -> Node:
    """``a + b``, exact."""
    b = constant_like(a, b)
    merged = _merge(a, b)
    if merged is not None:
        return merged
    if isinstance(b.primitive, Neg):
        return sub(a, b.arguments[0])
    if isinstance(a.primitive, Neg):
        return sub(b, a.arguments[0])
    if a.constant is not None and b.constant is not None:
        f = max(a.f, b.f)
        return _constant(a.graph, (a.constant << (f - a.f)) + (b.constant << (f - b.f)), f)
    return a.graph.node(Add(), (a, b) if a.index <= b.index else (b, a))


def sub(a: Node, b: Any) -> Node:
    """``a - b``, exact."""
    b = constant_like(a, b)
    if b.is_zero:
        return a
    if a.is_zero:
        return neg(b)
    if a is b:
        return a.graph.constant(0)
    if b.constant is not None:
        return add(a, neg(b))
    return a.graph.node(Sub(), (a, b))


def neg(a: Node) -> Node:
    """``-a``."""
    if a.constant is not None:
        return _constant(a.graph, -a.constant, a.f)
    if isinstance(a.primitive, Neg):
        return a.arguments[0]
    if isinstance(a.primitive, Where) and any(x.is_zero for x in a.arguments[1:]):
        return where(a.arguments[0], neg(a.arguments[1]), neg(a.arguments[2]))
    return a.graph.node(Neg(), (a,))


def shift(a: Node, k: int) -> Node:
    """``a * 2**k``: free."""
    if k == 0 or a.is_zero:
        return a
    if isinstance(a.primitive, Shift):
        return shift(a.arguments[0], k + a.primitive.k)
    if isinstance(a.primitive, Neg):  # a sign outside is one that a sum can absorb
        return neg(shift(a.arguments[0], k))
    if a.constant is not None:
        return _constant(a.graph, a.constant, a.f - k)
    return a.graph.node(Shift(k), (a,))


def mul(a: Node, b: Any) -> Node:
    """``a * b``, exact; by a constant it becomes shifts and adds (canonical signed digits)."""
    b = constant_like(a, b)
    if a.constant is not None:
        a, b = b, a
    if b.constant is not None:
        return _scaled(a, b.constant, b.f)
    # A factor -1 or a power of two commutes with the multiplier and is free outside it.
    if isinstance(a.primitive, Shift):
        return shift(mul(a.arguments[0], b), a.primitive.k)
    if isinstance(b.primitive, Shift):
        return shift(mul(a, b.arguments[0]), b.primitive.k)
    if isinstance(a.primitive, Neg):
        return neg(mul(a.arguments[0], b))
    if isinstance(b.primitive, Neg):
        return neg(mul(a, b.arguments[0]))
    return a.graph.node(Mul(), (a, b) if a.index <= b.index else (b, a))


def _constant(graph: Any, code: int, f: int) -> Node:
    from .source import Constant

    if code == 0:
        return graph.node(Constant(0, 0))
    zeros = (code & -code).bit_length() - 1
    return graph.node(Constant(code >> zeros, f - zeros))


def _scaled(a: Node, code: int, f: int) -> Node:
    """``a * code * 2**-f`` as the sum of its canonical signed digits: no two neighbours are non-zero."""
    if a.constant is not None:
        return _constant(a.graph, a.constant * code, a.f + f)
    terms: list[Node] = []
    position = 0
    while code:
        if code & 1:
            digit = 2 - (code & 3)
            terms.append(shift(a if digit > 0 else neg(a), position - f))
            code -= digit
        code >>= 1
        position += 1
    return total(terms) if terms else a.graph.constant(0)


def total(terms: list[Node]) -> Node:
    """The sum of the terms, at least one, as a balanced tree.

    Terms of one magnitude are added first, so that widths and latency grow as slowly as they can.
    """
    if not terms:
        raise ValueError("the sum of no terms; give at least one")
    queue = list(terms)
    while len(queue) > 1:
        queue = [add(*queue[k : k + 2]) if k + 1 < len(queue) else queue[k] for k in range(0, len(queue), 2)]
    return queue[0]
