"""Rows of sums that grow from tile to tile, in RAM."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..numeric.select_add import SelectAdd
from ..stream.delay import delayed
from ..stream.enable import COPIES, copies, enables
from ..stream.ram import BlockRam

__all__ = ["PartialSums", "command"]


def command(rows: int) -> data.StructLayout:
    """What becomes of a row: ``o = i + (add ? memory[read] : 0)``, and ``memory[write] = o`` where ``keep``."""
    row = Shape.cast(range(max(rows, 2)))
    return data.StructLayout({"add": 1, "read": row, "keep": 1, "write": row})


class PartialSums(wiring.Component):
    """``o = i + (add ? memory[read] : 0)``, or ``beside`` in place of ``i``; ``memory[write] = o`` where ``keep``.

    ``read`` and ``write`` are rows of their own: the first tile of a sum reads the row in which its bias stands, every
    later one the row that the one before has written. The command of a row comes `lead` clocks before the row, as the
    RAM, a register in front of it and the choice behind it take that long; ``o`` comes one clock after ``i``. A row a
    clock, no stall. **Contract of the user**: what is read `lead` clocks after the command that writes it is looked at
    by nobody; later it is the new row.

    A sum that does not fit wraps, and ``overflow`` says so two clocks after the row.

    Parameters
    ----------
    lanes : int
    rows : int
        Rows of the memory.
    narrow, wide : int
        Bits of a lane of ``i``, and of all else, signed.
    family : str
        Of block RAM and adders.

    Members
    -------
    command : In(command(rows))
    i : In(ArrayLayout(signed(narrow), lanes))
    beside : In(ArrayLayout(signed(wide), lanes))
    turns : In(1)
        The row after the next one is that of ``beside``.
    o : Out(ArrayLayout(signed(wide), lanes))
    negative : Out(lanes)
        ``o < 0``, in registers beside those of ``o``: what hangs on the signs may lie apart from the sums.
    overflow : Out(1)
        One of the lanes has wrapped.

    Raises
    ------
    ValueError
        If a row that comes is wider than one that leaves, there is no lane or row, or the family is unknown.
    """

    lead = 1 + BlockRam.latency + 1
    latency = 1

    def __init__(self, lanes: int, rows: int, narrow: int, wide: int, *, family: str = "generic") -> None:
        if lanes < 1:
            raise ValueError(f"lanes={lanes}; give at least 1")
        if not 1 <= narrow <= wide:
            raise ValueError(f"narrow={narrow}, wide={wide}; give a sum at least the bits of what it adds")
        if rows < 1:
            raise ValueError(f"rows={rows}; give at least 1")
        if family not in BlockRam.families:
            raise ValueError(f"family={family!r}; choose one of {', '.join(BlockRam.families)}")
        self._lanes, self._rows, self._narrow, self._wide, self._family = lanes, rows, narrow, wide, family
        super().__init__(
            {
                "command": In(command(rows)),
                "i": In(data.ArrayLayout(signed(narrow), lanes)),
                "beside": In(data.ArrayLayout(signed(wide), lanes)),
                "turns": In(1),
                "o": Out(data.ArrayLayout(signed(wide), lanes)),
                "negative": Out(lanes),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # Lanes lie apart, so neighbours have a RAM of their own, whose rows come from registers of its own.
        count = min(COPIES, self._lanes)
        groups = [
            [k for k in range(self._lanes) if k * count // self._lanes == group] for group in range(count)
        ]
        rams = [BlockRam(len(lanes) * self._wide, self._rows, family=self._family) for lanes in groups]
        before: dict[int, Value] = {}
        for group, (ram, lanes) in enumerate(zip(rams, groups, strict=True)):
            m.submodules[f"ram_{group}"] = ram
            row = data.View(data.ArrayLayout(signed(self._wide), len(lanes)), ram.read_data)
            before |= {k: row[n] for n, k in enumerate(lanes)}
        ahead = delayed(m, "add", self.command.add, self.lead - 3)
        adds = enables(m, "adds", ahead, self._lanes)
        turns = enables(m, "turns", self.turns, self._lanes)
        keep = delayed(m, "keep", self.command.keep, self.lead + self.latency, reset=True)
        write = delayed(m, "write", self.command.write, self.lead + self.latency - 1)
        wrapped = []
        totals = []
        for k in range(self._lanes):
            base = Signal(signed(self._wide), name=f"base_{k}", reset_less=True)
            m.d.sync += base.eq(Mux(delayed(m, f"adds_here_{k}", adds[k], 1), before[k], 0))
            m.submodules[f"adder_{k}"] = adder = SelectAdd(
                self._wide + 1, signed(self._wide), family=self._family
            )
            exact = adder.o
            total = Signal(signed(self._wide), name=f"total_{k}", reset_less=True)
            m.d.comb += [
                adder.a.eq(base),
                adder.b0.eq(self.i[k]),
                adder.b1.eq(self.beside[k]),
                adder.select.eq(delayed(m, f"turns_here_{k}", turns[k], 1)),
            ]
            m.d.sync += total.eq(exact)
            # The last bit of the carry chain and its neighbour; whether they differ is seen a clock later, and
            # gathered from all lanes in the next.
            top, wraps = (Signal(name=f"{name}_{k}", reset_less=True) for name in ("top", "wraps"))
            m.d.sync += [top.eq(exact[-1]), wraps.eq(top != total[-1])]
            wrapped.append(wraps)
            # With a reset, without which synthesis would take it for one of the sum.
            negative = Signal(name=f"negative_{k}", init=1)
            m.d.sync += negative.eq(exact[-2])
            m.d.comb += self.negative[k].eq(negative)
            totals.append(total)
        m.d.sync += self.overflow.eq(Cat(wrapped).any())
        read_rows = copies(m, "read", self.command.read, count, inverts=False)
        write_rows = copies(m, "write_row", write, count, inverts=False)
        for ram, lanes, read_row, write_row in zip(rams, groups, read_rows, write_rows, strict=True):
            m.d.comb += [
                ram.read_row.eq(read_row),
                ram.write_row.eq(write_row),
                ram.write.eq(keep),
                ram.write_data.eq(Cat(totals[k] for k in lanes)),
            ]
        m.d.comb += [self.o[k].eq(total) for k, total in enumerate(totals)]
        return m
