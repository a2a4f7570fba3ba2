"""Groups of frames: gradients are summed over them."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["GroupEnd"]


class GroupEnd(wiring.Component):
    """Which beat ends a group of ``frames`` frames. Latency 0, once ``frames`` has been there for `settle` clocks.

    Members
    -------
    beat, last : In(1)
        A beat is there; it is the last of its frame.
    frames : In(16)
        Frames per group, at least 1; static.
    end : Out(1)
        The beat is the last of its group.
    """

    settle = 3

    def __init__(self) -> None:
        super().__init__({"beat": In(1), "last": In(1), "frames": In(16), "end": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        done = Signal(16)  # frames of this group that have ended
        final = Signal()  # a register: it reaches all that a group's end sets off
        before_last = Signal(16, reset_less=True)
        before_that = Signal(16, reset_less=True)
        single = Signal()
        m.d.sync += [
            before_last.eq(self.frames - 1),
            before_that.eq(Mux(before_last == 0, 0, before_last - 1)),
            single.eq(before_last == 0),
        ]
        m.d.comb += self.end.eq(self.last & final)
        # At least, not equal: a commit inside a group may have made groups shorter.
        with m.If(~(self.beat & self.last)):
            m.d.sync += final.eq(done >= before_last)
        with m.Elif(final):
            m.d.sync += [done.eq(0), final.eq(single)]
        with m.Else():
            m.d.sync += [done.eq(done + 1), final.eq(done >= before_that)]
        return m
