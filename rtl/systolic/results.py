"""What becomes of the rows that leave the array: partial sums, codes, branches, and where they go."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..numeric.select_add import SelectAdd
from ..stream.delay import delayed
from ..stream.enable import enables
from ..stream.pixel import Flow
from ..stream.ram import BlockRam
from .build import UnitBuild
from .descriptor import RESULT_LEVELS, ROWS, Beginning, Branches, Kind, Memory, layout
from .partial_sums import PartialSums
from .requantise import BRANCH, Requantise
from .scale import Scale
from .walk import Affine, Loops

__all__ = ["Results"]

_INNER, _OUTER = ROWS, ROWS + 1


class Results(wiring.Component):
    """Rows of sums, each where its descriptor wants it: added to the partial sums, or as codes in a memory.

    A row is announced `lead` clocks before it comes; rows of Y and dX one by one, the R rows of a drain by
    its first. What is announced belongs to the descriptor whose rows are not all there yet; the next one is taken
    when they are, and is begun three clocks after its last row, which the `Sequencer` leaves.

    Parameters
    ----------
    build : UnitBuild

    Members
    -------
    descriptor, offered, taken : In, In, Out
        As the `Sequencer` has them; one that has no results is taken and left.
    release : In(1)
        All that needed it have taken the descriptor.
    row, drain : In(1)
    adds : In(1)
        A row of ADD: it is read now, and added to its other row `follows` clocks later.
    sums : In(ArrayLayout(array.sum, columns))
        Rows of the array; zeros while no operand moves in it.
    pooled : In(ArrayLayout(array.word, columns))
        Rows of pools, a clock before they are due, else zeros.
    filled : In(ArrayLayout(signed(total), columns))
        Rows of FILL, a clock before they are due.
    fills : In(1)
        Such a row is there in the next clock.
    emitted : Out(Flow(ArrayLayout(signed(total), columns)))
        Rows of EMIT: of partial sums, or of branches where it takes these.
    write_at : Out(range(build.elements))
    write : Out(build.lanes)
    write_data : Out(ArrayLayout(array.word, build.lanes))
    write_next : Out(Memory)
        Where codes go in the next clock; NONE where there are none.
    result : Out(1)
        In this clock codes leave, or sums of dW are written.
    overflow, clipped : Out(1)
        A partial sum wrapped; a code saturated, two clocks before.

    Attributes
    ----------
    lead, latency : int
        Clocks from the announcement of a row to the row, and to its codes.
    emits : int
        From the announcement to ``emitted``.
    follows : int
        Odd, so that a row of ADD may be read in every second clock.
    """

    _before = PartialSums.lead + PartialSums.latency  # from a step of the loops to the sum
    _behind = _before + Requantise.latency  # and to the codes
    lead = 1 + PartialSums.lead
    latency = 1 + _behind
    emits = 1 + _before + 1
    follows = PartialSums.latency + 1 + Scale.latency + 1

    def __init__(self, build: UnitBuild) -> None:
        self._build = build
        array = build.array
        wide = data.ArrayLayout(signed(build.total), array.columns)
        super().__init__(
            {
                "descriptor": In(layout(build)),
                "offered": In(1),
                "taken": Out(1),
                "release": In(1),
                "row": In(1),
                "drain": In(1),
                "adds": In(1),
                "sums": In(data.ArrayLayout(array.sum, array.columns)),
                "pooled": In(data.ArrayLayout(array.word, array.columns)),
                "filled": In(wide),
                "fills": In(1),
                "emitted": Out(Flow(wide)),
                "write_at": Out(range(build.elements)),
                "write": Out(build.lanes),
                "write_data": Out(data.ArrayLayout(array.word, build.lanes)),
                "write_next": Out(Memory, init=Memory.NONE),  # pyright: ignore[reportCallIssue]
                "result": Out(1),
                "overflow": Out(1),
                "clipped": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build
        now: Any = Signal(self.descriptor.result.shape(), reset_less=True)
        kind: Any = Signal(Kind)
        step, done = Signal(), Signal()

        # The descriptor.
        empty, takes, empties = Signal(init=1), Signal(), Signal()
        without = self.descriptor.kind == Kind.STORE
        m.d.comb += [
            takes.eq(empty & self.offered & ~self.taken),
            empties.eq((empty & ~takes) | (takes & without) | done),
        ]
        m.d.sync += empty.eq(empties)
        (follows,) = enables(m, "empty", empties, 1)
        with m.If(self.release):
            m.d.sync += self.taken.eq(0)
        with m.Elif(takes):
            m.d.sync += self.taken.eq(1)
        # What so many registers take hangs on one of them: until a descriptor is taken they follow whatever is there.
        with m.If(follows):
            m.d.sync += now.eq(self.descriptor.result)
        with m.If(empty):
            m.d.sync += kind.eq(self.descriptor.kind)

        # A step for every row that is announced.
        left = Signal(range(build.array.rows))
        with m.If(self.drain):
            m.d.sync += left.eq(build.array.rows - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        m.submodules.loops = loops = Loops(RESULT_LEVELS, build.count, family=build.ram)
        added = delayed(m, "added", self.adds, self.follows, reset=True)
        m.d.sync += step.eq(self.row | self.drain | (left != 0) | added)
        m.d.comb += [
            loops.rest.eq(self.descriptor.result.rest),
            loops.idles.eq(empties),
            loops.start.eq(takes & ~without),
            loops.step.eq(step),
            done.eq(step & loops.ends[-1]),
        ]

        later: Any = Signal(self.emitted.payload.shape(), reset_less=True)
        sums = self._sums(m, now, kind, loops, step, later)
        writes = self._codes(m, now, kind, loops, step, sums, later)
        m.d.comb += self.result.eq(
            writes | delayed(m, "dw", step & (kind == Kind.DW), self._before, reset=True)
        )
        return m

    def _sums(self, m: Module, now: Any, kind: Any, loops: Loops, step: Value, later: Any) -> PartialSums:
        """Rows of the array, or from outside, on top of what their row of partial sums has or a row of biases; and the
        same a clock later.
        """
        build = self._build
        dw, fill, runs_on, begins_bias, begins = (
            Signal(name=name, reset_less=True) for name in ("dw", "fill", "runs_on", "begins_bias", "begins")
        )
        # Of the descriptor, by its first row.
        m.d.sync += [
            dw.eq(kind == Kind.DW),
            fill.eq(kind == Kind.FILL),
            # Sums side by side have the same rows, unless they stay or were there before.
            runs_on.eq(now.keep | (kind == Kind.EMIT)),
            begins_bias.eq(now.sums.begin == Beginning.BIAS),
            begins.eq(now.sums.begin != Beginning.ZERO),
        ]
        tile_ends, whole_ends = loops.ends[ROWS - 1], loops.ends[_INNER]
        looks = Signal()
        m.d.sync += looks.eq(self.adds)

        def counted(name: str, up: Value, load: Value, value: Value) -> tuple[Signal, Value]:
            """A row number that goes up or is loaded, and the next one."""
            row = Signal(range(build.sums), name=name, reset_less=True)
            m.submodules[name] = add = SelectAdd(len(row), unsigned(1), family=build.ram)
            m.d.comb += [add.a.eq(up), add.b0.eq(row), add.b1.eq(value), add.select.eq(load)]
            m.d.sync += row.eq(add.o)
            return row, add.o

        # Tiles that add up have the same rows.
        again = tile_ends & ~(dw | (whole_ends & runs_on))
        base = Signal(range(build.sums), reset_less=True)
        row, next_row = counted(
            "row",
            step & ~again,
            loops.begin | (step & again),
            Mux(loops.begin, now.sums.start, base),
        )
        with m.If(loops.begin | (step & whole_ends & runs_on)):
            m.d.sync += base.eq(next_row)
        bias, _ = counted("bias", Mux(step, whole_ends, looks) & ~loops.begin, loops.begin, now.sums.bias)
        first = loops.first[_INNER] | dw
        m.submodules.sums = sums = PartialSums(
            build.array.columns, build.sums, build.array.accumulator, build.total, family=build.ram
        )
        m.submodules.scale = scale = Scale(build.array.columns, build.total)
        # What may wait takes it from registers of its own: those of the sums reach far enough.
        m.d.sync += later.eq(sums.o)
        m.d.comb += [
            scale.i.eq(later),
            scale.on.eq(delayed(m, "looked", looks, self._before + 1, reset=True)),
            scale.shift.eq(now.how.upper),
            scale.minus.eq(now.sums.minus),
            sums.command.add.eq(looks | (~fill & (~first | begins))),
            sums.command.read.eq(Mux(looks | (first & begins_bias), bias, row)),
            sums.command.write.eq(row),
            sums.command.keep.eq(step & (dw | ~loops.last[_INNER] | now.keep)),
        ]
        product = (kind == Kind.Y) | (kind == Kind.DX) | (kind == Kind.DW)
        m.d.comb += sums.turns.eq(delayed(m, "turns", ~product, PartialSums.lead - 2))
        # At most one of the three is not zero.
        fills = enables(m, "fills", self.fills, build.array.columns)
        for k in range(build.array.columns):
            beside = Signal(signed(build.total), name=f"beside_{k}", reset_less=True)
            m.d.sync += beside.eq(self.pooled[k] | scale.o[k] | Mux(fills[k], self.filled[k], 0))
            m.d.comb += [sums.i[k].eq(self.sums[k]), sums.beside[k].eq(beside)]
        m.d.comb += self.overflow.eq(sums.overflow & delayed(m, "adds", step, self._before + 2, reset=True))
        return sums

    def _codes(
        self,
        m: Module,
        now: data.View,
        kind: Value,
        loops: Loops,
        step: Value,
        sums: PartialSums,
        later: Any,
    ) -> Value:
        """Whole sums to codes, and the branches of the activation: noted, or taken. Whether codes leave."""
        build = self._build
        columns = build.array.columns

        def address(name: str, nest: Any, width: int) -> Value:
            m.submodules[name] = walk = Affine(RESULT_LEVELS, width, family=build.ram)
            m.d.comb += [
                walk.start.eq(nest.start),
                walk.delta.eq(nest.delta),
                walk.begin.eq(loops.begin),
                walk.step.eq(step),
                walk.level.eq(loops.level),
            ]
            return walk.o

        takes = now.branches.use == Branches.TAKE
        taken = enables(m, "takes", delayed(m, "takes", takes, self._before), columns)
        ahead = self._before - Requantise.lead
        emits = step & (kind == Kind.EMIT) & (now.codes.to == Memory.NONE)
        m.submodules.requantise = requantise = Requantise(columns, build.total, build.array.operand)
        m.submodules.branches_ram = ram = BlockRam(columns * BRANCH.size, build.masks, family=build.ram)
        m.d.comb += [
            requantise.how.eq(delayed(m, "how", now.how.as_value(), ahead)),
            requantise.adjoint.eq(delayed(m, "adjoint", takes, ahead)),
            requantise.sums.eq(sums.o),
            requantise.negative.eq(sums.negative),
            requantise.branch_i.eq(ram.read_data),
            self.emitted.valid.eq(delayed(m, "emits", emits, self._before + 1, reset=True)),
        ]
        branches = delayed(m, "taken", ram.read_data, Requantise.branch_lead + 1)
        for k in range(columns):
            branch = branches.word_select(k, BRANCH.size)
            m.d.comb += self.emitted.payload[k].eq(Mux(taken[k], branch, later[k]))
        whole = Signal()
        m.d.comb += whole.eq(step & loops.last[_INNER] & ~now.keep & (kind != Kind.DW))
        notes = delayed(m, "notes", whole & (now.branches.use == Branches.NOTE), self._behind, reset=True)
        number = Mux(loops.last[_OUTER], now.codes.tail, now.codes.whole)
        nearly = delayed(m, "whole", whole, self._behind - 1, reset=True)
        number, to = (
            delayed(m, name, value, self._behind - 1)
            for name, value in (("number", number), ("to", now.codes.to.as_value()))
        )
        writes = Signal()
        m.d.sync += [
            writes.eq(nearly & (to != Memory.NONE)),
            self.write.eq(Mux(nearly, Cat(k < number for k in range(build.lanes)), 0)),
        ]
        m.d.comb += self.write_next.eq(Mux(nearly, to, Memory.NONE))
        codes_at = address("codes", now.codes, len(self.write_at))
        branches_at = address("branches", now.branches, len(ram.read_row))
        behind = self._behind - Affine.latency
        m.d.comb += [
            ram.read_row.eq(
                delayed(
                    m,
                    "taken_at",
                    branches_at,
                    self._before - Affine.latency - ram.latency - Requantise.branch_lead,
                )
            ),
            ram.write_row.eq(delayed(m, "branches_at", branches_at, behind)),
            ram.write_data.eq(requantise.branch_o),
            ram.write.eq(notes),
            self.write_at.eq(delayed(m, "codes_at", codes_at, behind)),
        ]
        clips = delayed(m, "clips", requantise.clipped.any(), 1)
        m.d.sync += self.clipped.eq(clips & delayed(m, "wrote", writes, 1, reset=True))
        m.d.comb += [self.write_data[k].eq(requantise.codes[k]) for k in range(columns)]
        return writes
