"""Sums times a power of two, rounded: what is added to weights and momenta."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, ShapeLike, Signal, ValueLike, signed
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

    latency = 6

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
        total, wide = self._total, signed(self._total + 1)
        off = enables(m, "off", ~delayed(m, "on", self.on, self.latency - 3, reset=True), self._lanes)
        # One register would have to reach the shifters of all lanes.
        told = copies(m, "told", delayed(m, "given", Cat(self.shift, self.minus), 1), self._lanes)
        for k in range(self._lanes):

            def register(name: str, value: ValueLike, shape: ShapeLike = wide, k: int = k) -> Signal:
                made = Signal(shape, name=f"{name}_{k}", reset_less=True)
                m.d.sync += made.eq(value)
                return made

            mine = delayed(m, f"told_{k}", told[k], 1)
            shift, minus = mine[:-1], mine[-1]
            # 1, 2, 3: twice the sum, so that the bit below the result's lowest one is there for every shift.
            doubled = Cat(Const(0, 1), self.i[k]).as_signed()
            coarse = register("coarse", doubled >> Cat(Const(0, 4), shift[4:]))
            medium = register("medium", coarse >> Cat(Const(0, 2), shift[2:4]))
            fine = register("fine", medium >> shift[:2])
            # 4, 5: less q + half is ~q + 1 - half, so both have one adder.
            half, whole = fine[0], fine[1:].as_signed()
            turned = register("turned", Mux(minus, ~whole, whole))
            up = register("up", half ^ minus, 1)
            rounded = register("rounded", turned + up)
            # 6.
            o = register("o", Mux(register("off", off[k], 1), 0, rounded), signed(total))
            m.d.comb += self.o[k].eq(o)
        return m
