"""One processing element: a multiplier, its accumulator, and what passes through to its neighbours."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..numeric.multiplier import Multiplier
from ..numeric.select_add import SelectAdd
from .build import ArrayBuild

__all__ = ["EARLY", "LATE", "PackedElement", "ProcessingElement"]

EARLY = data.StructLayout({"load": 1, "west": 1})
"""What an element is told when an operand comes: ``load``: hold what stands in the register of v from now on;
``west``: v comes from the west, not from the north."""

LATE = data.StructLayout({"keep": 1, "drain": 1})
"""What it is told when the operand's product arrives: ``keep``: add it to the own sum, not to the one from the
north; ``drain``: hand the own sum down and start from zero (the product is lost)."""


def signature(build: ArrayBuild) -> dict[str, Any]:
    """Members of an element: its columns are as many as share its multiplier."""
    word, words = build.word, data.ArrayLayout(build.word, build.shared)
    sums = data.ArrayLayout(build.sum, build.shared)
    return {
        "h_i": In(word),
        "h_o": Out(word),
        "v_north_i": In(words),
        "v_west_i": In(word),
        "v_o": Out(words),
        "early_i": In(EARLY),
        "early_o": Out(EARLY),
        "late_i": In(LATE),
        "late_o": Out(LATE),
        "clear_i": In(1),
        "clear_o": Out(1),
        "sum_i": In(sums),
        "sum_o": Out(sums),
        "drain_i": In(sums),
        "drain_o": Out(sums),
    }


class ProcessingElement(wiring.Component):
    """``sum' = (keep ? sum : sum_i) + h held``, ``held`` the operand that the last ``load`` took from v.

    Everything that enters leaves again: h and its controls one clock later to the east, v two clocks later to the
    east and to the south. At half the speed of h the stationary operands meet the wave of ``load`` that runs along the
    diagonal, so nothing has to be enabled in all elements at once.

    With an operand at ``h_i`` in clock t, its controls at ``early_i`` in clock t and at ``late_i`` in clock
    ``t + build.late_lag``, the sum is at ``sum_o`` in the clock after that. It runs freely: no stall, no enable, no
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
    v_north_i, v_o : In, Out(ArrayLayout(build.word, build.shared))
        The operand that moves south or east, of each column; of the last one east.
    v_west_i : In(build.word)
    early_i, early_o : In(EARLY), Out(EARLY)
    late_i, late_o : In(LATE), Out(LATE)
    clear_i, clear_o : In(1), Out(1)
        A reset on its way east and south, an element a clock: what is held becomes zero.
    sum_i, sum_o : In, Out(ArrayLayout(build.sum, build.shared))
        Sums of the columns, moving south.
    drain_i, drain_o : In, Out(ArrayLayout(build.sum, build.shared))
        Sums that were drained, moving south one element a clock.
    """

    def __init__(self, build: ArrayBuild, *, site: str | None = None) -> None:
        self._build, self._site = build, site
        super().__init__(signature(build))

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build
        h, early = _passes(m, self)
        v = _register("v", build.word)
        _moves(m, self, 0, v, self.v_west_i)
        held = _register("held", build.word)
        with m.If(early.load):
            m.d.sync += held.eq(v)
        _known(m, self, held)

        m.submodules.multiplier = multiplier = Multiplier(
            build.word, build.word, family=build.family, site=self._site
        )
        product = _register("product", multiplier.p.shape())
        m.d.comb += [multiplier.a.eq(h), multiplier.b.eq(held)]
        m.d.sync += product.eq(multiplier.p)
        _accumulate(m, self, 0, product, build)
        return m


class PackedElement(wiring.Component):
    """``sum'[k] = (keep ? sum[k] : sum_i[k]) + h held[k]`` of two columns with one multiplier, exactly.

    With w the bits of an operand, ``P = (held[1] 2^(w+1) + held[0]) h``. Of ``p0 = h held[0]`` the lowest w + 1 bits
    stand in P as they are; upon the other w - 1 lie the lowest of ``p1 = h held[1]``, which a few look-up tables make:

        ``L = p1 mod 2^(w-1)``, ``p0 = (P mod 2^(2w)) - L 2^(w+1)`` signed, ``p1 = (P >> (w+1)) - (p0 >> (w+1))``

    Members are those of :class:`ProcessingElement`. v reaches the second column a clock after the first one and the
    next element two clocks later, three for the two columns that h passes in one: so the rows that come from the west,
    one every clock, all stand where the wave of ``load`` passes.

    Source: the sum of two operands is that of Xilinx WP486, Deep Learning with INT8 Optimization on Xilinx Devices.
    """

    def __init__(self, build: ArrayBuild, *, site: str | None = None) -> None:
        self._build, self._site = build, site
        super().__init__(signature(build))

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build
        word = build.operand
        low, upper = word + 1, word - 1  # bits of p0 that stand as they are, and the others
        h, early = _passes(m, self)
        v = [_register(f"v_{k}", build.word) for k in range(2)]
        _moves(m, self, 0, v[0], self.v_west_i)
        _moves(m, self, 1, v[1], v[0])

        # The sum of both operands is made where they are taken: it needs no carry beyond the upper one.
        below = _register("below", build.word)
        above = _register("above", signed(word + 1))
        factor = _register("factor", unsigned(upper))
        with m.If(early.load):
            m.d.sync += [below.eq(v[0]), above.eq(v[1] - v[0][-1]), factor.eq(v[1][:upper])]
        _known(m, self, below, above, factor)
        both = Cat(below, below[-1], above).as_signed()
        m.submodules.multiplier = multiplier = Multiplier(
            build.word, both.shape(), family=build.family, site=self._site
        )
        m.d.comb += [multiplier.a.eq(h), multiplier.b.eq(both)]
        product = _register("product", multiplier.p.shape())
        m.d.sync += product.eq(multiplier.p)

        # L, in as many clocks as the multiplier and the register behind it take.
        terms: list[Value] = [Mux(factor[k], (h[: upper - k] << k)[:upper], 0) for k in range(upper)]
        for stage in range(Multiplier.latency + 1):
            sums = []
            for k in range(0, len(terms), 2):
                total = _register(f"low_{stage}_{k}", unsigned(upper))
                m.d.sync += total.eq(sum(terms[k + 1 : k + 2], terms[k]))
                sums.append(total)
            terms = sums
        (lowest,) = terms

        # One taken apart, then the other.
        plain, corrected = _register("plain", unsigned(low)), _register("corrected", signed(upper))
        rest = _register("rest", signed(2 * word))
        m.d.sync += [
            plain.eq(product[:low]),
            corrected.eq(product[low : 2 * word] - lowest),
            rest.eq(product >> low),
        ]
        p0, p1 = (_register(f"p{k}", signed(2 * word)) for k in range(2))
        m.d.sync += [p0.eq(Cat(plain, corrected)), p1.eq(rest - corrected)]
        for k, p in enumerate((p0, p1)):
            _accumulate(m, self, k, p, build)
        return m


def _register(name: str, shape: ShapeLike) -> Signal:
    return Signal(shape, name=name, reset_less=True)


def _known(m: Module, element: Any, *held: Signal) -> None:
    """Zero after reset: what knows nothing until the first tile would make sums unknown that are zero.

    The reset passes from element to element, as one would have to reach all over the chip.
    """
    clear = _register("clear", unsigned(1))
    m.d.sync += clear.eq(element.clear_i)
    m.d.comb += element.clear_o.eq(clear)
    with m.If(clear):
        m.d.sync += [each.eq(0) for each in held]


def _passes(m: Module, element: Any) -> tuple[Signal, Any]:
    """h and the controls to the east. The register of h, and what its operand is told."""
    h, early, late = (
        _register(name, of.shape())
        for name, of in (("h", element.h_i), ("early", element.early_i), ("late", element.late_i))
    )
    m.d.sync += [h.eq(element.h_i), early.eq(element.early_i), late.eq(element.late_i)]
    m.d.comb += [element.h_o.eq(h), element.early_o.eq(early), element.late_o.eq(late)]
    return h, element.early_i


def _moves(m: Module, element: Any, k: int, v: Signal, west: Value) -> None:
    """v of column k, from the north or the west, and on its way to the south and the east."""
    half = _register(f"v_half_{k}", v.shape())
    m.d.sync += half.eq(v)
    with m.If(element.early_i.west):
        m.d.sync += v.eq(west)
    with m.Else():
        m.d.sync += v.eq(element.v_north_i[k])
    m.d.comb += element.v_o[k].eq(half)


def _accumulate(m: Module, element: Any, k: int, product: Signal, build: ArrayBuild) -> None:
    """A product of column k on top of the sum it belongs to."""
    total, drained = _register(f"total_{k}", build.sum), _register(f"drained_{k}", build.sum)
    m.submodules[f"add_{k}"] = add = SelectAdd(build.accumulator, product.shape(), family=build.family)
    m.d.comb += [
        add.a.eq(product),
        add.b0.eq(element.sum_i[k]),
        add.b1.eq(total),
        add.select.eq(element.late_i.keep),
    ]
    m.d.sync += [total.eq(add.o), drained.eq(element.drain_i[k])]
    with m.If(element.late_i.drain):
        m.d.sync += [total.eq(0), drained.eq(total)]
    m.d.comb += [element.sum_o[k].eq(total), element.drain_o[k].eq(drained)]
