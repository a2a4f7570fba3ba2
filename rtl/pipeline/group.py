"""Groups of frames: gradients are summed over them."""

from __future__ import annotations

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["GroupEnd"]


class GroupEnd(wiring.Component):
    """Which beat ends a group of ``frames`` frames. Latency 0.

    Members
    -------
    beat, last : In(1)
        A beat is there; it is the last of its frame.
    frames : In(16)
        Frames per group, at least 1; static.
    end : Out(1)
        The beat is the last of its group.
    """

    def __init__(self) -> None:
        super().__init__({"beat": In(1), "last": In(1), "frames": In(16), "end": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        done = Signal(16)  # frames of this group that have ended
        before_last = Signal(16)
        final = Signal()
        m.d.sync += before_last.eq(self.frames - 1)
        # At least, not equal: a commit inside a group may have made groups shorter.
        m.d.comb += final.eq(done >= before_last)
        m.d.comb += self.end.eq(self.last & final)
        with m.If(self.beat & self.last):
            m.d.sync += done.eq(done + 1)
            with m.If(final):
                m.d.sync += done.eq(0)
        return m
