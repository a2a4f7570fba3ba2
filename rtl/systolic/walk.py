"""Nested loops, and addresses that are affine in their indices."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Affine", "Loops"]


class Loops(wiring.Component):
    """A nest of counters: one step a clock, level 0 the innermost.

    Two clocks after ``start`` every index is 0. A ``step`` advances the lowest level that is not at its last index and
    takes all below it back to 0; a step from the last indices of all levels begins anew. A level has ``rest + 1``
    indices.

    The counters are a step ahead, so every output is a register, and a counter is below zero at its last index: no
    comparison, and no carry from level to level, lies behind a step.

    Parameters
    ----------
    levels : int
    width : int
        Bits of ``rest``.

    Members
    -------
    rest : In(ArrayLayout(unsigned(width), levels))
        Indices of each level but one.
    idle, start : In(1)
        ``rest`` is looked at: in any clock; with ``start`` for the last time.
    begin : Out(1)
        The first indices come in the next clock.
    step : In(1)
        Not with ``idle`` or ``begin``.
    first, last : Out(levels)
        The present index of a level is 0, or its last one.
    ends : Out(levels)
        So is that of all levels below it: ``last[:k + 1].all()``.
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
                "idle": In(1),
                "start": In(1),
                "begin": Out(1),
                "step": In(1),
                "first": Out(levels),
                "last": Out(levels),
                "ends": Out(levels),
                "level": Out(levels),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        moves = Signal()
        m.d.sync += self.begin.eq(self.start)
        m.d.comb += moves.eq(self.begin | self.step)
        # Of the indices that come next: how many steps a level has left, less one.
        left = [
            Signal(signed(self._width + 1), name=f"left_{k}", reset_less=True) for k in range(self._levels)
        ]
        first = Signal(self._levels, reset_less=True)
        last = Cat(each[-1] for each in left)
        for k, counter in enumerate(left):
            most = Signal.like(counter, name=f"most_{k}", reset_less=True)
            ends_below = last[:k].all() if k else Const(1)
            with m.If(self.idle):
                m.d.sync += [most.eq(self.rest[k] - 1), counter.eq(self.rest[k] - 1), first[k].eq(1)]
            with m.Elif(moves & ends_below):
                m.d.sync += [counter.eq(Mux(last[k], most, counter - 1)), first[k].eq(last[k])]
            with m.If(moves):
                m.d.sync += [
                    self.ends[k].eq(last[: k + 1].all()),
                    self.level[k].eq(ends_below & ~last[k]),
                ]
        with m.If(moves):
            m.d.sync += [self.first.eq(first), self.last.eq(last)]
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
        delta, step, begin = (Signal(width, reset_less=True) for width in (self._width, 1, 1))
        o = Signal(self._width, reset_less=True)
        m.d.sync += [
            delta.eq(chosen),
            step.eq(self.step),
            begin.eq(self.begin | (self.step & ~self.level.any())),
        ]
        with m.If(begin):
            m.d.sync += o.eq(self.start)
        with m.Elif(step):
            m.d.sync += o.eq(o + delta)
        m.d.comb += self.o.eq(o)
        return m
