"""The control plane of the array's core: registers, and the door to the programme."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..bus.axi4lite import axi4lite_members
from ..bus.register_file import RegisterFile
from ..bus.through import through
from .build import UnitBuild
from .descriptor import WORD
from .registers import ARRAY_REGISTERS, COUNTERS, PROGRAMME_BASE, ArrayMap

__all__ = ["ArrayControl"]


class ArrayControl(wiring.Component):
    """Everything between AXI4-Lite and the array's unit.

    **Go.** Writing 1 to CONTROL.go begins the programme at word START, if no programme runs, the array is not stopped
    and a descriptor fits behind START; else nothing happens but a bit of ERRORS. STATUS.done comes when the programme
    has ended, however it did.

    **Stop.** While CONTROL.stop is 1 ``halt`` is, a clock later: the reset of the unit, whose memories keep what they
    hold. A write of both bits stops, and its go is refused.

    **Errors.** They stick until a 1 is written to them; one that arrives in the clock of its clearing stays. How
    accesses are answered says :class:`~pullback.rtl.bus.register_file.RegisterFile`.

    Parameters
    ----------
    build : UnitBuild

    Members
    -------
    ``s_axil_*`` : see :func:`pullback.rtl.bus.axi4lite.axi4lite_members`
    write, write_row, write_data : Out
        Words of the programme.
    go, start : Out
        As the unit has them; ``go`` never while ``busy``, nor in the clock before it rises.
    halt : Out(1)
        The unit's reset: also in the core's own, and a clock longer.
    busy, overflow, clipped, counts : In
        Of the unit.
    unknown, over : In(1)
        Of the unit, one clock each.
    header, torn : In(1)
        Of the packets that are loaded, one clock each.
    interrupt : Out(1)

    Raises
    ------
    ValueError
        If the programme's memory does not fit its region.
    """

    def __init__(self, build: UnitBuild) -> None:
        self._build = build
        self.map = ArrayMap(build)
        words = range(build.programme)
        super().__init__(
            {
                **axi4lite_members(),
                "write": Out(1),
                "write_row": Out(words),
                "write_data": Out(WORD),
                "go": Out(1),
                "start": Out(words),
                "halt": Out(1, init=1),  # pyright: ignore[reportCallIssue]
                "busy": In(1),
                "overflow": In(1),
                "clipped": In(1),
                "counts": In(data.ArrayLayout(unsigned(32), len(COUNTERS))),
                "unknown": In(1),
                "over": In(1),
                "header": In(1),
                "torn": In(1),
                "interrupt": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.registers = registers = RegisterFile(
            ARRAY_REGISTERS, window=PROGRAMME_BASE, words=self._build.programme
        )
        through(m, self, registers, axi4lite_members())
        writes, given = registers.writes, registers.data
        m.d.comb += [
            self.write.eq(registers.write),
            self.write_row.eq(registers.row),
            self.write_data.eq(given),
        ]

        start = Signal(32)
        stop = Signal()
        outside = Signal()
        wants_done = Signal()
        wants_error = Signal()
        with m.If(writes.START):
            m.d.sync += start.eq(given)
        with m.If(writes.INTERRUPTS):
            m.d.sync += Cat(wants_done, wants_error).eq(given)
        with m.If(writes.CONTROL):
            m.d.sync += stop.eq(given[1])

        # Bits above the programme's count too.
        m.d.sync += outside.eq(start > self._build.programme - self.map.descriptor)
        asks = Signal()
        free = Signal()
        refused = Signal()
        bad_start = Signal()
        m.d.comb += [
            asks.eq(writes.CONTROL & given[0]),
            free.eq(~(self.busy | self.go | stop | given[1] | self.halt)),
            refused.eq(asks & ~free),
            bad_start.eq(asks & free & outside),
            self.start.eq(start),
        ]
        errors = Cat(refused, bad_start, self.unknown, self.over, self.header, self.torn)
        sticky = Signal(len(errors))
        clear = Signal(len(errors))
        m.d.comb += clear.eq(Mux(writes.ERRORS, given, 0))
        done = Signal()
        was_busy = Signal()
        m.d.sync += [
            self.go.eq(asks & free & ~outside),
            self.halt.eq(stop),
            was_busy.eq(self.busy),
            # A stop ends no programme: it takes it away.
            done.eq((done & ~writes.ACK & ~self.go) | (was_busy & ~self.busy & ~self.halt)),
            sticky.eq((sticky & ~clear) | errors),
            self.interrupt.eq((wants_done & done) | (wants_error & sticky.any())),
        ]
        values = {
            "CONTROL": Cat(Const(0, 1), stop),
            "STATUS": Cat(self.busy, done, self.overflow, self.clipped),
            "ERRORS": sticky,
            "INTERRUPTS": Cat(wants_done, wants_error),
            "START": start,
            **{name: self.counts[k] for k, name in enumerate(COUNTERS)},
            **self.map.constants,
        }
        m.d.comb += [registers.values[name].eq(value) for name, value in values.items()]
        return m
