"""Reciprocal, reciprocal root and power of two by a table of knots with straight lines between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache
from itertools import pairwise
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..numeric import UQ
from ..numeric.multiplier import Multiplier
from ..stream.delay import delayed

__all__ = ["FRACTION", "FUNCTIONS", "LOG2_E", "SEGMENTS", "VALUE", "FunctionTable", "Normalise", "knots"]

SEGMENTS = 256
"""Straight lines for an argument's range of 1."""

FRACTION = UQ(0, 16)
"""What of an argument lies above its whole part."""

VALUE = UQ(1, 16)
"""Of a function: values are in (1/2, 1]."""

_PLACE = FRACTION.width - (SEGMENTS.bit_length() - 1)  # bits of the place within a segment


@dataclass(frozen=True)
class Function:
    """A falling function on [0, ``span``), with values in (1/2, 1]."""

    span: int
    value: Callable[[Decimal], Decimal]


def _reciprocal_root(w: Decimal) -> Decimal:
    octave = int(w)
    return 1 / ((1 + w - octave) * 2**octave).sqrt()


FUNCTIONS = {
    "power": Function(1, lambda w: Decimal(2) ** -w),
    "reciprocal": Function(1, lambda w: 1 / (1 + w)),
    "reciprocal_root": Function(2, _reciprocal_root),
}
"""``2**-w``; ``1 / (1 + w)``; ``1 / sqrt((1 + u) 2**n)``, n the whole part of w, u the rest: mantissas of [1, 4)."""

_DIGITS = 40


@cache
def knots(function: str) -> tuple[int, ...]:
    """``floor(2**16 f(k / SEGMENTS) + 1/2)`` for k = 0 .. ``span SEGMENTS``, from 40 decimal digits of f.

    Raises
    ------
    ValueError
        If there is no such function.
    """
    if function not in FUNCTIONS:
        raise ValueError(f"function {function!r} is unknown; give {' or '.join(FUNCTIONS)}")
    f = FUNCTIONS[function]
    with localcontext() as context:
        context.prec = _DIGITS
        places = (Decimal(k) / SEGMENTS for k in range(f.span * SEGMENTS + 1))
        return tuple(
            int((f.value(w) * (1 << VALUE.f) + Decimal("0.5")).to_integral_value("ROUND_FLOOR"))
            for w in places
        )


def _log2_e() -> int:
    with localcontext() as context:
        context.prec = _DIGITS
        return int(Decimal(1 << VALUE.f) / Decimal(2).ln() + Decimal("0.5"))


LOG2_E = _log2_e()
"""log2(e) as a code of `VALUE`'s fraction: ``exp(-a) = 2**-(a log2(e))``."""


class FunctionTable(wiring.Component):
    """``o = floor(K[s] + (K[s + 1] - K[s]) t / 256 + 1/2)``, s = ``i // 256`` and t = ``i mod 256``.

    K are the :func:`knots` of the function and ``i`` is its argument with 16 fractional bits. A row of the table holds
    a knot and how far it falls to the next one, so one read serves. Latency 6 (table 2, product 3, sum 1), one argument
    a clock, no stall and no reset: what enters invalid leaves invalid.

    Over all arguments ``o`` differs from the function by less than 1.25 units of ``2**-16``: 1/2 from the knots, 1/2
    from the sum, at most 1/4 from the straight line, whose error is ``max f'' / (8 SEGMENTS**2)`` with f'' up to 2.

    Parameters
    ----------
    function : str
        A key of :data:`FUNCTIONS`.
    family : str
        Of the multiplier.

    Members
    -------
    i : In(16 bits, 17 for ``"reciprocal_root"``)
    o : Out(VALUE.shape)

    Raises
    ------
    ValueError
        If there is no such function, or the family is unknown.
    """

    latency = 2 + Multiplier.latency + 1

    def __init__(self, function: str, *, family: str = "generic") -> None:
        self._knots = knots(function)
        self._falls = [before - after for before, after in pairwise(self._knots)]
        self._multiplier = Multiplier(max(self._falls).bit_length(), _PLACE, family)
        argument = FRACTION.width + FUNCTIONS[function].span.bit_length() - 1
        super().__init__({"i": In(argument), "o": Out(VALUE.shape)})

    def elaborate(self, platform) -> Module:
        m = Module()
        row = data.StructLayout({"knot": VALUE.width, "fall": max(self._falls).bit_length()})
        entries: Any = [{"knot": k, "fall": f} for k, f in zip(self._knots, self._falls, strict=False)]
        m.submodules.table = table = Memory(
            shape=row,  # pyright: ignore[reportCallIssue]
            depth=len(entries),
            init=entries,
            attrs={"ram_style": "block"},
        )
        read = table.read_port()
        register = Signal(row, reset_less=True)
        m.d.comb += [read.en.eq(1), read.addr.eq(self.i[_PLACE:])]
        m.d.sync += register.eq(read.data)
        m.submodules.multiplier = multiplier = self._multiplier
        m.d.comb += [multiplier.a.eq(register.fall), multiplier.b.eq(delayed(m, "place", self.i[:_PLACE], 2))]
        knot = delayed(m, "knot", register.knot, Multiplier.latency)
        exact = Signal(VALUE.width + _PLACE)
        value = Signal(VALUE.width, reset_less=True)
        m.d.comb += exact.eq(Cat(Const(1 << (_PLACE - 1), _PLACE), knot) - multiplier.p)
        m.d.sync += value.eq(exact[_PLACE:])
        m.d.comb += self.o.eq(value)
        return m


class Normalise(wiring.Component):
    """``i = m 2**exponent`` with m in [1, 2); ``fraction = cut(m - 1)``, round half up, saturating at 1 - 2**-16.

    The leading zeros are counted as they are shifted out, by halves, one register a step. Latency :attr:`latency`, a
    value a clock, no stall and no reset. Of ``i = 0`` the outputs mean nothing.

    Parameters
    ----------
    width : int
        Bits of ``i``, unsigned.

    Members
    -------
    i : In(width)
    exponent : Out(range(width))
    fraction : Out(FRACTION.shape)

    Attributes
    ----------
    latency : int
        Bits of ``width - 1``, and one.

    Raises
    ------
    ValueError
        If ``i`` has less than two bits.
    """

    def __init__(self, width: int) -> None:
        if width < 2:
            raise ValueError(f"width={width}; give at least 2 bits")
        self._width = width
        self._steps = (width - 1).bit_length()
        self.latency = self._steps + 1
        super().__init__({"i": In(width), "exponent": Out(range(width)), "fraction": Out(FRACTION.shape)})

    def elaborate(self, platform) -> Module:
        m = Module()
        value, exponent = self.i, Const(self._width - 1, self._steps)
        for step in reversed(range(self._steps)):
            places = 1 << step
            empty = Signal(name=f"empty_{places}")
            after = Signal(self._width, name=f"shifted_by_{places}", reset_less=True)
            lower = Signal(self._steps, name=f"exponent_by_{places}", reset_less=True)
            m.d.comb += empty.eq(~value[self._width - places :].any())
            m.d.sync += [
                after.eq(Mux(empty, value << places, value)),
                lower.eq(exponent - Mux(empty, places, 0)),
            ]
            value, exponent = after, lower
        below = Cat(Const(0, FRACTION.width + 1), value[:-1])[
            -(FRACTION.width + 1) :
        ]  # and the bit to be rounded
        kept, half = below[1:], below[0]
        fraction = Signal(FRACTION.width, reset_less=True)
        m.d.sync += fraction.eq(kept + (half & ~kept.all()))
        m.d.comb += [self.fraction.eq(fraction), self.exponent.eq(delayed(m, "exponent", exponent, 1))]
        return m
