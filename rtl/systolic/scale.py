"""Sums times a power of two, rounded: what is added to weights and momenta."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed
from ..stream.enable import copies, enables

__all__ = ["Scale"]


class Scale(wiring.Component):
    """``o = floor(i 2^-shift + 1/2)``, or less that, lane by lane, and 0 where it is not ``on``.

    A row a clock, no stall; ``latency`` clocks from ``i`` and ``on`` to ``o``. ``shift`` and ``minus`` stay while rows
    are on their way.

    Parameters
    ----------
    lanes : int
    total : int
        Bits of a sum, signed.

    Members
    -------
    i, o : In, Out(ArrayLayout(signed(total), lanes))
    on : In(1)
    shift : In(range(total + 1))
        Of a sum shifted by its width nothing is left.
    minus : In(1)

    Raises
    ------
    ValueError
        If there is no lane, or a sum has less than 2 bits.
    """

    latency = 5

    def __init__(self, lanes: int, total: int) -> None:
        if lanes < 1 or total < 2:
            raise ValueError(f"lanes={lanes}, total={total}; give at least 1 lane of 2 bits")
        self._lanes, self._total = lanes, total
        row = data.ArrayLayout(signed(total), lanes)
        super().__init__(
            {
                "i": In(row),
                "o": Out(row),
                "on": In(1),
                "shift": In(Shape.cast(range(total + 1))),
                "minus": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        total = self._total
        on = enables(m, "on", delayed(m, "on", self.on, 3, reset=True), self._lanes)
        # One register would have to reach the shifters of all lanes.
        told = copies(m, "told", Cat(self.shift, self.minus), self._lanes)
        for k in range(self._lanes):

            def register(name: str, k: int = k) -> Signal:
                return Signal(signed(total + 1), name=f"{name}_{k}", reset_less=True)

            i = Signal(signed(total), name=f"i_{k}", reset_less=True)
            m.d.sync += i.eq(self.i[k])
            shift, minus = told[k][:-1], told[k][-1]
            # 2, 3: twice the sum, so that the bit below the result's lowest one is there for every shift.
            coarse, fine, rounded = register("coarse"), register("fine"), register("rounded")
            doubled = Cat(Const(0, 1), i).as_signed()
            m.d.sync += [
                coarse.eq(doubled >> Cat(Const(0, 3), shift[3:])),
                fine.eq(coarse >> shift[:3]),
            ]
            # 4: less q + half is ~q + 1 - half, so both have one adder.
            half, whole = fine[0], fine[1:].as_signed()
            m.d.sync += rounded.eq(Mux(minus, ~whole, whole) + (half ^ minus))
            # 5.
            o = Signal(signed(total), name=f"o_{k}")
            m.d.sync += o.eq(Mux(on[k], rounded, 0))
            m.d.comb += self.o[k].eq(o)
        return m
