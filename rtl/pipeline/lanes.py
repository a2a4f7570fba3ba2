"""P copies of a kernel's datapath side by side, one a lane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, Elaboratable, Module, Signal, Value
from amaranth.lib import data

from ..kernel import Datapath, Node
from ..kernel.lower import DelayLine
from ..kernel.primitives.source import Entry, EntryOfColour
from ..stream.pixel import site_layout
from .build import Build
from .colour_entries import ColourEntries, choose_by_colour
from .parameters import StageParameters

__all__ = ["Lanes"]


class Lanes(Elaboratable):
    """Evaluates the same nodes for every lane of a beat; the beat's site travels along.

    Latency: :attr:`latency` clocks from ``valid``, ``site``, ``taps`` to ``o_valid``, ``o_site``, ``outputs``.
    One beat per clock, free-running.

    Parameters
    ----------
    nodes : mapping of str to Node
        What to compute.
    build : Build
    parameters : StageParameters or None
        Whose entries and tables the nodes read.

    Members
    -------
    valid, site : Signal
        The beat that enters, and its site.
    cfa : Signal(2)
        CFA phase; static.
    bypass : Signal
        Static.
    inputs : list of dict of str to Signal
        Per lane, by label: taps and cotangents. Site and parameters are connected inside.
    o_valid, o_site : Signal
    outputs : list of dict of str to Signal
        Per lane.
    """

    def __init__(
        self, nodes: Mapping[str, Node], *, build: Build, parameters: StageParameters | None = None
    ) -> None:
        self.build, self.parameters = build, parameters
        words = parameters.words if parameters else {}
        if parameters is not None:
            nodes = choose_by_colour(nodes, parameters.stage.parameters)
        self.datapaths = [
            Datapath(nodes, clock=build.clock, family=build.family, words=words) for _ in range(build.lanes)
        ]
        self.valid = Signal()
        self.o_valid = Signal()
        self.site = Signal(site_layout(build.lanes))
        self.o_site = Signal(site_layout(build.lanes))
        self.cfa = Signal(2)
        self.bypass = Signal()
        self.inputs = [datapath.inputs for datapath in self.datapaths]
        self.outputs = [datapath.outputs for datapath in self.datapaths]
        sources = self.datapaths[0].sources
        self._entries = {
            s.label: parameters.entry(s) for s in sources if isinstance(s, Entry) and parameters is not None
        }
        self._of_colour: dict[str, dict[int, str]] = {}  # parameter -> k -> label
        for source in sources:
            if isinstance(source, EntryOfColour):
                self._of_colour.setdefault(source.parameter, {})[source.k] = source.label

    @property
    def latency(self) -> int:
        """Clocks from input to output: one register, and the datapath."""
        return 1 + self.datapaths[0].latency

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        site = Signal.like(self.site, reset_less=True)
        valid = Signal()
        # Lane p of an even beat has the column's parity p, but for one lane. Many multiplexers hang on the
        # colour, so it is a register of its own.
        colours = [Signal(2, name=f"site_colour_{p}", reset_less=True) for p in range(self.build.lanes)]
        m.d.sync += [site.eq(self.site), valid.eq(self.valid)]
        before = []
        for p, colour in enumerate(colours):
            x_odd = self.cfa[0] ^ (self.site.x[0] if self.build.lanes == 1 else p & 1)
            before.append(Cat(x_odd, self.cfa[1] ^ self.site.y[0]))
            m.d.sync += colour.eq(before[p])
        delays = {"valid": (valid, self.o_valid), "site": (Value.cast(site), Value.cast(self.o_site))}
        for name, (now, later) in delays.items():
            line = DelayLine(now.shape(), self.latency - 1, valid=name == "valid")
            m.submodules[f"{name}_delay"] = line
            m.d.comb += [line.i.eq(now), later.eq(line.o)]

        for p, datapath in enumerate(self.datapaths):
            m.submodules[f"lane_{p}"] = datapath
            known: dict[str, Value] = {
                "site_x": site.x + p,
                "site_y": site.y,
                "site_colour": colours[p],
                "bypass": self.bypass,
            }
            known |= self._entries
            if self.parameters is not None:
                m.d.sync += datapath.load.eq(self.parameters.load)
                for name, labels in self._of_colour.items():
                    entries = ColourEntries(
                        self.parameters.stage.parameters[name], self.parameters.words[name], labels
                    )
                    m.submodules[f"{name}_of_colour_{p}"] = entries
                    m.d.comb += [entries.load.eq(datapath.load), entries.colour.eq(before[p])]
                    known |= {label: entries.o[k] for k, label in labels.items()}
            for label, port in datapath.inputs.items():
                if label in known:
                    m.d.comb += port.eq(known[label])
        return m

    def feed(self, m: Module, lane: int, values: Mapping[str, Any]) -> None:
        """Register the values, by label, into the inputs of a lane; labels that the nodes do not read are dropped."""
        for label, value in values.items():
            if label in self.inputs[lane]:
                port = self.inputs[lane][label]
                register = Signal.like(port, name=f"{label}_{lane}_in", reset_less=True)
                m.d.sync += register.eq(value)
                m.d.comb += port.eq(register)


def flags_of(site: data.View) -> dict[str, Value]:
    """The flags of a beat, from its site."""
    return {"first": site.first, "eol": site.eol, "last": site.last}
