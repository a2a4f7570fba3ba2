"""Sums to codes and activations, and their adjoint, one row of results a clock."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed

__all__ = ["BRANCH", "Requantise", "settings"]

BRANCH = data.StructLayout({"passes": 1, "upper": 1})
"""What the forward did with a sum: ``passes``: the derivative is not zero; ``upper``: the sum was positive."""


def settings(total: int, code: int) -> data.StructLayout:
    """How sums of ``total`` bits become codes of ``code`` bits.

    ``shift``: bits that a sum loses; ``leak``: bits that one loses besides if it is not positive; ``relu``: such a one
    gives 0; ``top``: largest code.
    """
    amount = range(total)
    return data.StructLayout(
        {"shift": Shape.cast(amount), "leak": Shape.cast(amount), "relu": 1, "top": signed(code)}
    )


class Requantise(wiring.Component):
    """``y = min(max(floor(d s 2**-shift + 1/2), lo), top)``, d = 1, ``2**-leak`` or 0 by the branch of s.

    Forward, the branch is that of the sum: upper where ``s > 0``, else lower, which gives 0 if ``relu``; it leaves as
    ``branch_o`` with ``passes`` low where the derivative is zero, that is where y clips and on the lower branch of a
    ReLU. Backward (``adjoint``), the branch is the one that comes in at ``branch_i``, and what does not pass gives 0.
    One rounding, half up, and one saturation in either direction; where ``shift + leak`` is the width of a sum or more
    it gives 0, as the equation does.

    Latency 4, a row a clock, no stall and no reset: what enters invalid leaves invalid. Settings may change with every
    row.

    Parameters
    ----------
    lanes : int
        Sums in a row.
    total : int
        Bits of a sum, signed.
    code : int
        Bits of a code, signed.

    Members
    -------
    how : In(settings(total, code))
    adjoint : In(1)
    sums : In(ArrayLayout(signed(total), lanes))
    branch_i, branch_o : In, Out(ArrayLayout(BRANCH, lanes))
    codes : Out(ArrayLayout(signed(code), lanes))
    clipped : Out(1)
        A sum of the row saturated.

    Raises
    ------
    ValueError
        If a code is not narrower than a sum, or there is no lane.
    """

    latency = 4

    def __init__(self, lanes: int, total: int, code: int) -> None:
        if lanes < 1:
            raise ValueError(f"lanes={lanes}; give at least 1")
        if not 2 <= code < total:
            raise ValueError(f"code={code} bits of a sum of {total}; give 2 to {total - 1}")
        self._lanes, self._total, self._code = lanes, total, code
        super().__init__(
            {
                "how": In(settings(total, code)),
                "adjoint": In(1),
                "sums": In(data.ArrayLayout(signed(total), lanes)),
                "branch_i": In(data.ArrayLayout(BRANCH, lanes)),
                "branch_o": Out(data.ArrayLayout(BRANCH, lanes)),
                "codes": Out(data.ArrayLayout(signed(code), lanes)),
                "clipped": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        how = self.how
        # Both amounts are there before any lane chooses. Of a sum shifted by its width nothing is left, nor by more.
        amount = range(self._total + 1)
        both = Signal(range(2 * self._total))
        upper, lower = Signal(amount), Signal(amount)
        m.d.comb += [both.eq(how.shift + how.leak), upper.eq(how.shift), lower.eq(both)]
        with m.If(both > self._total):
            m.d.comb += lower.eq(self._total)
        upper, lower = delayed(m, "upper", upper, 1), delayed(m, "lower", lower, 1)
        relu, backward = delayed(m, "relu", how.relu, 3), delayed(m, "backward", self.adjoint, 3)
        hi = (1 << (self._code - 1)) - 1
        most = delayed(m, "most", Mux(self.adjoint, hi, how.top), 3)
        clips = []
        for k in range(self._lanes):
            clips.append(self._lane(m, k, upper, lower, relu, most, backward))
        m.d.sync += self.clipped.eq(Cat(clips).any())
        return m

    def _lane(
        self,
        m: Module,
        k: int,
        upper: Value,
        lower: Value,
        relu: Value,
        most: Value,
        backward: Value,
    ) -> Value:
        # 1: the branch. 2, 3: shifted, coarsely and finely, with one bit kept for rounding. 4: rounded and clipped.
        total, code = self._total, self._code
        s = Signal(signed(total), name=f"s_{k}", reset_less=True)
        passed = Signal(name=f"passed_{k}", reset_less=True)
        above = Signal(name=f"above_{k}", reset_less=True)
        m.d.sync += [
            s.eq(self.sums[k]),
            passed.eq(self.branch_i[k].passes),
            above.eq(Mux(self.adjoint, self.branch_i[k].upper, self.sums[k] > 0)),
        ]
        amount = Signal(upper.shape(), name=f"amount_{k}")
        m.d.comb += amount.eq(Mux(above, upper, lower))
        # Twice the sum, so that the bit below the code's lowest one is there for every shift.
        coarse = Signal(signed(total + 1), name=f"coarse_{k}", reset_less=True)
        fine = Signal(3, name=f"fine_{k}", reset_less=True)
        doubled = Cat(Const(0, 1), s).as_signed()
        m.d.sync += [coarse.eq(doubled >> Cat(Const(0, 3), amount[3:])), fine.eq(amount[:3])]
        # What is too wide for any fine shift is known before it; the rest has few bits.
        near = min(code + 9, total + 1)
        halves = Signal(signed(near), name=f"halves_{k}", reset_less=True)
        beyond = Signal(name=f"beyond_{k}", reset_less=True)
        negative = Signal(name=f"negative_{k}", reset_less=True)
        m.d.sync += [
            halves.eq(coarse >> fine),
            beyond.eq(coarse[near - 1 :].any() & ~coarse[near - 1 :].all()),
            negative.eq(coarse[-1]),
        ]
        branch = delayed(m, f"above_{k}", above, 2)
        passes = delayed(m, f"passes_{k}", passed, 2)

        lo = -(1 << (code - 1))
        rounded = Signal(signed(code), name=f"rounded_{k}")
        over = Signal(name=f"over_{k}")
        under = Signal(name=f"under_{k}")
        # floor(halves / 2 + 1/2) > most, and below lo, without waiting for the sum.
        m.d.comb += [
            rounded.eq((halves + 1) >> 1),
            over.eq(~negative & (beyond | (halves > 2 * most))),
            under.eq(negative & (beyond | (halves < 2 * lo - 1))),
        ]
        zero = Mux(backward, ~passes, relu & ~branch)
        y = Signal(signed(code), name=f"y_{k}", reset_less=True)
        m.d.sync += y.eq(Mux(zero, 0, Mux(over, most, Mux(under, lo, rounded))))
        noted = Signal(BRANCH, name=f"noted_{k}", reset_less=True)
        m.d.sync += [noted.passes.eq(~zero & ~over & ~under), noted.upper.eq(branch & ~zero & ~over & ~under)]
        m.d.comb += [self.codes[k].eq(y), self.branch_o[k].eq(noted)]
        return ~zero & (over | under)
