"""Nested loops, and addresses that are affine in their indices."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed

__all__ = ["Affine", "Loops"]


class Loops(wiring.Component):
    """A nest of counters: one step a clock, level 0 the innermost.

    Two clocks after ``start`` every index is 0. A ``step`` advances the lowest level that is not at its last index and
    takes all below it back to 0; a step from the last indices of all levels begins anew. A level has ``rest + 1``
    indices.

    The counters are ahead, so every output is a register, and a counter is below zero at its last index. They move a
    clock after a step, and what they showed until then is kept: no counter, and no carry from level to level, lies
    behind a step.

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
        moves, moved = Signal(), Signal()
        m.d.sync += [self.begin.eq(self.start), moved.eq(self.start | moves)]
        m.d.comb += moves.eq(self.begin | self.step)
        # How many steps a level has left, less one: of the next indices in the clock after a step, else of those after
        # these.
        left = [
            Signal(signed(self._width + 1), name=f"left_{k}", reset_less=True) for k in range(self._levels)
        ]
        first = Signal(self._levels, reset_less=True)
        last = Cat(each[-1] for each in left)
        ends, level = Signal(self._levels), Signal(self._levels)
        for k, counter in enumerate(left):
            most = Signal.like(counter, name=f"most_{k}", reset_less=True)
            ends_below = last[:k].all() if k else Const(1)
            m.d.comb += [ends[k].eq(last[: k + 1].all()), level[k].eq(ends_below & ~last[k])]
            with m.If(self.idle):
                m.d.sync += [most.eq(self.rest[k] - 1), counter.eq(self.rest[k] - 1), first[k].eq(1)]
            with m.Elif(moved & ends_below):
                m.d.sync += [counter.eq(Mux(last[k], most, counter - 1)), first[k].eq(last[k])]
        found = Cat(first, last, ends, level)
        kept = Signal.like(found, name="kept", reset_less=True)
        with m.If(moved):
            m.d.sync += kept.eq(found)
        with m.If(moves):
            m.d.sync += Cat(self.first, self.last, self.ends, self.level).eq(Mux(moved, found, kept))
        return m


class Affine(wiring.Component):
    """``o = start + sum of stride[k] index[k]``, of the indices of `Loops`, modulo ``2**width``.

    A step that advances level k adds ``delta[k] = stride[k] - sum of rest[j] stride[j], j < k``, which the host works
    out (`deltas`): one adder, whatever the number of levels. ``o`` is the value of the indices of `latency` clocks
    before; one value a clock.

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

    latency = 2

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
        # A choice among so many takes two clocks.
        some = []
        for k in range(0, self._levels, 3):
            part = Signal(self._width, name=f"delta_{k}", reset_less=True)
            m.d.sync += part.eq(
                reduce(
                    or_, (Mux(self.level[j], self.delta[j], 0) for j in range(k, min(k + 3, self._levels)))
                )
            )
            some.append(part)
        delta = Signal(self._width, reset_less=True)
        m.d.sync += delta.eq(reduce(or_, some))
        step = delayed(m, "step", self.step, 2)
        begin = delayed(m, "begin", self.begin | (self.step & ~self.level.any()), 2)
        o = Signal(self._width, reset_less=True)
        with m.If(begin):
            m.d.sync += o.eq(self.start)
        with m.Elif(step):
            m.d.sync += o.eq(o + delta)
        m.d.comb += self.o.eq(o)
        return m
