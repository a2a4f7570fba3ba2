"""Lowering: a scheduled kernel graph as an Amaranth datapath.

The datapath is free-running: it takes new inputs every clock, has no enable and no reset, and its outputs
follow :attr:`Datapath.latency` clocks later. Whether they mean anything is for the caller's valid bits to
say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Elaboratable, Module, Signal, Value, unsigned
from amaranth.lib.memory import Memory

from ..stream.ram import DISTRIBUTED, BlockRam
from .graph import Node
from .primitives.source import Constant, Source
from .primitives.table import Read
from .schedule import Schedule, schedule

__all__ = ["Datapath", "DelayLine", "Load", "Lowering"]


class Load:
    """The load bus: one parameter word a clock to whoever holds it.

    ``valid``; ``address`` of the word; its ``data``, a sign-extended code.
    """

    def __init__(self) -> None:
        self.valid = Signal()
        self.address = Signal(12, reset_less=True)
        self.data = Signal(32, reset_less=True)

    def eq(self, other: Any) -> list:
        """Take what another bus carries."""
        return [
            self.valid.eq(other.valid),
            self.address.eq(other.address),
            self.data.eq(other.data),
        ]


class DelayLine(Elaboratable):
    """``o[t] = i[t - depth]``: registers if short, a circular buffer in distributed RAM if long.

    The first and the last stage are registers in either case. A line that says what is ``valid`` has registers only:
    reset must empty it, and no reset empties a RAM.
    """

    RAM_FROM = 6
    """Depth from which sixteen words of RAM are smaller than registers."""

    def __init__(self, shape: Any, depth: int, *, valid: bool = False) -> None:
        self.i = Signal(shape)
        self.o = Signal(shape)
        self.depth, self._valid = depth, valid

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        if self._valid or self.depth < self.RAM_FROM:
            stages = [
                Signal(self.i.shape(), name=f"stage_{k}", reset_less=not self._valid)
                for k in range(self.depth)
            ]
            for before, after in zip([self.i, *stages], stages, strict=False):
                m.d.sync += after.eq(before)
            m.d.comb += self.o.eq(stages[-1] if stages else self.i)
            return m
        # Written at t + 1, read at t + depth - 1, registered once more.
        words = self.depth - 2
        m.submodules.memory = memory = Memory(
            shape=unsigned(len(self.i)), depth=words, init=[], attrs=DISTRIBUTED
        )
        write, read = memory.write_port(), memory.read_port(domain="comb")
        position = Signal(range(words))
        m.d.sync += position.eq(position + 1)
        with m.If(position == words - 1):
            m.d.sync += position.eq(0)
        entering = Signal(self.i.shape(), reset_less=True)
        out = Signal(self.o.shape(), reset_less=True)
        m.d.comb += [
            write.addr.eq(position),
            read.addr.eq(position),
            write.data.eq(entering),
            write.en.eq(1),
            self.o.eq(out),
        ]
        m.d.sync += [entering.eq(self.i), out.eq(read.data)]
        return m


class Lowering:
    """What a primitive's ``lower`` may ask for while a datapath is being built."""

    def __init__(self, m: Module, datapath: Datapath) -> None:
        self._m, self._datapath = m, datapath
        self.family = datapath.family

    def source(self, source: Source) -> Signal:
        """The port of a source."""
        return self._datapath.inputs[source.label]

    def submodule(self, name: str, component: Any) -> None:
        """Add a submodule."""
        self._m.submodules[name] = component

    def connect(self, target: Any, value: Any) -> None:
        """Drive a submodule's input."""
        self._m.d.comb += target.eq(value)

    def table(self, node: Node, index: Value) -> Value:
        """A read of a table: a block RAM of its own, written by the load bus, registered twice."""
        read = node.primitive
        assert isinstance(read, Read)
        m, load = self._m, self._datapath.load
        base = self._datapath.words[read.parameter] + read.base
        memory = BlockRam(read.format.width, read.entries, family=self.family)
        m.submodules[f"table_{node}"] = memory
        offset = Signal(12, name=f"{node}_offset")
        data = Signal(read.format.width, name=f"{node}_load")
        valid = Signal(name=f"{node}_write")
        m.d.sync += [offset.eq(load.address - base), data.eq(load.data), valid.eq(load.valid)]
        m.d.comb += [
            memory.write_row.eq(offset),
            memory.write_data.eq(data),
            memory.write.eq(valid & (offset < read.entries)),
            memory.read_row.eq(index),
        ]
        out = Signal(read.format.shape, name=str(node))
        m.d.comb += out.eq(memory.read_data)
        return out


class Datapath(Elaboratable):
    """A kernel graph in pipeline registers.

    Parameters
    ----------
    outputs : mapping of str to Node
    clock : float
        The clock in hertz that the registers are placed for.
    family : str
        Whose multipliers: "generic" or "ecp5".
    words : mapping of str to int
        Word address of each table parameter on the load bus.

    Members
    -------
    sources : list of Source
    inputs : dict of str to Signal
        The sources by label. Those that arrive later than others come so many clocks after them.
    outputs : dict of str to Signal
        Valid ``latency`` clocks after the inputs.
    load : Load
        Written before pixels flow; used by tables.
    """

    def __init__(
        self,
        outputs: Mapping[str, Node],
        *,
        clock: float,
        family: str = "generic",
        words: Mapping[str, int] | None = None,
    ) -> None:
        self.nodes = dict(outputs)
        self.family = family
        self.words = dict(words or {})
        self.load = Load()
        self.schedule: Schedule = schedule(list(outputs.values()), clock=clock)
        self._live = next(iter(outputs.values())).graph.live(list(outputs.values())) if outputs else []
        self.sources = [node.primitive for node in self._live if isinstance(node.primitive, Source)]
        self.inputs = {s.label: Signal(s.format.shape, name=s.label) for s in self.sources}
        self.outputs = {name: Signal(node.shape, name=name) for name, node in outputs.items()}

    @property
    def latency(self) -> int:
        """Clocks from inputs to outputs."""
        return self.schedule.latency

    def multipliers(self) -> int:
        """Hardware multipliers."""
        return sum(node.primitive.mnemonic == "product" for node in self._live)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        lowering = Lowering(m, self)
        present: dict[tuple[int, int], Value] = {}  # (node, step) -> value

        # How long each value is needed decides between registers and one RAM, tapped only at its end.
        needed: dict[int, set[int]] = {}
        for node in self._live:
            if self.schedule.static(node):
                continue
            begin = self.schedule.step[node.index] - node.primitive.latency
            for argument in node.arguments:
                needed.setdefault(argument.index, set()).add(begin)
        for node in self.nodes.values():
            needed.setdefault(node.index, set()).add(self.latency)

        def at(node: Node, step: int) -> Value:
            if self.schedule.static(node):
                return present[node.index, -1]
            first = self.schedule.step[node.index]
            if (node.index, step) not in present:
                steps = sorted(s for s in needed[node.index] if s > first)
                before = max((s for s in steps if s < step), default=first)
                line = DelayLine(node.shape, step - before)
                m.submodules[f"delay_{node}_{step}"] = line
                m.d.comb += line.i.eq(at(node, before))
                present[node.index, step] = line.o
            return present[node.index, step]

        for node in self._live:
            primitive = node.primitive
            static = self.schedule.static(node)
            step = -1 if static else self.schedule.step[node.index]
            arguments = [at(a, step - primitive.latency) for a in node.arguments]
            value = primitive.lower(lowering, node, *arguments)
            if not isinstance(primitive, Source | Constant):
                # The schedule gives what is static no time, so it comes from a register.
                settled = static and primitive.delay(node) > 0
                signal = Signal(node.shape, name=str(node), reset_less=settled)
                m.d["sync" if settled else "comb"] += signal.eq(value)
                value = signal
            present[node.index, step] = value
        for name, node in self.nodes.items():
            m.d.comb += self.outputs[name].eq(at(node, self.latency))
        return m
