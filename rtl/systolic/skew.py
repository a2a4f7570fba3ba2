"""Diagonals in front of the mesh and behind it: rows of operands in, rows of results out."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, ResetSignal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed
from .build import ArrayBuild
from .element import EARLY, LATE

__all__ = ["SLOT", "Deskew", "Skew"]

SLOT = data.StructLayout({"load": 1, "keep": 1, "drain": 1, "west": 1})
"""What a row of operands is told on its way into the mesh.

``load``: take the stationary operands (on the first row of a stationary product) or the next operands of v (on every
row of an output-stationary one). ``keep``: output-stationary, sums stay where they are. ``drain``: no operands; sums
leave and start from zero. ``west``: v comes from the west where this row's wave passes, else from the north.
"""


class Skew(wiring.Component):
    """Delays row r of h by ``r`` clocks for a stationary product and by ``2r`` for an output-stationary one.

    To both come the crossings of bands, ``x(r) = build.crossings(r)``. With X a row that enters at clock t, and w(c) =
    ``build.wave(c)``, which is c unless columns share multipliers:

    =============  =====================  ==============================
    operand        enters the mesh at     must be here at
    =============  =====================  ==============================
    stationary     row r: t + r + x(r)    first row of X at t
    W, from north  column c: + w(c)       row r of W at t - 1 - r
    W, from west   row r: + r + x(r)      row c of W at t - 1 - c
    output-stat.   row r: t + 2r + x(r)   row m of X at t + m
    dY             column c: + w(c)       row m of dY at t + m - 1
    =============  =====================  ==============================

    Stationary rows may follow output-stationary ones ``rows`` clocks later at the earliest, as the last of those are
    in the slower diagonal still; the other way round at once.

    Parameters
    ----------
    build : ArrayBuild

    Members
    -------
    slot : In(SLOT)
    h : In(ArrayLayout(build.word, rows))
    west : In(ArrayLayout(build.word, rows))
    north : In(ArrayLayout(build.word, columns))
    mesh_h, mesh_west, mesh_north, mesh_early, mesh_late : Out
        The inputs of :class:`~pullback.rtl.systolic.mesh.Mesh`. Latency 0 in row and column 0.
    """

    def __init__(self, build: ArrayBuild) -> None:
        self._build = build
        h = data.ArrayLayout(build.word, build.rows)
        north = data.ArrayLayout(build.word, build.columns)
        super().__init__(
            {
                "slot": In(SLOT),
                "h": In(h),
                "west": In(h),
                "north": In(north),
                "mesh_h": Out(h),
                "mesh_west": Out(h),
                "mesh_north": Out(north),
                "mesh_early": Out(data.ArrayLayout(EARLY, build.rows)),
                "mesh_late": Out(data.ArrayLayout(LATE, build.rows)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        # Controls pass from row to row, one clock a row and two clocks a row; operands have a line of their own each.
        slot = self.slot
        own = slot.keep | slot.drain
        fast = Cat(slot.load & ~own, slot.west)
        slow = Cat(slot.load & own, slot.keep, slot.drain)
        # The reset goes from row to row no slower than what it clears.
        clear: Value = ResetSignal()
        for r in range(self._build.rows):
            crossings = self._build.crossings(r)
            if r > 0:
                across = crossings - self._build.crossings(r - 1)
                clear = delayed(m, f"clear_{r}", clear, 1)
                fast = delayed(m, f"fast_{r}", fast, 1 + across, clear=clear)
                slow = delayed(m, f"slow_{r}", slow, 2 + across, clear=clear)
            early = delayed(m, f"h_{r}", self.h[r], crossings + r)
            late = delayed(m, f"h_slow_{r}", early, r)
            (fast_load, west), (slow_load, keep, drain) = fast, slow
            told = delayed(m, f"late_{r}", Cat(keep, drain), self._build.late_lag, clear=clear)
            m.d.comb += [
                self.mesh_h[r].eq(Mux(keep, late, early)),
                self.mesh_west[r].eq(delayed(m, f"west_{r}", self.west[r], crossings + r)),
                self.mesh_early[r].load.eq(fast_load | slow_load),
                self.mesh_early[r].west.eq(west),
                self.mesh_late[r].keep.eq(told[0]),
                self.mesh_late[r].drain.eq(told[1]),
            ]
        for c in range(self._build.columns):
            m.d.comb += self.mesh_north[c].eq(delayed(m, f"north_{c}", self.north[c], self._build.wave(c)))
        return m


class Deskew(wiring.Component):
    """Delays column c by ``w(columns - 1) - w(c)`` clocks, so that a row of results leaves together.

    Parameters
    ----------
    build : ArrayBuild

    Members
    -------
    drained_now : In(1)
        Whether column 0 shows a drained sum in this clock, and not a sum.
    sums, drained : In(ArrayLayout(build.sum, columns))
        What leaves the mesh.
    o : Out(ArrayLayout(build.sum, columns))
    """

    def __init__(self, build: ArrayBuild) -> None:
        self._build = build
        row = data.ArrayLayout(build.sum, build.columns)
        super().__init__({"drained_now": In(1), "sums": In(row), "drained": In(row), "o": Out(row)})

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build
        last = build.columns - 1
        choose: Value = self.drained_now
        clear: Value = ResetSignal()
        for c in range(build.columns):
            if c > 0:
                clocks = build.wave(c) - build.wave(c - 1)
                clear = delayed(m, f"clear_{c}", clear, clocks)
                choose = delayed(m, f"choose_{c}", choose, clocks, clear=clear)
            chosen = Mux(choose, self.drained[c], self.sums[c])
            m.d.comb += self.o[c].eq(delayed(m, f"o_{c}", chosen, build.wave(last) - build.wave(c)))
        return m
