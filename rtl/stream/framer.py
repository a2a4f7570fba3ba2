"""The core's input edge: whatever arrives becomes frames of exactly width x height pixels."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.stream.pixel import Pixel, Raster, beat_layout, check_lanes

__all__ = ["Framer"]


class Framer(wiring.Component):
    """Turns marked transfers (AXI4-Stream Video) into beats: each admitted frame has exactly W x H pixels.

    A frame begins at a transfer with ``user``. A line that ends early is filled up with zeros; what a line
    has too much is dropped; a start of frame inside a frame waits until the rest of that frame is filled with
    zeros; between frames everything up to the next start of frame is dropped. So a fault damages its own line
    or frame, and the picture is never sheared.

    Throughput: one beat per clock, without bubbles for well-formed frames back to back. Latency: one cycle.

    Parameters
    ----------
    pixel : Pixel
        Pixel of the stream.
    lanes : int
        Pixels per beat P.

    Members
    -------
    i : In(stream.Signature(StructLayout({"lane": ..., "user": 1, "eol": 1})))
        Transfers of P pixels; ``user`` marks the first of a frame, ``eol`` the last of a line.
    width, height : In(16)
        Size of the picture in pixels, at least 1. May change while ``hold`` and ``idle`` are high; ``hold``
        stays high for two cycles more.
    hold : In(1)
        Do not begin another frame: a transfer with ``user`` waits. A frame that has begun goes on.
    o : Out(stream.Signature(beat_layout(pixel, lanes)))
        Registered.
    begins : Out(1)
        A frame's first transfer is taken in this clock.
    idle : Out(1)
        No frame has begun that has not left. With ``hold`` high as well it stays so.
    too_long, too_short : Out(1)
        High for one cycle when a line of the input turns out to be so.
    out_of_step : Out(1)
        High for one cycle when a frame begins inside a frame, and for every transfer dropped between frames
        other than the rest of a long last line.

    Raises
    ------
    ValueError
        If the lanes are not a power of two.
    """

    def __init__(self, pixel: Pixel, *, lanes: int = 1) -> None:
        check_lanes(lanes)
        self._lanes = lanes
        transfer = data.StructLayout({"lane": data.ArrayLayout(pixel.layout(), lanes), "user": 1, "eol": 1})
        super().__init__(
            {
                "i": In(stream.Signature(transfer)),
                "width": In(16),
                "height": In(16),
                "hold": In(1),
                "o": Out(stream.Signature(beat_layout(pixel, lanes))),
                "begins": Out(1),
                "idle": Out(1),
                "too_long": Out(1),
                "too_short": Out(1),
                "out_of_step": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a transfer to its beat."""
        return 1

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.raster = raster = Raster(lanes=self._lanes)
        m.d.comb += [raster.width.eq(self.width), raster.height.eq(self.height)]
        site, i, o = raster.site, self.i, self.o

        fill_line = Signal()  # the rest of the line is missing
        fill_frame = Signal()  # the rest of the frame is missing
        excess = Signal()  # the rest of the input's line is too much
        fill = fill_line | fill_frame
        between = site.first

        room = o.ready | ~o.valid
        accept = Signal()  # the offered transfer becomes the beat at `site`
        drop = Signal()
        emit = Signal()
        with m.If(fill):
            m.d.comb += emit.eq(room)
        with m.Elif(i.valid):
            with m.If(i.payload.user):
                m.d.comb += accept.eq(between & ~self.hold & room)
            with m.Else():
                m.d.comb += drop.eq(between | excess)
                m.d.comb += accept.eq(~between & ~excess & room)
        m.d.comb += i.ready.eq(accept | drop)
        m.d.comb += [raster.step.eq(emit | accept), self.begins.eq(accept & i.payload.user)]

        interrupted = Signal()
        m.d.comb += interrupted.eq(i.valid & i.payload.user & ~fill & ~between)
        m.d.sync += [
            self.too_short.eq(accept & i.payload.eol & ~site.eol),
            self.too_long.eq(accept & ~i.payload.eol & site.eol),
            self.out_of_step.eq(interrupted | (drop & ~excess)),
        ]
        with m.If(accept):
            m.d.sync += [fill_line.eq(i.payload.eol & ~site.eol), excess.eq(~i.payload.eol & site.eol)]
        with m.If(drop & i.payload.eol):
            m.d.sync += excess.eq(0)
        with m.If(emit & site.eol):
            m.d.sync += fill_line.eq(0)
        with m.If(emit & site.last):
            m.d.sync += fill_frame.eq(0)
        with m.If(interrupted):
            m.d.sync += [fill_frame.eq(1), excess.eq(0)]

        beat = Signal.like(o.payload, reset_less=True)
        m.d.comb += o.payload.eq(beat)
        with m.If(room):
            m.d.sync += [
                o.valid.eq(raster.step),
                beat.lane.eq(Mux(fill, 0, i.payload.lane.as_value())),
                beat.first.eq(site.first),
                beat.eol.eq(site.eol),
                beat.last.eq(site.last),
            ]
        m.d.comb += self.idle.eq(site.first & ~o.valid)
        return m
