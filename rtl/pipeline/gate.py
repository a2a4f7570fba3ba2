"""When a group of frames may begin: not while its results could collide with those of earlier groups."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, ShapeLike, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..stream.fifo import Count
from ..stream.skid import SkidBuffer
from .group import GroupEnd

__all__ = ["Gate"]


class Gate(wiring.Component):
    """``o[n] = i[n]``, but the first beat of a group of frames may have to wait.

    It waits while two groups' results are outstanding, or while one is and the last frame was too small to cover
    the read-out: fewer than ``cover`` beats below its first ``lag_lines`` lines. So a group never ends before the
    results of the one before it are safe, and frames of a useful size follow each other without a gap.

    Latency 1, one beat per clock; frames of one beat, one in two clocks.

    Parameters
    ----------
    shape : ShapeLike
        Of a beat.
    lag_lines : int
        Lines from a beat at the input until its last cotangent has left.
    cover : int
        Beats that the read-out of the results takes, with the latency of all units.

    Members
    -------
    i, o : stream of beats
    frames : In(16)
        Frames per group.
    done : In(1)
        One clock per frame that has left the last unit.
    collected : In(1)
        One clock per group whose results are in the result memory.
    empty : Out(1)
        No beat waits at the gate, and no frame is between it and the last unit.
    """

    def __init__(self, shape: ShapeLike, *, lag_lines: int, cover: int) -> None:
        self._shape, self._lag_lines, self._cover = shape, lag_lines, cover
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "frames": In(16),
                "done": In(1),
                "collected": In(1),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # What decides is in registers, and so is what the stream before the gate sees.
        m.submodules.skid = skid = SkidBuffer(self._shape)
        wiring.connect(m, wiring.flipped(self.i), skid.i)
        offered = skid.o
        beat = offered.payload
        passes = Signal()
        shut = Signal()
        m.d.comb += [
            self.o.payload.eq(beat),
            self.o.valid.eq(offered.valid & ~(beat.first & shut)),
            offered.ready.eq(self.o.ready & ~(beat.first & shut)),
            passes.eq(self.o.valid & self.o.ready),
        ]

        begins = passes & beat.first
        m.submodules.inside = inside = Count(0xFFFF)  # frames
        m.d.comb += [inside.up.eq(begins), inside.down.eq(self.done)]
        m.d.comb += self.empty.eq(inside.empty & ~offered.valid)

        m.submodules.group = group = GroupEnd()
        m.d.comb += [group.frames.eq(self.frames), group.beat.eq(passes), group.last.eq(beat.last)]
        number_is_0 = Signal(init=1)  # of the next frame in its group
        with m.If(passes & beat.last):
            m.d.sync += number_is_0.eq(group.end)

        m.submodules.groups = groups = Count(2)  # begun, results not collected
        m.d.comb += [groups.up.eq(begins & number_is_0), groups.down.eq(self.collected)]

        # Beats until the frame that began last has gone far enough.
        line = Signal(range(self._lag_lines + 1))
        to_cover = Signal(range(self._cover + 1))
        covered = Signal()
        with m.If(passes):
            with m.If(beat.first):
                m.d.sync += [
                    line.eq(beat.eol if self._lag_lines else 0),
                    to_cover.eq(self._cover),
                    covered.eq(0),
                ]
            with m.Else():
                with m.If(beat.eol & (line != self._lag_lines)):
                    m.d.sync += line.eq(line + 1)
                with m.If((line == self._lag_lines) & ~covered):
                    m.d.sync += [to_cover.eq(to_cover - 1), covered.eq(to_cover == 1)]
        # What is counted in this clock tells in the next but one: until then no other frame begins.
        at_0 = Mux(passes & beat.last, group.end, number_is_0)
        m.d.sync += shut.eq(begins | (at_0 & (groups.full | (~groups.empty & ~covered))))
        return m
