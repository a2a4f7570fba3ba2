"""Entries of parameters that the CFA colour chooses: in RAM where they are read, not in registers far away."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Elaboratable, Module, Signal

from ..kernel import CFA_COLOURS, Load, Node, Parameter, Site, bit, given, substitute
from ..kernel.primitives.select import Where
from ..kernel.primitives.source import Entry, EntryOfColour
from ..stream.enable import COPIES, enables
from ..stream.ram import DistributedRam

__all__ = ["ColourEntries", "choose_by_colour"]


def choose_by_colour(nodes: Mapping[str, Node], parameters: Mapping[str, Parameter]) -> dict[str, Node]:
    """The nodes with one source, :class:`EntryOfColour`, in place of every selection of an entry by the site's colour.

    That takes a parameter whose entries are laid out colour by colour.
    """
    if not nodes:
        return {}
    graph = next(iter(nodes.values())).graph
    live = graph.live(list(nodes.values()))
    bits = [bit(Site(graph).colour, k).index for k in range(2)]
    chosen: dict[int, Node] = {}
    for node in live:
        if not isinstance(node.primitive, Where) or node.arguments[0].index not in bits:
            continue
        entries = [
            given(node, {b: colour >> n & 1 for n, b in enumerate(bits)}).primitive
            for colour in range(len(CFA_COLOURS))
        ]
        first = entries[0]
        if not isinstance(first, Entry):
            continue
        stride = parameters[first.parameter].entries // len(CFA_COLOURS)
        laid_out = [
            Entry(first.format, first.parameter, first.index + c * stride) for c in range(len(CFA_COLOURS))
        ]
        if stride and entries == laid_out:
            chosen[node.index] = graph.node(EntryOfColour(first.format, first.parameter, first.index))
    return substitute(nodes, chosen)


class ColourEntries(Elaboratable):
    """``o[k] = theta[colour * count + k]`` for one parameter, two clocks after the colour; count entries a colour.

    A distributed RAM of four rows for every k, read by the nearest of several registers of the colour. Words come
    over the load bus in rising order, one per clock, so a token that the first word starts passes from RAM to RAM
    beside the words, once for each colour.

    Parameters
    ----------
    parameter : Parameter
    base : int
        Word of the first entry.
    read : iterable of int
        Which k are read.

    Members
    -------
    load : Load
    colour : Signal(2)
    o : dict of int to Signal
        By k.
    """

    def __init__(self, parameter: Parameter, base: int, read) -> None:
        self._parameter, self._base = parameter, base
        self.load = Load()
        self.colour = Signal(2)
        self.o = {k: Signal(parameter.format.shape, name=f"of_colour_{k}", reset_less=True) for k in read}

    def elaborate(self, platform) -> Module:
        m = Module()
        colours = len(CFA_COLOURS)
        token = Signal(self._parameter.entries // colours)
        row = Signal(range(colours), reset_less=True)
        word = Signal(self._parameter.format.width, reset_less=True)
        starts = self.load.valid & (self.load.address == self._base)
        again = token[-1] & (row != colours - 1)
        m.d.sync += [token.eq(Cat(starts | again, token[:-1])), word.eq(self.load.data)]
        with m.If(starts):
            m.d.sync += row.eq(0)
        with m.Elif(token[-1]):
            m.d.sync += row.eq(row + 1)
        # Rows count from the other end: else synthesis would make one register of these and the colour's of the lane.
        copies = min(COPIES, len(self.o))
        bits = [enables(m, f"row_{n}", ~bit, copies) for n, bit in enumerate(self.colour)]
        read_rows = [Cat(each) for each in zip(*bits, strict=True)]
        rows = [row]  # each RAM's, at its token
        for k in range(1, len(token)):
            rows.append(Signal.like(row, name=f"write_row_{k}", reset_less=True))
            m.d.sync += rows[k].eq(rows[k - 1])
        for place, (k, o) in enumerate(self.o.items()):
            m.submodules[f"ram_{k}"] = ram = DistributedRam(len(word), colours)
            m.d.comb += [
                ram.write.eq(token[k]),
                ram.write_row.eq(~rows[k]),
                ram.write_data.eq(word),
                ram.read_row.eq(read_rows[place * copies // len(self.o)]),
            ]
            m.d.sync += o.eq(ram.read_data)
        return m
