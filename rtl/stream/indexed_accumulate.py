"""Exact sums chosen by an index, over a group of frames: cotangents of parameters that differ by CFA colour."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .accumulate import check_terms
from .enable import COPIES, enables
from .pixel import Flow
from .ram import DistributedRam
from .serialise import Serialise

__all__ = ["IndexedAccumulate"]


_CONTROLS = {
    "row": "of the value one clock ago",
    "write_row": "of the value three clocks ago",
    "stored": "the value one clock ago is added to what the RAM holds",
    "far": "... to the sum of the second value before it",
    "near": "the value two clocks ago is in the row of the value before it, and not its first",
}
"""What sums are told, one clock before it acts: which sum is the operand follows from the rows of the two values
before, whose sums are not in the RAM yet. The first value of a row has none."""


def _control_members(rows: int) -> dict[str, wiring.Member]:
    return {name: In(range(rows) if name.endswith("row") else 1) for name in _CONTROLS}


class _Half(wiring.Component):
    """``sum[row] += value + carry_in`` every clock, in distributed RAM that a second port reads, modulo 2**width."""

    def __init__(self, width: int, rows: int) -> None:
        self._width = width
        self._rams = [DistributedRam(width, rows) for _ in range(2)]
        super().__init__(
            {
                "value": In(width),
                "carry_in": In(1),  # to the value two clocks ago
                "carry_out": Out(1),  # from the value three clocks ago
                **_control_members(rows),
                "read_row": In(range(rows)),
                "missing": In(1),  # 0 is read instead
                "read_data": Out(width),  # one clock later
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.add, m.submodules.read = add, read = self._rams
        values = [Signal(self._width, name=f"value_{k}", reset_less=True) for k in range(2)]
        operand = Signal(self._width, reset_less=True)
        total = Signal(self._width, reset_less=True)
        read_data = Signal(self._width, reset_less=True)
        # One adder: a place below the lowest carries if both of its bits are set.
        augend = Cat(1, Mux(self.near, total, operand))
        whole = augend + Cat(self.carry_in, values[1])
        m.d.sync += [
            values[0].eq(self.value),
            values[1].eq(values[0]),
            operand.eq(Mux(self.far, total, 0) | Mux(self.stored, add.read_data, 0)),
            Cat(total, self.carry_out).eq(whole[1:]),
            read_data.eq(Mux(self.missing, 0, read.read_data)),
        ]
        m.d.comb += [
            add.read_row.eq(self.row),
            read.read_row.eq(self.read_row),
            self.read_data.eq(read_data),
        ]
        for ram in self._rams:
            m.d.comb += [ram.write.eq(1), ram.write_row.eq(self.write_row), ram.write_data.eq(total)]
        return m


class _Sums(wiring.Component):
    """``sum[row] += value`` every clock, modulo 2**width, which log2_count makes exact.

    The upper half of the bits does all that the lower half does one clock later, with its carry: a chain over all of
    them would be twice as long, and so would be what each control has to reach.
    """

    LATENCY = 6
    """Clocks from a value to its sum at ``read_data``."""
    READ_LATENCY = 1
    """Clocks from ``read_row`` to ``read_data``."""

    def __init__(self, value_width: int, width: int, rows: int) -> None:
        self._width = width
        self._rows = rows
        super().__init__(
            {
                "value": In(signed(value_width)),
                **_control_members(rows),
                "read_row": In(range(rows)),
                "missing": In(1),
                "read_data": Out(width),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        low_width = (self._width + 1) // 2
        m.submodules.low = low = _Half(low_width, self._rows)
        m.submodules.high = high = _Half(self._width - low_width, self._rows)
        value = Signal(signed(self._width))
        m.d.comb += [
            value.eq(self.value),
            low.value.eq(value[:low_width]),
            high.carry_in.eq(low.carry_out),
            low.read_row.eq(self.read_row),
            high.read_row.eq(self.read_row),
            low.missing.eq(self.missing),
            high.missing.eq(self.missing),
            self.read_data.eq(Cat(low.read_data, high.read_data)),
        ]
        later = Signal(self._width - low_width, reset_less=True)
        m.d.sync += later.eq(value[low_width:])
        m.d.comb += high.value.eq(later)
        for name in _CONTROLS:
            control = getattr(self, name)
            later = Signal.like(control, name=f"{name}_later", reset_less=True)
            m.d.sync += later.eq(control)
            m.d.comb += [getattr(low, name).eq(control), getattr(high, name).eq(later)]
        return m


def _groups(terms: int) -> list[range]:
    """Neighbouring terms, whose words leave one after another, hear of their row from the same register.

    There are up to six such registers that differ: synthesis makes one of equal ones, so those of every other group
    count the rows from the other end (`_flipped`), and of either kind there are COPIES.
    """
    count = min(2 * COPIES, terms)
    return [range(g * terms // count, (g + 1) * terms // count) for g in range(count)]


def _flipped(group: int) -> int:
    """1 if the rows of this group count from the other end."""
    return group % 2


class IndexedAccumulate(wiring.Component):
    """``sum[index][term] = sum of value over all lanes and beats of a group with that index``, exact.

    Each beat brings one index per lane, and for every term a value per lane. A beat with ``last`` ends the group:
    its sums, that beat included, are streamed out on ``o`` as 64-bit signed words, index by index and in it term by
    term, while the next beat already starts from 0. No clock is lost between groups.

    A group that ends while the words of an earlier one are still being streamed out is dropped: ``overrun``
    pulses, the earlier words stay as they are, and the group after it is exact again. So every group ends
    either in its words or in one pulse of ``overrun``. Watch ``busy`` to avoid it.

    One adder per term and lane, whatever the number of indices: the sums lie in distributed RAM, those of two groups.
    Throughput one beat per clock. From the beat with ``last`` to the first word at ``o``: :attr:`latency`
    clocks; then a word per clock, with :attr:`pause` clocks between two indices.

    Parameters
    ----------
    terms : sequence of (str, int)
        Name and width of the signed value in bits.
    entries : int
        Indices: 2 to 8.
    lanes : int
        Values per term and beat. A lane outside the picture brings value 0.
    log2_count : int
        Each sum receives at most ``2**log2_count`` values in a group. It has ``value width + log2_count`` bits,
        at most ``width``.
    width : int
        Most bits of a sum, at most 64.

    Members
    -------
    i : In(Flow(StructLayout({"last": 1, "index": ArrayLayout(range(entries), lanes), name: ArrayLayout(signed(value
        width), lanes), ...})))
        **Contract of the user**: from the first beat after reset on every value is 0 in a clock without ``valid``.
        ``last`` counts only with ``valid``. What comes with an index beyond the entries is dropped.
    o : Out(stream.Signature(signed(64)))
    overrun : Out(1)
        Pulse: the group whose ``last`` came :attr:`overrun_latency` clocks ago was dropped.
    busy : Out(1)
        While low, a beat with ``last`` does not overrun. It rises in the clock after such a beat.

    Raises
    ------
    ValueError
        If there are no terms or lanes, entries are not 2 to 8, a name is not usable or not unique, or a value or
        the sums do not fit.
    """

    def __init__(
        self,
        terms: Sequence[tuple[str, int]],
        *,
        entries: int,
        lanes: int = 1,
        log2_count: int = 28,
        width: int = 64,
    ) -> None:
        terms = tuple(terms)
        check_terms(terms, reserved=("last", "index"), lanes=lanes, log2_count=log2_count, width=width)
        if not 2 <= entries <= 8:
            raise ValueError(f"{entries} entries cannot be indexed here; give 2 to 8")
        self._terms, self._entries, self._lanes = terms, entries, lanes
        # At least a bit in either half.
        self._widths = {name: max(2, min(width, value_width + log2_count)) for name, value_width in terms}
        self._levels = (lanes - 1).bit_length()
        self.overrun_latency = 1
        self.pause = _Sums.READ_LATENCY + self._levels + Serialise.latency
        self.latency = _Sums.LATENCY + self._levels + Serialise.latency - 1
        index = range(entries)
        fields: dict = {"last": 1, "index": data.ArrayLayout(index, lanes)}
        fields |= {name: data.ArrayLayout(signed(value_width), lanes) for name, value_width in terms}
        super().__init__(
            {
                "i": In(Flow(data.StructLayout(fields))),
                "o": Out(stream.Signature(signed(64))),
                "overrun": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        bits = (self._entries - 1).bit_length()
        beat = self.i.payload
        bank = Signal()  # of the group that is being summed; the other one is being read out, or free
        occupied = Signal()
        ends = Signal()
        begun = Signal()
        m.d.comb += ends.eq(self.i.valid & beat.last)
        accepted = ends & ~occupied
        # What stood in the pipeline at reset may add anything until the first beat: it leaves no trace.
        m.d.sync += [
            begun.eq(begun | self.i.valid),
            bank.eq(bank ^ accepted),
            self.overrun.eq(ends & occupied),
        ]

        entry = Signal(range(self._entries))  # whose words are read out
        row = Cat(entry, Const(0, bits - len(entry)), ~bank)
        drained_rows = [
            [enables(m, f"drained_{flip}_{k}", bit, COPIES) for k, bit in enumerate((row, ~row)[flip])]
            for flip in range(2)
        ]
        drained: dict[str, list] = {name: [] for name, _ in self._terms}
        for lane in range(self._lanes):
            index = beat.index[lane]
            # Rows without a value yet, of the group being summed and of the one being read out.
            empty = Signal(1 << bits, name=f"empty_{lane}", init=(1 << (1 << bits)) - 1)
            left_empty = Signal(1 << bits, name=f"left_empty_{lane}")
            after = empty & ~Cat(index == k for k in range(1 << bits))
            m.d.sync += empty.eq(Mux(ends | ~(begun | self.i.valid), Const(-1, signed(1 << bits)), after))
            with m.If(accepted):
                m.d.sync += left_empty.eq(after)
            missing = enables(m, f"missing_{lane}", left_empty.bit_select(entry, 1), len(self._terms))
            controls = self._controls(m, lane, Cat(index, bank), empty.bit_select(index, 1))
            groups = [g for g, terms in enumerate(_groups(len(self._terms))) for _ in terms]
            for t, (name, value_width) in enumerate(self._terms):
                g = groups[t]
                sums = _Sums(value_width, self._widths[name], 2 << bits)
                m.submodules[f"{name}_{lane}"] = sums
                m.d.comb += [
                    sums.value.eq(beat[name][lane]),
                    sums.read_row.eq(Cat(copies[g // 2] for copies in drained_rows[_flipped(g)])),
                    sums.missing.eq(missing[t]),
                    *(getattr(sums, port).eq(value) for port, value in controls[t].items()),
                ]
                drained[name].append(sums.read_data.as_signed())

        for name, _ in self._terms:
            for level in range(self._levels):
                pairs = [drained[name][k : k + 2] for k in range(0, len(drained[name]), 2)]
                registers = [
                    Signal(signed(self._widths[name]), name=f"{name}_sum{level}_{k}", reset_less=True)
                    for k in range(len(pairs))
                ]
                m.d.sync += [register.eq(sum(pair)) for register, pair in zip(registers, pairs, strict=True)]
                drained[name] = list(registers)
        self._read_out(m, accepted, occupied, entry, drained)
        return m

    def _controls(self, m: Module, lane: int, row: Value, first: Value) -> list[dict[str, Value]]:
        """What the sums of each term must know of a value's row, and of those before.

        Every term has hundreds of multiplexers and RAM cells, so the row is kept once for each group of terms, and
        each has registers of its own for what follows from it.
        """
        controls: list[dict[str, Value]] = [{} for _ in self._terms]
        began = Signal(name=f"began_{lane}")
        m.d.sync += began.eq(first)
        rows = (row, ~row)
        before_bits = [
            [enables(m, f"row_{lane}_{k}", bit, COPIES) for k, bit in enumerate(rows[flip])]
            for flip in range(2)
        ]
        for g, terms in enumerate(_groups(len(self._terms))):
            row = rows[_flipped(g)]
            before = Cat(copies[g // 2] for copies in before_bits[_flipped(g)])
            before_that = Signal(len(row), name=f"row_before_{lane}_{g}", reset_less=True)
            m.d.sync += before_that.eq(before)
            copies = {
                "stored": enables(m, f"stored_{lane}_{g}", ~first & (row != before_that), len(terms)),
                "far": enables(m, f"far_{lane}_{g}", ~first & (row == before_that), len(terms)),
                "near": enables(m, f"near_{lane}_{g}", ~began & (before == before_that), len(terms)),
            }
            write_bits = [
                enables(m, f"write_{lane}_{g}_{k}", bit, len(terms), inverts=False)
                for k, bit in enumerate(before_that)
            ]
            for n, t in enumerate(terms):
                controls[t] = {port: registers[n] for port, registers in copies.items()}
                controls[t] |= {"row": before, "write_row": Cat(registers[n] for registers in write_bits)}
        return controls

    def _read_out(
        self, m: Module, accepted: Value, occupied: Signal, entry: Signal, drained: dict[str, list]
    ) -> None:
        """Index by index its words go to ``o``."""
        wait = Signal(range(_Sums.LATENCY + self._levels))
        m.submodules.words = words = Serialise(self._widths)
        wiring.connect(m, words.o, wiring.flipped(self.o))
        m.d.comb += [self.busy.eq(occupied), words.start.eq(wait == 1)]
        for name, values in drained.items():
            m.d.comb += words.words[name].eq(values[0])
        with m.If(accepted):
            m.d.sync += [occupied.eq(1), entry.eq(0), wait.eq(_Sums.LATENCY - 1 + self._levels)]
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(words.ends):
            with m.If(entry == self._entries - 1):
                m.d.sync += occupied.eq(0)
            with m.Else():
                m.d.sync += [entry.eq(entry + 1), wait.eq(_Sums.READ_LATENCY + self._levels + 1)]
