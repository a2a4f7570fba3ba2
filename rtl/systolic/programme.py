"""Reads descriptors out of memory, one after the other."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..stream.ram import BlockRam
from .build import UnitBuild
from .descriptor import WORD, layout

__all__ = ["Programme"]


class Programme(wiring.Component):
    """Descriptors from word ``start`` on, until one that says it is the ``last``.

    A descriptor is offered ``words + 3`` clocks after the one before was taken, in the words' order, lowest bits first.

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
        reads, arrives, ends = Signal(), Signal(ram.latency), Signal(ram.latency)
        m.d.sync += [
            arrives.eq(Cat(reads, arrives)),
            ends.eq(Cat(reads & (left == 0), ends)),
        ]
        with m.If(reads):
            m.d.sync += [row.eq(row + 1), left.eq(left - 1)]
            with m.If(left == 0):
                m.d.sync += reads.eq(0)
        # The whole register moves by a word: no word has an enable of its own.
        bits = Signal(self.words * WORD, reset_less=True)
        with m.If(arrives[-1]):
            m.d.sync += bits.eq(Cat(bits[WORD:], ram.read_data))
        m.d.comb += self.descriptor.as_value().eq(bits)
        again = self.taken & ~self.descriptor.last
        with m.If(ends[-1]):
            m.d.sync += self.offered.eq(1)
        with m.If(self.taken):
            m.d.sync += [self.offered.eq(0), self.running.eq(~self.descriptor.last)]
        with m.If(self.go):
            m.d.sync += [row.eq(self.start), self.running.eq(1)]
        with m.If(self.go | again):
            m.d.sync += [reads.eq(1), left.eq(self.words - 1)]
        return m
