"""Rows that wait until something is known of the whole of them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.fifo import FlowFifo
from ..stream.pixel import Flow

__all__ = ["RowBuffer", "RowEnd", "enter"]


class RowEnd(wiring.Component):
    """Where an element stands in its row; a row ends after ``longest`` elements at the latest.

    Combinational from its counter, which moves at the end of a clock with ``step``.

    Parameters
    ----------
    longest : int

    Members
    -------
    step : In(1)
        An element is taken.
    ends : In(1)
        It says that it is the last one of its row.
    first, last : Out(1)
    number : Out(range(longest + 1))
        1 for the first element.
    overlong : Out(1)
        A row went on after ``longest`` elements and was cut in two. Stays until reset.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        super().__init__(
            {
                "step": In(1),
                "ends": In(1),
                "first": Out(1),
                "last": Out(1),
                "number": Out(range(longest + 1)),
                "overlong": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        number = Signal(range(self._longest + 1), init=1)
        first = Signal(init=1)
        full = Signal(init=self._longest == 1)
        m.d.comb += [self.number.eq(number), self.first.eq(first), self.last.eq(self.ends | full)]
        with m.If(self.step):
            m.d.sync += [
                number.eq(Mux(self.last, 1, number + 1)),
                first.eq(self.last),
                full.eq(Mux(self.last, self._longest == 1, number == self._longest - 1)),
            ]
            with m.If(full & ~self.ends):
                m.d.sync += self.overlong.eq(1)
        return m


class RowBuffer(wiring.Component):
    """``o[n] = (i[n], statistic of its row)``: a row leaves when its statistic has come, while the next one enters.

    Elements wait in one FIFO and statistics in another, so rows may be of any lengths up to ``longest``, and the RAM
    holds one row and not two. Throughput one element a clock, without a gap between rows, if they have one element as
    well; only where more than 16 rows become complete while one leaves, the producer has to wait. From the last element
    of a row at ``i`` to the first one at ``o``: :attr:`latency` clocks, or as soon as the row before has left.

    ``room`` comes from two registers. **Contract of the producer**: counting from each fall of ``room``, the first low
    clock included, at most ``in_flight`` elements arrive before it is high again; the statistic of a row comes ``lag``
    clocks after its last element; no row is longer than ``longest``.

    Parameters
    ----------
    element, statistic : ShapeLike
    longest : int
        Elements of a row.
    in_flight : int
        Elements that may still arrive once ``room`` has fallen.
    lag : int
        At least 3: then a statistic never overtakes its row.
    ram : str
        Of the block RAM.

    Members
    -------
    i : In(Flow(StructLayout({"element": element, "last": 1})))
    statistic : In(Flow(statistic))
    o : Out(stream.Signature(StructLayout({"element": element, "last": 1, "statistic": statistic})))
    room : Out(1)

    Raises
    ------
    ValueError
        If ``lag`` is below 3.
    """

    # Elements of the next row that come while the statistic passes its FIFO and the first element leaves.
    _slack = 8
    # Rows whose statistic may wait; short rows need more than the FIFO's latency to follow each other without a gap.
    _waiting = 16

    def __init__(
        self,
        element: ShapeLike,
        statistic: ShapeLike,
        *,
        longest: int,
        in_flight: int,
        lag: int,
        ram: str = "generic",
    ) -> None:
        if lag < 3:
            raise ValueError(f"lag={lag}; give at least 3: delay the statistic")
        beat = data.StructLayout({"element": element, "last": 1})
        self._elements = FlowFifo(beat, longest + in_flight + lag + self._slack, in_flight, family=ram)
        behind = in_flight + lag
        self._statistics = FlowFifo(statistic, behind + self._waiting, behind, family=ram)
        self.latency = lag + self._statistics.latency
        row = data.StructLayout({"element": element, "last": 1, "statistic": statistic})
        super().__init__(
            {
                "i": In(Flow(beat)),
                "statistic": In(Flow(statistic)),
                "o": Out(stream.Signature(row)),
                "room": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.elements = elements = self._elements
        m.submodules.statistics = statistics = self._statistics
        wiring.connect(m, wiring.flipped(self.i), elements.i)
        wiring.connect(m, wiring.flipped(self.statistic), statistics.i)
        m.d.comb += [
            self.room.eq(elements.room & statistics.room),
            self.o.valid.eq(elements.o.valid & statistics.o.valid),
            self.o.payload.element.eq(elements.o.payload.element),
            self.o.payload.last.eq(elements.o.payload.last),
            self.o.payload.statistic.eq(statistics.o.payload),
            elements.o.ready.eq(self.o.ready & statistics.o.valid),
            statistics.o.ready.eq(self.o.ready & elements.o.valid & elements.o.payload.last),
        ]
        return m


def enter(m: Module, unit: Any, rows: RowBuffer, longest: int) -> tuple[Value, RowEnd]:
    """What comes at ``unit.i`` goes into a buffer as long as that has room, and ``unit.overlong`` says where it is cut.

    Whether an element is taken in this clock, and where it stands in its row.
    """
    m.submodules.end = end = RowEnd(longest)
    takes = unit.i.valid & unit.i.ready
    m.d.comb += [
        unit.i.ready.eq(rows.room),
        end.step.eq(takes),
        end.ends.eq(unit.i.payload.last),
        unit.overlong.eq(end.overlong),
        rows.i.valid.eq(takes),
        rows.i.payload.last.eq(end.last),
    ]
    return takes, end
