"""The turning point: the output meets its target, and the cotangent starts back."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..kernel import Graph, Node, clips, cut, maximum, minimum, total, where
from ..kernel.primitives.source import Entry, Flag, Tap
from ..numeric import UQ, Format
from ..stream.accumulate import Accumulate
from ..stream.feeder import Feeder
from ..stream.fifo import FlowFifo
from ..stream.pixel import Pixel, beat_layout
from .build import Build
from .forward import depth_for, tap_label
from .group import GroupEnd
from .lanes import Lanes
from .unit import unit_members

__all__ = ["DELTA", "KINDS", "SCALE", "LossUnit", "fused", "loss_nodes"]

KINDS = ("squared", "l1", "huber", "external")
"""Losses by their code. External: the cotangent comes from outside and the loss is 0."""

DELTA = UQ(0, 12)
"""Format of the threshold of the Huber loss."""

SCALE = UQ(8, 8)
"""Format of the factor of the cotangent."""


def fused(channels: dict[str, Format]) -> bool:
    """Whether a loss can be made inside: twice an error must fit a multiplier. Else the cotangent is external."""
    return all(form.width <= 16 for form in channels.values())


def loss_nodes(channels: dict[str, Format], cotangent: Format) -> dict[str, Node]:
    """``rho(d)`` and ``ybar = cut(scale psi(d))`` with ``d = y - target``, for every channel.

    With ``m = min(|d|, delta)`` for Huber and ``m = |d|`` for squared::

        rho = m (2 |d| - m) / 2          psi = d limited to +-delta       (squared: no limit)
        rho = |d|                        psi = sign(d), 0 at 0            (L1)

    Outputs: a cotangent per channel, ``loss`` (summed over the channels, with 2f+1 fractional bits for a picture
    of f) and ``saturated``, the number of cotangents that clipped.
    """
    graph = Graph()
    if not fused(channels):
        return {c: graph.node(Tap(cotangent, f"{c}_cotangent", 0, 0)) for c in channels} | {
            "loss": graph.constant(0)
        }
    fraction = next(iter(channels.values())).f
    delta = graph.node(Entry(DELTA, "delta", 0))
    scale = graph.node(Entry(SCALE, "scale", 0))
    l1, huber, external = (graph.node(Flag(UQ(1, 0), name)) for name in KINDS[1:])
    zero = graph.constant(0)
    nodes: dict[str, Node] = {}
    losses, flags = [], []
    for channel, form in channels.items():
        y = graph.node(Tap(form, channel, 0, 0))
        target = graph.node(Tap(form, f"{channel}_target", 0, 0))
        given = graph.node(Tap(cotangent, f"{channel}_cotangent", 0, 0))
        d = (y - target).named(f"{channel}_error")
        size = abs(d)
        m = where(huber, minimum(size, delta), size)
        losses.append(where(external, zero, where(l1, size, (m * ((size << 1) - m)) >> 1)))
        sign = where(d < 0, graph.constant(-1), where(zero < d, graph.constant(1), zero))
        psi = where(l1, sign, where(huber, maximum(minimum(d, delta), -delta), d))
        product = psi * scale
        # Rounding to the same format first makes the clip of the cut visible.
        scaled = cut(product, cotangent)
        rounded = scaled.arguments[0] if scaled.primitive.mnemonic == "saturate" else scaled
        flags.append(where(external, zero, clips(rounded, cotangent)))
        nodes[channel] = where(external, given, scaled)
    nodes["loss"] = cut(total(losses), Format(False, 2 + len(losses), 2 * fraction + 1))
    saturated = total(flags)
    if not saturated.is_zero:
        nodes["saturated"] = saturated
    return nodes


class LossUnit(wiring.Component):
    """The picture and its target (or an external cotangent) in, the cotangent of the picture out.

    Throughput one beat per clock. Lanes outside the picture give cotangent 0, so that nothing they carried
    reaches a gradient.

    Members
    -------
    i, target, cotangent : stream of beats
        All of the same frame. Of target and cotangent only one is read: cotangent if ``kind`` is external.
    o : stream of beats of cotangents
    results : stream of signed(64)
        Per group: the loss, then how many cotangents clipped.
    width, height, kind, delta, scale, frames : static
    done, overrun : Out(1)
        As in ForwardUnit.
    """

    def __init__(self, pixel: Pixel, cotangent: Format, build: Build) -> None:
        self.build = build
        self.pixel = pixel
        self.o_pixel = Pixel(tuple((channel, cotangent) for channel in pixel.names))
        self._trailing = Pixel(
            tuple((f"{c}_target", form) for c, form in pixel.channels)
            + tuple((f"{c}_cotangent", cotangent) for c in pixel.names)
        )
        self.lanes = Lanes(loss_nodes(dict(pixel.channels), cotangent), build=build)
        self._feeder = Feeder(pixel, lanes=build.lanes, trailing=self._trailing)
        self.latency = self.lanes.latency
        self._in_flight = self.latency + self._feeder.margin
        super().__init__(
            {
                "i": In(stream.Signature(beat_layout(pixel, build.lanes))),
                "target": In(stream.Signature(beat_layout(pixel, build.lanes))),
                "cotangent": In(stream.Signature(beat_layout(self.o_pixel, build.lanes))),
                "o": Out(stream.Signature(beat_layout(self.o_pixel, build.lanes))),
                "results": Out(stream.Signature(signed(64))),
                "kind": In(2),
                "delta": In(DELTA.width),
                "scale": In(SCALE.width),
            }
            | unit_members()
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes, feeder = self.lanes, self._feeder
        m.submodules.feeder, m.submodules.lanes = feeder, lanes
        fifo = FlowFifo(
            beat_layout(self.o_pixel, self.build.lanes),
            depth_for(self._in_flight),
            self._in_flight,
            family=self.build.family,
        )
        m.submodules.fifo = fifo
        wiring.connect(m, wiring.flipped(self.i), feeder.i)
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        external = Signal()
        always = not fused(dict(self.pixel.channels))
        m.d.sync += external.eq(1 if always else self.kind == KINDS.index("external"))
        m.d.comb += [
            feeder.room.eq(fifo.room),
            feeder.width.eq(self.width),
            feeder.height.eq(self.height),
            feeder.c.valid.eq(Mux(external, self.cotangent.valid, self.target.valid)),
            self.cotangent.ready.eq(external & feeder.c.ready),
            self.target.ready.eq(~external & feeder.c.ready),
        ]
        tick = feeder.o.payload
        m.d.comb += [lanes.valid.eq(feeder.o.valid & tick.real), lanes.site.eq(tick.site)]
        known = {"delta_0": self.delta, "scale_0": self.scale}
        known |= {kind: self.kind == code for code, kind in enumerate(KINDS)}
        for p in range(self.build.lanes):
            for channel in self.pixel.names:
                m.d.comb += [
                    feeder.c.payload.lane[p][f"{channel}_target"].eq(self.target.payload.lane[p][channel]),
                    feeder.c.payload.lane[p][f"{channel}_cotangent"].eq(
                        self.cotangent.payload.lane[p][channel]
                    ),
                ]
            values = {tap_label(c, 0, 0): tick.lead[p][c] for c in self.pixel.names}
            values |= {tap_label(c, 0, 0): tick.trailing[p][c] for c in self._trailing.names}
            lanes.feed(m, p, values | known)

        beat, site = fifo.i.payload, lanes.o_site
        m.submodules.group = group = GroupEnd()
        m.d.comb += [
            fifo.i.valid.eq(lanes.o_valid),
            beat.first.eq(site.first),
            beat.eol.eq(site.eol),
            beat.last.eq(site.last),
            group.beat.eq(lanes.o_valid),
            group.last.eq(site.last),
            group.frames.eq(self.frames),
            self.done.eq(lanes.o_valid & site.last),
        ]
        terms = [name for name in ("loss", "saturated") if name in lanes.outputs[0]]
        m.submodules.sums = sums = Accumulate(
            [
                (name, len(lanes.outputs[0][name]) + 1 if name in terms else 2)
                for name in ("loss", "saturated")
            ],
            lanes=self.build.lanes,
            log2_count=self.build.log2_pixels,
        )
        wiring.connect(m, sums.o, wiring.flipped(self.results))
        m.d.comb += [
            sums.i.valid.eq(lanes.o_valid),
            sums.i.payload.last.eq(group.end),
            self.overrun.eq(sums.overrun),
        ]
        for p, outputs in enumerate(lanes.outputs):
            inside = site.lanes[p]
            for channel in self.pixel.names:
                m.d.comb += beat.lane[p][channel].eq(Mux(inside, outputs[channel], 0))
            for name in terms:
                m.d.comb += sums.i.payload[name][p].eq(Mux(inside, outputs[name], 0))
        return m
