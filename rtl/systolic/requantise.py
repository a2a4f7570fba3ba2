"""Sums to codes and activations, and their adjoint, one row of results a clock."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from ..stream.delay import delayed
from ..stream.enable import COPIES, copies

__all__ = ["BRANCH", "Requantise", "chosen", "settings"]

BRANCH = data.StructLayout({"passes": 1, "upper": 1})
"""What the forward did with a sum: ``passes``: the derivative is not zero; ``upper``: the sum was positive."""


def settings(total: int, code: int) -> data.StructLayout:
    """How sums of ``total`` bits become codes of ``code`` bits.

    ``upper``: bits that a positive sum loses; ``lower``: those of another one; ``relu``: such a one gives 0; ``top``:
    largest code.
    """
    amount = Shape.cast(range(total + 1))
    return data.StructLayout({"upper": amount, "lower": amount, "relu": 1, "top": signed(code)})


def chosen(total: int, *, shift: int = 0, leak: int = 0, relu: int = 0, top: int) -> dict[str, int]:
    """The settings of an activation: a sum loses ``shift`` bits, one that is not positive ``leak`` more.

    Raises
    ------
    ValueError
        If a shift is negative or not smaller than a sum is wide.
    """
    for name, value in (("shift", shift), ("leak", leak)):
        if not 0 <= value < total:
            raise ValueError(f"{name}={value}; a sum has {total} bits, so give 0 to {total - 1}")
    # Of a sum shifted by its width nothing is left, nor by more.
    return {"upper": shift, "lower": min(shift + leak, total), "relu": relu, "top": top}


class _Settings:
    """The settings of neighbouring lanes when each is needed: ``amounts``, ``vanish`` (nothing is left of a sum) and
    ``adjoint`` a clock before the sums, then, a clock after these, ``relu``, ``backward``, then ``most``.
    """

    def __init__(self, m: Module, shape: data.StructLayout, told: Value) -> None:
        how: Any = data.View(shape, told[: shape.size])
        self.adjoint, *self.vanish = told[shape.size :]
        self.amounts = how.upper, how.lower
        self.relu = delayed(m, "relu", how.relu, 2)
        self.backward = delayed(m, "backward", self.adjoint, 2)
        hi = (1 << (how.top.shape().width - 1)) - 1
        self.most = delayed(m, "most", Mux(self.adjoint, hi, how.top), 3)


class Requantise(wiring.Component):
    """``y = min(max(floor(s 2**-n + 1/2), lo), top)``, n = ``upper`` or ``lower`` by the branch of s; or 0.

    Forward, the branch is that of the sum: upper where ``s > 0``, else lower, which gives 0 if ``relu``; it leaves as
    ``branch_o`` with ``passes`` low where the derivative is zero, that is where y clips and on the lower branch of a
    ReLU. Backward (``adjoint``), the branch is the one that comes in at ``branch_i``, and what does not pass gives 0.
    One rounding, half up, and one saturation in either direction.

    Latency 4, a row a clock, no stall and no reset: what enters invalid leaves invalid. Settings may change with every
    row; they come `lead` clocks before it, as one register would have to reach the shifters of all lanes, and branches
    `branch_lead` clocks before it, so that of a shift only the sign of the sum is still to be known.

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
    negative : In(lanes)
        Their signs.
    branch_i, branch_o : In, Out(ArrayLayout(BRANCH, lanes))
    codes : Out(ArrayLayout(signed(code), lanes))
    clipped : Out(lanes)
        Sums of the row that saturated.

    Raises
    ------
    ValueError
        If a code is not narrower than a sum, or there is no lane.
    """

    lead = 3
    branch_lead = 1
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
                "negative": In(lanes),
                "branch_i": In(data.ArrayLayout(BRANCH, lanes)),
                "branch_o": Out(data.ArrayLayout(BRANCH, lanes)),
                "codes": Out(data.ArrayLayout(signed(code), lanes)),
                "clipped": Out(lanes),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # 0: by how much, for either sign. 1: the branch, and shifted coarsely. 2: finely, with a bit kept for
        # rounding. 3: rounded, and compared. 4: the code.
        count = min(self._lanes, 2 * COPIES)
        vanish = Cat(amount >= self._total for amount in (self.how.upper, self.how.lower))
        told = copies(m, "told", delayed(m, "how", Cat(self.how, self.adjoint, vanish), 1), count)
        settings_of = [_Settings(m, self.how.shape(), each) for each in told]
        for k in range(self._lanes):
            self._lane(m, k, settings_of[k * count // self._lanes])
        return m

    def _lane(self, m: Module, k: int, told: _Settings) -> None:
        total, code = self._total, self._code

        def register(name: str, value: Value, shape=None) -> Signal:
            made = Signal(value.shape() if shape is None else shape, name=f"{name}_{k}", reset_less=True)
            m.d.sync += made.eq(value)
            return made

        # 0, a clock before the sum: what its sign will choose from.
        given = self.branch_i[k].upper
        if_above, if_below = (
            (
                register(f"{name}_upper", Mux(told.adjoint, given, above)),
                *(
                    register(f"{name}_{of}", Mux(Mux(told.adjoint, given, above), *both))
                    for of, both in (("vanishes", told.vanish), ("amount", told.amounts))
                ),
            )
            for name, above in (("above", Const(1)), ("below", Const(0)))
        )
        passes = register("passes", self.branch_i[k].passes)

        # 1. Of 0 nothing is left by any shift, so that it is not above needs not be known before the branch is noted.
        upper, vanishes, amount = (
            Mux(self.negative[k], b, a) for a, b in zip(if_above, if_below, strict=True)
        )
        # Twice the sum, so that the bit below the code's lowest one is there for every shift.
        doubled = Cat(Const(0, 1), self.sums[k]).as_signed()
        amount = amount[: bits_for(total - 1)]  # or nothing is left of it
        shifted = doubled >> Cat(Const(0, 3), amount[3:])
        coarse = register("coarse", shifted, signed(total + 1))
        fine = register("fine", amount[:3])
        vanished = register("vanished", vanishes)
        above = register("above", upper)
        some = register("some", Cat(self.sums[k][n : n + 8].any() for n in range(0, total, 8)))
        passed = register("passed", passes)

        # 2. What is too wide for any fine shift is known before it; the rest has few bits.
        near = min(code + 9, total + 1)
        halves = register("halves", coarse >> fine, signed(near))
        beyond = register("beyond", (coarse[near - 1 :] ^ coarse[-1].replicate(total + 2 - near)).any())
        below = register("below", coarse[-1])
        nothing = ~told.backward & ~some.any()
        none = register("none", Mux(told.backward, ~passed, told.relu & (~above | nothing)))
        above = register("branch", above & ~nothing)
        zero = register("zero", vanished)

        # 3. floor(halves / 2 + 1/2) > top, or below lo, without waiting for the sum; of numbers of the same sign, so
        # that the bits below it decide.
        lo = -(1 << (code - 1))
        size = halves[:-1]
        rounded = register("rounded", (halves + 1) >> 1, signed(code))
        above_top = register("above_top", size > Cat(Const(0, 1), told.most[:-1]))
        below_lo = register("below_lo", size < (2 * lo - 1) % (1 << len(size)))
        negative = register("negative", below)
        zero = none | zero
        certain = register("certain", beyond & ~zero)
        zero = register("gives_zero", zero)
        none = register("gives_none", none)
        above = register("branched", above)
        top = delayed(m, f"top_{k}", told.most, 1)

        # 4.
        clips = certain | (~zero & Mux(negative, below_lo, above_top))
        y = Mux(clips, Mux(negative, lo, top), Mux(zero, 0, rounded))
        noted = Signal(BRANCH, name=f"noted_{k}", reset_less=True)
        m.d.sync += [noted.passes.eq(~none & ~clips), noted.upper.eq(above & ~none & ~clips)]
        m.d.comb += [
            self.codes[k].eq(register("y", y, signed(code))),
            self.branch_o[k].eq(noted),
            self.clipped[k].eq(register("clips", clips)),
        ]
