"""What travels through a unit: pixels, beats of P pixels, flows, and the site a beat stands at.

A picture of W x H pixels travels in raster order, P pixels (*lanes*) per *beat*: lane p of beat b of line y
is pixel ``x = b P + p``; a line takes ``ceil(W / P)`` beats. Lanes at ``x >= W`` carry garbage that must
never influence a pixel inside the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, ShapeLike, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.numeric.format import Format

__all__ = [
    "BeatCounter",
    "Flow",
    "LineCounter",
    "Pixel",
    "Raster",
    "beat_layout",
    "check_lanes",
    "site_layout",
]


@dataclass(frozen=True)
class Pixel:
    """The channels of a pixel, each with its fixed-point format.

    Parameters
    ----------
    channels : tuple of (str, Format)
        Name and format of each channel, lowest bits first.

    Raises
    ------
    ValueError
        If there is no channel, a name is not an identifier or appears twice.
    """

    channels: tuple[tuple[str, Format], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple((name, form) for name, form in self.channels))
        if not self.channels:
            raise ValueError("a pixel without channels; name at least one, such as (('cfa', UQ(0, 16)),)")
        for name in self.names:
            if not name.isidentifier() or self.names.count(name) > 1:
                raise ValueError(f"channel name {name!r} in {self.names}; names must be distinct identifiers")

    @property
    def names(self) -> tuple[str, ...]:
        """Channel names in order."""
        return tuple(name for name, _ in self.channels)

    @property
    def width(self) -> int:
        """Bits of a pixel."""
        return sum(form.width for _, form in self.channels)

    def format(self, name: str) -> Format:
        """The format of a channel; ``KeyError`` names the channels there are."""
        try:
            return dict(self.channels)[name]
        except KeyError:
            raise KeyError(f"no channel {name!r}; this pixel has {', '.join(self.names)}") from None

    def layout(self) -> data.StructLayout:
        """``{channel: shape}``, the Amaranth layout of a pixel."""
        return data.StructLayout({name: form.shape for name, form in self.channels})


def check_lanes(lanes: int) -> None:
    """Accept a power of two of at least 1 as the number of lanes P; anything else is a ``ValueError``."""
    if not isinstance(lanes, int) or lanes < 1 or lanes & (lanes - 1):
        raise ValueError(f"lanes={lanes!r}; give a power of two: 1, 2 or 4 pixels per clock")


def beat_layout(pixel: Pixel, lanes: int) -> data.StructLayout:
    """A beat of ``lanes`` pixels with its place in the frame.

    ``lane`` : ``lanes`` pixels; ``first`` : first beat of a frame; ``eol`` : last beat of a line;
    ``last`` : last beat of a frame.
    """
    check_lanes(lanes)
    return data.StructLayout(
        {"lane": data.ArrayLayout(pixel.layout(), lanes), "first": 1, "eol": 1, "last": 1}
    )


def site_layout(lanes: int) -> data.StructLayout:
    """Where a beat stands: ``x`` (of lane 0) and ``y``, ``first``/``eol``/``last`` as in a beat, and
    ``lanes``, one bit per lane: 1 where that lane lies inside the picture.
    """
    check_lanes(lanes)
    return data.StructLayout({"x": 16, "y": 16, "first": 1, "eol": 1, "last": 1, "lanes": unsigned(lanes)})


class Flow(wiring.Signature):
    """A stream without back-pressure: ``payload`` counts in every cycle in which ``valid`` is high.

    Inside a unit everything is a free-running pipeline; elasticity lives at the unit's borders only.

    Parameters
    ----------
    shape : ShapeLike
        Shape of the payload.

    Members
    -------
    valid : Out(1)
    payload : Out(shape)
    """

    def __init__(self, shape: ShapeLike) -> None:
        super().__init__({"valid": Out(1), "payload": Out(shape)})


class BeatCounter(wiring.Component):
    """``beat`` = steps since the line's first beat, ``eol`` = (beat == last_beat): both registers.

    Parameters
    ----------
    width : int
        Bits of ``beat``.

    Members
    -------
    step : In(1)
        Go to the next beat: to 0 after ``last_beat``.
    restart : In(1)
        Go to 0.
    last_beat : In(width)
        May change while beat is 0, a cycle before the next step.
    beat : Out(width)
    eol : Out(1)
    """

    def __init__(self, width: int) -> None:
        # beat + 1, so that no comparison stands behind an adder; an attribute because the proofs say so
        self._after = Signal(width, name="after", init=1)
        super().__init__(
            {
                "step": In(1),
                "restart": In(1),
                "last_beat": In(width),
                "beat": Out(width),
                "eol": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        after = self._after
        with m.If(self.restart | (self.step & self.eol)):
            m.d.sync += [self.beat.eq(0), after.eq(1), self.eol.eq(self.last_beat == 0)]
        with m.Elif(self.step):
            m.d.sync += [self.beat.eq(after), after.eq(after + 1), self.eol.eq(after == self.last_beat)]
        with m.Else():
            m.d.sync += self.eol.eq(self.beat == self.last_beat)
        return m


class LineCounter(wiring.Component):
    """``y`` = lines ended, modulo ``last_line + 1``; ``bottom`` = (y == last_line).

    A line is added a clock later, and ``y`` knows: the adder does not lie behind ``ends``, which comes from far.

    Members
    -------
    ends : In(1)
        A line ends.
    last_line : In(16)
        May change while y is 0, two cycles before the next line ends.
    y : Out(16)
    bottom : Out(1)
    """

    def __init__(self) -> None:
        super().__init__({"ends": In(1), "last_line": In(16), "y": Out(16), "bottom": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        before = Signal(16)
        after = Signal(16, init=1)  # before + 1, so that no comparison stands behind an adder
        ended = Signal()
        bottom_before = Signal(reset_less=True)
        m.d.comb += [
            self.y.eq(Mux(ended, Mux(bottom_before, 0, after), before)),
            self.bottom.eq(self.y == self.last_line),
        ]
        m.d.sync += [
            ended.eq(self.ends),
            before.eq(self.y),
            after.eq(self.y + 1),
            bottom_before.eq(self.bottom),
        ]
        return m


class Raster(wiring.Component):
    """Counts beats in raster order, frame after frame: ``site`` is where the next step stands.

    Combinational from its counters, which move at the end of a cycle with ``step``.

    Parameters
    ----------
    lanes : int
        Pixels per beat P.

    Members
    -------
    step : In(1)
        Go to the next beat.
    width, height : In(16)
        Size of the picture in pixels, at least 1. May change between frames, two cycles before the next step.
    site : Out(site_layout(lanes))
    """

    def __init__(self, *, lanes: int = 1) -> None:
        check_lanes(lanes)
        self._lanes = lanes
        self._beats = BeatCounter(17 - lanes.bit_length())
        super().__init__({"step": In(1), "width": In(16), "height": In(16), "site": Out(site_layout(lanes))})

    def elaborate(self, platform) -> Module:
        m = Module()
        lane_bits = self._lanes.bit_length() - 1
        # Static: registered so that no subtraction of the geometry sits in front of the counters.
        last_pixel = Signal(16, reset_less=True)
        last_line = Signal(16, reset_less=True)
        m.d.sync += [last_pixel.eq(self.width - 1), last_line.eq(self.height - 1)]
        last_lane = last_pixel[:lane_bits]

        m.submodules.beats = beats = self._beats
        m.submodules.lines = lines = LineCounter()
        first = Signal(init=1)
        eol = beats.eol
        m.d.comb += [
            beats.step.eq(self.step),
            beats.last_beat.eq(last_pixel[lane_bits:]),
            lines.ends.eq(self.step & eol),
            lines.last_line.eq(last_line),
        ]
        with m.If(self.step):
            m.d.sync += first.eq(eol & lines.bottom)
        m.d.comb += [
            self.site.x.eq(beats.beat << lane_bits),
            self.site.y.eq(lines.y),
            self.site.first.eq(first),
            self.site.eol.eq(eol),
            self.site.last.eq(eol & lines.bottom),
            self.site.lanes.eq(Cat(~eol | (p <= last_lane) for p in range(self._lanes))),
        ]
        return m
