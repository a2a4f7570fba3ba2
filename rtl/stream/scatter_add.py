"""The transpose of a table look-up with linear interpolation: exact sums per table entry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .enable import enables
from .fifo import FlowFifo
from .pixel import Flow
from .ram import BlockRam

__all__ = ["ScatterAdd"]


def _picked(picks: Value, values: Sequence[Signal]) -> Value:
    """The value whose bit of ``picks`` is set, 0 if there is none."""
    return reduce(or_, (Mux(pick, value, 0) for pick, value in zip(picks, values, strict=True)))


class _Bank(wiring.Component):
    """``table[phase][row] += addend`` every clock, one parity of one copy of a table, two phases of it.

    A sum takes four clocks from the read address, a register, to the write: RAM, output register, choice of operand,
    adder. Rows touched by one of the four beats before are not yet in the RAM: their sums are taken from the
    adder instead. The phase that the drain owns is read and cleared by the drain.
    """

    def __init__(self, rows: int, row_bits: int, width: int, value_width: int, family: str) -> None:
        self._width = width
        self._row_bits = row_bits
        # One RAM per phase: the drain needs a read and a write port of its own.
        self._memories = [BlockRam(width, rows, family=family) for _ in range(2)]
        super().__init__(
            {
                "valid": In(1),
                "phase": In(1),
                "row": In(row_bits),
                "addend": In(signed(value_width)),
                "owned": In(2),  # the drain's phases
                "drain_select": In(1),  # read and clear `drain_row`
                "drain_row": In(row_bits),
                "drained": Out(signed(width)),  # four clocks later; 0 unselected
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.ping, m.submodules.pong = self._memories

        # The row as the RAM sees it, and its beat.
        valid = Signal()
        phase = Signal(reset_less=True)
        row = Signal.like(self.row, reset_less=True)
        addend = Signal.like(self.addend, reset_less=True)
        m.d.sync += [valid.eq(self.valid), phase.eq(self.phase), row.eq(self.row), addend.eq(self.addend)]

        # history[k]: the beat whose row was presented k + 1 clocks ago.
        place = data.StructLayout({"row": self._row_bits, "phase": 1})
        history = [Signal(place, name=f"place{k}", reset_less=True) for k in range(4)]
        valids = Signal(4)
        m.d.sync += [
            valids.eq(Cat(valid, valids[:-1])),
            history[0].row.eq(row),
            history[0].phase.eq(phase),
            *(new.eq(old) for new, old in zip(history[1:], history, strict=False)),
        ]
        select = Signal()
        select_row = Signal(self._row_bits)  # when the RAM sees the row of the drain
        clear = Signal()
        selected = Signal(2)  # the register of this RAM holds a row of the drain
        m.d.sync += [
            select.eq(self.drain_select),
            select_row.eq(self.drain_row),
            clear.eq(select),
            selected.eq(Mux(clear, self.owned, 0)),
        ]

        result = [Signal(signed(self._width), name=f"result{k}", reset_less=True) for k in range(2)]
        registers = []
        for which in range(2):
            memory, owned = self._memories[which], self.owned[which]
            register = Signal(signed(self._width), name=f"register{which}")  # the RAM's own
            read_row = Signal.like(self.row, name=f"read_row{which}", reset_less=True)
            # Chosen a clock before the RAM hears of it: whoever owned it then does now, as what is on its way waits.
            write, write_row = (
                Signal(name=f"write{which}"),
                Signal.like(self.row, name=f"write_row{which}", reset_less=True),
            )
            m.d.sync += [
                read_row.eq(Mux(owned, self.drain_row, self.row)),
                write.eq(Mux(owned, select, valids[2] & (history[2].phase == which))),
                write_row.eq(Mux(owned, select_row, history[2].row)),
            ]
            m.d.comb += [
                memory.read_row.eq(read_row),
                memory.write.eq(write),
                memory.write_row.eq(write_row),
                memory.write_data.eq(Mux(owned, 0, result[0])),
                register.eq(memory.read_data),
            ]
            registers.append(register)
        drained = Signal(signed(self._width), reset_less=True)
        m.d.comb += self.drained.eq(drained)
        m.d.sync += drained.eq(_picked(selected, registers))

        # Before the operand is chosen: who has the newest sum of this row? That of the beat before is added in the
        # adder itself, that of the second before is in result[0] by then, those of the two before it a clock earlier.
        hits = Signal(4)  # the beat k + 1 before history[0] has its row
        hit_previous = Signal()
        hit_previous_now = Signal()
        pick_memory = Signal(2)
        pick_newest = Signal()
        older = hits[1:].any()
        passed = Signal(signed(self._width), reset_less=True)
        operand = Signal(signed(self._width), reset_less=True)
        addends = [Signal.like(self.addend, name=f"addend{k}", reset_less=True) for k in range(3)]
        m.d.sync += [
            *(
                hits[k].eq(valids[k] & (history[k].row == row) & (history[k].phase == phase))
                for k in range(len(hits))
            ),
            hit_previous.eq(hits[0]),
            hit_previous_now.eq(hit_previous),
            pick_newest.eq(hits[1]),
            pick_memory.eq(Cat(~older & ~history[0].phase, ~older & history[0].phase)),
            passed.eq(_picked(Cat(hits[2] & ~hits[1], hits[3] & ~hits[2] & ~hits[1]), result)),
            operand.eq(_picked(pick_memory, registers) | _picked(pick_newest, result[:1]) | passed),
            *(new.eq(old) for new, old in zip(addends, [addend, *addends], strict=False)),
            result[0].eq(Mux(hit_previous_now, result[0], operand) + addends[2]),
            result[1].eq(result[0]),
        ]
        return m


class ScatterAdd(wiring.Component):
    """``table[s] += v0``, ``table[s + 1] += v1`` for every lane and channel of every beat, exact.

    The transpose of ``y = (1 - t) table[s] + t table[s + 1]`` with respect to the table:
    ``v0 = ybar (1 - t)``, ``v1 = ybar t``. A beat with ``last`` ends the group: its table, that beat
    included, is streamed out on ``o`` as 64-bit signed words, curve by curve, entry 0 to ``segments``, while
    the next beat already adds into a cleared table. If ``shared`` there is one curve, the sum over all lanes
    and channels; otherwise one curve per channel, the sum over the lanes.

    Any sequence of indices, one beat per clock. Each lane and channel has its own copy of the table, split by
    the parity of the entry so that both additions of a beat meet different RAMs, and doubled so that one is
    drained and cleared while the other adds. From the beat with ``last`` to the first word at ``o``:
    :attr:`latency` clocks; then one word per clock.

    A group is dropped, never wrong: ``overrun`` pulses for a group that ends while the table of an earlier
    one is still being streamed out, and again for the group after it, which had to share its table; and for a
    group with a beat in the first ``segments + 4`` clocks after reset, in which the RAMs are cleared. Every
    group ends either in its words or in one pulse of ``overrun``. Watch ``busy`` to avoid it.

    Parameters
    ----------
    segments : int
        Segments of a curve; it has ``segments + 1`` entries.
    lanes, channels : int
        Additions per beat: ``lanes * channels`` pairs.
    value_width : int
        Bits of ``v0`` and ``v1``, signed.
    shared : bool
        One curve for all channels.
    log2_count : int
        Each word receives at most ``2**log2_count`` values in a group, over all lanes and channels.
        A table entry has ``value_width + log2_count`` bits, at most ``width``.
    width : int
        Most bits of a table entry, at most 64.
    family : str
        Whose block RAM.

    Members
    -------
    i : In(Flow(StructLayout({"last": 1, "lane": ArrayLayout(ArrayLayout(entry, channels), lanes)})))
        ``entry = StructLayout({"index": range(segments), "v0": signed(value_width), "v1": ...})``. A lane
        outside the picture brings values 0 and any index. ``last`` counts only with ``valid``.
    o : Out(stream.Signature(signed(64)))
    overrun : Out(1)
        Pulse: the group whose ``last`` came :attr:`overrun_latency` clocks ago was dropped.
    busy : Out(1)
        While low, a beat may come, and a beat with ``last`` overruns only in the group after a dropped one.
        It rises in the clock after a beat with ``last``.

    Raises
    ------
    ValueError
        If there are too few segments, lanes or channels, or values or entries do not fit.
    """

    overrun_latency = 2

    def __init__(
        self,
        *,
        value_width: int,
        shared: bool,
        segments: int = 64,
        lanes: int = 1,
        channels: int = 3,
        log2_count: int = 28,
        width: int = 64,
        family: str = "generic",
    ) -> None:
        for name, value, least in (("segments", segments, 2), ("lanes", lanes, 1), ("channels", channels, 1)):
            if value < least:
                raise ValueError(f"{name} {value} is too few; give at least {least}")
        if not 1 <= width <= 64:
            raise ValueError(f"width {width} does not fit a 64-bit word; give 1 to 64")
        if not 1 <= value_width <= width:
            raise ValueError(f"value_width {value_width} does not fit an entry; give 1 to {width}")
        if log2_count < 0:
            raise ValueError(
                f"log2_count {log2_count} is negative; give the logarithm of the values per group"
            )
        self._segments = segments
        self._lanes = lanes
        self._channels = channels
        self._value_width = value_width
        self._shared = shared
        self._width = min(width, value_width + log2_count)
        self._levels = (lanes * channels - 1).bit_length()
        self._family = family
        entry = data.StructLayout(
            {"index": range(segments), "v0": signed(value_width), "v1": signed(value_width)}
        )
        lane = data.ArrayLayout(data.ArrayLayout(entry, channels), lanes)
        # From a step of the drain to its word: address, choice of address, RAM, output register, choice of phase,
        # choice of parity, adder tree.
        self._drain_latency = 6 + self._levels
        self._fifo = FlowFifo(signed(64), 2 * self._drain_latency + 3, in_flight=self._drain_latency)
        self.latency = 8 + self._drain_latency + self._fifo.latency
        super().__init__(
            {
                "i": In(Flow(data.StructLayout({"last": 1, "lane": lane}))),
                "o": Out(stream.Signature(signed(64))),
                "overrun": Out(1),
                "busy": Out(1),
            }
        )

    @property
    def curves(self) -> int:
        """Curves on ``o``, of ``segments + 1`` words each."""
        return 1 if self._shared else self._channels

    def elaborate(self, platform) -> Module:
        m = Module()
        beat = Signal.like(self.i.payload, reset_less=True)
        valid = Signal()
        m.d.sync += [beat.eq(self.i.payload), valid.eq(self.i.valid)]

        # Which table the beat adds into, and what becomes of the group that it ends.
        phase = Signal()
        tainted = Signal()  # this table holds values of a dropped group, or was not cleared yet
        draining = Signal(init=1)  # from the accepted `last` to the last clear
        clearing = Signal(init=1)  # the drain after reset: both phases, every copy, no words
        settled = Signal(6)  # the clocks until the group's last sums are written
        emit = Signal()
        owned = Signal(2, init=0b11)
        walking = Signal(init=1)
        ends = valid & beat.last
        m.d.comb += self.busy.eq(ends | draining)
        m.d.sync += [self.overrun.eq(ends & (draining | tainted)), settled.eq(Cat(0, settled[:-1]))]
        with m.If(ends & draining):
            m.d.sync += tainted.eq(1)
        with m.Elif(ends):
            m.d.sync += [
                tainted.eq(0),
                phase.eq(~phase),
                draining.eq(1),
                emit.eq(~tainted),
                settled[0].eq(1),
            ]
        with m.Elif(valid & clearing):
            m.d.sync += tainted.eq(1)

        # The drain: entry by entry, curve by curve, one per clock while the words have room.
        m.submodules.fifo = fifo = self._fifo
        entry = Signal(range(self._segments + 1))
        curve = Signal(self.curves, init=1)  # one-hot
        step = Signal()
        at_end = Signal()
        finished = Signal(4)
        m.d.comb += [step.eq(walking & (fifo.room | ~emit)), at_end.eq(entry == self._segments)]
        m.d.sync += finished.eq(Cat(step & at_end & (curve[-1] | clearing), finished[:-1]))
        with m.If(settled[-1]):
            m.d.sync += [walking.eq(1), owned.eq(Cat(phase, ~phase))]
        with m.If(step):
            m.d.sync += entry.eq(Mux(at_end, 0, entry + 1))
            with m.If(at_end & ~clearing):
                m.d.sync += curve.eq(curve.rotate_left(1))
            with m.If(at_end & (curve[-1] | clearing)):
                m.d.sync += walking.eq(0)
        with m.If(finished[-1]):
            m.d.sync += [draining.eq(0), clearing.eq(0), owned.eq(0)]

        drain_row = Signal(range(self._segments // 2 + 1))
        drain_curve = Signal(self.curves)
        drain_even = Signal()
        drain_odd = Signal()
        m.d.sync += [
            drain_row.eq(entry >> 1),
            drain_curve.eq(Mux(clearing, (1 << self.curves) - 1, curve)),
            drain_even.eq(step & ~entry[0]),
            drain_odd.eq(step & entry[0]),
        ]

        # The tables. Each hears of its owner a clock later: no row of a drain or of a beat is there before.
        row = []
        banks = 2 * self._lanes * self._channels
        owners = [enables(m, f"owned_{which}", bit, banks) for which, bit in enumerate(owned)]
        place_valid = Signal()
        place_phase = Signal()
        m.d.sync += [place_valid.eq(valid), place_phase.eq(phase)]
        for lane in range(self._lanes):
            for channel in range(self._channels):
                value = beat.lane[lane][channel]
                word = Signal(signed(self._width), name=f"word_{lane}_{channel}", reset_less=True)
                both = []
                for parity, rows in enumerate((self._segments // 2 + 1, (self._segments + 1) // 2)):
                    bank = _Bank(rows, len(drain_row), self._width, self._value_width, self._family)
                    m.submodules[f"bank_{lane}_{channel}_{('even', 'odd')[parity]}"] = bank
                    bank_row = Signal.like(drain_row, reset_less=True, name=f"row_{lane}_{channel}_{parity}")
                    addend = Signal(
                        signed(self._value_width), reset_less=True, name=f"addend_{lane}_{channel}_{parity}"
                    )
                    # Entry s has parity s[0]; s + 1 has the other one, and its row is (s + 1) >> 1.
                    m.d.sync += [
                        bank_row.eq((value.index if parity else value.index + 1) >> 1),
                        addend.eq(Mux(value.index[0] == parity, value.v0, value.v1)),
                    ]
                    m.d.comb += [
                        bank.valid.eq(place_valid),
                        bank.phase.eq(place_phase),
                        bank.row.eq(bank_row),
                        bank.addend.eq(addend),
                        bank.owned.eq(
                            Cat(copies[2 * (lane * self._channels + channel) + parity] for copies in owners)
                        ),
                        bank.drain_row.eq(drain_row),
                        bank.drain_select.eq(
                            (drain_odd if parity else drain_even)
                            & drain_curve[0 if self._shared else channel]
                        ),
                    ]
                    both.append(bank.drained)
                # Unselected banks give 0, so OR and sum choose; one phase is owned while words are made.
                m.d.sync += word.eq(both[0] | both[1])
                row.append(word)
        # Modulo 2**width, which log2_count makes exact.
        for level in range(self._levels):
            pairs = [row[k : k + 2] for k in range(0, len(row), 2)]
            row = [
                Signal(signed(self._width), name=f"sum{level}_{k}", reset_less=True)
                for k in range(len(pairs))
            ]
            m.d.sync += [total.eq(sum(pair)) for total, pair in zip(row, pairs, strict=True)]
        words = Signal(self._drain_latency)
        m.d.sync += words.eq(Cat(step & emit, words[:-1]))
        m.d.comb += [fifo.i.valid.eq(words[-1]), fifo.i.payload.eq(row[0])]
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        return m
