"""RAM with a port that writes and one that reads: small in look-up tables, large in blocks with an output register."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, ClockSignal, Const, Instance, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["DISTRIBUTED", "BlockRam", "DistributedRam"]

DISTRIBUTED: dict[str, Any] = {"ram_style": "distributed"}
"""Look-up tables as RAM, whose output register is an ordinary one: a block RAM's is slow."""

_BLOCK: dict[str, Any] = {
    "ram_style": "block",  # however few rows there are
    # Synthesis otherwise builds what a block RAM does not do, the old word of a row that is written: a comparator, a
    # copy of the word, and a multiplexer behind the RAM's outputs, which are slow already.
    "no_rw_check": True,
}


def _members(width: int, rows: int) -> dict[str, wiring.Member]:
    if width < 1 or rows < 1:
        raise ValueError(f"a RAM of {rows} rows of {width} bits holds nothing; give at least 1 of both")
    row = range(max(rows, 2))
    return {
        "write": In(1),
        "write_row": In(row),
        "write_data": In(width),
        "read_row": In(row),
        "read_data": Out(width),
    }


class DistributedRam(wiring.Component):
    """``rows[write_row] = write_data`` where ``write``; ``read_data = rows[read_row]``, at once.

    Parameters, members and errors are those of :class:`BlockRam`, but for the family.
    """

    def __init__(self, width: int, rows: int) -> None:
        super().__init__(_members(width, rows))
        self.memory = Memory(shape=width, depth=rows, init=(), attrs=DISTRIBUTED)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.memory = self.memory
        write, read = self.memory.write_port(), self.memory.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(self.write_row),
            write.data.eq(self.write_data),
            read.addr.eq(self.read_row),
            self.read_data.eq(read.data),
        ]
        return m


class BlockRam(wiring.Component):
    """``rows[write_row] = write_data`` where ``write``; ``read_data[t + 2] = rows[read_row[t]]``.

    One row is written and one is read in every clock; both output registers run freely. **Contract of the user**:
    what is read of a row in the very clock in which it is written is looked at by nobody.

    Parameters
    ----------
    width : int
        Bits of a row.
    rows : int
    family : str
        ``"generic"``: a memory and a register behind it, for any target. ``"ecp5"``: DP16KD blocks with their output
        registers, which synthesis does not use by itself: without them a block gives its word 5.8 ns after the clock.
        Rows are cut into slices as wide as one block is at this depth (1024 x 18, 2048 x 9, 4096 x 4, 8192 x 2,
        16384 x 1); more rows than 16384 lie in several banks.

    Members
    -------
    write : In(1)
    write_row, read_row : In(range(rows))
    write_data : In(width)
    read_data : Out(width)

    Raises
    ------
    ValueError
        If there is no bit or no row, or the family is unknown.

    Source: addresses and strobes of the blocks as yosys 0.70 maps memories to DP16KD. Not yet checked against Lattice
    FPGA-TN-02204, ECP5 and ECP5-5G memory usage guide, nor on a chip.
    """

    latency = 2
    families = ("generic", "ecp5")

    def __init__(self, width: int, rows: int, *, family: str = "generic") -> None:
        if family not in self.families:
            raise ValueError(f"RAM family {family!r} is unknown; give {' or '.join(self.families)}")
        super().__init__(_members(width, rows))
        self._family = family
        self._width, self._rows = width, rows
        # Of the generic body; attributes, because the proofs state their invariants over them.
        if family == "generic":
            self.memory = Memory(shape=width, depth=rows, init=(), attrs=_BLOCK)
        self.word = Signal(width)  # the output of the RAM itself, a clock before `read_data`

    def elaborate(self, platform) -> Module:
        m = Module()
        if self._family == "ecp5":
            self._blocks(m)
            return m
        m.submodules.memory = self.memory
        write, read = self.memory.write_port(), self.memory.read_port()
        register = Signal(self._width, reset_less=True)
        m.d.comb += [
            write.en.eq(self.write),
            write.addr.eq(self.write_row),
            write.data.eq(self.write_data),
            read.en.eq(1),
            read.addr.eq(self.read_row),
            self.word.eq(read.data),
            self.read_data.eq(register),
        ]
        m.d.sync += register.eq(self.word)
        return m

    def _blocks(self, m: Module) -> None:
        depth_bits = min(max((self._rows - 1).bit_length(), 10), 14)
        native = {10: 18, 11: 9, 12: 4, 13: 2, 14: 1}[depth_bits]
        banks = -(-self._rows >> depth_bits)
        write_bank, read_bank = self.write_row[depth_bits:], self.read_row[depth_bits:]
        words = []
        for bank in range(banks):
            here = self.write & (write_bank == bank) if banks > 1 else self.write
            slices = []
            for low in range(0, self._width, native):
                data = self.write_data[low : low + native]
                out = Signal(18, name=f"out_{bank}_{low}")
                m.submodules[f"block_{bank}_{low}"] = _dp16kd(
                    native, here, self.write_row[:depth_bits], data, self.read_row[:depth_bits], out
                )
                slices.append(out[: len(data)])
            words.append(Cat(slices))
        if banks == 1:
            m.d.comb += self.read_data.eq(words[0])
            return
        # The bank travels beside its word.
        bank = read_bank
        for k in range(self.latency):
            before, bank = bank, Signal.like(read_bank, name=f"bank_{k + 1}", reset_less=True)
            m.d.sync += bank.eq(before)
        m.d.comb += self.read_data.eq(Array(words)[bank])


def _dp16kd(width: int, write: Value, write_row: Value, data: Value, read_row: Value, out: Value) -> Instance:
    """A block with port A writing and port B reading, ``width`` bits a row."""

    def address(row: Value, strobes: int) -> Value:
        # Rows lie at the top of the 14 bits; at 18 bits a row the two lowest ones are the byte strobes of a write.
        low = {18: 4, 9: 3, 4: 2, 2: 1, 1: 0}[width]
        return Cat(Const(strobes if width == 18 else 0, low), row, Const(0, 14 - low - len(row)))

    ports = {}
    for name, value in (
        ("ADA", address(write_row, 0b11)),
        ("ADB", address(read_row, 0)),
        ("DIA", Cat(data, Const(0, 18 - len(data)))),
        ("DIB", Const(0, 18)),
        ("CSA", Const(0, 3)),
        ("CSB", Const(0, 3)),
    ):
        ports |= {f"i_{name}{k}": value[k] for k in range(len(value))}
    return Instance(
        "DP16KD",
        p_DATA_WIDTH_A=width,
        p_DATA_WIDTH_B=width,
        p_REGMODE_A="OUTREG",
        p_REGMODE_B="OUTREG",
        p_RESETMODE="SYNC",
        p_ASYNC_RESET_RELEASE="SYNC",
        p_WRITEMODE_A="NORMAL",
        p_WRITEMODE_B="NORMAL",
        p_CSDECODE_A="0b000",
        p_CSDECODE_B="0b000",
        p_GSR="DISABLED",
        i_CLKA=ClockSignal(),
        i_CLKB=ClockSignal(),
        i_CEA=Const(1, 1),
        i_CEB=Const(1, 1),
        i_OCEA=Const(1, 1),
        i_OCEB=Const(1, 1),
        i_RSTA=Const(0, 1),
        i_RSTB=Const(0, 1),
        i_WEA=write,
        i_WEB=Const(0, 1),
        **ports,
        **{f"o_DOB{k}": out[k] for k in range(18)},
    )
