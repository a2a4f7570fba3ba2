"""Cores: a pipeline with its control plane and AXI edges, forward only or with its pullback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from amaranth.hdl import (
    Cat,
    ClockDomain,
    ClockSignal,
    DomainRenamer,
    Elaboratable,
    Module,
    Mux,
    ResetSignal,
    Signal,
)
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In

from ..bus.axi4lite import axi4lite_members
from ..bus.axi4stream import Align, Pack, Unpack, axi4stream_members
from ..bus.control import RESULT_CLOCKS, Control
from ..bus.static import StaticReceiver, StaticSender
from ..stream.fifo import Count
from ..stream.fork import Fork
from ..stream.framer import Framer
from ..stream.join import Join
from ..stream.pixel import Pixel, beat_layout
from ..stream.skid import SkidBuffer
from ..stream.tape import Tape
from .adjoint import AdjointUnit
from .build import Build
from .forward import ForwardUnit
from .gate import Gate
from .loss import LossUnit
from .parameters import StageParameters
from .pipeline import OUTPUT_COTANGENT, Pipeline

__all__ = ["COTANGENT_CONTAINER", "Core", "ForwardCore", "VJPCore", "container"]

COTANGENT_CONTAINER = 24
"""Bits per cotangent on AXI4-Stream."""


SETTLE = 16
"""Clocks in which everything that is pipelined between the control plane and the units has arrived."""


BETWEEN = 15
"""Clocks that a beat may spend between two units, in the FIFO of the one and on the way into the other."""


def container(pixel: Pixel) -> int:
    """Bits per channel of a pixel on AXI4-Stream: 16, or 24 where a format is wider."""
    return 16 if all(form.width <= 16 for _, form in pixel.channels) else 24


_Part = TypeVar("_Part", bound=Elaboratable)


class _OwnReset(Elaboratable):
    """A part whose reset is a register beside it, one clock late: no reset spans the chip in one clock.

    Only the edges leave reset a clock earlier, with the host, so that no transfer they take is lost. What they give
    comes a clock later, when all else has left it too. Cores are simulated as Verilog: Amaranth's own simulator
    gives the part's clock a step too late, and the part sees what registers outside hold after the edge.
    """

    def __init__(self, unit: Elaboratable) -> None:
        self._unit = unit

    def elaborate(self, platform) -> Module:
        m = Module()
        m.domains.unit = unit = ClockDomain(local=True)
        unit.rst = Signal(init=1, name="unit_rst")
        m.d.comb += unit.clk.eq(ClockSignal())
        m.d.sync += unit.rst.eq(ResetSignal())
        m.submodules.unit = DomainRenamer("unit")(self._unit)
        return m


class Core(wiring.Component):
    """What the forward core and the VJP core share; use those.

    A reset (``rst``, synchronous, high) takes at least two clocks: the units' own comes a clock later
    (`_OwnReset`), and none of them may give a beat to an edge that has left reset already.

    Parameters
    ----------
    pipeline : Pipeline
    build : Build
    vjp : bool
        With pullback.
    picture : bool
        With the picture as an output.

    Members
    -------
    ``s_axis_raw_*`` : AXI4-Stream Video in, 16 bits a channel
    ``m_axis_picture_*`` : AXI4-Stream Video out, if ``picture``
    ``s_axis_target_*``, ``s_axis_cotangent_*``, ``m_axis_gradient_*`` : if ``vjp``; cotangents have 24 bits a
        channel. Target is read unless loss.kind is external, cotangent if it is.
    ``s_axil_*`` : AXI4-Lite, :attr:`map` says what is where
    """

    def __init__(self, pipeline: Pipeline, build: Build, *, vjp: bool, picture: bool) -> None:
        self.pipeline, self.build, self._vjp, self._picture = pipeline, build, vjp, picture
        self.map = pipeline.register_map(build, vjp=vjp)
        self.parameters = [StageParameters(stage, pipeline.base(k)) for k, stage in enumerate(pipeline)]
        graphs = [stage.trace() for stage in pipeline]
        self.adjoint: list[AdjointUnit] = []
        self.loss: LossUnit | None = None
        members = {f"s_axil_{k}": v for k, v in _plain(axi4lite_members()).items()}

        def port(name: str, pixel: Pixel, bits: int, *, sink: bool) -> None:
            width = build.lanes * len(pixel.channels) * bits
            members.update(
                axi4stream_members(width, sink=sink, prefix=f"{'s' if sink else 'm'}_axis_{name}_")
            )

        port("raw", pipeline.i, container(pipeline.i), sink=True)
        if picture:
            port("picture", pipeline.o, container(pipeline.o), sink=False)
        if vjp:
            self.adjoint = [
                AdjointUnit(graph, pipeline.output_cotangent(k), build, self.parameters[k])
                for k, graph in enumerate(graphs)
            ]
            self.loss = LossUnit(pipeline.o, OUTPUT_COTANGENT, build)
            port("target", pipeline.o, container(pipeline.o), sink=True)
            port("cotangent", self.loss.o_pixel, COTANGENT_CONTAINER, sink=True)
            port("gradient", self.adjoint[0].o_pixel, COTANGENT_CONTAINER, sink=False)
        decisions = [unit.decisions for unit in self.adjoint] or [{}] * len(graphs)
        self.forward = [
            ForwardUnit(graph, build, parameters, taken)
            for graph, parameters, taken in zip(graphs, self.parameters, decisions, strict=True)
        ]
        super().__init__(members)

    # ------------------------------------------------------------------------------------------ sizes

    def tape_depth(self, index: int) -> int:
        """Beats of a stage's tapes: the lines until its cotangent comes, and what the units between hold."""
        between = [*self.forward[index:], *self.adjoint[index + 1 :]]
        radii = [stage.radius for stage in self.pipeline.stages[index + 1 :]]
        columns = 2 * sum(-(-radius // self.build.lanes) for radius in radii)
        turning = self.loss.latency if self.loss is not None else 0
        waiting = sum(unit.latency + BETWEEN for unit in between) + turning + BETWEEN
        return self.pipeline.lines_behind(index) * self.build.max_beats + columns + waiting

    def memory(self) -> dict[str, int]:
        """Bits of line buffers and tapes by what they are for: ``forward``, ``adjoint``, ``tape``."""
        bits = {"forward": sum(unit.memory_bits for unit in self.forward)}
        if self._vjp:
            bits["adjoint"] = sum(unit.memory_bits for unit in self.adjoint)
            bits["tape"] = sum(
                self.tape_depth(k) * ((unit.taped.width if unit.taped else 0) + len(unit.decisions))
                for k, unit in enumerate(self.adjoint)
            ) * self.build.lanes  # fmt: skip
        return bits

    def _units(self) -> Iterator[tuple[str, int | None, Any]]:
        """Name, index of the stage if it has one, and unit, in the order in which beats go through them."""
        stages = list(enumerate(self.pipeline))
        for (k, stage), unit in zip(stages, self.forward, strict=True):
            yield stage.name, k, unit
        if self.loss is not None:
            yield "loss", None, self.loss
        for (k, stage), unit in reversed(list(zip(stages, self.adjoint, strict=False))):
            yield f"{stage.name}_adjoint", k, unit

    @property
    def _framers(self) -> list[str]:
        """Of the input streams."""
        return ["raw_framer", "target_framer", "cotangent_framer"] if self._vjp else ["raw_framer"]

    # -------------------------------------------------------------------------------------- structure

    def _static_layout(self) -> data.StructLayout:
        """What units and framers are told by each commit."""
        return data.StructLayout(
            {"width": 16, "height": 16, "frames": 16, "cfa": 2, "bypass": len(self.pipeline.stages)}
        )

    def _tell(
        self, m: Module, control: Control, layout: data.StructLayout, names: list[str]
    ) -> dict[str, data.View]:
        """The static words of each receiver. They are sent on when a commit has loaded them, and it waits for that."""
        sender = _place(m, "static_sender", StaticSender(layout))
        loading = Signal()
        m.d.sync += loading.eq(control.load.valid)
        m.d.comb += sender.start.eq(loading & ~control.load.valid)
        m.d.comb += [getattr(sender.words, word).eq(getattr(control, word)) for word in layout.members]
        told, before = {}, sender.o
        for name in names:
            receiver = _place(m, f"{name}_static", StaticReceiver(layout))
            wiring.connect(m, before, receiver.i)
            told[name], before = receiver.words, receiver.o
        return told

    def elaborate(self, platform) -> Module:
        m = Module()
        results = self._result_streams()
        units = list(self._units())
        layout = self._static_layout()
        counting = [*self._framers, *(name for name, _, _ in units)]
        control = Control(
            self.map,
            counts=[count for _, count in results],
            settle=SETTLE + layout.size + len(counting),  # a clock for each bit and each receiver
        )
        _place(m, "control", control)
        static = self._tell(m, control, layout, counting)
        self._leaving: list = []
        for name in _plain(axi4lite_members()):
            mine, its = getattr(self, f"s_axil_{name}"), getattr(control, f"s_axil_{name}")
            inward = self.signature.members[f"s_axil_{name}"].flow is In
            m.d.comb += its.eq(mine) if inward else mine.eq(its)
        for port, (words, _) in zip(control.results, results, strict=True):
            wiring.connect(m, words, port)

        for stage, parameters in zip(self.pipeline, self.parameters, strict=True):
            _place(m, f"{stage.name}_parameters", parameters)
            m.d.sync += [
                parameters.load.valid.eq(control.load.valid),
                parameters.load.address.eq(control.load.address),
                parameters.load.data.eq(control.load.data),
            ]
        overruns = []
        for name, k, unit in units:
            _place(m, name, unit)
            overruns.append(unit.overrun)
            m.d.comb += [getattr(unit, word).eq(static[name][word]) for word in ("width", "height", "frames")]
            if k is not None:
                m.d.comb += [unit.cfa.eq(static[name].cfa), unit.bypass.eq(static[name].bypass[k])]

        # Raw: edge, framer, alignment, gate, then the chain.
        raw = self._input(m, static["raw_framer"], "raw", self.pipeline.i, container(self.pipeline.i))
        lines = sum(2 * stage.radius for stage in self.pipeline)
        latencies = sum(unit.latency + BETWEEN for _, _, unit in units)
        read_out = RESULT_CLOCKS * self.map.result_words + sum(unit.pauses for unit in self.adjoint)
        beat = beat_layout(self.pipeline.i, self.build.lanes)
        gate = _place(m, "gate", Gate(beat, lag_lines=lines, cover=read_out + latencies + 64))
        begun = raw.o
        if Align.takes(self.pipeline.i):
            align = _place(m, "align", Align(self.pipeline.i, lanes=self.build.lanes))
            m.d.comb += align.depth.eq(control.depth)
            wiring.connect(m, begun, align.i)
            begun = align.o
        wiring.connect(m, begun, gate.i)
        last = self.adjoint[0] if self._vjp else self.forward[-1]
        held = Signal(init=1)  # a clock late, far within the silence that a commit waits for
        m.d.sync += held.eq(control.hold)
        m.d.comb += [
            raw.hold.eq(held),
            gate.frames.eq(static["raw_framer"].frames),
            gate.done.eq(last.done),
            gate.collected.eq(control.collected),
            control.busy.eq(~gate.empty),
            control.frame_done.eq(last.done),
            control.overrun.eq(Cat(overruns).any()),
        ]
        # The last beat of a line holds what the lanes leave over of the width; all of them if that is nothing.
        rest = control.width[: (self.build.lanes - 1).bit_length()]
        partial = Signal.like(control.pixels)
        m.d.sync += partial.eq(Mux(rest == 0, self.build.lanes, rest))
        with m.If(gate.o.valid & gate.o.ready):
            m.d.comb += control.pixels.eq(Mux(gate.o.payload.eol, partial, self.build.lanes))

        stream_ = gate.o
        for k, unit in enumerate(self.forward):
            stream_ = self._taped(m, k, stream_)
            _link(m, self.pipeline.stages[k].name, stream_, unit.i)
            stream_ = unit.o

        outputs = [name for name, wanted in (("picture", self._picture), ("loss", self._vjp)) if wanted]
        fork = Fork(beat_layout(self.pipeline.o, self.build.lanes), len(outputs))
        _place(m, "picture_fork", fork)
        wiring.connect(m, stream_, fork.i)
        for name, branch in zip(outputs, fork.o, strict=True):
            if name == "picture":
                self._output(m, control, "picture", self.pipeline.o, container(self.pipeline.o), branch)
            elif self.loss is not None:
                _link(m, "loss", branch, self.loss.i)
        errors = [raw]
        if self._vjp:
            errors += self._pull_back(m, control, static, gate)
        flags = [
            getattr(framer, kind) for framer in errors for kind in ("too_long", "too_short", "out_of_step")
        ]
        # Outputs count as inside: packing reads the width.
        # A beat may be between a unit and its FIFO's output: only a while of silence means that all is out.
        waiting = [stream_.valid for stream_ in self._leaving]
        silence = Signal(range(SETTLE))
        empty = Signal()
        left = Signal()
        m.d.comb += [control.errors.eq(Cat(flags)), control.drained.eq(silence == SETTLE - 1)]
        m.d.sync += [empty.eq(gate.empty & raw.idle), left.eq(~Cat(waiting).any())]
        with m.If(~(empty & left)):
            m.d.sync += silence.eq(0)
        with m.Elif(silence != SETTLE - 1):
            m.d.sync += silence.eq(silence + 1)
        return m

    def _taped(self, m: Module, k: int, source: Any) -> Any:
        """The stream to a forward unit, with its tape forked off if the adjoint reads it."""
        if not self._vjp or self.adjoint[k].taped is None:
            return source
        stage, unit, count = self.pipeline.stages[k], self.adjoint[k], self.build.lanes
        assert unit.taped is not None
        fork = _place(m, f"{stage.name}_fork", Fork(beat_layout(stage.i, count), 2))
        layout = beat_layout(unit.taped, count)
        wiring.connect(m, source, fork.i)
        branch = fork.o[1]
        taped = stream.Signature(layout).create(path=(f"{stage.name}_taped",))
        m.d.comb += [taped.valid.eq(branch.valid), branch.ready.eq(taped.ready)]
        for flag in ("first", "eol", "last"):
            m.d.comb += taped.payload[flag].eq(branch.payload[flag])
        for p in range(count):
            for channel in unit.taped.names:
                m.d.comb += taped.payload.lane[p][channel].eq(branch.payload.lane[p][channel])
        _link(m, f"{stage.name}_tape_end", self._tape(m, k, f"{stage.name}_tape", taped), unit.tape)
        return fork.o[0]

    def _tape(self, m: Module, k: int, name: str, source: Any) -> Any:
        """The stream through a tape of stage k."""
        tape = Tape(source.payload.shape(), self.tape_depth(k), family=self.build.family)
        _place(m, name, tape)
        _link(m, f"{name}_begin", source, tape.i)
        return tape.o

    def _with_decisions(self, m: Module, k: int, cotangent: Any) -> Any:
        """The cotangent of a stage's output, with what its forward unit decided, from their tape."""
        stage, unit, count = self.pipeline.stages[k], self.adjoint[k], self.build.lanes
        if not unit.decisions:
            return cotangent
        decisions = self._tape(m, k, f"{stage.name}_decisions", self.forward[k].decisions)
        join = Join(cotangent.payload.shape(), decisions.payload.shape())
        _place(m, f"{stage.name}_join", join)
        _link(m, f"{stage.name}_cotangent_begin", cotangent, join.a)
        _link(m, f"{stage.name}_decisions_end", decisions, join.b)
        joined = stream.Signature(beat_layout(unit.i_pixel, count)).create(path=(f"{stage.name}_joined",))
        m.d.comb += [joined.valid.eq(join.o.valid), join.o.ready.eq(joined.ready)]
        beat, taken = join.o.payload.a, iter(join.o.payload.b)
        for flag in ("first", "eol", "last"):
            m.d.comb += joined.payload[flag].eq(beat[flag])
        for p in range(count):
            for channel in stage.o.names:
                m.d.comb += joined.payload.lane[p][channel].eq(beat.lane[p][channel])
            for label in unit.decisions:
                m.d.comb += joined.payload.lane[p][label].eq(next(taken))
        return joined

    def _pull_back(
        self, m: Module, control: Control, static: Mapping[str, data.View], gate: Gate
    ) -> list[Framer]:
        """Loss and adjoint units, from the output back to the input."""
        loss = self.loss
        assert loss is not None
        m.d.sync += [
            loss.kind.eq(control.loss_kind),
            loss.delta.eq(control.loss_delta),
            loss.scale.eq(control.loss_scale),
        ]
        # A target or cotangent frame begins once its raw frame has, and not before, so that a commit that lets no raw
        # frame begin finds none of them begun; but one that is owed still comes, or its raw frame would never leave.
        begun = Signal()  # a raw frame, a clock ago
        m.d.sync += begun.eq(gate.o.valid & gate.o.ready & gate.o.payload.first)
        framers = []
        for name, pixel, bits, port in (
            ("target", self.pipeline.o, container(self.pipeline.o), loss.target),
            ("cotangent", loss.o_pixel, COTANGENT_CONTAINER, loss.cotangent),
        ):
            framer = self._input(m, static[f"{name}_framer"], name, pixel, bits)
            wanted = (control.loss_kind == 3) == (name == "cotangent")
            # Raw frames begun, less frames begun here.
            ahead = _place(m, f"{name}_ahead", Count(255))
            m.d.comb += [
                ahead.up.eq(begun & wanted),
                ahead.down.eq(framer.begins),
                framer.hold.eq(ahead.empty),
            ]
            _link(m, name, framer.o, port)
            framers.append(framer)

        cotangent = loss.o
        for k, (stage, unit) in reversed(list(enumerate(zip(self.pipeline, self.adjoint, strict=True)))):
            _link(m, f"{stage.name}_cotangent", self._with_decisions(m, k, cotangent), unit.i, buffers=2)
            cotangent = unit.o
        self._output(m, control, "gradient", self.adjoint[0].o_pixel, COTANGENT_CONTAINER, cotangent)
        return framers

    def _result_streams(self) -> list[tuple[Any, int]]:
        """Where result words come from, in the order of the result memory."""
        found = []
        if self.loss is not None:
            found.append((self.loss.results, 2))
        for k in reversed(range(len(self.forward))):
            if self._vjp:
                found += self.adjoint[k].results
            found.append((self.forward[k].results, 1))
            if self._vjp:
                found.append((self.adjoint[k].counted, 1))
        return found

    def _input(self, m: Module, static: data.View, name: str, pixel: Pixel, bits: int) -> Framer:
        unpack = Unpack(pixel, lanes=self.build.lanes, container=bits)
        framer = Framer(pixel, lanes=self.build.lanes)
        m.submodules[f"{name}_unpack"] = unpack
        _place(m, f"{name}_framer", framer)
        _link(m, f"{name}_unpacked", unpack.o, framer.i)
        m.d.comb += [framer.width.eq(static.width), framer.height.eq(static.height)]
        for signal in ("tdata", "tvalid", "tuser", "tlast"):
            m.d.comb += getattr(unpack, signal).eq(getattr(self, f"s_axis_{name}_{signal}"))
        m.d.comb += getattr(self, f"s_axis_{name}_tready").eq(unpack.tready)
        return framer

    def _output(self, m: Module, control: Control, name: str, pixel: Pixel, bits: int, source) -> None:
        m.submodules[f"{name}_pack"] = pack = Pack(pixel, lanes=self.build.lanes, container=bits)
        _link(m, f"{name}_leaving", source, pack.i)
        self._leaving.append(pack.i)
        m.d.comb += pack.width.eq(control.width)
        for signal in ("tdata", "tvalid", "tuser", "tlast"):
            m.d.comb += getattr(self, f"m_axis_{name}_{signal}").eq(getattr(pack, signal))
        m.d.comb += pack.tready.eq(getattr(self, f"m_axis_{name}_tready"))


def _place(m: Module, name: str, part: _Part) -> _Part:
    """Adds a part with a reset of its own."""
    m.submodules[name] = _OwnReset(part)
    return part


def _link(m: Module, name: str, source: Any, sink: Any, *, buffers: int = 1) -> None:
    """Connects two units through a skid buffer: each then decides by registers, not by what the other decides.

    Through two where the units lie far apart and both decide late: each then has one beside it.
    """
    for k in range(buffers):
        link = _place(m, f"{name}_link_{k}" if k else f"{name}_link", SkidBuffer(source.payload.shape()))
        wiring.connect(m, source, link.i)
        source = link.o
    wiring.connect(m, source, sink)


def _plain(members: dict) -> dict:
    """The AXI4-Lite members by their names without prefix."""
    return {name.removeprefix("s_axil_"): member for name, member in members.items()}


class ForwardCore(Core):
    """``picture = f(raw, theta)``, one beat per clock. Parameters as :class:`Core`."""

    def __init__(self, pipeline: Pipeline, build: Build) -> None:
        super().__init__(pipeline, build, vjp=False, picture=True)


class VJPCore(Core):
    """``(gradient, thetabar) = f*(raw, theta; cotangent)``, and the loss if it is fused; one beat per clock.

    With ``picture`` the core gives the picture too: forward and pullback in one.
    """

    def __init__(self, pipeline: Pipeline, build: Build, *, picture: bool = True) -> None:
        super().__init__(pipeline, build, vjp=True, picture=picture)
