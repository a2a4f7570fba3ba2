"""Nested loops, and addresses that are affine in their indices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..numeric.select_add import SelectAdd
from ..stream.delay import delayed
from ..stream.enable import enables

__all__ = ["Affine", "Loops"]


class Loops(wiring.Component):
    """A nest of counters: one step a clock, level 0 the innermost.

    Two clocks after ``start`` every index is 0. A ``step`` advances the lowest level that is not at its last index and
    takes all below it back to 0; a step from the last indices of all levels begins anew. A level has ``rest + 1``
    indices.

    The counters are ahead, so every output is a register: of a counter it is known whether the index after its own is
    the last one, and with it whether all levels below one are at their last, before they get there. They move a clock
    after a step, and what they showed until then is kept: no counter, and no carry from level to level, lies behind a
    step.

    Parameters
    ----------
    levels : int
    width : int
        Bits of ``rest``.
    family : str
        Of adders, see :class:`~pullback.rtl.numeric.select_add.SelectAdd`.

    Members
    -------
    rest : In(ArrayLayout(unsigned(width), levels))
        Indices of each level but one.
    idles : In(1)
        In the next clock it is idle: ``rest`` of `ahead` clocks before that one is looked at.
    start : In(1)
        While it is idle: for the last time.
    begin : Out(1)
        The first indices come in the next clock.
    step : In(1)
        Not while it is idle, nor with ``begin``.
    first, last : Out(levels)
        The present index of a level is 0, or its last one.
    ends : Out(levels)
        So is that of all levels below it: ``last[:k + 1].all()``.
    level : Out(levels)
        The level that a step in this clock advances, one hot; none of it where the nest begins anew.

    Attributes
    ----------
    ahead : int
        Clocks from ``rest`` to the ``start`` that takes it.

    Raises
    ------
    ValueError
        If there is no level or a count has no bit.
    """

    ahead = 2

    def __init__(self, levels: int, width: int, *, family: str = "generic") -> None:
        if levels < 1 or width < 1:
            raise ValueError(f"levels={levels}, width={width}; give at least 1 of both")
        self._levels, self._width, self._family = levels, width, family
        super().__init__(
            {
                "rest": In(data.ArrayLayout(unsigned(width), levels)),
                "idles": In(1),
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

        def registers(name: str, values: Sequence[Value]) -> list[Signal]:
            made = [Signal.like(v, name=f"{name}_{k}", reset_less=True) for k, v in enumerate(values)]
            m.d.sync += [register.eq(v) for register, v in zip(made, values, strict=True)]
            return made

        # Of a nest that may come: less one, below zero where a level has one index; less two, below zero where it has
        # at most two; and whether a level and all below it have one.
        less_one = registers("less_one", [(rest - 1).as_signed() for rest in self.rest])
        less_two = registers("less_two", [(less - 1)[: self._width + 1].as_signed() for less in less_one])
        one = [less[-1] for less in less_one]
        coming_one = registers("coming_one", one)
        coming_ones = registers("coming_ones", [Cat(one[: k + 1]).all() for k in range(self._levels)])

        # Of the next indices in the clock after a step, else of those after these: the steps that a level has left,
        # less two; whether it has none, whether it and all below it have none, whether it has made none.
        left = [
            Signal(signed(self._width + 1), name=f"left_{k}", reset_less=True) for k in range(self._levels)
        ]
        last, ends, first = (
            Signal(self._levels, name=name, reset_less=True) for name in ("last", "ends", "first")
        )
        level = Signal(self._levels)
        next_last: list[Value] = []
        # One register would have to reach the counters of all levels.
        idle = enables(m, "idle", self.idles, self._levels)
        for k, counter in enumerate(left):
            most = Signal.like(counter, name=f"most_{k}", reset_less=True)
            only = Signal(name=f"only_{k}", reset_less=True)
            with m.If(idle[k]):
                m.d.sync += [most.eq(less_two[k]), only.eq(coming_one[k])]
            ends_below = ends[k - 1] if k else Const(1)
            advances = moved & ends_below
            m.submodules[f"count_{k}"] = count = SelectAdd(len(counter), signed(1), family=self._family)
            m.d.comb += [
                count.a.eq(advances & ~last[k] & ~idle[k]),
                count.b0.eq(counter),
                count.b1.eq(Mux(idle[k], less_two[k], most)),
                count.select.eq(idle[k] | (advances & last[k])),
                level[k].eq(ends_below & ~last[k]),
            ]
            next_last.append(Mux(advances, Mux(last[k], only, counter[-1]), last[k]))
            m.d.sync += [
                counter.eq(count.o),
                last[k].eq(Mux(idle[k], coming_one[k], next_last[k])),
                ends[k].eq(Mux(idle[k], coming_ones[k], Cat(next_last).all())),
                first[k].eq(idle[k] | Mux(advances, last[k], first[k])),
            ]
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
    family : str
        Of adders, as `Loops`.

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

    def __init__(self, levels: int, width: int, *, family: str = "generic") -> None:
        if levels < 1 or width < 1:
            raise ValueError(f"levels={levels}, width={width}; give at least 1 of both")
        self._levels, self._width, self._family = levels, width, family
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
        # A choice among so many takes two clocks. Nothing is chosen where nothing moves: the sum needs no enable.
        some = []
        for k in range(0, self._levels, 3):
            part = Signal(self._width, name=f"delta_{k}", reset_less=True)
            m.d.sync += part.eq(
                reduce(
                    or_, (Mux(self.level[j], self.delta[j], 0) for j in range(k, min(k + 3, self._levels)))
                )
            )
            some.append(part)
        advances = self.step & self.level.any()
        steps = delayed(m, "steps", advances, 1)
        begins = delayed(m, "begins", self.begin | (self.step & ~advances), 1)
        change = Signal(self._width, reset_less=True)
        m.d.sync += change.eq(Mux(begins, self.start, Mux(steps, reduce(or_, some), 0)))
        o = Signal(self._width, reset_less=True)
        m.submodules.sum = total = SelectAdd(self._width, unsigned(self._width), family=self._family)
        m.d.comb += [
            total.a.eq(change),
            total.b0.eq(o),
            total.b1.eq(0),
            total.select.eq(delayed(m, "anew", begins, 1)),
            self.o.eq(o),
        ]
        m.d.sync += o.eq(total.o)
        return m
