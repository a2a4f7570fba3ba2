"""Softmax of rows of codes, one element a clock, and its adjoint."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..numeric import SQ, UQ
from ..numeric.multiplier import Multiplier
from ..stream.delay import delayed
from ..stream.fifo import FlowFifo
from .build import RowBuild
from .cut import CUT_LATENCY, cut
from .function_table import FRACTION, LOG2_E, VALUE, FunctionTable, Normalise
from .row_buffer import RowBuffer, enter

__all__ = ["CODE", "COTANGENT", "MEAN", "POWER", "PROBABILITY", "Softmax", "SoftmaxAdjoint"]

CODE = SQ(1, 7)
"""Of a probability that an array multiplies."""

PROBABILITY = UQ(0, 16)
"""Of one on the tape."""

POWER = UQ(5, 16)
"""Of ``t`` in ``exp(x - most) = 2**-t``."""

COTANGENT = SQ(8, 0)
"""Codes of cotangents, in and out."""

MEAN = SQ(8, 9)
"""Of the mean cotangent ``sum p g``, in units of a cotangent's code."""


_MOST = 1024  # elements; the sum of so many exponentials has its whole bits in four


def _check(build: RowBuild) -> None:
    if build.longest > _MOST:
        raise ValueError(f"longest={build.longest}; a softmax takes rows of 1 to {_MOST} elements")


class Softmax(wiring.Component):
    """``y_i = exp(x_i - max x) / sum_j exp(x_j - max x)`` along a row.

    ====  ==========================================  =============================================================
    step  value                                       format
    ====  ==========================================  =============================================================
    1     ``d = max x - x``                           exact, 8 bits
    2     ``t = cut(d LOG2_E 2**-fraction)``          ``UQ(5, 16)``; at 2**5 - 2**-16 it saturates, e is 0 there
    3     ``e = cut(2**-frac(t) 2**-floor(t))``       ``UQ(1, 16)``, 2**-frac(t) by a table
    4     ``s = sum e``                               exact, at least 1
    5     ``s = m 2**k``, ``r = 1 / m``               ``UQ(1, 16)``, m - 1 cut to ``UQ(0, 16)``, 1 / m by a table
    6     ``p = e r 2**-k``                           exact, cut twice: ``SQ(1, 7)`` and ``UQ(0, 16)``
    ====  ==========================================  =============================================================

    Codes are signed, so that an array multiplies them like any others: 1 becomes 127/128. The wider probability is for
    the tape. Two buffers hold a row each, the first until its largest element is known, the second until its sum is.

    One element a clock, as many rows are independent and one row's work is one multiplier of each kind: put several
    side by side for more. T rows of n elements, one after the other, take ``T n + 2 (n - 1) + latency`` clocks from the
    first element taken to the last one offered, both counted.

    Parameters
    ----------
    build : RowBuild

    Members
    -------
    i : In(stream.Signature(StructLayout({"x": signed(8), "fraction": 4, "last": 1})))
        ``x`` has ``fraction`` fractional bits, which counts with ``last``.
    o : Out(stream.Signature(StructLayout({"code": CODE, "probability": PROBABILITY, "last": 1})))
    overlong : Out(1)
        A row was longer than ``longest`` and was cut in two. Stays until reset.

    Raises
    ------
    ValueError
        If ``longest`` is above 1024.

    Source: J.-M. Muller, Elementary Functions: Algorithms and Implementation, on additive range reduction (steps 2, 3).
    """

    # Clocks of: distance and product; t; table; shifted.
    _ahead = 1 + Multiplier.latency + CUT_LATENCY + FunctionTable.latency + CUT_LATENCY
    _behind = Multiplier.latency + CUT_LATENCY

    def __init__(self, build: RowBuild) -> None:
        _check(build)
        self._build = build
        self._total = VALUE.width + build.bits
        self._normalise = Normalise(self._total)
        known = {"longest": build.longest, "ram": build.ram}
        self._codes = RowBuffer(
            signed(8), data.StructLayout({"most": signed(8), "fraction": 4}), in_flight=0, lag=3, **known
        )
        self._exponentials = RowBuffer(
            unsigned(VALUE.width),
            data.StructLayout({"factor": VALUE.width, "shift": 4}),
            in_flight=self._ahead,
            lag=1 + self._normalise.latency + FunctionTable.latency,
            **known,
        )
        o = data.StructLayout({"code": CODE.shape, "probability": PROBABILITY.shape, "last": 1})
        self._out = FlowFifo(o, 2 * self._behind + 3, self._behind)
        self.latency = (
            self._codes.latency + self._ahead + self._exponentials.latency + self._behind + self._out.latency
        )
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"x": signed(8), "fraction": 4, "last": 1}))),
                "o": Out(stream.Signature(o)),
                "overlong": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.codes, m.submodules.exponentials, m.submodules.out = (
            self._codes,
            self._exponentials,
            self._out,
        )
        self._largest(m)
        self._exponential(m)
        self._sum(m)
        self._quotient(m)
        wiring.connect(m, self._out.o, wiring.flipped(self.o))
        return m

    def _largest(self, m: Module) -> None:
        """The row into its buffer, and the largest element after it."""
        codes, given = self._codes, self.i.payload
        takes, end = enter(m, self, codes, self._build.longest)
        most = Signal(signed(8), reset_less=True)
        with m.If(takes & (end.first | (given.x > most))):
            m.d.sync += most.eq(given.x)
        statistic = codes.statistic.payload
        m.d.comb += [
            codes.i.payload.element.eq(given.x),
            codes.statistic.valid.eq(delayed(m, "ended", takes & end.last, 3, reset=True)),
            statistic.most.eq(delayed(m, "largest", most, 2)),
            statistic.fraction.eq(delayed(m, "fraction", given.fraction, 3)),
        ]

    def _exponential(self, m: Module) -> None:
        """Steps 1 to 3."""
        family = self._build.family
        taken, into = self._codes.o, self._exponentials
        row = taken.payload.statistic
        m.d.comb += taken.ready.eq(into.room)
        distance = Signal(8, reset_less=True)
        m.d.sync += distance.eq(row.most - taken.payload.element)
        m.submodules.power = product = Multiplier(8, VALUE.width, family)
        m.d.comb += [product.a.eq(distance), product.b.eq(LOG2_E)]
        fraction = delayed(m, "power_fraction", row.fraction, 1 + Multiplier.latency)
        t, _ = cut(m, "power_cut", product.p, fraction, POWER)
        m.submodules.table = table = FunctionTable("power", family=family)
        m.d.comb += table.i.eq(t[: FRACTION.width])
        # Of a value shifted by more than its width nothing is left.
        whole = delayed(m, "whole", t[FRACTION.width :], FunctionTable.latency)
        shift = Mux(whole > VALUE.width + 1, VALUE.width + 1, whole)
        e, _ = cut(m, "exponential_cut", table.o, shift, VALUE)
        m.d.comb += [
            into.i.valid.eq(
                delayed(m, "exponential_valid", taken.valid & taken.ready, self._ahead, reset=True)
            ),
            into.i.payload.element.eq(e),
            into.i.payload.last.eq(delayed(m, "exponential_last", taken.payload.last, self._ahead)),
        ]

    def _sum(self, m: Module) -> None:
        """Steps 4 and 5."""
        beat, statistic = self._exponentials.i, self._exponentials.statistic
        first = Signal(init=1)
        total = Signal(self._total, reset_less=True)
        with m.If(beat.valid):
            m.d.sync += [
                first.eq(beat.payload.last),
                total.eq(Mux(first, 0, total) + beat.payload.element),
            ]
        m.submodules.normalise = normalise = self._normalise
        m.submodules.reciprocal = reciprocal = FunctionTable("reciprocal", family=self._build.family)
        clocks = 1 + normalise.latency + FunctionTable.latency
        m.d.comb += [
            normalise.i.eq(total),
            reciprocal.i.eq(normalise.fraction),
            statistic.valid.eq(delayed(m, "summed", beat.valid & beat.payload.last, clocks, reset=True)),
            statistic.payload.factor.eq(reciprocal.o),
            statistic.payload.shift.eq(
                delayed(m, "shift", (normalise.exponent - VALUE.f)[:4], FunctionTable.latency)
            ),
        ]

    def _quotient(self, m: Module) -> None:
        """Step 6."""
        taken, out = self._exponentials.o, self._out
        row = taken.payload.statistic
        m.d.comb += taken.ready.eq(out.room)
        m.submodules.quotient = product = Multiplier(VALUE.width, VALUE.width, self._build.family)
        m.d.comb += [product.a.eq(taken.payload.element), product.b.eq(row.factor)]
        # A probability has 2 VALUE.f + k fractional bits.
        below = [
            delayed(m, f"below_{to.f}", (row.shift + (2 * VALUE.f - to.f))[:6], Multiplier.latency)
            for to in (CODE, PROBABILITY)
        ]
        code, _ = cut(m, "code_cut", product.p, below[0], CODE)
        probability, _ = cut(m, "probability_cut", product.p, below[1], PROBABILITY)
        m.d.comb += [
            out.i.valid.eq(delayed(m, "quotient_valid", taken.valid & taken.ready, self._behind, reset=True)),
            out.i.payload.code.eq(code),
            out.i.payload.probability.eq(probability),
            out.i.payload.last.eq(delayed(m, "quotient_last", taken.payload.last, self._behind)),
        ]


class SoftmaxAdjoint(wiring.Component):
    """``xbar_i = p_i (g_i - sum_j p_j g_j)`` along a row, g the cotangent of the softmax, p its value off the tape.

    ====  ==========================================  =============================================================
    step  value                                       format
    ====  ==========================================  =============================================================
    1     ``mean = cut(sum p g)``                     ``SQ(8, 9)``, the sum exact
    2     ``z = p (g - mean)``                        exact, 25 fractional bits
    3     ``xbar = cut(2**scale z)``                  ``SQ(8, 0)``
    ====  ==========================================  =============================================================

    The forward's cut to codes has derivative 1, where it saturates as well (``identity``): a probability of 1 misses
    its code by one. Saturation of ``mean`` means that p is no softmax; then the elements of the row are marked as
    clipped, as is one whose cotangent saturates.

    T rows of n elements, one after the other, take ``T n + n - 1 + latency`` clocks from the first element taken to the
    last one offered, both counted.

    Parameters
    ----------
    build : RowBuild

    Members
    -------
    i : In(stream.Signature(StructLayout({"probability": PROBABILITY, "cotangent": COTANGENT, "scale": 4, "last": 1})))
        ``scale``, which counts with ``last``: fractional bits that ``xbar`` has more than ``g``.
    o : Out(stream.Signature(StructLayout({"cotangent": COTANGENT, "clipped": 1, "last": 1})))
    overlong : Out(1)
        As in :class:`Softmax`.
    """

    _lag = Multiplier.latency + 1 + CUT_LATENCY
    _behind = 1 + Multiplier.latency + CUT_LATENCY

    def __init__(self, build: RowBuild) -> None:
        _check(build)
        self._build = build
        element = data.StructLayout({"probability": PROBABILITY.shape, "cotangent": COTANGENT.shape})
        self._pairs = RowBuffer(
            element,
            data.StructLayout({"mean": MEAN.shape, "clipped": 1, "scale": 4}),
            longest=build.longest,
            in_flight=0,
            lag=self._lag,
            ram=build.ram,
        )
        o = data.StructLayout({"cotangent": COTANGENT.shape, "clipped": 1, "last": 1})
        self._out = FlowFifo(o, 2 * self._behind + 3, self._behind)
        self.latency = self._pairs.latency + self._behind + self._out.latency
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "probability": PROBABILITY.shape,
                                "cotangent": COTANGENT.shape,
                                "scale": 4,
                                "last": 1,
                            }
                        )
                    )
                ),
                "o": Out(stream.Signature(o)),
                "overlong": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.pairs, m.submodules.out = self._pairs, self._out
        self._mean(m)
        self._difference(m)
        wiring.connect(m, self._out.o, wiring.flipped(self.o))
        return m

    def _mean(self, m: Module) -> None:
        """The row into its buffer, and step 1."""
        pairs, given = self._pairs, self.i.payload
        takes, end = enter(m, self, pairs, self._build.longest)
        m.submodules.weigh = product = Multiplier(PROBABILITY.shape, COTANGENT.shape, self._build.family)
        total = Signal(signed(len(product.p) + self._build.bits), reset_less=True)
        valid = delayed(m, "weighed_valid", takes, Multiplier.latency, reset=True)
        first = delayed(m, "weighed_first", end.first, Multiplier.latency)
        with m.If(valid):
            m.d.sync += total.eq(Mux(first, 0, total) + product.p)
        mean, clipped = cut(m, "mean_cut", total, PROBABILITY.f - MEAN.f, MEAN)
        statistic = pairs.statistic
        m.d.comb += [
            pairs.i.payload.element.probability.eq(given.probability),
            pairs.i.payload.element.cotangent.eq(given.cotangent),
            product.a.eq(given.probability),
            product.b.eq(given.cotangent),
            statistic.valid.eq(delayed(m, "ended", takes & end.last, self._lag, reset=True)),
            statistic.payload.mean.eq(mean),
            statistic.payload.clipped.eq(clipped),
            statistic.payload.scale.eq(delayed(m, "scale", given.scale, self._lag)),
        ]

    def _difference(self, m: Module) -> None:
        """Steps 2 and 3."""
        taken, out = self._pairs.o, self._out
        element, row = taken.payload.element, taken.payload.statistic
        m.d.comb += taken.ready.eq(out.room)
        difference = Signal(signed(MEAN.width + 1), reset_less=True)
        m.d.sync += difference.eq(Cat(Const(0, MEAN.f), element.cotangent).as_signed() - row.mean)
        m.submodules.multiplier = product = Multiplier(
            difference.shape(), PROBABILITY.shape, self._build.family
        )
        m.d.comb += [
            product.a.eq(difference),
            product.b.eq(delayed(m, "probability", element.probability, 1)),
        ]
        below = delayed(m, "below", (PROBABILITY.f + MEAN.f - row.scale)[:5], 1 + Multiplier.latency)
        xbar, clipped = cut(m, "cotangent_cut", product.p, below, COTANGENT)
        m.d.comb += [
            out.i.valid.eq(delayed(m, "valid", taken.valid & taken.ready, self._behind, reset=True)),
            out.i.payload.cotangent.eq(xbar),
            out.i.payload.clipped.eq(clipped | delayed(m, "mean_clipped", row.clipped, self._behind)),
            out.i.payload.last.eq(delayed(m, "last", taken.payload.last, self._behind)),
        ]
