"""Two streams as one."""

from __future__ import annotations

from amaranth.hdl import Module, ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Join"]


class Join(wiring.Component):
    """``o[n] = (a[n], b[n])``: beats of equal number, paired.

    Latency 0, one beat per clock. An input is taken only together with the other, so neither's ready may be waited
    for with its valid low.

    Parameters
    ----------
    a, b : ShapeLike
        Payloads.

    Members
    -------
    a, b : In(stream.Signature(a)), In(stream.Signature(b))
    o : Out(stream.Signature(StructLayout({"a": a, "b": b})))
    """

    def __init__(self, a: ShapeLike, b: ShapeLike) -> None:
        super().__init__(
            {
                "a": In(stream.Signature(a)),
                "b": In(stream.Signature(b)),
                "o": Out(stream.Signature(data.StructLayout({"a": a, "b": b}))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += [
            self.o.payload.a.eq(self.a.payload),
            self.o.payload.b.eq(self.b.payload),
            self.o.valid.eq(self.a.valid & self.b.valid),
            self.a.ready.eq(self.o.ready & self.b.valid),
            self.b.ready.eq(self.o.ready & self.a.valid),
        ]
        return m
