"""The sum of one value and the chosen one of two, in one carry chain."""

from __future__ import annotations

from amaranth.hdl import Const, Instance, Module, Mux, Shape, ShapeLike, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SelectAdd"]


class SelectAdd(wiring.Component):
    """``o = a + (b1 if select else b0)``, modulo ``2**width``, combinational.

    Parameters
    ----------
    width : int
        Bits of a sum, signed.
    a : ShapeLike
        Shape of ``a``, at most as wide.
    family : str
        ``"ecp5"``: one CCU2C for two bits, whose look-up tables choose before they add. Synthesis puts the choice
        into look-up tables of its own, in front of the carry chain. All else: written as above.

    Members
    -------
    a : In(a)
    b0, b1 : In(signed(width))
    select : In(1)
    o : Out(signed(width))

    Raises
    ------
    ValueError
        If ``a`` is wider than the sum.

    Source: the carry of a CCU2C as yosys 0.70 maps ``$alu`` to it. Not yet checked against a data sheet, nor on a chip.
    """

    # ``init`` of a look-up table with inputs A = a, B = b1, C = b0, D = select: A xor (D ? B : C).
    _SUM = sum(((k & 1) ^ (k >> (1 if k & 8 else 2) & 1)) << k for k in range(16))

    def __init__(self, width: int, a: ShapeLike, *, family: str = "generic") -> None:
        a = Shape.cast(a)
        if not 0 < a.width <= width:
            raise ValueError(f"a is {a!r}; it needs 1 to {width} bits, the width of the sum")
        self._width, self._family = width, family
        word = Shape(width, True)
        super().__init__({"a": In(a), "b0": In(word), "b1": In(word), "select": In(1), "o": Out(word)})

    def elaborate(self, platform) -> Module:
        m = Module()
        if self._family != "ecp5":
            m.d.comb += self.o.eq(self.a + Mux(self.select, self.b1, self.b0))
            return m
        a = Signal(Shape(self._width, True))
        m.d.comb += a.eq(self.a)
        carry = Const(0, 1)
        for low in range(0, self._width, 2):
            after = Signal(name=f"carry_{low + 2}")
            ports = {"i_CIN": carry, "o_COUT": after}
            for k in range(2):
                bit = low + k
                inside = bit < self._width
                ports |= {
                    f"i_A{k}": a[bit] if inside else Const(0, 1),
                    f"i_B{k}": self.b1[bit] if inside else Const(0, 1),
                    f"i_C{k}": self.b0[bit] if inside else Const(0, 1),
                    f"i_D{k}": self.select,
                    f"o_S{k}": self.o[bit] if inside else Signal(name="beyond"),
                }
            m.submodules[f"bits_{low}"] = Instance(
                "CCU2C",
                p_INIT0=Const(self._SUM, 16),
                p_INIT1=Const(self._SUM, 16),
                p_INJECT1_0="NO",
                p_INJECT1_1="NO",
                **ports,
            )
            carry = after
        return m
