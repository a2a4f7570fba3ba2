"""Conditions and selections: the derivative is that of the branch the forward took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from amaranth.hdl import Mux

from ..graph import Node, Range
from .base import Delay, Primitive
from .source import constant_like

__all__ = [
    "absolute", "bit", "both", "either", "equal", "given", "inverse", "less", "less_equal", "maximum", "minimum",
    "select", "where",
]  # fmt: skip

_BIT = Range(0, 0, 1)


def _aligned(arguments: tuple[Node, ...], codes: tuple[Any, ...]) -> list[Any]:
    f = max(a.f for a in arguments)
    return [code << (f - a.f) if f > a.f else code for a, code in zip(arguments, codes, strict=True)]


@dataclass(frozen=True)
class Less(Primitive):
    """``a < b`` (or ``a <= b``); no derivative."""

    or_equal: bool
    mnemonic: ClassVar[str] = "less"

    def range(self, a: Node, b: Node) -> Range:
        return _BIT

    def evaluate(self, node: Node, *codes: Any) -> Any:
        a, b = _aligned(node.arguments, codes)
        return np.asarray(a <= b if self.or_equal else a < b).astype(np.int64)

    def delay(self, node: Node) -> float:
        return Delay.carry(max(a.width for a in node.arguments))

    def lower(self, lowering: Any, node: Node, *values: Any) -> Any:
        a, b = _aligned(node.arguments, values)
        return a <= b if self.or_equal else a < b


@dataclass(frozen=True)
class Equal(Primitive):
    """``a == b``; no derivative."""

    mnemonic: ClassVar[str] = "equal"

    def range(self, a: Node, b: Node) -> Range:
        return _BIT

    def evaluate(self, node: Node, *codes: Any) -> Any:
        a, b = _aligned(node.arguments, codes)
        return np.asarray(a == b).astype(np.int64)

    def delay(self, node: Node) -> float:
        return Delay.LUT * (1 if max(a.width for a in node.arguments) <= 2 else 2)

    def lower(self, lowering: Any, node: Node, *values: Any) -> Any:
        a, b = _aligned(node.arguments, values)
        return a == b


@dataclass(frozen=True)
class Logic(Primitive):
    """Bitwise and, or, not of conditions; no derivative."""

    operation: str
    mnemonic: ClassVar[str] = "logic"

    def range(self, *arguments: Node) -> Range:
        return _BIT

    def evaluate(self, node: Node, *codes: Any) -> Any:
        if self.operation == "not":
            return 1 - codes[0]
        return codes[0] & codes[1] if self.operation == "and" else codes[0] | codes[1]

    def delay(self, node: Node) -> float:
        return Delay.LUT

    def lower(self, lowering: Any, node: Node, *values: Any) -> Any:
        if self.operation == "not":
            return ~values[0]
        return values[0] & values[1] if self.operation == "and" else values[0] | values[1]


@dataclass(frozen=True)
class Bit(Primitive):
    """Bit ``k`` of a code that is not negative; no derivative."""

    k: int
    mnemonic: ClassVar[str] = "bit"

    def range(self, a: Node) -> Range:
        return _BIT

    def evaluate(self, node: Node, a: Any) -> Any:
        return (a >> self.k) & 1

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        return a.bit_select(self.k, 1)


@dataclass(frozen=True)
class Where(Primitive):
    """``c ? a : b``; the branch taken has derivative 1, the other 0."""

    mnemonic: ClassVar[str] = "where"

    def range(self, c: Node, a: Node, b: Node) -> Range:
        f = max(x.f for x in (a, b))
        x, y = a.range.at(f), b.range.at(f)
        return Range(f, min(x.lo, y.lo), max(x.hi, y.hi))

    def evaluate(self, node: Node, c: Any, *codes: Any) -> Any:
        a, b = _aligned(node.arguments[1:], codes)
        return np.where(np.asarray(c) != 0, a, b)

    def vjp(self, node: Node, cotangent: Node) -> list[Node | None]:
        c, zero = node.arguments[0], node.graph.constant(0)
        return [None, where(c, cotangent, zero), where(c, zero, cotangent)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        zero = node.graph.constant(0)
        _, a, b = tangents
        if a is None and b is None:
            return None
        return where(node.arguments[0], zero if a is None else a, zero if b is None else b)

    def delay(self, node: Node) -> float:
        return Delay.LUT

    def lower(self, lowering: Any, node: Node, c: Any, *values: Any) -> Any:
        a, b = _aligned(node.arguments[1:], values)
        return Mux(c, a, b)


@dataclass(frozen=True)
class Extremum(Primitive):
    """``min(a, b)`` or ``max(a, b)``; at a tie the first operand takes the whole derivative."""

    largest: bool
    mnemonic: ClassVar[str] = "extremum"

    def range(self, a: Node, b: Node) -> Range:
        f = max(x.f for x in (a, b))
        x, y = a.range.at(f), b.range.at(f)
        pick = max if self.largest else min
        return Range(f, pick(x.lo, y.lo), pick(x.hi, y.hi))

    def first(self, node: Node) -> Node:
        """The condition under which the first operand is the result."""
        a, b = node.arguments
        return less_equal(b, a) if self.largest else less_equal(a, b)

    def evaluate(self, node: Node, *codes: Any) -> Any:
        a, b = _aligned(node.arguments, codes)
        return np.maximum(a, b) if self.largest else np.minimum(a, b)

    def vjp(self, node: Node, cotangent: Node) -> list[Node | None]:
        zero, first = node.graph.constant(0), self.first(node)
        return [where(first, cotangent, zero), where(first, zero, cotangent)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        a, b = tangents
        if a is None and b is None:
            return None
        zero = node.graph.constant(0)
        return where(self.first(node), zero if a is None else a, zero if b is None else b)

    def delay(self, node: Node) -> float:
        return Delay.carry(max(a.width for a in node.arguments)) + Delay.LUT

    def lower(self, lowering: Any, node: Node, *values: Any) -> Any:
        a, b = _aligned(node.arguments, values)
        return Mux(b <= a if self.largest else a <= b, a, b)


@dataclass(frozen=True)
class Absolute(Primitive):
    """``|a|``; the derivative is the sign, and 0 at 0."""

    mnemonic: ClassVar[str] = "absolute"

    def range(self, a: Node) -> Range:
        lo, hi = a.range.lo, a.range.hi
        return Range(a.f, 0 if lo <= 0 <= hi else min(abs(lo), abs(hi)), max(abs(lo), abs(hi)))

    def evaluate(self, node: Node, a: Any) -> Any:
        return abs(a)

    def _signed(self, node: Node, value: Node) -> Node:
        (a,) = node.arguments
        zero = node.graph.constant(0)
        return where(less(a, 0), -value, where(equal(a, 0), zero, value))

    def vjp(self, node: Node, cotangent: Node) -> list[Node]:
        return [self._signed(node, cotangent)]

    def jvp(self, node: Node, tangents: Any) -> Node | None:
        return None if tangents[0] is None else self._signed(node, tangents[0])

    def delay(self, node: Node) -> float:
        return Delay.carry(node.width) + Delay.LUT

    def lower(self, lowering: Any, node: Node, a: Any) -> Any:
        return Mux(a < 0, -a, a)


def less(a: Node, b: Any) -> Node:
    """The condition ``a < b``."""
    return _compare(a, constant_like(a, b), or_equal=False)


def less_equal(a: Node, b: Any) -> Node:
    """The condition ``a <= b``."""
    return _compare(a, constant_like(a, b), or_equal=True)


def _compare(a: Node, b: Node, *, or_equal: bool) -> Node:
    f = max(a.f, b.f)
    x, y = a.range.at(f), b.range.at(f)
    if x.hi < y.lo or (or_equal and x.hi == y.lo):
        return a.graph.constant(1)
    if x.lo > y.hi or (not or_equal and x.lo == y.hi):
        return a.graph.constant(0)
    return a.graph.node(Less(or_equal), (a, b))


def equal(a: Node, b: Any) -> Node:
    """The condition ``a == b``."""
    b = constant_like(a, b)
    f = max(a.f, b.f)
    x, y = a.range.at(f), b.range.at(f)
    if x.hi < y.lo or x.lo > y.hi:
        return a.graph.constant(0)
    return a.graph.node(Equal(), (a, b))


def inverse(a: Node) -> Node:
    """The condition ``not a``."""
    if a.constant is not None:
        return a.graph.constant(1 - a.constant)
    return a.graph.node(Logic("not"), (a,))


def both(a: Node, b: Node) -> Node:
    """The condition ``a and b``."""
    for x, y in ((a, b), (b, a)):
        if x.constant is not None:
            return y if x.constant else x
    return a.graph.node(Logic("and"), (a, b) if a.index <= b.index else (b, a))


def either(a: Node, b: Node) -> Node:
    """The condition ``a or b``."""
    for x, y in ((a, b), (b, a)):
        if x.constant is not None:
            return x if x.constant else y
    return a.graph.node(Logic("or"), (a, b) if a.index <= b.index else (b, a))


def bit(a: Node, k: int) -> Node:
    """Bit ``k`` of the code of a value that is not negative."""
    if a.range.lo < 0:
        raise ValueError(f"{a} may be negative; take bits of values that are not")
    return a.graph.node(Bit(k), (a,))


def where(condition: Node, a: Any, b: Any) -> Node:
    """``condition ? a : b``."""
    a, b = constant_like(condition, a), constant_like(condition, b)
    if condition.constant is not None:
        return a if condition.constant else b
    if a is b:
        return a
    # A branch that asks the same question again has only one answer left.
    if isinstance(a.primitive, Where) and a.arguments[0] is condition:
        a = a.arguments[1]
    if isinstance(b.primitive, Where) and b.arguments[0] is condition:
        b = b.arguments[2]
    if a is b:
        return a
    # Nested gates ("zero unless") are ordered by age, oldest outermost: equal gates then are equal nodes.
    for gated, other in ((a, b), (b, a)):
        inner = gated.arguments
        if other.is_zero and isinstance(gated.primitive, Where) and inner[0].index < condition.index \
                and any(x.is_zero for x in inner[1:]):  # fmt: skip
            if gated is a:
                return where(inner[0], where(condition, inner[1], 0), where(condition, inner[2], 0))
            return where(inner[0], where(condition, 0, inner[1]), where(condition, 0, inner[2]))
    return condition.graph.node(Where(), (condition, a, b))


def given(node: Node, known: Mapping[int, int]) -> Node:
    """The value where conditions, by their node indices, have known values: selections by them are decided."""
    if not isinstance(node.primitive, Where):
        return node
    condition, a, b = node.arguments
    if condition.index in known:
        return given(a if known[condition.index] else b, known)
    return where(condition, given(a, known), given(b, known))


def select(index: Node, choices: list[Any]) -> Node:
    """``choices[index]`` as a tree of selections on the index's bits; two, four, eight ... choices."""
    if len(choices) == 1:
        return constant_like(index, choices[0])
    if len(choices) & (len(choices) - 1):
        raise ValueError(f"select takes a power of two of choices, got {len(choices)}: repeat one of them")
    half = len(choices) // 2
    return where(
        bit(index, half.bit_length() - 1), select(index, choices[half:]), select(index, choices[:half])
    )


def minimum(a: Node, b: Any) -> Node:
    """``min(a, b)``; the derivative goes to ``a`` at a tie."""
    return a.graph.node(Extremum(False), (a, constant_like(a, b)))


def maximum(a: Node, b: Any) -> Node:
    """``max(a, b)``; the derivative goes to ``a`` at a tie."""
    return a.graph.node(Extremum(True), (a, constant_like(a, b)))


def absolute(a: Node) -> Node:
    """``|a|``."""
    return a if a.range.lo >= 0 else a.graph.node(Absolute(), (a,))
