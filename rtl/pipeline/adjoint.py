"""The adjoint unit of a stage: its taped input and the cotangent of its output in, its pullback out."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..kernel import Graph, Node, clips, cut, tape_decisions, total
from ..kernel.lower import DelayLine
from ..kernel.primitives.source import Tap
from ..numeric import SQ, UQ, Format
from ..stream.accumulate import Accumulate
from ..stream.feeder import Feeder
from ..stream.fifo import FlowFifo
from ..stream.pixel import Pixel, beat_layout
from ..stream.scatter import Scatter
from ..stream.scatter_add import ScatterAdd
from ..stream.window import Edges, Window
from .build import Build
from .entry_sums import EntrySums
from .forward import depth_for, tap_label, tap_values
from .group import GroupEnd
from .lanes import Lanes
from .parameters import StageParameters
from .stage import StageGraph
from .unit import unit_members

__all__ = ["AdjointUnit"]


def _covering(nodes: list[Node], terms: int) -> Format:
    """The narrowest signed format that holds sums of so many of the nodes."""
    f = max(node.f for node in nodes)
    ranges = [node.range.at(f) for node in nodes]
    lo, hi = terms * min(r.lo for r in ranges), terms * max(r.hi for r in ranges)
    width = max((-lo - 1).bit_length() if lo < 0 else 0, hi.bit_length()) + 1
    return SQ(width - f, f)


def _cut_nodes(channels: dict[str, Format], leaving: Format) -> dict[str, Node]:
    """The cut of each channel's cotangent where it leaves the stage, and how many clipped."""
    graph = Graph()
    return _with_cut({c: graph.node(Tap(form, c, 0, 0)) for c, form in channels.items()}, leaving)


def _with_cut(exact: dict[str, Node], leaving: Format) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    flags = []
    for channel, node in exact.items():
        result = cut(node, leaving)
        nodes[f"{channel}_bar"] = result
        if result.primitive.mnemonic == "saturate":
            flags.append(clips(result.arguments[0], leaving))
    if flags:
        nodes["saturated"] = total(flags)
    return nodes


class AdjointUnit(wiring.Component):
    """``xbar = (df/dx)^T ybar`` on a stream, ``thetabar = sum (df/dtheta)^T ybar`` over a group of frames.

    Feeder (joins tape and cotangent), window over the tape, P datapaths of the VJP graph, scatter, cut, FIFO;
    parameter contributions go to accumulators. What the VJP does not read is not taped. Of what the forward
    decided (which cut clipped, which branch was taken) it reads one bit each, the :attr:`decisions`, and computes
    nothing again for it; a stage whose VJP reads no pixels besides has no tape.

    Throughput: one beat per clock. Latency: window and scatter lag, then :attr:`latency` clocks.

    Parameters
    ----------
    graph : StageGraph
        Of the stage.
    cotangent : Format
        Of the output's cotangent.
    build : Build
    parameters : StageParameters

    Members
    -------
    decisions : dict of str to Node
        What the forward unit must give of every site, by the channels of ``i``.
    tape : stream of beats of :attr:`taped`
        Present if any pixels are taped.
    i : stream of beats
        Cotangents of the stage's output, and the decisions.
    o : stream of beats
        Cotangents of the stage's input; lanes outside the picture carry 0.
    results : list of (stream of signed(64), words)
        Parameter cotangents in the order of declaration, ...
    counted : stream of signed(64)
        ... and how many cotangents clipped in leaving.
    width, height, cfa, bypass, frames : static
    done : Out(1)
        One clock when the last beat of a frame has left.
    overrun : Out(1)
        A group ended before the results of the one before were taken.
    """

    def __init__(
        self, graph: StageGraph, cotangent: Format, build: Build, parameters: StageParameters
    ) -> None:
        self.stage, self.build, self.parameters = graph.stage, build, parameters
        stage = graph.stage
        self._pullback = pullback = graph.pullback(dict.fromkeys(stage.o.names, cotangent))
        self.o_pixel = Pixel(tuple((channel, stage.cotangent) for channel in stage.i.names))

        # What one pixel gives: cotangents of taps (exact, or cut if they leave at once), and contributions.
        zero = graph.graph.constant(0)
        nodes: dict[str, Node] = {}
        if stage.radius:
            for (channel, dy, dx), node in pullback.taps.items():
                nodes[f"{tap_label(channel, dy, dx)}_bar"] = node
        else:
            exact = {c: pullback.taps.get((c, 0, 0), zero) for c in stage.i.names}
            nodes |= _with_cut(exact, stage.cotangent)
        self._sums = {
            name: EntrySums(
                name, [pullback.entries.get((name, k), zero) for k in range(parameter.entries)], build
            )
            for name, parameter in stage.parameters.items()
            if not parameter.table
        }
        for sums in self._sums.values():
            nodes |= sums.nodes
        for n, contribution in enumerate(pullback.tables):
            nodes[f"table_{n}_value"] = contribution.value
            nodes[f"table_{n}_index"] = contribution.index
        nodes, self.decisions = tape_decisions(nodes)
        self.lanes = Lanes(nodes, build=build, parameters=parameters)
        self.i_pixel = Pixel(
            (
                *((channel, cotangent) for channel in stage.o.names),
                *((label, UQ(1, 0)) for label in self.decisions),
            )
        )

        read = {
            node.primitive.channel
            for node in graph.graph.live(list(nodes.values()))
            if isinstance(node.primitive, Tap)
        }
        self.taped = Pixel(tuple((c, f) for c, f in stage.i.channels if c in read)) if read else None
        radius = stage.radius
        if self.taped is None:
            self._feeder = Feeder(self.i_pixel, lanes=build.lanes, scatter=radius)
        else:
            self._feeder = Feeder(
                self.taped, lanes=build.lanes, window=radius, scatter=radius, trailing=self.i_pixel
            )
        geometry = {
            "lanes": build.lanes,
            "radius": radius,
            "border": build.border,
            "max_width": build.max_width,
            "family": build.family,
        }
        self._window = self._edges = self._scatter = self._cut = None
        self.latency = self.lanes.latency
        if radius:
            if self.taped is not None:
                self._window = Window(self.taped, trailing=self.i_pixel, **geometry)
                self.latency += self._window.latency
            else:
                self._edges = Edges(radius=radius, lanes=build.lanes)
                self.latency += self._edges.latency
            per_channel = {
                c: _covering([n for (name, _, _), n in pullback.taps.items() if name == c], build.lanes)
                for c in stage.i.names
            }
            self._tap_pixel = Pixel(tuple(per_channel.items()))
            self._scatter = Scatter(self._tap_pixel, **geometry)
            self._cut = Lanes(_cut_nodes(dict(self._scatter.output.channels), stage.cotangent), build=build)
            self._sum_latency = (
                build.lanes.bit_length()
            )  # registered taps, then a level of adders per doubling
            self.latency += self._sum_latency + self._scatter.latency + self._cut.latency
        self._in_flight = self.latency + self._feeder.margin

        members = {
            "i": In(stream.Signature(beat_layout(self.i_pixel, build.lanes))),
            "o": Out(stream.Signature(beat_layout(self.o_pixel, build.lanes))),
            "counted": Out(stream.Signature(signed(64))),
            "cfa": In(2),
            "bypass": In(1),
        } | unit_members()
        if self.taped is not None:
            members["tape"] = In(stream.Signature(beat_layout(self.taped, build.lanes)))
        for name in stage.parameters:
            members[f"{name}_bar"] = Out(stream.Signature(signed(64)))
        super().__init__(members)

    @property
    def results(self) -> list:
        """The streams of parameter cotangents with their numbers of words, in the order of declaration."""
        return [(getattr(self, f"{name}_bar"), p.entries) for name, p in self.stage.parameters.items()]

    @property
    def pauses(self) -> int:
        """Clocks without a word while the results are streamed out, at most."""
        return sum(sums.pauses for sums in self._sums.values())

    @property
    def memory_bits(self) -> int:
        """Bits of line buffers: window and scatter."""
        return sum(part.memory_bits for part in (self._window, self._scatter) if part is not None)

    def elaborate(self, platform) -> Module:
        m = Module()
        lanes, stage, feeder = self.lanes, self.stage, self._feeder
        m.submodules.feeder, m.submodules.lanes = feeder, lanes
        fifo = FlowFifo(
            beat_layout(self.o_pixel, self.build.lanes),
            depth_for(self._in_flight),
            self._in_flight,
            family=self.build.family,
        )
        m.submodules.fifo = fifo
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        m.d.comb += [
            feeder.room.eq(fifo.room),
            feeder.width.eq(self.width),
            feeder.height.eq(self.height),
            lanes.cfa.eq(self.cfa),
            lanes.bypass.eq(self.bypass),
        ]
        if self.taped is None:
            wiring.connect(m, wiring.flipped(self.i), feeder.i)
        else:
            wiring.connect(m, wiring.flipped(self.tape), feeder.i)
            wiring.connect(m, wiring.flipped(self.i), feeder.c)
        out = self._datapath(m)
        self._reduce(m)

        # What leaves: the cotangent of the input, its flags, and how many clipped.
        beat, site = fifo.i.payload, out.o_site
        m.submodules.group = group = GroupEnd()
        m.d.comb += [
            fifo.i.valid.eq(out.o_valid),
            beat.first.eq(site.first),
            beat.eol.eq(site.eol),
            beat.last.eq(site.last),
            group.beat.eq(out.o_valid),
            group.last.eq(site.last),
            group.frames.eq(self.frames),
            self.done.eq(out.o_valid & site.last),
        ]
        has_count = "saturated" in out.outputs[0]
        width = len(out.outputs[0]["saturated"]) + 1 if has_count else 2
        m.submodules.saturated = saturated = Accumulate(
            [("saturated", width)], lanes=self.build.lanes, log2_count=self.build.log2_pixels
        )
        wiring.connect(m, saturated.o, wiring.flipped(self.counted))
        m.d.comb += [saturated.i.valid.eq(out.o_valid), saturated.i.payload.last.eq(group.end)]
        for p, outputs in enumerate(out.outputs):
            for channel in stage.i.names:
                m.d.comb += beat.lane[p][channel].eq(Mux(site.lanes[p], outputs[f"{channel}_bar"], 0))
            if has_count:
                m.d.comb += saturated.i.payload.saturated[p].eq(Mux(site.lanes[p], outputs["saturated"], 0))
        m.d.comb += self.overrun.eq(saturated.overrun | self._dropped)
        return m

    def _datapath(self, m: Module) -> Lanes:
        """From ticks to the lanes whose outputs are the cut cotangents of the input."""
        lanes, stage, feeder = self.lanes, self.stage, self._feeder
        tick = feeder.o.payload
        if stage.radius == 0:
            m.d.comb += [lanes.valid.eq(feeder.o.valid & tick.real), lanes.site.eq(tick.site)]
            for p in range(self.build.lanes):
                values = {}
                if self.taped is not None:
                    values = {tap_label(c, 0, 0): tick.lead[p][c] for c in self.taped.names}
                self._feed(m, p, values, tick.lead[p] if self.taped is None else tick.trailing[p])
            return lanes

        if self._window is not None:
            m.submodules.window = window = self._window
            wiring.connect(m, feeder.o, window.i)
            geometry = window
            centre = window.o.payload
            m.d.comb += [lanes.valid.eq(window.o.valid), lanes.site.eq(centre.site)]
            edges, step, completes = centre.edges, window.tick.valid, window.tick.payload.out
            for p in range(self.build.lanes):
                self._feed(m, p, tap_values(centre.taps, stage.radius, p), centre.trailing[p])
        else:
            # Edges takes a clock, and so does everything beside it.
            assert self._edges is not None
            m.submodules.edges = geometry = finder = self._edges
            later = Signal.like(tick)
            step = Signal()
            m.d.sync += [later.eq(tick), step.eq(feeder.o.valid)]
            m.d.comb += [
                finder.x.eq(tick.site.x),
                finder.y.eq(tick.site.y),
                lanes.valid.eq(step & later.real),
                lanes.site.eq(later.site),
            ]
            edges, completes = finder.o, later.out
            for p in range(self.build.lanes):
                self._feed(m, p, {}, later.lead[p])

        assert self._scatter is not None and self._cut is not None
        m.submodules.scatter = scatter = self._scatter
        # A register each: what follows from the size would be made once for all of them, and far from some.
        m.d.sync += [
            geometry.width.eq(self.width),
            geometry.height.eq(self.height),
            scatter.width.eq(geometry.width),
            scatter.height.eq(geometry.height),
        ]
        beside = lanes.latency + self._sum_latency
        for name, now, later in (
            ("edges", edges, scatter.i.payload.edges),
            ("step", step, scatter.tick.valid),
            ("completes", completes, scatter.tick.payload.out),
        ):
            line = DelayLine(len(Value.cast(now)), beside, valid=name == "step")
            m.submodules[f"{name}_delay"] = line
            m.d.comb += [line.i.eq(now), Value.cast(later).eq(line.o)]
        line = DelayLine(1, self._sum_latency, valid=True)
        m.submodules.centre_delay = line
        m.d.comb += [line.i.eq(lanes.o_valid), scatter.i.valid.eq(line.o)]
        self._add_lanes(m)

        m.submodules.cut = leaving = self._cut
        m.d.comb += leaving.valid.eq(scatter.o.valid)
        for flag in ("first", "eol", "last", "lanes"):
            m.d.comb += leaving.site[flag].eq(scatter.o.payload[flag])
        for p in range(self.build.lanes):
            leaving.feed(m, p, {tap_label(c, 0, 0): scatter.o.payload.lane[p][c] for c in stage.i.names})
        return leaving

    def _feed(self, m: Module, lane: int, values: dict, pixel) -> None:
        """Taps, cotangents and decisions into a lane. A cotangent that is none is 0, and so is all that is linear in
        it."""
        gated = {f"{c}_bar": Mux(self.lanes.valid, pixel[c], 0) for c in self.stage.o.names}
        self.lanes.feed(m, lane, values | gated | {label: pixel[label] for label in self.decisions})

    def _add_lanes(self, m: Module) -> None:
        """What the lanes give to the same tap is added, a level of registered adders per doubling of lanes."""
        r, count = self.stage.radius, self.build.lanes
        assert self._scatter is not None
        for channel, form in self._tap_pixel.channels:
            for j in range(2 * r + 1):
                for k in range(2 * r + count):
                    terms: list[Value] = []
                    for p in range(count):
                        node = self._pullback.taps.get((channel, j - r, k - p - r))
                        if node is not None and abs(k - p - r) <= r:
                            value = self.lanes.outputs[p][f"{tap_label(channel, j - r, k - p - r)}_bar"]
                            terms.append(value << (form.f - node.f))
                    level = 0
                    while level < self._sum_latency:
                        if level:
                            terms = [Value.cast(sum(terms[n : n + 2])) for n in range(0, len(terms), 2)]
                        registers = [Signal(form.shape, name=f"{channel}_{j}_{k}_{level}_{n}", reset_less=True)
                                     for n in range(len(terms))]  # fmt: skip
                        m.d.sync += [
                            register.eq(term) for register, term in zip(registers, terms, strict=True)
                        ]
                        terms = list(registers)
                        level += 1
                    m.d.comb += self._scatter.i.payload.taps[j][k][channel].eq(terms[0] if terms else 0)

    def _reduce(self, m: Module) -> None:
        """Parameter contributions into accumulators and tables."""
        lanes = self.lanes
        m.submodules.parameter_group = group = GroupEnd()
        m.d.comb += [
            group.beat.eq(lanes.o_valid),
            group.last.eq(lanes.o_site.last),
            group.frames.eq(self.frames),
        ]
        dropped = []
        for name, parameter in self.stage.parameters.items():
            o = getattr(self, f"{name}_bar")
            if parameter.table:
                table = self._table(m, name)
                wiring.connect(m, table.o, wiring.flipped(o))
                m.d.comb += [table.i.valid.eq(lanes.o_valid), table.i.payload.last.eq(group.end)]
                dropped.append(table.overrun)
            else:
                dropped.append(self._sums[name].connect(m, name, lanes, group.end, o))
        self._dropped = Cat(dropped).any() if dropped else Value.cast(0)

    def _table(self, m: Module, name: str) -> ScatterAdd:
        """The transposed reads of a table parameter."""
        parameter = self.stage.parameters[name]
        curves = parameter.entries // parameter.table
        pairs: dict[tuple[int, int], dict[int, int]] = {}  # (curve, index node) -> {0 or 1: contribution}
        for n, contribution in enumerate(self._pullback.tables):
            if contribution.read.parameter == name:
                curve, offset = divmod(contribution.read.base, parameter.table)
                pairs.setdefault((curve, contribution.index.index), {})[offset] = n
        reads = sorted(pairs)
        if curves > 1 and [curve for curve, _ in reads] != list(range(curves)):
            raise ValueError(
                f"table {name!r} of {self.stage.name} has {curves} curves, read {len(reads)} times a pixel; "
                "read one curve any number of times, or each of several curves once"
            )
        numbers = [n for pair in pairs.values() for n in pair.values()]
        values = [self._pullback.tables[n].value for n in numbers]
        form = _covering(values, 1)
        table = ScatterAdd(
            value_width=form.width,
            shared=curves == 1,
            segments=parameter.table - 1,
            lanes=self.build.lanes,
            channels=len(reads),
            log2_count=self.build.log2_pixels + (len(reads) - 1).bit_length(),
            family=self.build.family,
        )
        m.submodules[name] = table
        for p, outputs in enumerate(self.lanes.outputs):
            for c, key in enumerate(reads):
                entry = table.i.payload.lane[p][c]
                for offset, n in pairs[key].items():
                    node = self._pullback.tables[n].value
                    m.d.comb += entry[f"v{offset}"].eq(outputs[f"table_{n}_value"] << (form.f - node.f))
                    m.d.comb += entry.index.eq(outputs[f"table_{n}_index"])
        return table
