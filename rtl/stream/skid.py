"""A stream register that cuts every path: valid, payload and ready."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ShapeLike, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SkidBuffer"]


class SkidBuffer(wiring.Component):
    """``o[n] = i[n]``: the same beats one clock later; valid and ready are registers, payload one of two.

    Latency 1, throughput one beat per clock. Two rows take the beats in turn. Neither end's handshake reaches their
    bits: the row whose turn it is takes whatever stands at ``i``, and ``o`` shows the row whose beat is older.

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
        self._rows = [Signal(shape, name=f"row_{k}", reset_less=True) for k in range(2)]
        self._open = [
            Signal(name=f"open_{k}", init=1 - k) for k in range(2)
        ]  # the next beat's row, while free
        self._next = Signal()
        self._oldest = Signal()
        # i.ready is "not both rows are held" and nothing else; init 1 lets the first clock accept a beat.
        self._ready = Signal(init=1)
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform) -> Module:
        m = Module()
        push, pop = self.i.valid & self._ready, self.o.valid & self.o.ready
        turn, room = self._next ^ push, pop | ~self.o.valid | (self._ready & ~push)
        m.d.comb += [
            self.i.ready.eq(self._ready),
            Value.cast(self.o.payload).eq(
                Mux(self._oldest, *(Value.cast(row) for row in reversed(self._rows)))
            ),
        ]
        m.d.sync += [
            self.o.valid.eq(push | (self.o.valid & ~(self.o.ready & self._ready))),
            self._ready.eq(room),
            self._next.eq(turn),
            self._oldest.eq(self._oldest ^ pop),
            self._open[0].eq(room & ~turn),
            self._open[1].eq(room & turn),
        ]
        for row, taking in zip(self._rows, self._open, strict=True):
            with m.If(taking):
                m.d.sync += row.eq(self.i.payload)
        return m
