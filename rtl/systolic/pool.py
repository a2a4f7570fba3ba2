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

    latency = 3

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
        tap, route = (delayed(m, name, getattr(self, name), 1) for name in ("tap", "route"))
        first = enables(m, "first", self.first, build.columns)
        last = delayed(m, "last", self.last, 1, reset=True)
        argmax = delayed(m, "argmax", self.argmax, 2)
        for k in range(build.columns):
            # 1: what comes out of the memories.
            i, number, best = (
                Signal(build.word, name=f"{name}_{k}", reset_less=True) for name in ("i", "number", "best")
            )
            m.d.sync += [i.eq(self.i[k]), number.eq(self.numbers[k])]
            # 2: the largest so far.
            at = Signal(build.operand, name=f"at_{k}", reset_less=True)
            with m.If(first[k] | (i > best)):
                m.d.sync += [best.eq(i), at.eq(tap)]
            gives = Signal(name=f"gives_{k}")
            m.d.sync += gives.eq(last & (~route | (number.as_unsigned() == tap)))
            # 3: the result.
            o = Signal(build.word, name=f"o_{k}")
            m.d.sync += o.eq(Mux(gives, Mux(argmax, at.as_signed(), best), 0))
            m.d.comb += self.o[k].eq(o)
        return m
