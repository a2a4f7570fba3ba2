"""The one way to multiply: a free-running pipelined multiplier, generic or the family's DSP block."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Shape, ShapeLike, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier"]


class Multiplier(wiring.Component):
    """``p[t + 3] = a[t] * b[t]``, exact.

    Operands are at most 18 bits signed, so an unsigned one at most 17: one DSP multiplier. Latency 3 in every
    family (input, product and output register), one product per clock, no enable and no reset: it runs freely
    and what enters invalid leaves invalid.

    Parameters
    ----------
    a, b : ShapeLike
        Shapes of the operands.
    family : str
        ``"generic"``: registers around ``*``, for any target. ``"ecp5"``: one MULT18X18D with its own input,
        pipeline and output registers, which synthesis does not find by itself (an inferred product reaches
        about half the clock).
    site : str or None
        Where the block lies on the chip, as nextpnr names the place (``"X4/Y10/MULT18_0"``); None: wherever it is put.
        Of no meaning to the generic body.

    Members
    -------
    a : In(a)
    b : In(b)
    p : Out(Shape(a.width + b.width, a.signed or b.signed))

    Raises
    ------
    ValueError
        If an operand is too wide or has no bits, or the family is unknown.

    Source: Lattice FPGA-TN-02205, ECP5 and ECP5-5G sysDSP usage guide.
    """

    latency = 3
    families = ("generic", "ecp5")

    def __init__(
        self, a: ShapeLike, b: ShapeLike, family: str = "generic", *, site: str | None = None
    ) -> None:
        a, b = Shape.cast(a), Shape.cast(b)
        for name, shape in (("a", a), ("b", b)):
            most = 18 if shape.signed else 17
            if not 0 < shape.width <= most:
                raise ValueError(
                    f"operand {name} is {shape!r}, {shape.width} bits (a has {a.width}, b has {b.width}); "
                    f"a multiplier takes 1 to {most} bits {'signed' if shape.signed else 'unsigned'}: cut it"
                )
        if family not in self.families:
            raise ValueError(f"multiplier family {family!r} is unknown; give {' or '.join(self.families)}")
        self._family, self._site = family, site
        p = Shape(a.width + b.width, a.signed or b.signed)
        super().__init__({"a": In(a), "b": In(b), "p": Out(p)})

    def elaborate(self, platform) -> Module:
        m = Module()
        if self._family == "ecp5":
            m.submodules.dsp = self._mult18x18d()
            return m
        a = Signal.like(self.a, reset_less=True)
        b = Signal.like(self.b, reset_less=True)
        product = Signal.like(self.p, reset_less=True)
        p = Signal.like(self.p, reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b), p.eq(product)]
        m.d.comb += self.p.eq(p)
        return m

    def _mult18x18d(self) -> Instance:
        # Every bit is a port of its own. Both operands go in as 18 bits signed: an unsigned one has a spare
        # zero on top, so the product is the same and no sign selection is needed.
        def widen(x):
            return Cat(x, (x[-1] if x.shape().signed else Const(0, 1)).replicate(18 - len(x)))

        a, b = widen(self.a), widen(self.b)
        product = Cat(self.p, Signal(36 - len(self.p), name="unused"))
        ports = {f"i_A{k}": a[k] for k in range(18)}
        ports |= {f"i_B{k}": b[k] for k in range(18)}
        ports |= {f"i_C{k}": Const(0, 1) for k in range(18)}
        ports |= {f"o_P{k}": product[k] for k in range(36)}
        for k in range(4):
            ports |= {f"i_CLK{k}": ClockSignal() if k == 0 else Const(0, 1)}
            ports |= {f"i_CE{k}": Const(int(k == 0), 1), f"i_RST{k}": Const(0, 1)}
        registers = {}
        for register in ("INPUTA", "INPUTB", "PIPELINE", "OUTPUT"):
            registers |= {
                f"p_REG_{register}_CLK": "CLK0",
                f"p_REG_{register}_CE": "CE0",
                f"p_REG_{register}_RST": "RST0",
            }
        return Instance(
            "MULT18X18D",
            p_SOURCEB_MODE="B_SHIFT",  # with SOURCEB = 0: operand B from the fabric, not from a shift chain
            p_MULT_BYPASS="DISABLED",
            p_RESETMODE="SYNC",
            p_GSR="DISABLED",
            **registers,
            **({} if self._site is None else {"a_BEL": self._site}),
            i_SIGNEDA=Const(1, 1),
            i_SIGNEDB=Const(1, 1),
            i_SOURCEA=Const(0, 1),
            i_SOURCEB=Const(0, 1),
            **ports,
        )
