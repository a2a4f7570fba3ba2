"""Reads descriptors out of memory, one after the other."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed
from ..stream.enable import enables
from ..stream.ram import BlockRam
from .build import UnitBuild
from .descriptor import WORD, Kind, layout
from .walk import Loops

__all__ = ["Programme"]


class Programme(wiring.Component):
    """Descriptors from word ``start`` on, until one that says it is the ``last``.

    A descriptor is offered ``words + 5`` clocks after the one before was taken, in the words' order, lowest bits first.
    One that is none ends the programme with the one before: no row beyond the memory is read, and no job of a kind that
    does not exist is offered.

    Parameters
    ----------
    build : UnitBuild

    Members
    -------
    write : In(1)
    write_row : In(range(build.programme))
    write_data : In(32)
    go : In(1)
        Begin; only while not ``running``.
    start : In(range(build.programme))
    descriptor : Out(layout(build))
    offered, taken : Out(1), In(1)
        It stays until it is taken.
    running : Out(1)
        From ``go`` until the last descriptor is taken.
    unknown, over : Out(1)
        In this clock the programme ends early: its next descriptor is of a kind that does not exist; reaches beyond the
        end of the memory.

    Attributes
    ----------
    words : int
        Of a descriptor.
    """

    def __init__(self, build: UnitBuild) -> None:
        self._build = build
        self.words = -(-layout(build).size // WORD)
        row = range(build.programme)
        super().__init__(
            {
                "write": In(1),
                "write_row": In(row),
                "write_data": In(WORD),
                "go": In(1),
                "start": In(row),
                "descriptor": Out(layout(build)),
                "offered": Out(1),
                "taken": In(1),
                "running": Out(1),
                "unknown": Out(1),
                "over": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.ram = ram = BlockRam(WORD, self._build.programme, family=self._build.ram)
        row = Signal(range(self._build.programme))
        m.d.comb += [
            ram.write.eq(self.write),
            ram.write_row.eq(self.write_row),
            ram.write_data.eq(self.write_data),
            ram.read_row.eq(row),
        ]
        left = Signal(range(self.words))
        reads = Signal()
        arrives = Signal(ram.latency)
        begins = Signal(ram.latency)
        ends = Signal(ram.latency)
        beyond = Signal()  # there is no such row
        read = reads & ~beyond
        m.d.comb += self.over.eq(reads & beyond)
        m.d.sync += [
            arrives.eq(Cat(read, arrives)),
            begins.eq(Cat(read & (left == self.words - 1), begins)),
            ends.eq(Cat(read & (left == 0), ends)),
        ]
        with m.If(reads):
            m.d.sync += [row.eq(row + 1), left.eq(left - 1), beyond.eq(row == self._build.programme - 1)]
            with m.If((left == 0) | beyond):
                m.d.sync += reads.eq(0)
        # The whole register moves by a word: no word has an enable for itself.
        bits = Signal(self.words * WORD, reset_less=True)
        moved = Cat(bits[WORD:], ram.read_data)
        for k, moves in enumerate(enables(m, "arrives", arrives[-2], self.words)):
            with m.If(moves):
                m.d.sync += bits.word_select(k, WORD).eq(moved.word_select(k, WORD))
        m.d.comb += self.descriptor.as_value().eq(bits)
        again = self.taken & ~self.descriptor.last
        # The kind comes with the first word, and is looked at by the time of the last.
        first_kind = ram.read_data[: Shape.cast(Kind).width]
        strange = Signal()
        with m.If(begins[-1]):
            m.d.sync += strange.eq(~Cat(first_kind == kind for kind in Kind).any())
        m.d.comb += self.unknown.eq(ends[-1] & strange)
        # It stands for a while before it is offered.
        with m.If(delayed(m, "stands", ends[-1] & ~strange, Loops.ahead, reset=True)):
            m.d.sync += self.offered.eq(1)
        with m.If(self.unknown | self.over):
            m.d.sync += self.running.eq(0)
        with m.If(self.taken):
            m.d.sync += [self.offered.eq(0), self.running.eq(~self.descriptor.last)]
        with m.If(self.go):
            m.d.sync += [
                row.eq(self.start),
                beyond.eq(self.start >= self._build.programme),
                self.running.eq(1),
            ]
        with m.If(self.go | again):
            m.d.sync += [reads.eq(1), left.eq(self.words - 1)]
        return m
