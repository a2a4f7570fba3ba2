"""Layer normalisation of rows of codes, one element a clock, and its adjoint."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..numeric import SQ
from ..numeric.format import Format
from ..numeric.multiplier import Multiplier
from ..stream.delay import delayed
from ..stream.fifo import FlowFifo
from .build import RowBuild
from .cut import CUT_LATENCY, cut
from .function_table import VALUE, FunctionTable, Normalise
from .product import Product
from .row_buffer import RowBuffer, enter

__all__ = ["CODE", "LayerNorm", "LayerNormAdjoint", "correlation_format", "normalised_format"]

CODE = SQ(8, 0)
"""Codes in and out, and of cotangents."""

_EXPONENT = 5  # bits of half an exponent of a variance


def normalised_format(bits: int) -> Format:
    """Of a normalised element on the tape: of n elements none is above sqrt(n - 1)."""
    return SQ(max(6, 1 + -(-bits // 2)), 10)


def correlation_format(bits: int) -> Format:
    """18 bits for ``n mean(g xhat)`` and ``n g - sum g - xhat h`` of up to ``2**bits`` elements."""
    return SQ(9 + bits, 9 - bits)


class LayerNorm(wiring.Component):
    """``xhat_i = (x_i - mean x) / sqrt(var x + epsilon)`` along a row, var the mean square of what mean leaves.

    Both sides are multiplied by the number of elements n, and no division by it is left:
    ``xhat = (n x - sum x) / sqrt(n sum x^2 - (sum x)^2 + n^2 epsilon)``. With epsilon = 2**-q squared codes:

    ====  ==========================================  =============================================================
    step  value                                       format
    ====  ==========================================  =============================================================
    1     ``a = sum x``, ``b = sum x^2``              exact
    2     ``v = (n b - a^2) 2**q + n^2``              exact, at least 1
    3     ``v = m 4**k``, m in [1, 4)                 m cut to 16 fractional bits of its octave
    4     ``r = 1 / sqrt(m)``                         ``UQ(1, 16)``, by a table
    5     ``xhat = (n x - a) r 2**(q / 2 - k)``       exact, cut twice: a code of 8 bits and ``normalised``
    ====  ==========================================  =============================================================

    Gain and bias of a channel are no part of it: they belong into the product that follows, whose weights and bias take
    them. The wider value is for the tape, and so are ``factor`` = r and ``exponent`` = k of the row.

    One element a clock, for the reasons of :class:`~pullback.rtl.companion.softmax.Softmax`. T rows of n elements, one
    after the other, take ``T n + n - 1 + latency`` clocks from the first element taken to the last one offered, both
    counted. Rows of more than 512 elements take more multipliers, as ``n x - a`` and a are wider than one.

    Batch normalisation in training is this with a row for every channel: its values all over the batch.

    Parameters
    ----------
    build : RowBuild

    Members
    -------
    i : In(stream.Signature(StructLayout({"x": CODE, "fraction": 3, "last": 1})))
        ``fraction``, which counts with ``last``: fractional bits of the code that leaves.
    o : Out(stream.Signature(StructLayout({"code": CODE, "clipped": 1, "normalised": normalised_format(bits), "factor":
    VALUE, "exponent": 5, "last": 1})))
        ``clipped``: the code saturated.
    overlong : Out(1)
        A row was longer than ``longest`` and was cut in two. Stays until reset.

    Source: J. L. Ba, J. R. Kiros, G. E. Hinton, Layer Normalization, arXiv:1607.06450, equation 3.
    """

    # Clocks of squares and their sum.
    _summed = Multiplier.latency + 1

    def __init__(self, build: RowBuild) -> None:
        self._build, self._form = build, normalised_format(build.bits)
        bits, family = build.bits, build.family
        self._moment = Product(unsigned(15 + bits), unsigned(bits + 1), family)
        self._square = Product(signed(8 + bits), signed(8 + bits), family)
        self._multiplied = max(self._moment.latency, self._square.latency)
        self._quotient = Product(signed(9 + bits), VALUE.width, family)
        self._behind = Multiplier.latency + 1 + self._quotient.latency + CUT_LATENCY
        self._normalise = Normalise(2 * bits + 14 + build.epsilon)
        # Products of sums, their difference, n^2; table.
        varied = self._summed + self._multiplied + 2
        self._lag = varied + self._normalise.latency + FunctionTable.latency
        self._codes = RowBuffer(
            CODE.shape,
            data.StructLayout(
                {
                    "count": build.bits + 1,
                    "sum": signed(8 + build.bits),
                    "factor": VALUE.shape,
                    "exponent": _EXPONENT,
                    "fraction": 3,
                }
            ),
            longest=build.longest,
            in_flight=0,
            lag=self._lag,
            ram=build.ram,
        )
        o = data.StructLayout(
            {
                "code": CODE.shape,
                "clipped": 1,
                "normalised": self._form.shape,
                "factor": VALUE.shape,
                "exponent": _EXPONENT,
                "last": 1,
            }
        )
        self._out = FlowFifo(o, 2 * self._behind + 3, self._behind)
        self.latency = self._codes.latency + self._behind + self._out.latency
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"x": CODE.shape, "fraction": 3, "last": 1}))),
                "o": Out(stream.Signature(o)),
                "overlong": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.codes, m.submodules.out = self._codes, self._out
        self._statistic(m)
        self._normalised(m)
        wiring.connect(m, self._out.o, wiring.flipped(self.o))
        return m

    def _statistic(self, m: Module) -> None:
        """The row into its buffer, and steps 1 to 4."""
        codes, given, bits, family = self._codes, self.i.payload, self._build.bits, self._build.family
        takes, end = enter(m, self, codes, self._build.longest)
        m.submodules.square = square = Multiplier(CODE.shape, CODE.shape, family)
        m.d.comb += [
            codes.i.payload.element.eq(given.x),
            square.a.eq(given.x),
            square.b.eq(given.x),
        ]

        # 1. The square of n is the sum of the first n odd numbers.
        valid = delayed(m, "squared_valid", takes, Multiplier.latency, reset=True)
        first = delayed(m, "squared_first", end.first, Multiplier.latency)
        x = delayed(m, "squared_x", given.x, Multiplier.latency)
        number = delayed(m, "squared_number", end.number, Multiplier.latency)
        count = Signal(bits + 1, reset_less=True)
        count_square = Signal(2 * bits + 1, reset_less=True)
        total = Signal(signed(8 + bits), reset_less=True)
        squares = Signal(15 + bits, reset_less=True)
        with m.If(valid):
            m.d.sync += [
                count.eq(number),
                count_square.eq(Mux(first, 1, count_square + 2 * number - 1)),
                total.eq(Mux(first, 0, total) + x),
                squares.eq(Mux(first, 0, squares) + square.p),
            ]

        # 2.
        m.submodules.moment, m.submodules.total_square = moment, total_square = self._moment, self._square
        m.d.comb += [
            moment.a.eq(squares),
            moment.b.eq(count),
            total_square.a.eq(total),
            total_square.b.eq(total),
        ]
        variance = Signal(14 + 2 * bits, reset_less=True)
        raised = Signal(14 + 2 * bits + self._build.epsilon, reset_less=True)
        minuend = delayed(m, "minuend", moment.p, self._multiplied - moment.latency)
        subtrahend = delayed(m, "subtrahend", total_square.p, self._multiplied - total_square.latency)
        m.d.sync += [
            variance.eq(minuend - subtrahend),
            raised.eq(
                Cat(Const(0, self._build.epsilon), variance)
                + delayed(m, "count_square", count_square, self._multiplied + 1)
            ),
        ]

        # 3, 4. Of an odd exponent the mantissa is in the table's second octave.
        m.submodules.normalise = normalise = self._normalise
        m.submodules.root = root = FunctionTable("reciprocal_root", family=family)
        known = self._lag - self._summed
        statistic = codes.statistic
        m.d.comb += [
            normalise.i.eq(raised),
            root.i.eq(Cat(normalise.fraction, normalise.exponent[0])),
            statistic.valid.eq(delayed(m, "ended", takes & end.last, self._lag, reset=True)),
            statistic.payload.fraction.eq(delayed(m, "fraction", given.fraction, self._lag)),
            statistic.payload.count.eq(delayed(m, "count", count, known)),
            statistic.payload.sum.eq(delayed(m, "sum", total, known)),
            statistic.payload.factor.eq(root.o),
            statistic.payload.exponent.eq(
                delayed(m, "exponent", normalise.exponent[1:], FunctionTable.latency)
            ),
        ]

    def _normalised(self, m: Module) -> None:
        """Step 5."""
        taken, out, bits, family = self._codes.o, self._out, self._build.bits, self._build.family
        row = taken.payload.statistic
        m.d.comb += taken.ready.eq(out.room)
        m.submodules.scaled = scaled = Multiplier(bits + 1, CODE.shape, family)
        distance = Signal(signed(9 + bits), reset_less=True)
        m.submodules.quotient = quotient = self._quotient
        before = Multiplier.latency + 1
        m.d.comb += [
            scaled.a.eq(row.count),
            scaled.b.eq(taken.payload.element),
            quotient.a.eq(distance),
            quotient.b.eq(delayed(m, "root", row.factor, before)),
        ]
        m.d.sync += distance.eq(scaled.p - delayed(m, "total", row.sum, Multiplier.latency))
        # The quotient has 16 + k - q / 2 fractional bits.
        less = VALUE.f - self._build.epsilon // 2
        clocks = before + quotient.latency
        code, clipped = cut(
            m,
            "code_cut",
            quotient.p,
            delayed(m, "below_code", (row.exponent + less - row.fraction)[:6], clocks),
            CODE,
        )
        normalised, _ = cut(
            m,
            "normalised_cut",
            quotient.p,
            delayed(m, "below_normalised", (row.exponent + (less - self._form.f))[:6], clocks),
            self._form,
        )
        m.d.comb += [
            out.i.valid.eq(delayed(m, "valid", taken.valid & taken.ready, self._behind, reset=True)),
            out.i.payload.code.eq(code),
            out.i.payload.clipped.eq(clipped),
            out.i.payload.normalised.eq(normalised),
            out.i.payload.factor.eq(delayed(m, "factor", row.factor, self._behind)),
            out.i.payload.exponent.eq(delayed(m, "exponent_out", row.exponent, self._behind)),
            out.i.payload.last.eq(delayed(m, "last", taken.payload.last, self._behind)),
        ]


class LayerNormAdjoint(wiring.Component):
    """``xbar_i = (n g_i - sum g - xhat_i sum g xhat) / sqrt(n sum x^2 - (sum x)^2 + n^2 epsilon)`` along a row.

    g is the cotangent of xhat, 0 where its code had clipped; xhat, r and k come off the tape, q as in the forward, and
    b is :attr:`RowBuild.bits`:

    ====  ==========================================  =============================================================
    step  value                                       format
    ====  ==========================================  =============================================================
    1     ``s = sum g``, ``h = cut(sum g xhat)``      exact; ``SQ(9 + b, 9 - b)``
    2     ``z = cut(n g - s - xhat h)``               ``SQ(9 + b, 9 - b)``
    3     ``xbar = cut(2**scale z r 2**(q / 2 - k))``  ``SQ(8, 0)``
    ====  ==========================================  =============================================================

    An element is marked as clipped where one of the three cuts saturates. T rows of n elements, one after the other,
    take ``T n + n - 1 + latency`` clocks from the first element taken to the last one offered, both counted.

    Parameters
    ----------
    build : RowBuild
        That of the forward.

    Members
    -------
    i : In(stream.Signature(StructLayout({"normalised": normalised_format(bits), "clipped": 1, "cotangent": CODE,
    "factor": VALUE, "exponent": 5, "scale": 3, "last": 1})))
        ``factor``, ``exponent`` and ``scale`` count with ``last``. ``scale``: fractional bits that ``xbar`` has more
        than ``g``, x in units of its code.
    o : Out(stream.Signature(StructLayout({"cotangent": CODE, "clipped": 1, "last": 1})))
    overlong : Out(1)
        As in :class:`LayerNorm`.
    """

    _lag = Multiplier.latency + 1 + CUT_LATENCY
    _behind = 2 * Multiplier.latency + 2 + 2 * CUT_LATENCY

    def __init__(self, build: RowBuild) -> None:
        self._build, self._form = build, normalised_format(build.bits)
        self._correlation = correlation_format(build.bits)
        known = {"factor": VALUE.shape, "exponent": _EXPONENT, "scale": 3}
        self._pairs = RowBuffer(
            data.StructLayout({"normalised": self._form.shape, "cotangent": CODE.shape}),
            data.StructLayout(
                {
                    "count": build.bits + 1,
                    "sum": signed(8 + build.bits),
                    "correlation": self._correlation.shape,
                    "clipped": 1,
                    **known,
                }
            ),
            longest=build.longest,
            in_flight=0,
            lag=self._lag,
            ram=build.ram,
        )
        o = data.StructLayout({"cotangent": CODE.shape, "clipped": 1, "last": 1})
        self._out = FlowFifo(o, 2 * self._behind + 3, self._behind)
        self.latency = self._pairs.latency + self._behind + self._out.latency
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "normalised": self._form.shape,
                                "clipped": 1,
                                "cotangent": CODE.shape,
                                **known,
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
        self._statistic(m)
        self._projected(m)
        wiring.connect(m, self._out.o, wiring.flipped(self.o))
        return m

    def _statistic(self, m: Module) -> None:
        """The row into its buffer, and step 1."""
        pairs, given, bits = self._pairs, self.i.payload, self._build.bits
        takes, end = enter(m, self, pairs, self._build.longest)
        cotangent = Signal(CODE.shape)
        m.d.comb += cotangent.eq(Mux(given.clipped, 0, given.cotangent))
        m.submodules.weigh = product = Multiplier(self._form.shape, CODE.shape, self._build.family)
        valid = delayed(m, "weighed_valid", takes, Multiplier.latency, reset=True)
        first = delayed(m, "weighed_first", end.first, Multiplier.latency)
        g = delayed(m, "weighed_cotangent", cotangent, Multiplier.latency)
        number = delayed(m, "weighed_number", end.number, Multiplier.latency)
        count = Signal(bits + 1, reset_less=True)
        total = Signal(signed(8 + bits), reset_less=True)
        weighed = Signal(signed(len(product.p) + bits), reset_less=True)
        with m.If(valid):
            m.d.sync += [
                count.eq(number),
                total.eq(Mux(first, 0, total) + g),
                weighed.eq(Mux(first, 0, weighed) + product.p),
            ]
        to = self._correlation
        correlation, clipped = cut(m, "correlation_cut", weighed, self._form.f - to.f, to)
        statistic = pairs.statistic
        m.d.comb += [
            pairs.i.payload.element.normalised.eq(given.normalised),
            pairs.i.payload.element.cotangent.eq(cotangent),
            product.a.eq(given.normalised),
            product.b.eq(cotangent),
            statistic.valid.eq(delayed(m, "ended", takes & end.last, self._lag, reset=True)),
            statistic.payload.count.eq(delayed(m, "count", count, CUT_LATENCY)),
            statistic.payload.sum.eq(delayed(m, "sum", total, CUT_LATENCY)),
            statistic.payload.correlation.eq(correlation),
            statistic.payload.clipped.eq(clipped),
            statistic.payload.factor.eq(delayed(m, "factor", given.factor, self._lag)),
            statistic.payload.exponent.eq(delayed(m, "exponent", given.exponent, self._lag)),
            statistic.payload.scale.eq(delayed(m, "scale", given.scale, self._lag)),
        ]

    def _projected(self, m: Module) -> None:
        """Steps 2 and 3."""
        taken, out, bits, family = self._pairs.o, self._out, self._build.bits, self._build.family
        element, row, to = taken.payload.element, taken.payload.statistic, self._correlation
        m.d.comb += taken.ready.eq(out.room)
        m.submodules.scaled = scaled = Multiplier(bits + 1, CODE.shape, family)
        m.submodules.along = along = Multiplier(self._form.shape, to.shape, family)
        m.d.comb += [
            scaled.a.eq(row.count),
            scaled.b.eq(element.cotangent),
            along.a.eq(element.normalised),
            along.b.eq(row.correlation),
        ]
        distance = Signal(signed(9 + bits), reset_less=True)
        fraction = self._form.f + to.f
        projected = Signal(signed(len(along.p) + 1), reset_less=True)
        m.d.sync += [
            distance.eq(scaled.p - delayed(m, "total", row.sum, Multiplier.latency)),
            projected.eq(Cat(Const(0, fraction), distance).as_signed() - delayed(m, "along", along.p, 1)),
        ]
        z, z_clipped = cut(m, "projected_cut", projected, fraction - to.f, to)
        before = Multiplier.latency + 2 + CUT_LATENCY
        m.submodules.quotient = quotient = Multiplier(to.shape, VALUE.width, family)
        m.d.comb += [quotient.a.eq(z), quotient.b.eq(delayed(m, "root", row.factor, before))]
        less = to.f + VALUE.f - self._build.epsilon // 2
        below = delayed(m, "below", (row.exponent + less - row.scale)[:6], before + Multiplier.latency)
        xbar, xbar_clipped = cut(m, "cotangent_cut", quotient.p, below, CODE)
        clipped = delayed(m, "z_clipped", z_clipped, Multiplier.latency + CUT_LATENCY)
        m.d.comb += [
            out.i.valid.eq(delayed(m, "valid", taken.valid & taken.ready, self._behind, reset=True)),
            out.i.payload.cotangent.eq(xbar),
            out.i.payload.clipped.eq(
                xbar_clipped | clipped | delayed(m, "h_clipped", row.clipped, self._behind)
            ),
            out.i.payload.last.eq(delayed(m, "last", taken.payload.last, self._behind)),
        ]
