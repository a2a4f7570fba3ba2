"""Exact sums over a group of frames: parameter cotangents, losses, counters."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .enable import enables
from .pixel import Flow
from .serialise import Serialise

__all__ = ["Accumulate", "check_terms"]


def check_terms(
    terms: tuple[tuple[str, int], ...], *, reserved: tuple[str, ...], lanes: int, log2_count: int, width: int
) -> None:
    """Raises ``ValueError`` for sums that cannot be made: what :class:`Accumulate` lists."""
    names = [name for name, _ in terms]
    if not terms:
        raise ValueError("no terms; give at least one (name, value width)")
    if lanes < 1:
        raise ValueError(f"lanes {lanes} is too few; give at least 1")
    if not 1 <= width <= 64:
        raise ValueError(f"width {width} does not fit a 64-bit word; give 1 to 64")
    if log2_count < 0:
        raise ValueError(f"log2_count {log2_count} is negative; give the logarithm of the values per group")
    for name, value_width in terms:
        if name in reserved or not name.isidentifier() or names.count(name) > 1:
            raise ValueError(f"term name {name!r} is taken or no identifier; terms are {', '.join(names)}")
        if not 1 <= value_width <= width:
            raise ValueError(f"term {name} has values of {value_width} bits; give 1 to {width}")


class Accumulate(wiring.Component):
    """``sum[term] = sum of value over all lanes and beats of a group``, exact.

    A beat with ``last`` ends the group: its sums, that beat included, are set aside and streamed out on ``o`` as
    64-bit signed words, term by term, while the next beat already starts from 0. No clock is lost between groups.

    A group that ends while the words of an earlier one are still being streamed out is dropped: ``overrun``
    pulses, the earlier words stay as they are, and the group after it is exact again. So every group ends
    either in its words or in one pulse of ``overrun``. Watch ``busy`` to avoid it.

    Throughput one beat per clock. From the beat with ``last`` to the first word at ``o``: :attr:`latency`
    clocks; then one word per clock.

    Parameters
    ----------
    terms : sequence of (str, int)
        Name and width of the signed value in bits. Every term is an accumulator in registers: sums chosen by an
        index belong into ``IndexedAccumulate`` or, for a table, ``ScatterAdd``.
    lanes : int
        Values per term and beat. A lane outside the picture brings value 0.
    log2_count : int
        Each sum receives at most ``2**log2_count`` values in a group. An accumulator has
        ``value width + log2_count`` bits, at most ``width``.
    width : int
        Most bits of an accumulator, at most 64.
    masks : bool
        False promises that from the first beat after reset on every value is 0 in a clock without ``valid``. Then
        ``valid`` need not reach every bit of every value.

    Members
    -------
    i : In(Flow(StructLayout({"last": 1, name: ArrayLayout(signed(value width), lanes), ...})))
        ``last`` counts only with ``valid``.
    o : Out(stream.Signature(signed(64)))
    overrun : Out(1)
        Pulse: the group whose ``last`` came :attr:`overrun_latency` clocks ago was dropped.
    busy : Out(1)
        While low, a beat with ``last`` does not overrun. It rises in the clock after such a beat.

    Raises
    ------
    ValueError
        If there are no terms or lanes, a name is not usable or not unique, or a value or the accumulators do not
        fit.
    """

    def __init__(
        self,
        terms: Sequence[tuple[str, int]],
        *,
        lanes: int = 1,
        log2_count: int = 28,
        width: int = 64,
        masks: bool = True,
    ) -> None:
        terms = tuple(terms)
        check_terms(terms, reserved=("last",), lanes=lanes, log2_count=log2_count, width=width)
        self._terms = terms
        self._masks = masks
        self._lanes = lanes
        self._widths = {name: min(width, value_width + log2_count) for name, value_width in terms}
        self._levels = (lanes - 1).bit_length()
        self.overrun_latency = 2 + self._levels
        self.latency = 1 + self._levels + Serialise.latency
        fields: dict = {"last": 1}
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
        # Stage 0 are the masked values, each level of sums is one more.
        valids = Signal(1 + self._levels)
        lasts = Signal(1 + self._levels)
        m.d.sync += [
            valids.eq(Cat(self.i.valid, valids[:-1])),
            lasts.eq(Cat(self.i.valid & self.i.payload.last, lasts[:-1])),
        ]
        sums = {}
        for name, value_width in self._terms:
            row = []
            for lane, value in enumerate(self.i.payload[name]):
                masked = Signal(signed(value_width), name=f"{name}_{lane}", reset_less=True)
                m.d.sync += masked.eq(Mux(self.i.valid, value, 0) if self._masks else value)
                row.append(masked)
            for level in range(self._levels):
                pairs = [row[k : k + 2] for k in range(0, len(row), 2)]
                row = [
                    Signal(signed(value_width + level + 1), name=f"{name}_sum{level}_{k}", reset_less=True)
                    for k in range(len(pairs))
                ]
                m.d.sync += [total.eq(sum(pair)) for total, pair in zip(row, pairs, strict=True)]
            sums[name] = row[0]

        # The accumulators hold what the next group's first value must not join: the group before, or what stood in
        # the pipeline at reset.
        waits = Signal(init=1)
        restart = Signal()
        m.d.comb += restart.eq(lasts[-1] | (waits & ~valids[-1]))
        m.d.sync += waits.eq(restart)
        restarts = enables(m, "restart", restart, len(sums))
        accumulators = {}
        for (name, total), restart in zip(sums.items(), restarts, strict=True):
            # Modulo 2**bits, which log2_count makes exact.
            accumulator = Signal(signed(self._widths[name]), name=f"{name}_accumulator", reset_less=True)
            m.d.sync += accumulator.eq(Mux(restart, 0, accumulator) + total)
            accumulators[name] = accumulator

        m.submodules.words = words = Serialise(self._widths)
        wiring.connect(m, words.o, wiring.flipped(self.o))
        m.d.comb += [
            words.start.eq(lasts[-1] & ~words.busy),  # a clock before the accumulators hold the group
            self.busy.eq(lasts.any() | words.busy),
        ]
        for name, accumulator in accumulators.items():
            m.d.comb += words.words[name].eq(accumulator)
        m.d.sync += self.overrun.eq(lasts[-1] & words.busy)
        return m
