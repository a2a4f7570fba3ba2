"""Products of operands that are wider than a multiplier."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Shape, ShapeLike, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..numeric.multiplier import Multiplier
from ..stream.delay import delayed

__all__ = ["Product"]

_MOST = 18  # bits of a multiplier's signed operand


class Product(wiring.Component):
    """``p[t + latency] = a[t] * b[t]``, exact, of operands of any width, one product a clock, no enable and no reset.

    An operand that no multiplier takes is cut: ``a b = 2**17 high(a) b + low(a) b``, low(a) of 17 bits and unsigned,
    and so on with what is still too wide. Of two operands up to 18 bits (17 if unsigned) it is one `Multiplier`.

    Parameters
    ----------
    a, b : ShapeLike
        Shapes of the operands.
    family : str
        Of the multipliers; not ``"ice40"``, whose operands are narrower.

    Members
    -------
    a : In(a)
    b : In(b)
    p : Out(Shape(a.width + b.width, a.signed or b.signed))

    Attributes
    ----------
    latency : int
        That of a multiplier, and a clock for every sum behind it.

    Raises
    ------
    ValueError
        As `Multiplier`.
    """

    def __init__(self, a: ShapeLike, b: ShapeLike, family: str = "generic") -> None:
        a, b = Shape.cast(a), Shape.cast(b)
        # The wider one is cut.
        self._swapped = _beyond(b) > _beyond(a)
        wide, other = (b, a) if self._swapped else (a, b)
        self._halves: list[Product] = []
        self._whole: Multiplier | None = None
        if _beyond(wide) <= 0:
            self._whole = Multiplier(a, b, family)
            self.latency = Multiplier.latency
        else:
            low, high = unsigned(_MOST - 1), Shape(wide.width - (_MOST - 1), wide.signed)
            self._halves = [Product(low, other, family), Product(high, other, family)]
            self.latency = max(half.latency for half in self._halves) + 1
        super().__init__({"a": In(a), "b": In(b), "p": Out(Shape(a.width + b.width, a.signed or b.signed))})

    def elaborate(self, platform) -> Module:
        m = Module()
        if self._whole is not None:
            m.submodules.whole = whole = self._whole
            m.d.comb += [whole.a.eq(self.a), whole.b.eq(self.b), self.p.eq(whole.p)]
            return m
        wide, other = (self.b, self.a) if self._swapped else (self.a, self.b)
        m.submodules.low, m.submodules.high = low, high = self._halves
        m.d.comb += [low.a.eq(wide[: _MOST - 1]), high.a.eq(wide[_MOST - 1 :])]
        parts = []
        for name, half in (("low", low), ("high", high)):
            m.d.comb += half.b.eq(other)
            parts.append(delayed(m, f"{name}_part", half.p, self.latency - 1 - half.latency))
        raised = Cat(Const(0, _MOST - 1), parts[1])
        total = Signal(self.p.shape(), reset_less=True)
        m.d.sync += total.eq(parts[0] + (raised.as_signed() if self.p.shape().signed else raised))
        m.d.comb += self.p.eq(total)
        return m


def _beyond(shape: Shape) -> int:
    """Bits that a multiplier has not."""
    return shape.width - (_MOST - (not shape.signed))
