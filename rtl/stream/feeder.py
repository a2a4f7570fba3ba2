"""The front end of every unit: streams in, a flow of ticks out."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.stream.pixel import (
    BeatCounter,
    Flow,
    LineCounter,
    Pixel,
    beat_layout,
    check_lanes,
    site_layout,
)

__all__ = ["MIN_LINE", "Feeder", "tick_layout"]

MIN_LINE = 4
"""Fewest cycles between two ticks of the same column of neighbouring lines.

`Scatter`'s line memory needs four: read (1), output register (1), add (1), write (1). `Window`'s needs three.
"""


def tick_layout(pixel: Pixel, lanes: int, trailing: Pixel | None = None) -> data.StructLayout:
    """What a tick carries.

    ``lead`` : the lanes of the lead beat (garbage in a dummy tick); ``trailing`` : the lanes of the trailing
    beat, present if the unit has one, meaningful if ``real``; ``site`` : place of the beat that lies the
    window's radius in *lines* behind the lead beat, which for a unit without window is the centre itself;
    ``real`` : the centre of this tick is a beat of a picture; ``out`` : the `Scatter` completes a beat of a
    picture in this tick.
    """
    fields: dict = {"lead": data.ArrayLayout(pixel.layout(), lanes)}
    if trailing is not None:
        fields["trailing"] = data.ArrayLayout(trailing.layout(), lanes)
    return data.StructLayout(fields | {"site": site_layout(lanes), "real": 1, "out": 1})


class Feeder(wiring.Component):
    """Joins one or two streams into ticks: tick n brings lead beat n and has beat n - Lw as its centre.

    ``Lw = window * B + ceil(window / P)`` with B beats per line: the window's lower right tap has just
    arrived. ``Ls`` is the same with ``scatter``: in tick n `Scatter` completes beat n - Lw - Ls. The trailing
    beat (the cotangent of the centre, a target, ...) is popped in the centre's tick.

    Beats are numbered across frames, so frames follow without blanking: in the steady state a frame takes
    exactly B * H ticks and its successor's ticks push its tail out. When no lead beat arrives at a frame
    boundary for ``patience`` cycles, dummy ticks push the tail out (the lead stream is held meanwhile), and
    the next frame starts from nothing.

    Throughput: one tick per clock. With a window or a scatter, lines of fewer than `MIN_LINE` beats are
    throttled to ``ceil(MIN_LINE / B)`` clocks per tick, because the line memories have a read latency.
    Latency: one cycle from the beats to their tick.

    Parameters
    ----------
    pixel : Pixel
        Pixel of the lead stream.
    lanes : int
        Pixels per beat P.
    window : int
        Radius of the unit's `Window`, 0 if it has none.
    scatter : int
        Radius of the unit's `Scatter`, 0 if it has none.
    trailing : Pixel or None
        Pixel of the trailing stream, if there is one.
    patience : int
        Cycles without a lead beat at a frame boundary before the flush, at least 2.

    Members
    -------
    i : In(stream.Signature(beat_layout(pixel, lanes)))
        Lead beats, whole frames. With a window or a scatter only ``last`` of the flags is looked at; without
        either all of them go on.
    c : In(stream.Signature(beat_layout(trailing, lanes)))
        Trailing beats, as many as lead beats. Present if ``trailing`` is given. The flags are not looked at.
    room : In(1)
        Downstream has room for what is on its way and `margin` ticks more.
    width, height : In(16)
        Size of the picture in pixels, at least 1. May change only while ``empty`` is high; no beat may be
        offered until three cycles later.
    o : Out(Flow(tick_layout(pixel, lanes, trailing)))
    empty : Out(1)
        Registered. No frame has begun whose centres and scattered beats have not all been ticked out. The
        last ticks may still be in the pipelines behind ``o``.

    Raises
    ------
    ValueError
        If a radius is negative, the patience is below 2 or the lanes are not a power of two.
    """

    def __init__(
        self,
        pixel: Pixel,
        *,
        lanes: int = 1,
        window: int = 0,
        scatter: int = 0,
        trailing: Pixel | None = None,
        patience: int = 32,
    ) -> None:
        check_lanes(lanes)
        if window < 0 or scatter < 0:
            raise ValueError(f"window={window}, scatter={scatter}; a radius is 0 (none) or positive")
        if patience < 2:
            raise ValueError(f"patience={patience}; give at least two cycles")
        self._lanes = lanes
        self._window = window
        self._scatter = scatter
        self._trailing = trailing
        self._patience = patience
        members = {
            "i": In(stream.Signature(beat_layout(pixel, lanes))),
            "room": In(1),
            "width": In(16),
            "height": In(16),
            "o": Out(Flow(tick_layout(pixel, lanes, trailing))),
            "empty": Out(1, init=1),  # pyright: ignore[reportCallIssue]
        }
        if trailing is not None:
            members["c"] = In(stream.Signature(beat_layout(trailing, lanes)))
        super().__init__(members)

    @property
    def latency(self) -> int:
        """Cycles from a beat to its tick."""
        return 1

    @property
    def margin(self) -> int:
        """Ticks that may still appear on ``o`` from the first cycle with ``room`` low on (inclusive)."""
        return 2

    def lag(self, width: int) -> int:
        """Ticks from a lead beat to the tick that has it as its centre, at a picture width."""
        return self._lag(width, self._window)

    def scatter_lag(self, width: int) -> int:
        """Ticks from a centre to the tick in which `Scatter` completes that beat, at a picture width."""
        return self._lag(width, self._scatter)

    def _lag(self, width: int, radius: int) -> int:
        return radius * -(-width // self._lanes) + -(-radius // self._lanes)

    def elaborate(self, platform) -> Module:
        m = Module()
        lane_bits = self._lanes.bit_length() - 1
        lines = self._window + self._scatter
        columns = -(-self._window // self._lanes)
        scatter_columns = columns + -(-self._scatter // self._lanes)

        # Static: registered so that no subtraction of the geometry sits in front of the counters.
        last_beat = Signal(16 - lane_bits, reset_less=True)
        last_line = Signal(16, reset_less=True)
        last_lane = Signal(max(lane_bits, 1), reset_less=True)
        last_pixel = Signal(16)
        m.d.comb += last_pixel.eq(self.width - 1)
        m.d.sync += last_beat.eq(last_pixel[lane_bits:])
        m.d.sync += last_lane.eq(last_pixel[:lane_bits])
        m.d.sync += last_line.eq(self.height - 1)

        # Realness travels like the beats: by lines first (both ends of a run lie on line boundaries), then by
        # ticks.
        flushing = Signal()
        line_real = Signal(lines)
        real_at = Cat(~flushing, line_real)  # real_at[k]: the beat k lines behind the lead is of a picture
        tick_real = Signal(columns)
        tick_out = Signal(scatter_columns)
        real = tick_real[-1] if columns else real_at[self._window]
        out = tick_out[-1] if scatter_columns else real_at[lines]
        pending = Signal()
        m.d.comb += pending.eq(Cat(line_real, tick_real, tick_out).any())

        # Found out a clock ahead, as ready hangs on it: `clear`, nothing but a missing beat keeps the next tick from
        # happening; `opened`, and a lead beat is let in. A flush begins and ends in a clock that lets none in.
        tick = Signal()
        clear = Signal()
        opened = Signal()
        clears = Signal()
        patience = Signal(range(self._patience), init=self._patience - 1)
        if lines:
            gap = Signal(range(MIN_LINE), init=MIN_LINE - 1)
            gapless = Signal()
            wait = Signal.like(gap)
            spacing = [-(-MIN_LINE // beats) - 1 for beats in range(1, MIN_LINE)]
            with m.Switch(last_beat):
                for beat, cycles in enumerate(spacing):
                    with m.Case(beat):
                        m.d.sync += [gap.eq(cycles), gapless.eq(cycles == 0)]
                with m.Default():
                    m.d.sync += [gap.eq(0), gapless.eq(1)]
            with m.If(tick):
                m.d.sync += wait.eq(gap)
            with m.Elif(wait != 0):
                m.d.sync += wait.eq(wait - 1)
            m.d.comb += clears.eq(self.room & Mux(tick, gapless, wait <= 1))
            m.d.sync += opened.eq(clears & ~flushing & (patience != 0))
        else:
            m.d.comb += clears.eq(self.room)
            m.d.sync += opened.eq(clears)
        m.d.sync += clear.eq(clears)
        centred = (self.c.valid | ~real) if self._trailing is not None else 1
        leads = opened & self.i.valid
        flushes = clear & flushing
        m.d.comb += [
            tick.eq((leads | (flushes & pending)) & centred),
            self.i.ready.eq(opened & centred),
        ]
        if self._trailing is not None:
            # A real centre is pending itself: its beat need not wait for the others to say so.
            m.d.comb += self.c.ready.eq((leads | flushes) & real)

        # Counters: the column is the same for every line of the window, the line is that of its middle.
        beat = Signal(16 - lane_bits)
        m.submodules.line_counter = counter = LineCounter()
        flushed = Signal()  # the flush is over
        eol = Signal()
        last = Signal()
        first = Signal()
        m.d.comb += [counter.ends.eq(tick & eol & real_at[self._window]), counter.last_line.eq(last_line)]
        if lines:
            m.submodules.beat_counter = beats = BeatCounter(len(beat))
            m.d.comb += [
                beats.step.eq(tick),
                beats.restart.eq(flushed),
                beats.last_beat.eq(last_beat),
                beat.eq(beats.beat),
                eol.eq(beats.eol),
                flushed.eq(flushing & ~pending),
                last.eq(eol & counter.bottom),
                first.eq((beat == 0) & (counter.y == 0)),
            ]
        else:
            # The centre is the lead beat itself and brings its flags: counters are there only if somebody asks
            # where it stands.
            flags = self.i.payload
            m.d.comb += [eol.eq(flags.eol), last.eq(flags.last), first.eq(flags.first)]
            with m.If(tick):
                m.d.sync += beat.eq(Mux(eol, 0, beat + 1))
        # The next lead beat begins a frame. A beat's word counts a clock later, and `boundary` knows: `tick` comes from
        # far, and flags come along with it.
        boundary = Signal()
        boundary_before = Signal(init=1)
        led = Signal()
        led_last = Signal()
        m.d.comb += boundary.eq(Mux(led, led_last, boundary_before))
        m.d.sync += [
            boundary_before.eq(boundary),
            led.eq(tick & ~flushing),
            led_last.eq(self.i.payload.last),
        ]
        with m.If(tick):
            m.d.sync += tick_real.eq(Cat(real_at[self._window], tick_real)[:columns])
            m.d.sync += tick_out.eq(Cat(real_at[lines], tick_out)[:scatter_columns])
            with m.If(eol):
                m.d.sync += line_real.eq(real_at[:lines])

        if lines:
            with m.If(flushed):
                m.d.sync += [flushing.eq(0), self.empty.eq(1)]
            with m.Elif(~flushing & boundary & pending & ~self.i.valid):
                m.d.sync += patience.eq(patience - 1)
                with m.If(patience == 0):
                    m.d.sync += flushing.eq(1)
            with m.If(flushing | self.i.valid):
                m.d.sync += patience.eq(self._patience - 1)
            with m.If(tick):
                m.d.sync += self.empty.eq(0)
        else:
            with m.If(tick):
                m.d.sync += self.empty.eq(self.i.payload.last)

        payload = Signal.like(self.o.payload, reset_less=True)
        m.d.comb += self.o.payload.eq(payload)
        m.d.sync += self.o.valid.eq(tick)
        m.d.sync += payload.lead.eq(self.i.payload.lane)
        if self._trailing is not None:
            m.d.sync += payload.trailing.eq(self.c.payload.lane)
        m.d.sync += [
            payload.site.x.eq(beat << lane_bits),
            payload.site.y.eq(counter.y),
            payload.site.first.eq(first),
            payload.site.eol.eq(eol),
            payload.site.last.eq(last),
            payload.site.lanes.eq(Cat(~eol | (p <= last_lane) for p in range(self._lanes))),
            payload.real.eq(real),
            payload.out.eq(out),
        ]
        return m
