"""Nested loops, and addresses that are affine in their indices."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Affine", "Loops"]


class Loops(wiring.Component):
    """A nest of counters: one step a clock, level 0 the innermost.

    After ``begin`` every index is 0. A ``step`` advances the lowest level that is not at its last index and takes all
    below it back to 0; a step from the last indices of all levels begins anew. A level has ``rest + 1`` indices.

    Every output is a register or one look-up table behind registers: no carry passes from level to level.

    Parameters
    ----------
    levels : int
    width : int
        Bits of ``rest``.

    Members
    -------
    rest : In(ArrayLayout(unsigned(width), levels))
        Indices of each level but one; constant from ``begin`` on.
    begin : In(1)
    step : In(1)
    first, last : Out(levels)
        The present index of a level is 0, or its last one.
    level : Out(levels)
        The level that a step in this clock advances, one hot; none of it where the nest begins anew.

    Raises
    ------
    ValueError
        If there is no level or a count has no bit.
    """

    def __init__(self, levels: int, width: int) -> None:
        if levels < 1 or width < 1:
            raise ValueError(f"levels={levels}, width={width}; give at least 1 of both")
        self._levels, self._width = levels, width
        super().__init__(
            {
                "rest": In(data.ArrayLayout(unsigned(width), levels)),
                "begin": In(1),
                "step": In(1),
                "first": Out(levels),
                "last": Out(levels),
                "level": Out(levels),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        for k in range(self._levels):
            left = Signal(self._width, name=f"left_{k}")
            below = self.last[:k].all() if k else 1
            m.d.comb += self.level[k].eq(below & ~self.last[k])
            again = self.begin | (self.step & below & self.last[k])
            with m.If(again):
                m.d.sync += [left.eq(self.rest[k]), self.first[k].eq(1), self.last[k].eq(self.rest[k] == 0)]
            with m.Elif(self.step & below):
                m.d.sync += [left.eq(left - 1), self.first[k].eq(0), self.last[k].eq(left == 1)]
        return m


class Affine(wiring.Component):
    """``o = start + sum of stride[k] index[k]``, of the indices of `Loops`, modulo ``2**width``.

    A step that advances level k adds ``delta[k] = stride[k] - sum of rest[j] stride[j], j < k``, which the host works
    out (`deltas`): one adder, whatever the number of levels. ``o`` is the value of the indices of the clock before; one
    value a clock.

    Parameters
    ----------
    levels : int
    width : int
        Bits of the value.

    Members
    -------
    start : In(width)
    delta : In(ArrayLayout(width, levels))
    begin, step : In(1)
        As `Loops` has them in the same clock.
    level : In(levels)
    o : Out(width)
    """

    latency = 1

    def __init__(self, levels: int, width: int) -> None:
        if levels < 1 or width < 1:
            raise ValueError(f"levels={levels}, width={width}; give at least 1 of both")
        self._levels, self._width = levels, width
        super().__init__(
            {
                "start": In(width),
                "delta": In(data.ArrayLayout(unsigned(width), levels)),
                "begin": In(1),
                "step": In(1),
                "level": In(levels),
                "o": Out(width),
            }
        )

    @staticmethod
    def deltas(strides: list[int], rests: list[int]) -> list[int]:
        """What a step of each level adds, from strides and counts less one, level 0 first."""
        found = []
        behind = 0
        for stride, rest in zip(strides, rests, strict=True):
            found.append(stride - behind)
            behind += rest * stride
        return found

    def elaborate(self, platform) -> Module:
        m = Module()
        chosen = Signal(self._width)
        for k in range(self._levels):
            with m.If(self.level[k]):
                m.d.comb += chosen.eq(self.delta[k])
        delta, step, begin = Signal(self._width), Signal(), Signal()
        m.d.sync += [
            delta.eq(chosen),
            step.eq(self.step),
            begin.eq(self.begin | (self.step & ~self.level.any())),
        ]
        with m.If(begin):
            m.d.sync += self.o.eq(self.start)
        with m.Elif(step):
            m.d.sync += self.o.eq(self.o + delta)
        return m
