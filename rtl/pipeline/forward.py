"""The forward unit of a stage: a stream of pixels in, ``y = f(x, theta)`` out."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..kernel import Node
from ..stream.accumulate import Accumulate
from ..stream.feeder import Feeder
from ..stream.fifo import FlowFifo
from ..stream.fork import Fork
from ..stream.pixel import beat_layout
from ..stream.window import Window
from .build import Build
from .group import GroupEnd
from .lanes import Lanes
from .parameters import StageParameters
from .stage import StageGraph
from .unit import unit_members

__all__ = ["ForwardUnit", "depth_for", "tap_values"]


def depth_for(in_flight: int) -> int:
    """Depth of the FIFO behind a pipeline of so many beats: no bubble follows a stall."""
    return 2 * in_flight + 3


def tap_values(window, stage_radius: int, lane: int) -> dict:
    """The taps of a lane by the kernel's labels, from the Window's output."""
    values = {}
    r = stage_radius
    for dy in range(-r, r + 1):
        for dx in range(-r, r + 1):
            pixel = window[r + dy][r + lane + dx]
            for channel in pixel.shape().members:
                values[tap_label(channel, dy, dx)] = pixel[channel]
    return values


def tap_label(channel: str, dy: int, dx: int) -> str:
    """The label of a tap's port."""

    def signed_name(k: int) -> str:
        return f"m{-k}" if k < 0 else f"p{k}" if k else "0"

    return f"{channel}_y{signed_name(dy)}_x{signed_name(dx)}"


class ForwardUnit(wiring.Component):
    """Feeder, window, P datapaths, FIFO.

    Throughput: one beat per clock. Latency: the window's lag, then :attr:`latency` clocks.

    Parameters
    ----------
    graph : StageGraph
        Of the stage.
    build : Build
    parameters : StageParameters
    decisions : mapping of str to Node
        Conditions of the graph that the adjoint unit asks for.

    Members
    -------
    i, o : stream of beats of ``stage.i`` and ``stage.o``
    decisions : stream of the decisions of a beat, lane by lane
        Present if there are any.
    results : stream of signed(64)
        Per group of frames one word: how many cuts clipped.
    width, height, cfa, bypass, frames : static
    done : Out(1)
        One clock when the last beat of a frame has left the datapath.
    overrun : Out(1)
        A group ended before the result of the one before was taken.
    """

    def __init__(
        self,
        graph: StageGraph,
        build: Build,
        parameters: StageParameters,
        decisions: Mapping[str, Node] | None = None,
    ) -> None:
        self.stage, self.build, self.parameters = graph.stage, build, parameters
        stage = graph.stage
        self._decisions = dict(decisions or {})
        nodes = graph.outputs | self._decisions
        if graph.saturated is not None:
            nodes["saturated"] = graph.saturated
        self.lanes = Lanes(nodes, build=build, parameters=parameters)
        self._feeder = Feeder(stage.i, lanes=build.lanes, window=stage.radius)
        self._window = (
            Window(stage.i, lanes=build.lanes, radius=stage.radius, border=build.border, max_width=build.max_width,
                   family=build.family)
            if stage.radius else None
        )  # fmt: skip
        self.latency = self.lanes.latency + (self._window.latency if self._window else 0)
        self._in_flight = self.latency + self._feeder.margin
        members = {
            "i": In(stream.Signature(beat_layout(stage.i, build.lanes))),
            "o": Out(stream.Signature(beat_layout(stage.o, build.lanes))),
            "results": Out(stream.Signature(signed(64))),
            "cfa": In(2),
            "bypass": In(1),
        } | unit_members()
        if self._decisions:
            members["decisions"] = Out(stream.Signature(unsigned(len(self._decisions) * build.lanes)))
        super().__init__(members)

    @property
    def memory_bits(self) -> int:
        """Bits of the line buffers."""
        return self._window.memory_bits if self._window else 0

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes, stage = self.lanes, self.stage
        m.submodules.feeder = feeder = self._feeder
        m.submodules.lanes = lanes
        layout = data.StructLayout(
            {
                "beat": beat_layout(stage.o, self.build.lanes),
                "decisions": unsigned(len(self._decisions) * self.build.lanes),
            }
        )
        fifo = FlowFifo(layout, depth_for(self._in_flight), self._in_flight, family=self.build.family)
        m.submodules.fifo = fifo
        wiring.connect(m, wiring.flipped(self.i), feeder.i)
        m.submodules.fork = fork = Fork(layout, 2 if self._decisions else 1)
        wiring.connect(m, fifo.o, fork.i)
        leaving = {"beat": self.o} | ({"decisions": self.decisions} if self._decisions else {})
        for (name, o), branch in zip(leaving.items(), fork.o, strict=True):
            m.d.comb += [
                o.payload.eq(branch.payload[name]),
                o.valid.eq(branch.valid),
                branch.ready.eq(o.ready),
            ]
        m.d.comb += [
            feeder.room.eq(fifo.room),
            feeder.width.eq(self.width),
            feeder.height.eq(self.height),
            lanes.cfa.eq(self.cfa),
            lanes.bypass.eq(self.bypass),
        ]
        if self._window is None:
            tick = feeder.o.payload
            m.d.comb += [lanes.valid.eq(feeder.o.valid & tick.real), lanes.site.eq(tick.site)]
            for p in range(self.build.lanes):
                pixel = tick.lead[p]
                lanes.feed(m, p, {tap_label(c, 0, 0): pixel[c] for c in stage.i.names})
        else:
            m.submodules.window = window = self._window
            wiring.connect(m, feeder.o, window.i)
            # A register: what follows from the size would be made once for feeder and window, and far from one.
            m.d.sync += [window.width.eq(self.width), window.height.eq(self.height)]
            m.d.comb += [lanes.valid.eq(window.o.valid), lanes.site.eq(window.o.payload.site)]
            for p in range(self.build.lanes):
                lanes.feed(m, p, tap_values(window.o.payload.taps, stage.radius, p))

        beat, site = fifo.i.payload.beat, lanes.o_site
        taken = [outputs[label] for outputs in lanes.outputs for label in self._decisions]
        m.d.comb += [fifo.i.valid.eq(lanes.o_valid), fifo.i.payload.decisions.eq(Cat(taken))]
        m.d.comb += [beat.first.eq(site.first), beat.eol.eq(site.eol), beat.last.eq(site.last)]
        for p, outputs in enumerate(lanes.outputs):
            for channel in stage.o.names:
                m.d.comb += beat.lane[p][channel].eq(Mux(site.lanes[p], outputs[channel], 0))

        m.submodules.group = group = GroupEnd()
        m.d.comb += [
            group.beat.eq(lanes.o_valid),
            group.last.eq(site.last),
            group.frames.eq(self.frames),
            self.done.eq(lanes.o_valid & site.last),
        ]
        count = lanes.outputs[0].get("saturated")
        width = (len(count) if count is not None else 1) + 1
        m.submodules.saturated = saturated = Accumulate(
            [("saturated", width)], lanes=self.build.lanes, log2_count=self.build.log2_pixels
        )
        wiring.connect(m, saturated.o, wiring.flipped(self.results))
        m.d.comb += [
            saturated.i.valid.eq(lanes.o_valid),
            saturated.i.payload.last.eq(group.end),
            self.overrun.eq(saturated.overrun),
        ]
        for p, outputs in enumerate(lanes.outputs):
            if count is not None:
                m.d.comb += saturated.i.payload.saturated[p].eq(Mux(site.lanes[p], outputs["saturated"], 0))
        return m
