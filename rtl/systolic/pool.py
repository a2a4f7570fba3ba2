"""The largest code of a window, and cotangents on their way back to it, lane by lane."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed
from ..stream.enable import enables
from .build import ArrayBuild

__all__ = ["Pool"]


class Pool(wiring.Component):
    """``o = max(i)`` over the rows from ``first`` to ``last``, or the ``tap`` of the first row in which it stood.

    With ``route`` it is the adjoint: ``o = numbers == tap ? i : 0``, row by row, each of them ``first`` and ``last``.
    A row a clock, no stall; a result `latency` clocks after the row that is ``last``, and zeros in every other clock.

    Parameters
    ----------
    build : ArrayBuild
        C lanes of its operands.

    Members
    -------
    i : In(ArrayLayout(build.word, columns))
    tap : In(unsigned(build.operand))
        Of this row.
    numbers : In(ArrayLayout(build.word, columns))
        Taps that MAX took, as codes; only for ``route``.
    first, last : In(1)
        The row begins a window; it gives a result.
    argmax, route : In(1)
    o : Out(ArrayLayout(build.word, columns))
    """

    latency = 4

    def __init__(self, build: ArrayBuild) -> None:
        self._build = build
        row = data.ArrayLayout(build.word, build.columns)
        super().__init__(
            {
                "i": In(row),
                "tap": In(unsigned(build.operand)),
                "numbers": In(row),
                "first": In(1),
                "last": In(1),
                "argmax": In(1),
                "route": In(1),
                "o": Out(row),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build
        taps = [self.tap]
        for clock in (1, 2):
            taps.append(delayed(m, f"tap_{clock}", taps[-1], 1))
        route = delayed(m, "route", self.route, 2)
        first = enables(m, "first", self.first, build.columns)
        last = delayed(m, "last", self.last, 2, reset=True)
        argmax = enables(m, "argmax", delayed(m, "argmax", self.argmax, 2), build.columns)
        # Codes with their sign turned round are in the order of unsigned numbers, compared in one carry chain.
        sign = 1 << (build.operand - 1)
        for k in range(build.columns):

            def register(name: str, k: int = k) -> Signal:
                return Signal(build.operand, name=f"{name}_{k}", reset_less=True)

            # 1: what comes out of the memories.
            i, number = register("i"), register("number")
            m.d.sync += [i.eq(self.i[k].as_unsigned() ^ sign), number.eq(self.numbers[k])]
            # 2: the largest so far.
            best, replaced = register("best"), Signal(name=f"replaced_{k}", reset_less=True)
            replaces = Signal(name=f"replaces_{k}")
            m.d.comb += replaces.eq(first[k] | (i > best))
            m.d.sync += replaced.eq(replaces)
            with m.If(replaces):
                m.d.sync += best.eq(i)
            same = Signal(name=f"same_{k}", reset_less=True)
            m.d.sync += same.eq(number == taps[1])
            # 3: where it stood.
            largest, at = register("largest"), register("at")
            gives = Signal(name=f"gives_{k}")
            m.d.sync += [largest.eq(best), gives.eq(last & (~route | same))]
            with m.If(replaced):
                m.d.sync += at.eq(taps[2])
            # 4: the result.
            o = register("o")
            m.d.sync += o.eq(Mux(gives, Mux(argmax[k], at, largest ^ sign), 0))
            m.d.comb += self.o[k].eq(o)
        return m
