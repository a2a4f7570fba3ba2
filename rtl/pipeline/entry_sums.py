"""What of a parameter's entries is summed, and by which unit."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import stream, wiring

from ..kernel import CFA_COLOURS, Node, Site, bit, given
from ..stream.accumulate import Accumulate
from ..stream.indexed_accumulate import IndexedAccumulate
from .build import Build
from .lanes import Lanes

__all__ = ["EntrySums"]


def _of_each_colour(entries: Sequence[Node]) -> list[Node] | None:
    """Values so that entry ``colour * len(values) + k`` is value k at sites of that colour, else 0; None if there are
    no such values."""
    colours = len(CFA_COLOURS)
    if len(entries) % colours:
        return None
    count = len(entries) // colours
    graph = entries[0].graph
    bits = [bit(Site(graph).colour, k).index for k in range(2)]
    values: list[Node] = []
    for k, entry in enumerate(entries):
        at = [given(entry, {b: colour >> n & 1 for n, b in enumerate(bits)}) for colour in range(colours)]
        value = at.pop(k // count)
        if not all(other.is_zero for other in at):
            return None
        if k < count:
            values.append(value)
        elif value is not values[k % count]:
            return None
    return values


class EntrySums:
    """``thetabar[k] = sum of entries[k]`` over the beats of a group, for the entries of one parameter.

    Where the CFA colour chooses which entry a value belongs to, one adder serves the entries of all four colours
    (:class:`IndexedAccumulate`); that takes entries laid out colour by colour. Otherwise every entry has its own
    (:class:`Accumulate`). All are summed in the units of the most precise.

    Parameters
    ----------
    name : str
    entries : sequence of Node
        What a pixel gives to each.
    build : Build

    Members
    -------
    nodes : dict of str to Node
        What the lanes must compute.
    words : int
        How many words :meth:`connect` streams out.
    pauses : int
        Clocks without a word among them.
    """

    def __init__(self, name: str, entries: Sequence[Node], build: Build) -> None:
        self.words = len(entries)
        by_colour = _of_each_colour(entries)
        values = by_colour or entries
        f = max(node.f for node in entries)
        self._values = {f"{name}_{k}_bar": node for k, node in enumerate(values)}
        self._up = {label: f - node.f for label, node in self._values.items()}
        terms = [
            (label, max(2, node.width + (not node.shape.signed) + self._up[label]))
            for label, node in self._values.items()
        ]
        self.nodes = dict(self._values)
        self.pauses = 0
        if by_colour is None:
            self._unit = Accumulate(terms, lanes=build.lanes, log2_count=build.log2_pixels, masks=False)
        else:
            self.nodes["colour"] = Site(entries[0].graph).colour
            self._unit = IndexedAccumulate(
                terms, entries=len(CFA_COLOURS), lanes=build.lanes, log2_count=build.log2_pixels
            )
            self.pauses = len(CFA_COLOURS) * self._unit.pause

    def connect(self, m: Module, name: str, lanes: Lanes, end: Value, o: stream.Interface) -> Signal:
        """Adds the unit as submodule ``name``, fed by the lanes' outputs; ``end`` marks a group's last beat.

        Returns the pulse of a group that was dropped.
        """
        m.submodules[name] = unit = self._unit
        wiring.connect(m, unit.o, wiring.flipped(o))
        m.d.comb += [unit.i.valid.eq(lanes.o_valid), unit.i.payload.last.eq(end)]
        for p, outputs in enumerate(lanes.outputs):
            for label, up in self._up.items():
                m.d.comb += unit.i.payload[label][p].eq(outputs[label] << up)
            if "colour" in self.nodes:
                m.d.comb += unit.i.payload.index[p].eq(outputs["colour"])
        return unit.overrun
