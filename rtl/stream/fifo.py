"""Elastic buffers: the one FIFO core, its form for the end of a free-running pipeline, and their counter."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Shape, ShapeLike, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .pixel import Flow
from .ram import BlockRam, DistributedRam

__all__ = ["Count", "Fifo", "FlowFifo"]


class _Pointer(wiring.Component):
    """A row number 0, 1 .. rows - 1, 0, 1 .., for any number of rows; steps when ``step`` is high."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        super().__init__({"step": In(1), "row": Out(range(max(rows, 2)))})

    def elaborate(self, platform) -> Module:
        m = Module()
        with m.If(self.step):
            if self._rows & (self._rows - 1):
                with m.If(self.row == self._rows - 1):
                    m.d.sync += self.row.eq(0)
                with m.Else():
                    m.d.sync += self.row.eq(self.row + 1)
            elif self._rows > 1:
                m.d.sync += self.row.eq(self.row + 1)
        return m


class Count(wiring.Component):
    """``value`` = ups - downs, with ``empty`` = (value == 0) and ``full`` = (value == limit) as registers.

    The steps are added a clock later, and the flags know: neither adder nor comparison lies behind ``up`` and
    ``down``, which come from far. The caller never steps up when full nor down when empty.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._before = Signal(range(limit + 1), name="before")  # the value, less the last step
        self._rose = Signal(name="rose")
        self._fell = Signal(name="fell")
        super().__init__(
            {
                "up": In(1),
                "down": In(1),
                "value": Out(range(limit + 1)),
                "empty": Out(1, init=1),  # pyright: ignore[reportCallIssue]
                "full": Out(1),
            }
        )

    def equals(self, number: int) -> Value:
        """``value == number``, with no adder before the comparison."""
        before = self._before
        return Mux(self._rose, before == number - 1, Mux(self._fell, before == number + 1, before == number))

    def elaborate(self, platform) -> Module:
        m = Module()
        rises, falls = self.up & ~self.down, self.down & ~self.up
        rose, fell, before = self._rose, self._fell, self._before
        # One adder for both directions: + 1 is 0..01, - 1 is 1..11.
        step = Cat(rose | fell, fell.replicate(len(self.value) - 1))
        m.d.comb += self.value.eq((before + step)[: len(self.value)])
        m.d.sync += [rose.eq(rises), fell.eq(falls), before.eq(self.value)]
        with m.If(rises):
            m.d.sync += [self.empty.eq(0), self.full.eq(self.equals(self._limit - 1))]
        with m.Elif(falls):
            m.d.sync += [self.empty.eq(self.equals(1)), self.full.eq(0)]
        return m


class Fifo(wiring.Component):
    """``o[n] = i[n]``: up to ``depth`` beats wait inside, in order, none lost, none doubled.

    ``i.ready`` and ``o.payload`` come from registers, ``o.valid`` too. Throughput is one beat per clock for
    ``depth >= 3`` (each beat occupies the level for two clocks even when nothing waits). Latency through an
    empty FIFO, accepted at ``i`` to offered at ``o``: :attr:`latency` clocks, 2 in distributed RAM and 5 in
    block RAM. A zero-width payload needs no RAM: then it is a counter, with latency 1.

    Depths up to 64 use distributed RAM with an output register. Deeper ones use :class:`BlockRam`, prefetched into
    a shallow FIFO under a credit count, so that a stalled consumer never stalls the RAM's output registers.

    Parameters
    ----------
    shape : ShapeLike
        Payload.
    depth : int
        Beats that it holds, exactly; any number from 1, not only powers of two.
    family : str
        Whose block RAM, as :class:`BlockRam` says.
    registered : bool
        False: ``o.payload`` straight out of distributed RAM, latency 1, so that less hangs on ``o.ready``.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    level : Out(range(depth + 1))
        Beats inside, the one offered at ``o`` among them.

    Raises
    ------
    ValueError
        If ``depth`` is below 1, or above 64 without a register.
    """

    # Depth up to which rows live in distributed RAM (asynchronous read); block RAM above.
    _distributed = 64
    # Beats that may be between the block RAM's read address and o. Five clocks pass from one use of a credit to
    # the next (RAM, its register, the prefetch's RAM and register, return); a power of two wastes no rows.
    _ahead = 8

    def __init__(
        self, shape: ShapeLike, depth: int, *, family: str = "generic", registered: bool = True
    ) -> None:
        if depth < 1:
            raise ValueError(f"FIFO depth {depth} is too small; give at least 1")
        if depth > self._distributed and not registered:
            raise ValueError(
                f"FIFO depth {depth} needs block RAM, whose output is registered; give at most {self._distributed}"
            )
        self._shape = shape
        self._depth = depth
        self._registered = registered
        self._width = Shape.cast(shape).width
        self._count = Count(depth)
        # What lies between i and o is kept as attributes: the proofs state their invariants over it.
        self.latency = 1
        if self._width:
            self._write, self._read = _Pointer(depth), _Pointer(depth)
            self._stored = Count(depth)
            if depth <= self._distributed:
                self.latency = 2 if registered else 1
                self._ram = DistributedRam(self._width, depth)
                self._payload = Signal(self._width, reset_less=True)
            else:
                # The row being read was written at least a clock ago, and a full RAM is not written: the two
                # ports never meet in a row.
                self.latency = 5
                self._ram = BlockRam(self._width, depth, family=family)
                # bit 0: the RAM's own output is a beat; bit 1: the register after it is one
                self._reading = Signal(2)
                self._prefetch = Fifo(shape, self._ahead)
                self._credit = Count(self._ahead)
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def level_equals(self, number: int) -> Value:
        """``level == number``, with no adder before the comparison."""
        return self._count.equals(number)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.count = count = self._count
        push = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(~count.full),
            count.up.eq(push),
            count.down.eq(self.o.valid & self.o.ready),
            self.level.eq(count.value),
        ]
        if self._width == 0:
            m.d.comb += self.o.valid.eq(~count.empty)
            return m

        m.submodules.ram = ram = self._ram
        m.submodules.write = write = self._write
        m.submodules.read = read = self._read
        m.submodules.stored = stored = self._stored
        take = Signal()
        m.d.comb += [
            ram.write.eq(push),
            ram.write_row.eq(write.row),
            ram.write_data.eq(Value.cast(self.i.payload)),
            write.step.eq(push),
            stored.up.eq(push),
            ram.read_row.eq(read.row),
            read.step.eq(take),
            stored.down.eq(take),
        ]
        if not self._registered:
            m.d.comb += [
                take.eq(self.o.valid & self.o.ready),
                self.o.valid.eq(~stored.empty),
                Value.cast(self.o.payload).eq(ram.read_data),
            ]
        elif self._depth <= self._distributed:
            m.d.comb += [
                take.eq(~stored.empty & (self.o.ready | ~self.o.valid)),
                Value.cast(self.o.payload).eq(self._payload),
            ]
            with m.If(self.o.ready | ~self.o.valid):
                m.d.sync += self.o.valid.eq(~stored.empty)
                m.d.sync += self._payload.eq(ram.read_data)
        else:
            m.submodules.prefetch = prefetch = self._prefetch
            m.submodules.credit = credit = self._credit
            m.d.comb += [
                take.eq(~stored.empty & ~credit.full),
                credit.up.eq(take),
                credit.down.eq(self.o.valid & self.o.ready),
                Value.cast(prefetch.i.payload).eq(ram.read_data),
                prefetch.i.valid.eq(self._reading[1]),
            ]
            m.d.sync += self._reading.eq(Cat(take, self._reading[0]))
            wiring.connect(m, prefetch.o, wiring.flipped(self.o))
        return m


class FlowFifo(wiring.Component):
    """``o[n] = i[n]``: catches what a free-running pipeline delivers, and says in time when to stop it.

    ``room`` is low whenever ``level + in_flight >= depth``, and comes from a register. **Contract of the
    producer**: counting from each fall of ``room``, the first low clock included, at most ``in_flight`` beats
    arrive at ``i`` before ``room`` is high again. Then no beat is ever lost: the level when ``room`` falls is
    at most ``depth - in_flight``. A pipeline of latency L behind a feeder that accepts only while ``room`` is
    high keeps the contract with ``in_flight = L``.

    Latency as :class:`Fifo`. Throughput one beat per clock; no bubble follows a stall of ``o`` if
    ``depth >= 2 * in_flight + 3``.

    Parameters
    ----------
    shape : ShapeLike
        Payload.
    depth : int
        Beats that it holds; at least ``in_flight + 1``.
    in_flight : int
        Beats that may still arrive once ``room`` has fallen.
    family, registered : str, bool
        As :class:`Fifo`.

    Members
    -------
    i : In(Flow(shape))
    o : Out(stream.Signature(shape))
    room : Out(1)
    level : Out(range(depth + 1))
    overflow : Out(1)
        A beat arrived while full and is lost: the contract was broken. Constant 0 while it is kept.

    Raises
    ------
    ValueError
        If ``in_flight`` is negative or ``depth`` does not exceed it.
    """

    def __init__(
        self,
        shape: ShapeLike,
        depth: int,
        in_flight: int,
        *,
        family: str = "generic",
        registered: bool = True,
    ) -> None:
        if in_flight < 0:
            raise ValueError(f"in_flight {in_flight} is negative; give the beats that may still arrive")
        if depth <= in_flight:
            raise ValueError(
                f"FIFO depth {depth} leaves no room beside {in_flight} beats in flight; "
                f"give at least {in_flight + 1}"
            )
        self._limit = depth - in_flight
        self._fifo = Fifo(shape, depth, family=family, registered=registered)
        self.latency = self._fifo.latency
        super().__init__(
            {
                "i": In(Flow(shape)),
                "o": Out(stream.Signature(shape)),
                "room": Out(1, init=1),  # pyright: ignore[reportCallIssue]
                "level": Out(range(depth + 1)),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.fifo = fifo = self._fifo
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        push, pop = fifo.i.valid & fifo.i.ready, self.o.valid & self.o.ready
        m.d.comb += [
            fifo.i.payload.eq(self.i.payload),
            fifo.i.valid.eq(self.i.valid),
            self.level.eq(fifo.level),
            self.overflow.eq(self.i.valid & ~fifo.i.ready),
        ]
        # room = (level < limit), computed one clock ahead. The level goes one up or down: it is at the limit, or it
        # stays on its side of it.
        with m.If(push & ~pop & fifo.level_equals(self._limit - 1)):
            m.d.sync += self.room.eq(0)
        with m.Elif(pop & ~push & fifo.level_equals(self._limit)):
            m.d.sync += self.room.eq(1)
        return m
