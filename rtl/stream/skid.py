"""A stream register that cuts every path: valid, payload and ready."""

from __future__ import annotations

from amaranth.hdl import Module, ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SkidBuffer"]


class SkidBuffer(wiring.Component):
    """``o[n] = i[n]``: the same beats one clock later; valid, payload and ready are all registered.

    Latency 1, throughput one beat per clock. Holds two beats: when ``o`` stalls, the beat that was already
    accepted is parked beside the output register and ``i.ready`` falls one clock later.

    Parameters
    ----------
    shape : ShapeLike
        Payload of both streams.

    Members
    -------
    i : In(stream.Signature(shape))
    o : Out(stream.Signature(shape))
    """

    def __init__(self, shape: ShapeLike) -> None:
        self._shape = shape
        # Payloads count with their valid only, so they need no reset: it would be the widest net of a core.
        self._payload = Signal(shape, reset_less=True)
        self._parked = Signal(shape, reset_less=True)
        # i.ready is "nothing is parked" and nothing else; init 1 lets the first clock accept a beat.
        self._ready = Signal(init=1)
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.d.comb += [self.i.ready.eq(self._ready), self.o.payload.eq(self._payload)]
        with m.If(self.o.ready | ~self.o.valid):
            m.d.sync += [
                self.o.valid.eq(self.i.valid | ~self._ready),
                self._ready.eq(1),
            ]
            with m.If(self._ready):
                m.d.sync += self._payload.eq(self.i.payload)
            with m.Else():
                m.d.sync += self._payload.eq(self._parked)
        with m.Elif(self._ready):
            m.d.sync += [self._parked.eq(self.i.payload), self._ready.eq(~self.i.valid)]
        return m
