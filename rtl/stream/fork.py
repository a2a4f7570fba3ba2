"""A stream to several consumers, each of which takes every beat once, in its own time."""

from __future__ import annotations

from amaranth.hdl import Module, ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .skid import SkidBuffer

__all__ = ["Fork"]


class Fork(wiring.Component):
    """``o[k][n] = i[n]`` for every k. A consumer may be ahead of the others by one beat at most.

    Latency 1, one beat per clock: a `SkidBuffer` keeps what the consumers say from the producer. No output's valid
    depends on another's ready.

    Parameters
    ----------
    shape : ShapeLike
    count : int
        Number of consumers.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape)).array(count)
    """

    def __init__(self, shape: ShapeLike, count: int) -> None:
        if count < 1:
            raise ValueError(f"a fork to {count} consumers; give at least 1")
        self._shape = shape
        self._count = count
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)).array(count)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.skid = skid = SkidBuffer(self._shape)
        wiring.connect(m, wiring.flipped(self.i), skid.i)
        served = Signal(self._count)  # has taken the present beat already
        takes = Signal(self._count)
        for k, o in enumerate(self.o):
            m.d.comb += [
                o.payload.eq(skid.o.payload),
                o.valid.eq(skid.o.valid & ~served[k]),
                takes[k].eq(served[k] | o.ready),
            ]
        m.d.comb += skid.o.ready.eq(takes.all())
        with m.If(skid.o.valid):
            m.d.sync += served.eq(0)
            with m.If(~skid.o.ready):
                m.d.sync += served.eq(takes)
        return m
