"""The one way to multiply: a free-running pipelined multiplier, generic or the family's DSP block."""

from __future__ import annotations

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Shape, ShapeLike, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Multiplier"]


class Multiplier(wiring.Component):
    """``p[t + 3] = a[t] * b[t]``, exact.

    Operands are at most 18 bits signed (16 on an iCE40), so an unsigned one a bit less: one DSP multiplier. Latency 3
    in every family (input, product and output register), one product per clock, no enable and no reset: it runs freely
    and what enters invalid leaves invalid.

    Parameters
    ----------
    a, b : ShapeLike
        Shapes of the operands.
    family : str
        ``"generic"``: registers around ``*``, for any target. ``"ecp5"``: one MULT18X18D with its own input,
        pipeline and output registers, which synthesis does not find by itself (an inferred product reaches
        about half the clock). ``"gowin"``: one MULT9X9 or MULT18X18, by the operands, with input, pipeline and output
        registers. ``"nexus"``: the same of Lattice's Nexus; its blocks have two registers, a third is in the fabric.
        ``"ice40"``: one SB_MAC16 with input and both pipeline registers.
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

    Source: Lattice FPGA-TN-02205, ECP5 and ECP5-5G sysDSP usage guide; Lattice FPGA-TN-1295, DSP function usage guide
    for iCE40 devices. Ports and parameters of the others are those of yosys 0.70's libraries of cells.
    """

    latency = 3
    families = ("generic", "ecp5", "gowin", "nexus", "ice40")

    def __init__(
        self, a: ShapeLike, b: ShapeLike, family: str = "generic", *, site: str | None = None
    ) -> None:
        a, b = Shape.cast(a), Shape.cast(b)
        if family not in self.families:
            raise ValueError(f"multiplier family {family!r} is unknown; give {' or '.join(self.families)}")
        for name, shape in (("a", a), ("b", b)):
            most = (16 if family == "ice40" else 18) - (not shape.signed)
            if not 0 < shape.width <= most:
                raise ValueError(
                    f"operand {name} is {shape!r}, {shape.width} bits (a has {a.width}, b has {b.width}); "
                    f"a multiplier takes 1 to {most} bits {'signed' if shape.signed else 'unsigned'}: cut it"
                )
        self._family, self._site = family, site
        p = Shape(a.width + b.width, a.signed or b.signed)
        super().__init__({"a": In(a), "b": In(b), "p": Out(p)})

    def elaborate(self, platform) -> Module:
        m = Module()
        block = {
            "ecp5": self._mult18x18d,
            "gowin": self._gowin,
            "nexus": self._nexus,
            "ice40": self._sb_mac16,
        }.get(self._family)
        if block is not None:
            m.submodules.dsp = block(m)
            return m
        a = Signal.like(self.a, reset_less=True)
        b = Signal.like(self.b, reset_less=True)
        product = Signal.like(self.p, reset_less=True)
        p = Signal.like(self.p, reset_less=True)
        m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b), p.eq(product)]
        m.d.comb += self.p.eq(p)
        return m

    def _widened(self, bits: int) -> tuple[Value, Value]:
        """Both operands as signed ones: an unsigned one has a spare zero on top, so the product is the same."""

        def widen(x: Value) -> Value:
            return Cat(x, (x[-1] if x.shape().signed else Const(0, 1)).replicate(bits - len(x)))

        return widen(self.a), widen(self.b)

    def _product(self, p: Value, bits: int) -> Value:
        """``p`` as the low bits of a block's output."""
        return Cat(p, Signal(bits - len(p), name="unused"))

    def _blocks_bits(self) -> int:
        """Bits of the smaller of two blocks that takes both operands."""
        return 9 if all(len(x) <= 9 - (not x.shape().signed) for x in (self.a, self.b)) else 18

    def _gowin(self, m: Module) -> Instance:
        bits = self._blocks_bits()
        a, b = self._widened(bits)
        return Instance(
            f"MULT{bits}X{bits}",
            p_AREG=Const(1, 1),
            p_BREG=Const(1, 1),
            p_PIPE_REG=Const(1, 1),
            p_OUT_REG=Const(1, 1),
            p_ASIGN_REG=Const(0, 1),
            p_BSIGN_REG=Const(0, 1),
            p_SOA_REG=Const(0, 1),
            p_MULT_RESET_MODE="SYNC",
            i_A=a,
            i_B=b,
            i_SIA=Const(0, bits),
            i_SIB=Const(0, bits),
            i_ASEL=Const(0, 1),
            i_BSEL=Const(0, 1),
            i_ASIGN=Const(1, 1),
            i_BSIGN=Const(1, 1),
            i_CLK=ClockSignal(),
            i_CE=Const(1, 1),
            i_RESET=Const(0, 1),
            o_DOUT=self._product(self.p, 2 * bits),
        )

    def _nexus(self, m: Module) -> Instance:
        bits = self._blocks_bits()
        a, b = self._widened(bits)
        product = Signal.like(self.p, reset_less=True)
        p = Signal.like(self.p, reset_less=True)
        m.d.sync += p.eq(product)
        m.d.comb += self.p.eq(p)
        return Instance(
            f"MULT{bits}X{bits}",
            p_REGINPUTA="REGISTER",
            p_REGINPUTB="REGISTER",
            p_REGOUTPUT="REGISTER",
            p_RESETMODE="SYNC",
            p_GSR="DISABLED",
            i_A=a,
            i_B=b,
            i_CLK=ClockSignal(),
            i_CEA=Const(1, 1),
            i_CEB=Const(1, 1),
            i_CEOUT=Const(1, 1),
            i_RSTA=Const(0, 1),
            i_RSTB=Const(0, 1),
            i_RSTOUT=Const(0, 1),
            i_SIGNEDA=Const(1, 1),
            i_SIGNEDB=Const(1, 1),
            o_Z=self._product(product, 2 * bits),
        )

    def _sb_mac16(self, m: Module) -> Instance:
        a, b = self._widened(16)
        off = (
            "AHOLD",
            "BHOLD",
            "CHOLD",
            "DHOLD",
            "IRSTTOP",
            "IRSTBOT",
            "ORSTTOP",
            "ORSTBOT",
            "OLOADTOP",
            "OLOADBOT",
        )
        off += ("ADDSUBTOP", "ADDSUBBOT", "OHOLDTOP", "OHOLDBOT", "CI", "ACCUMCI", "SIGNEXTIN")
        on = ("A_REG", "B_REG", "TOP_8x8_MULT_REG", "BOT_8x8_MULT_REG", "A_SIGNED", "B_SIGNED")
        on += ("PIPELINE_16x16_MULT_REG1", "PIPELINE_16x16_MULT_REG2")
        return Instance(
            "SB_MAC16",
            **{f"p_{name}": Const(1, 1) for name in on},
            # The 32 bits of the product, past both adders.
            p_TOPOUTPUT_SELECT=Const(3, 2),
            p_BOTOUTPUT_SELECT=Const(3, 2),
            **{f"i_{name}": Const(0, 1) for name in off},
            i_A=a,
            i_B=b,
            i_C=Const(0, 16),
            i_D=Const(0, 16),
            i_CLK=ClockSignal(),
            i_CE=Const(1, 1),
            o_O=self._product(self.p, 32),
        )

    def _mult18x18d(self, m: Module) -> Instance:
        # Every bit is a port of its own.
        a, b = self._widened(18)
        product = self._product(self.p, 36)
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
