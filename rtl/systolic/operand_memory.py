"""Operands in banks: any run of neighbours in one clock, wherever it begins."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Module, Shape, ShapeLike, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed
from ..stream.enable import copies
from ..stream.ram import BlockRam

__all__ = ["OperandMemory", "Rotate"]


class Rotate(wiring.Component):
    """``o[k] = i[(k + by) mod lanes]``, some clocks later; ``by`` comes with ``i``.

    One stage of registers for two bits of ``by``: a choice among four is the widest that is fast everywhere. A row a
    clock, no stall, no reset.

    Parameters
    ----------
    lanes : int
        A power of two, at least 2.
    shape : ShapeLike
        Shape of a lane.

    Members
    -------
    i, o : In, Out(ArrayLayout(shape, lanes))
    by : In(range(lanes))
    on : In(lanes)
        Lanes of ``o`` that are not cleared.

    Attributes
    ----------
    latency : int
        Half the bits of ``by``, rounded up.

    Raises
    ------
    ValueError
        If the number of lanes is no power of two.
    """

    def __init__(self, lanes: int, shape: ShapeLike) -> None:
        self._lanes, self._shape = lanes, Shape.cast(shape)
        self.latency = self.clocks(lanes)
        row = data.ArrayLayout(self._shape, lanes)
        super().__init__({"i": In(row), "o": Out(row), "by": In(range(lanes)), "on": In(lanes)})

    @staticmethod
    def clocks(lanes: int) -> int:
        """The latency of a rotation of so many lanes."""
        if lanes < 2 or lanes & (lanes - 1):
            raise ValueError(f"lanes={lanes}; give a power of two, at least 2")
        return lanes.bit_length() // 2

    def elaborate(self, platform) -> Module:
        m = Module()
        row: list[Value] = [self.i[k] for k in range(self._lanes)]
        # Of each lane: one register would have to reach the choices of all.
        by: list[Value] = [self.by] * self._lanes
        on = delayed(m, "on", self.on, self.latency - 1)
        for stage in range(self.latency):
            # The coarse bits first: what is left to choose then lies near.
            low = 2 * (self.latency - 1 - stage)
            step = 1 << low
            after = []
            for k in range(self._lanes):
                lane = Signal(self._shape, name=f"lane_{stage}_{k}", reset_less=True)
                choice = by[k][low:]
                choices = [row[(k + j * step) % self._lanes] for j in range(1 << len(choice))]
                m.d.sync += lane.eq(Array(choices)[choice])
                if stage == self.latency - 1:
                    with m.If(~on[k]):
                        m.d.sync += lane.eq(0)
                after.append(lane)
            if low:
                by = copies(m, f"by_{stage}", by[0][:low], self._lanes)
            row = after
        m.d.comb += [self.o[k].eq(row[k]) for k in range(self._lanes)]
        return m


class OperandMemory(wiring.Component):
    """``o[k] = memory[read_at + k]`` for every lane k, ``memory[write_at + k] = write_data[k]`` where ``write[k]``.

    Element e lies in bank ``e mod lanes``, row ``e // lanes``; a run that begins inside a row reads some banks one row
    further on, and what comes is rotated into place. So a row of a matrix may begin anywhere, the segments that an
    array reads need not be as long as its memory is wide, and the patches of a convolution are runs like any others:
    kernel width times channels elements of a line, beginning at any pixel.

    A run is read and one is written in every clock; addresses are modulo the size. **Contract of the user**: what is
    read of an element ``write_latency - 1`` clocks after it was written is looked at by nobody.

    Parameters
    ----------
    lanes : int
        Banks, a power of two, at least 2.
    rows : int
        Rows of every bank, a power of two.
    shape : ShapeLike
        Shape of an element.
    family : str
        Of the block RAM, see :class:`~pullback.rtl.stream.ram.BlockRam`.

    Members
    -------
    read_at : In(range(lanes * rows))
    read_on : In(lanes)
        Lanes to read; the others give 0.
    o : Out(ArrayLayout(shape, lanes))
        Valid `read_latency` clocks after ``read_at``.
    write_at : In(range(lanes * rows))
    write : In(lanes)
    write_data : In(ArrayLayout(shape, lanes))

    Attributes
    ----------
    read_latency, write_latency : int
        Clocks until ``o`` shows what was asked for; clocks after which a read finds what was written.

    Raises
    ------
    ValueError
        If lanes or rows are no powers of two, or the family is unknown.
    """

    def __init__(self, lanes: int, rows: int, shape: ShapeLike, *, family: str = "generic") -> None:
        if rows < 1 or rows & (rows - 1):
            raise ValueError(f"rows={rows}; give a power of two")
        if family not in BlockRam.families:
            raise ValueError(f"family={family!r}; choose one of {', '.join(BlockRam.families)}")
        self._lanes, self._rows, self._shape, self._family = lanes, rows, Shape.cast(shape), family
        self._turn = Rotate.clocks(lanes)
        self.read_latency = 1 + BlockRam.latency + self._turn
        self.write_latency = self._turn
        at, row = range(lanes * rows), data.ArrayLayout(self._shape, lanes)
        super().__init__(
            {
                "read_at": In(at),
                "read_on": In(lanes),
                "o": Out(row),
                "write_at": In(at),
                "write": In(lanes),
                "write_data": In(row),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes = self._lanes
        inside = lanes.bit_length() - 1
        m.submodules.read = read = Rotate(lanes, self._shape)
        # A write goes through the other way round, and its enables with it.
        m.submodules.write = write = Rotate(
            lanes, data.StructLayout({"data": self._shape, "on": 1}).as_shape()
        )

        def bank_rows(ats: list[Value], name: str) -> list[Value]:
            """The row of every bank a run touches, a clock later; each bank has the address from a wire of its own."""
            found = []
            for bank, at in enumerate(ats):
                first, offset = at[inside:], at[:inside]
                row = Signal(first.shape(), name=f"{name}_row_{bank}", reset_less=True)
                m.d.sync += row.eq(first + (bank < offset))
                found.append(row)
            return found

        write_back = Signal(inside)
        m.d.comb += [write_back.eq(-self.write_at[:inside]), write.by.eq(write_back), write.on.eq(~0)]
        m.d.comb += [write.i[k].eq(Cat(self.write_data[k], self.write[k])) for k in range(lanes)]
        write_at = self.write_at
        if self._turn > 1:
            write_at = delayed(m, "write_at", write_at, self._turn - 2)
            write_ats = copies(m, "write_at_last", write_at, lanes)
        else:
            write_ats = [write_at] * lanes
        write_rows = bank_rows(write_ats, "write")
        read_rows = bank_rows([self.read_at] * lanes, "read")
        turned = 1 + BlockRam.latency
        m.d.comb += [
            read.by.eq(delayed(m, "offset", self.read_at[:inside], turned)),
            read.on.eq(delayed(m, "on", self.read_on, turned)),
            self.o.eq(read.o),
        ]
        for bank in range(lanes):
            m.submodules[f"bank_{bank}"] = ram = BlockRam(self._shape.width, self._rows, family=self._family)
            word = write.o[bank]
            m.d.comb += [
                ram.read_row.eq(read_rows[bank]),
                read.i[bank].eq(ram.read_data),
                ram.write_row.eq(write_rows[bank]),
                ram.write_data.eq(word[:-1]),
                ram.write.eq(word[-1]),
            ]
        return m
