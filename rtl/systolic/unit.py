"""The array with its memories: programmes in, rows of operands in, rows of results out."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Array, Cat, Module, Mux, ResetSignal, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..numeric.select_add import SelectAdd
from ..stream.delay import delayed
from ..stream.enable import enables
from ..stream.fifo import FlowFifo
from ..stream.reset import ResetLater
from .array import SystolicArray
from .build import UnitBuild
from .descriptor import WORD, Kind, Memory
from .operand_memory import OperandMemory
from .pool import Pool
from .programme import Programme
from .results import Results
from .sequencer import Sequencer
from .walk import Affine

__all__ = ["EVENTS", "ArrayUnit", "load"]

EVENTS = data.StructLayout({"row": 1, "result": 1, "weights": 1, "starved": 1, "blocked": 1})
"""What happens in a clock. ``row``: a row of operands is read for a product; ``result``: codes, or sums of dW, are
written; ``weights``: no row, as what is stationary is still on its way; ``starved``: there is no descriptor yet;
``blocked``: a row that leaves finds no room, or one that comes in is not there."""


def load(build: UnitBuild) -> data.StructLayout:
    """A run of operands for a memory: ``memory[at + k] = row[k]`` where ``on[k]``."""
    return data.StructLayout(
        {
            "to": Memory,
            "at": range(build.elements),
            "on": build.lanes,
            "row": data.ArrayLayout(build.array.word, build.lanes),
        }
    )


_TOGETHER = 4
"""Operands of a row that leave through one FIFO."""


def _leave(m: Module, name: str, valid: Value, row: list[Value], last: Value, clocks: int) -> list[FlowFifo]:
    """FIFOs that catch a row a clock, that many clocks after it was sent for: one for every part of it, all in step, as
    one memory for whole rows would be as wide as the chip. ``last`` goes with the last part.
    """
    flight = clocks + 3 + Affine.latency  # the room that is seen, the row that is read, two registers
    parts = [*row[:-1], Cat(row[-1], last)]
    # What these are in reset is not looked at: that of the FIFOs ends a clock later.
    comes = enables(m, f"{name}_comes", valid, len(parts))
    fifos = []
    for k, part in enumerate(parts):
        fifo = FlowFifo(unsigned(len(part)), 2 * flight + 3, flight, registered=False)
        m.submodules[f"{name}_{k}"] = ResetLater(fifo)
        m.d.comb += [fifo.i.valid.eq(comes[k]), fifo.i.payload.eq(delayed(m, f"{name}_part_{k}", part, 1))]
        fifos.append(fifo)
    return fifos


class ArrayUnit(wiring.Component):
    """Runs a programme of matrix products on three memories: activations, cotangents, weights.

    =========  ======================  =========================  =======================
    job        h                       v                          results
    =========  ======================  =========================  =======================
    Y = X W    activations             weights                    codes, or partial sums
    dX         cotangents              weights                    codes, or partial sums
    dW         activations             cotangents                 partial sums
    STORE      any memory                                         leave at ``stored``
    EMIT                                                          partial sums, or branches, leave at ``emitted``
    FILL                                                          partial sums come from ``filled``
    MAX        any memory                                         codes, the largest of a window
    ARGMAX     any memory                                         codes, the number of its tap
    ROUTE      cotangents                                         codes, or partial sums
    ADD                                                           partial sums
    =========  ======================  =========================  =======================

    ROUTE reads numbers of taps in the activations, at the addresses of the cotangents.

    All addresses are affine (:mod:`~pullback.rtl.systolic.descriptor`), so the patches of a convolution are read where
    the picture stands. Rows loaded while a programme runs wait for results, which cannot.

    Parameters
    ----------
    build : UnitBuild
    site : callable
        As :class:`~pullback.rtl.systolic.mesh.Mesh`.

    Members
    -------
    write, write_row, write_data : In
        Words of the programme.
    go, start : In
        Runs the descriptors from word ``start`` on; only while not ``busy``.
    busy : Out(1)
        Until all results stand in memory.
    load : In(stream.Signature(load(build)))
    unknown, over : Out(1)
        In this clock the programme ends early (:class:`~pullback.rtl.systolic.programme.Programme`).
    stored : Out(stream.Signature(ArrayLayout(array.word, lanes)))
    filled : In(stream.Signature(ArrayLayout(signed(total), columns)))
        A row in eight clocks at most.
    emitted : Out(stream.Signature(ArrayLayout(signed(total), columns)))
    stored_last, emitted_last : Out(1)
        What is offered there is the last row of its job.
    events : Out(EVENTS)
    counts : Out(ArrayLayout(unsigned(32), 7))
        Clocks of each event since ``go``, in the order of `EVENTS`, and of ``busy``; and ``span``, those from the first
        ``row`` to the last ``result``, both counted.
    overflow, clipped : Out(1)
        Since ``go``: a partial sum wrapped; a code saturated.

    Attributes
    ----------
    flight : int
        Clocks after which the results of a row, or of a drain, stand in memory.
    """

    def __init__(
        self, build: UnitBuild, *, site: Callable[[int, int], str | None] = lambda r, c: None
    ) -> None:
        self._build, self._site = build, site
        self._array = SystolicArray(build.array, site=site)
        self._memories = {
            memory: OperandMemory(build.lanes, build.memory, build.array.word, family=build.ram)
            for memory in (Memory.ACTIVATIONS, Memory.COTANGENTS, Memory.WEIGHTS)
        }
        some = self._memories[Memory.WEIGHTS]
        self._read = 1 + some.read_latency
        self.flight = (
            self._read
            + self._array.latency
            + build.array.rows
            + Results.latency
            - Results.lead
            + some.write_latency
            + 3
        )
        words = range(build.programme)
        wide = data.ArrayLayout(signed(build.total), build.array.columns)
        super().__init__(
            {
                "write": In(1),
                "write_row": In(words),
                "write_data": In(WORD),
                "go": In(1),
                "start": In(words),
                "busy": Out(1),
                "unknown": Out(1),
                "over": Out(1),
                "load": In(stream.Signature(load(build))),
                "stored": Out(stream.Signature(data.ArrayLayout(build.array.word, build.lanes))),
                "filled": In(stream.Signature(wide)),
                "emitted": Out(stream.Signature(wide)),
                "stored_last": Out(1),
                "emitted_last": Out(1),
                "events": Out(EVENTS),
                "counts": Out(data.ArrayLayout(unsigned(32), EVENTS.size + 2)),
                "overflow": Out(1),
                "clipped": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build, array = self._build, self._array
        rows, columns = build.array.rows, build.array.columns
        # Registers whose reset comes later, as that of all parts but the programme does.
        late = Module()
        m.submodules.late = ResetLater(late)
        m.submodules.programme = programme = Programme(build)
        sequencer, results = Sequencer(build), Results(build)
        # What a programme reaches clocks after it begins.
        for name, part in (("sequencer", sequencer), ("array", array), ("results", results)):
            m.submodules[name] = ResetLater(part)
        for memory, ram in self._memories.items():
            m.submodules[memory.name.lower()] = ResetLater(ram)
        activations, cotangents, weights = self._memories.values()

        took = sequencer.taken & results.taken
        m.d.comb += [
            programme.write.eq(self.write),
            programme.write_row.eq(self.write_row),
            programme.write_data.eq(self.write_data),
            programme.go.eq(self.go),
            programme.start.eq(self.start),
            programme.taken.eq(took),
            self.unknown.eq(programme.unknown),
            self.over.eq(programme.over),
            sequencer.release.eq(took),
            results.release.eq(took),
        ]
        for part in (sequencer, results):
            m.d.comb += [part.descriptor.eq(programme.descriptor), part.offered.eq(programme.offered)]

        # Operands.
        # Chosen a clock before a memory works out the rows of its banks.
        h, v = Cat(sequencer.h_at, sequencer.h_on), Cat(sequencer.v_at, sequencer.v_on)
        for name, memory, asked in (
            ("activations", activations, h),
            ("cotangents", cotangents, Mux(sequencer.from_cotangents, h, v)),
            ("weights", weights, Mux(sequencer.from_weights, h, v)),
        ):
            m.d.comb += Cat(memory.read_at, memory.read_on).eq(delayed(m, f"{name}_read", asked, 1))
        turned = delayed(m, "h_from_cotangents", sequencer.from_cotangents, self._read)
        north = delayed(m, "north_from_cotangents", sequencer.v_kind == Kind.DW, self._read)
        m.d.comb += array.slot.eq(delayed(late, "slot", sequencer.slot.as_value(), self._read, reset=True))
        # What is stored must not move through the array: its sums are zero when nothing is computed.
        moves = delayed(m, "moves", sequencer.row | sequencer.slot.keep, self._read)
        for r in range(rows):
            m.d.comb += [
                array.h[r].eq(Mux(moves, Mux(turned, cotangents.o[r], activations.o[r]), 0)),
                array.west[r].eq(weights.o[r]),
            ]
        for c in range(columns):
            m.d.comb += array.north[c].eq(Mux(north, cotangents.o[c], weights.o[c]))

        # What leaves the memories without passing through the array.
        source = delayed(m, "source", sequencer.h_from.as_value(), self._read)
        read = Signal(self.stored.payload.shape())
        m.d.comb += read.eq(Mux(source[1], weights.o, Mux(source[0], cotangents.o, activations.o)))
        pool = Pool(build.array)
        m.submodules.pool = ResetLater(pool)
        m.d.comb += [
            pool.tap.eq(delayed(m, "tap", sequencer.tap, self._read)),
            pool.first.eq(delayed(m, "window", sequencer.window, self._read)),
            pool.last.eq(delayed(late, "gives", sequencer.gives, self._read, reset=True)),
            pool.argmax.eq(delayed(m, "argmax", sequencer.kind == Kind.ARGMAX, self._read)),
            pool.route.eq(delayed(m, "route", sequencer.kind == Kind.ROUTE, self._read)),
        ]
        m.d.comb += [pool.i[c].eq(read[c]) for c in range(columns)]
        m.d.comb += [pool.numbers[c].eq(activations.o[c]) for c in range(columns)]

        # Results.
        beside = sequencer.other & ((sequencer.kind == Kind.EMIT) | (sequencer.kind == Kind.FILL))
        adds = sequencer.other & (sequencer.kind == Kind.ADD)
        announced = self._read + array.latency - Results.lead
        m.d.comb += [
            results.row.eq(
                delayed(late, "row", sequencer.row, announced, reset=True)
                | delayed(
                    late, "gives", sequencer.gives, self._read + Pool.latency + 1 - Results.lead, reset=True
                )
                | beside
            ),
            results.drain.eq(delayed(late, "drain", sequencer.drain, announced, reset=True)),
            results.adds.eq(adds),
        ]
        m.d.comb += [results.sums.eq(array.o), results.pooled.eq(pool.o)]
        ready = []
        for memory, ram in self._memories.items():
            mine = Signal(name=f"{memory.name.lower()}_mine")
            comes = results.write_next == memory
            m.d.sync += mine.eq(comes)
            at_mine, *row_mine = enables(m, f"{memory.name.lower()}_mine", comes, 1 + build.lanes)
            at = Mux(at_mine, results.write_at, self.load.payload.at)
            row = Cat(
                Mux(row_mine[k], results.write_data[k], self.load.payload.row[k]) for k in range(build.lanes)
            )
            m.d.comb += [
                ram.write_at.eq(delayed(m, f"{memory.name.lower()}_write_at", at, 1)),
                ram.write_data.as_value().eq(delayed(m, f"{memory.name.lower()}_write_row", row, 1)),
            ]
            with m.If(mine):
                m.d.sync += ram.write.eq(results.write)
            with m.Elif(self.load.valid & (self.load.payload.to == memory)):
                m.d.sync += ram.write.eq(self.load.payload.on)
            with m.Else():
                m.d.sync += ram.write.eq(0)
            ready.append(~mine)
        # Nothing is taken, and nothing offered, from the clock after a reset begins to the one after it: the copies of
        # `mine` may say what they like until then, and the reset of the FIFOs comes later.
        resets = Signal(init=1, reset_less=True)
        m.d.sync += resets.eq(ResetSignal())
        m.d.comb += self.load.ready.eq(Array([*ready, 1])[self.load.payload.to.as_value()] & ~resets)

        # Rows that leave.
        stored = sequencer.other & (sequencer.kind == Kind.STORE)
        stores = _leave(
            m,
            "store",
            delayed(late, "stored", stored, self._read, reset=True),
            [Cat(read[k : k + _TOGETHER]) for k in range(0, build.lanes, _TOGETHER)],
            delayed(m, "stored_ends", sequencer.ends, self._read),
            self._read,
        )
        emits = _leave(
            m,
            "emit",
            results.emitted.valid,
            list(results.emitted.payload),
            delayed(m, "emitted_ends", sequencer.ends, Results.emits),
            Results.emits,
        )
        for fifos, out, out_last in (
            (stores, self.stored, self.stored_last),
            (emits, self.emitted, self.emitted_last),
        ):
            m.d.comb += [
                out.valid.eq(fifos[0].o.valid & ~resets),
                Cat(out.payload.as_value(), out_last).eq(Cat(fifo.o.payload for fifo in fifos)),
                *(fifo.o.ready.eq(out.ready) for fifo in fifos),
            ]
        m.d.comb += [sequencer.stores.eq(stores[0].room), sequencer.emits.eq(emits[0].room)]

        # Rows that come in: the next one when the one before has been added.
        fills = sequencer.other & (sequencer.kind == Kind.FILL)
        wait = Results.lead + Affine.latency
        pause = Signal(range(wait + 1))
        late.d.sync += pause.eq(Mux(sequencer.fills, wait, Mux(pause == 0, 0, pause - 1)))
        soon = delayed(late, "fills_soon", fills, Results.lead - 2, reset=True)
        m.d.comb += [
            sequencer.fills.eq(self.filled.valid & (pause == 0)),
            results.filled.eq(self.filled.payload),
            results.fills.eq(soon),
            self.filled.ready.eq(delayed(m, "fills", soon, 1, reset=True)),
        ]

        # Rows of the array are longer on their way than those that do not pass through it.
        through, past = Signal(range(self.flight + 1)), Signal(range(self.flight + 1))
        quiet, landed, was_active = Signal(init=1), Signal(init=1), Signal(Affine.latency)
        # A tile of dW is on its way from its first row on, though only its drain gives results.
        enters = sequencer.row | sequencer.slot.keep | sequencer.drain | sequencer.gives | adds
        late.d.sync += [
            through.eq(Mux(enters, self.flight, Mux(through == 0, 0, through - 1))),
            past.eq(Mux(beside, Results.latency + cotangents.write_latency + 1, Mux(past == 0, 0, past - 1))),
            quiet.eq((through == 0) & ~enters),
            landed.eq((through == 0) & (past == 0) & ~enters & ~beside),
            # The only row of a job is seen to be on its way after the job has ended.
            was_active.eq(Cat(sequencer.active, was_active)),
        ]
        # A descriptor is active before the programme has done with it, so that it is may be seen a clock late.
        m.d.sync += self.busy.eq(self.go | programme.running | was_active.any() | ~landed)
        m.d.comb += [sequencer.quiet.eq(quiet), sequencer.landed.eq(landed)]
        starved = programme.running & ~programme.offered & ~sequencer.active
        late.d.sync += [
            self.events.row.eq(delayed(late, "moving", sequencer.moves, 1)),
            self.events.weights.eq(sequencer.weights),
            self.events.blocked.eq(sequencer.blocked),
            self.events.starved.eq(starved),
        ]
        m.d.comb += self.events.result.eq(results.result)
        # All of it a clock later, as it lies apart. Of no use before ``go``, which clears it.
        clears, clears_since, *clears_counts = enables(m, "clears", self.go, EVENTS.size + 3)
        seen = delayed(late, "seen", Cat(self.events.as_value(), self.busy), 1, reset=True)
        its_row, its_result = (seen[EVENTS[name].offset] for name in ("row", "result"))

        def counted(name: str, event: Value, start: int, clears: Value) -> Signal:
            """Clocks of an event, in one carry chain with what clears it."""
            count = Signal(32, name=name, reset_less=True)
            late.submodules[name] = add = SelectAdd(32, unsigned(1), family=build.ram)
            m.d.comb += [
                add.a.eq(event),
                add.b0.eq(count),
                add.b1.eq(start),
                add.select.eq(clears),
            ]
            late.d.sync += count.eq(add.o)
            return count

        counts: list[Signal] = []
        for k, event in enumerate(seen):
            counts.append(counted(f"count_{k}", event, 0, clears_counts[-1 - k]))
        # Clocks since the first row, this one counted.
        begun, span = Signal(), Signal(32, reset_less=True)
        since = counted("since", (begun | its_row) & ~clears, 1, clears_since)
        late.d.sync += [
            begun.eq((begun | its_row) & ~clears),
            span.eq(Mux(clears, 0, Mux(its_result, since, span))),
        ]
        m.d.comb += self.counts.eq(Cat(counts, span))
        for name in ("overflow", "clipped"):
            flag = getattr(self, name)
            with late.If(clears):
                late.d.sync += flag.eq(0)
            with late.Elif(getattr(results, name)):
                late.d.sync += flag.eq(1)
        return m
