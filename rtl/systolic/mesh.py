"""R x C processing elements and the wires between them, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import Module, ResetSignal, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .build import ArrayBuild
from .element import EARLY, LATE, PackedElement, ProcessingElement

__all__ = ["Mesh"]


class Mesh(wiring.Component):
    """Elements (r, c) side by side: h moves east, v south or east, sums and drained sums south.

    What enters a row in clock t reaches column c at t + c, v at t + 2c; where two columns share a multiplier h is there
    at t + w, w = floor(c / 2), and v at t + c + w. Going south from row r - 1 to row r takes a clock for sums and two
    for v, and one more for both where a band of the chip ends (`ArrayBuild.crossings`). See
    :class:`~pullback.rtl.systolic.skew.Skew` for when what has to enter. A reset passes an element a clock,
    too, and so keeps ahead of what enters after it.

    Parameters
    ----------
    build : ArrayBuild
    site : callable
        ``site(r, c)``: where the multiplier of an element lies on the chip, as nextpnr names it, or None. Where two
        columns share a multiplier, c counts multipliers.

    Members
    -------
    h : In(ArrayLayout(build.word, rows))
        Operands entering from the west.
    west : In(ArrayLayout(build.word, rows))
        Entries of v from the west.
    north : In(ArrayLayout(build.word, columns))
        Entries of v from the north.
    early : In(ArrayLayout(EARLY, rows))
    late : In(ArrayLayout(LATE, rows))
    sums : Out(ArrayLayout(build.sum, columns))
        Sums that leave the last row.
    drained : Out(ArrayLayout(build.sum, columns))
        Drained sums that leave the last row.
    """

    def __init__(
        self, build: ArrayBuild, *, site: Callable[[int, int], str | None] = lambda r, c: None
    ) -> None:
        self._build, self._site = build, site
        rows, columns = build.rows, build.columns
        super().__init__(
            {
                "h": In(data.ArrayLayout(build.word, rows)),
                "west": In(data.ArrayLayout(build.word, rows)),
                "north": In(data.ArrayLayout(build.word, columns)),
                "early": In(data.ArrayLayout(EARLY, rows)),
                "late": In(data.ArrayLayout(LATE, rows)),
                "sums": Out(data.ArrayLayout(build.sum, columns)),
                "drained": Out(data.ArrayLayout(build.sum, columns)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build
        rows, columns = range(build.rows), range(build.columns // build.shared)
        kind = PackedElement if build.packed else ProcessingElement
        elements = [[kind(build, site=self._site(r, c)) for c in columns] for r in rows]

        def south(value: Any, r: int, c: int, name: str) -> Value:
            """From the element above, through a register where a band ends."""
            bits = value.as_value()
            if build.crossings(r) == build.crossings(r - 1):
                return bits
            crossing = Signal(bits.shape(), name=f"{name}_{r}_{c}", reset_less=True)
            m.d.sync += crossing.eq(bits)
            return crossing

        clear: Value = ResetSignal()
        for r in rows:
            for c in columns:
                element = elements[r][c]
                m.submodules[f"element_{r}_{c}"] = element
                if c == 0:
                    m.d.comb += [
                        element.h_i.eq(self.h[r]),
                        element.v_west_i.eq(self.west[r]),
                        element.early_i.eq(self.early[r]),
                        element.late_i.eq(self.late[r]),
                        element.clear_i.eq(clear),
                    ]
                    clear = element.clear_o
                else:
                    left = elements[r][c - 1]
                    m.d.comb += [
                        element.h_i.eq(left.h_o),
                        element.v_west_i.eq(left.v_o[build.shared - 1]),
                        element.early_i.eq(left.early_o),
                        element.late_i.eq(left.late_o),
                        element.clear_i.eq(left.clear_o),
                    ]
                if r == 0:
                    m.d.comb += [
                        element.v_north_i[k].eq(self.north[build.shared * c + k]) for k in range(build.shared)
                    ]
                else:
                    above = elements[r - 1][c]
                    m.d.comb += [
                        element.v_north_i.as_value().eq(south(above.v_o, r, c, "v")),
                        element.sum_i.as_value().eq(south(above.sum_o, r, c, "sum")),
                        element.drain_i.as_value().eq(south(above.drain_o, r, c, "drain")),
                    ]
        for c in range(build.columns):
            foot, k = elements[-1][build.wave(c)], c % build.shared
            m.d.comb += [self.sums[c].eq(foot.sum_o[k]), self.drained[c].eq(foot.drain_o[k])]
        return m
