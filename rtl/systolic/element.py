"""One processing element: a multiplier, its accumulator, and what passes through to its neighbours."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..numeric.multiplier import Multiplier
from ..numeric.select_add import SelectAdd
from .build import ArrayBuild

__all__ = ["EARLY", "LATE", "LATE_LAG", "ProcessingElement"]

EARLY = data.StructLayout({"load": 1, "west": 1})
"""What an element is told when an operand comes: ``load``: hold what stands in the register of v from now on;
``west``: v comes from the west, not from the north."""

LATE = data.StructLayout({"keep": 1, "drain": 1})
"""What it is told when the operand's product arrives: ``keep``: add it to the own sum, not to the one from the
north; ``drain``: hand the own sum down and start from zero (the product is lost)."""

LATE_LAG = 1 + Multiplier.latency + 1
"""Clocks by which a product arrives after its operand: the register of h, the multiplier and a register in the
fabric behind it, which makes its way from the hard block to the adder a path of its own."""


class ProcessingElement(wiring.Component):
    """``sum' = (keep ? sum : sum_i) + h held``, ``held`` the operand that the last ``load`` took from v.

    Everything that enters leaves again: h and its controls one clock later to the east, v two clocks later to the
    east and to the south. At half the speed of h the stationary operands meet the wave of ``load`` that runs along the
    diagonal, so nothing has to be enabled in all elements at once.

    With an operand at ``h_i`` in clock t, its controls at ``early_i`` in clock t and at ``late_i`` in clock
    ``t + LATE_LAG``, the sum is at ``sum_o`` in clock ``t + LATE_LAG + 1``. It runs freely: no stall, no enable, no
    reset. A sum wraps; ``ArrayBuild.depth`` says how many products exclude that.

    Parameters
    ----------
    build : ArrayBuild
    site : str or None
        nextpnr's name of the place of the multiplier on the chip.

    Members
    -------
    h_i, h_o : In(build.word), Out(build.word)
        The operand that moves east.
    v_north_i, v_west_i, v_o : In(build.word), In(build.word), Out(build.word)
        The operand that moves south or east.
    early_i, early_o : In(EARLY), Out(EARLY)
    late_i, late_o : In(LATE), Out(LATE)
    sum_i, sum_o : In(build.sum), Out(build.sum)
        Sums of the column, moving south.
    drain_i, drain_o : In(build.sum), Out(build.sum)
        Sums that were drained, moving south one element a clock.
    """

    latency = LATE_LAG + 1

    def __init__(self, build: ArrayBuild, *, site: str | None = None) -> None:
        self._build, self._site = build, site
        word, total = build.word, build.sum
        super().__init__(
            {
                "h_i": In(word),
                "h_o": Out(word),
                "v_north_i": In(word),
                "v_west_i": In(word),
                "v_o": Out(word),
                "early_i": In(EARLY),
                "early_o": Out(EARLY),
                "late_i": In(LATE),
                "late_o": Out(LATE),
                "sum_i": In(total),
                "sum_o": Out(total),
                "drain_i": In(total),
                "drain_o": Out(total),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build

        def register(name: str, shape) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        h, v, v_half = (register(name, build.word) for name in ("h", "v", "v_half"))
        # A register that knows nothing until the first tile would make sums unknown that are zero.
        held = Signal(build.word, name="held")
        early, late = register("early", EARLY), register("late", LATE)
        m.d.sync += [h.eq(self.h_i), early.eq(self.early_i), late.eq(self.late_i), v_half.eq(v)]
        m.d.comb += [self.h_o.eq(h), self.early_o.eq(early), self.late_o.eq(late), self.v_o.eq(v_half)]
        with m.If(self.early_i.west):
            m.d.sync += v.eq(self.v_west_i)
        with m.Else():
            m.d.sync += v.eq(self.v_north_i)
        with m.If(self.early_i.load):
            m.d.sync += held.eq(v)

        m.submodules.multiplier = multiplier = Multiplier(
            build.word, build.word, family=build.family, site=self._site
        )
        product = register("product", multiplier.p.shape())
        m.d.comb += [multiplier.a.eq(h), multiplier.b.eq(held)]
        m.d.sync += product.eq(multiplier.p)

        total, drained = register("total", build.sum), register("drained", build.sum)
        m.submodules.add = add = SelectAdd(build.accumulator, product.shape(), family=build.family)
        m.d.comb += [
            add.a.eq(product),
            add.b0.eq(self.sum_i),
            add.b1.eq(total),
            add.select.eq(self.late_i.keep),
        ]
        m.d.sync += [total.eq(add.o), drained.eq(self.drain_i)]
        with m.If(self.late_i.drain):
            m.d.sync += [total.eq(0), drained.eq(total)]
        m.d.comb += [self.sum_o.eq(total), self.drain_o.eq(drained)]
        return m
