"""R x C processing elements and the wires between them, nothing else."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .build import ArrayBuild
from .element import EARLY, LATE, ProcessingElement

__all__ = ["Mesh"]


class Mesh(wiring.Component):
    """Elements (r, c) side by side: h moves east, v south or east, sums and drained sums south.

    What enters a row in clock t reaches column c at t + c, v at t + 2c. Going south from row r - 1 to row r takes a
    clock for sums and two for v, and one more for both where a band of the chip ends (`ArrayBuild.crossings`). See
    :class:`~pullback.rtl.systolic.skew.Skew` for when what has to enter.

    Parameters
    ----------
    build : ArrayBuild
    site : callable
        ``site(r, c)``: where the multiplier of an element lies on the chip, as nextpnr names it, or None.

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
        rows, columns = range(self._build.rows), range(self._build.columns)
        elements = [[ProcessingElement(self._build, site=self._site(r, c)) for c in columns] for r in rows]

        def south(value: Value, r: int, c: int, name: str) -> Value:
            """From the element above, through a register where a band ends."""
            if self._build.crossings(r) == self._build.crossings(r - 1):
                return value
            crossing = Signal(value.shape(), name=f"{name}_{r}_{c}", reset_less=True)
            m.d.sync += crossing.eq(value)
            return crossing

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
                    ]
                else:
                    left = elements[r][c - 1]
                    m.d.comb += [
                        element.h_i.eq(left.h_o),
                        element.v_west_i.eq(left.v_o),
                        element.early_i.eq(left.early_o),
                        element.late_i.eq(left.late_o),
                    ]
                if r == 0:
                    m.d.comb += element.v_north_i.eq(self.north[c])
                else:
                    above = elements[r - 1][c]
                    m.d.comb += [
                        element.v_north_i.eq(south(above.v_o, r, c, "v")),
                        element.sum_i.eq(south(above.sum_o, r, c, "sum")),
                        element.drain_i.eq(south(above.drain_o, r, c, "drain")),
                    ]
        for c in columns:
            m.d.comb += [self.sums[c].eq(elements[-1][c].sum_o), self.drained[c].eq(elements[-1][c].drain_o)]
        return m
