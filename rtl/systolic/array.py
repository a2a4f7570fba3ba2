"""The mesh between its diagonals: rows of operands in, rows of results out, a fixed time later."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed
from .build import ArrayBuild
from .mesh import Mesh
from .skew import SLOT, Deskew, Skew

__all__ = ["SystolicArray"]


class SystolicArray(wiring.Component):
    """Three products on R x C elements, every operand read row by row and nothing transposed.

    ``Y = X W``: W stationary from the north, a row of X in, a row of Y out.
    ``dX = dY W^T``: the same rows of W stationary from the west, a row of dY in, a row of dX out.
    ``dW = X^T dY``: a row of X from the west and a row of dY from the north in, R rows of dW out when it is drained.

    :class:`~pullback.rtl.systolic.skew.Skew` says which row has to be where at what time. There is no stall inside:
    whoever gives rows has room for the results. A tile of M rows may follow another one

    ==================  ==========================  =============================  =====================================
    after               Y                           dX                             dW
    ==================  ==========================  =============================  =====================================
    Y or dX, M rows     max(M, R) clocks later      max(M, C)                      M, and one more in which sums start
                                                                                   from zero (a ``drain``)
    dW, M rows + drain  M + R                       M + R + C - 2, at least M + R  M + 1
    ==================  ==========================  =============================  =====================================

    Of two drains fewer than R clocks apart the sums of the later one are lost, as those of the earlier one are on their
    way still. So a tile of dW has at least R - 1 rows, of zeros in X where there are no others.

    Parameters
    ----------
    build : ArrayBuild
    site : callable
        See :class:`~pullback.rtl.systolic.mesh.Mesh`.

    Members
    -------
    slot : In(SLOT)
    h, west : In(ArrayLayout(build.word, rows))
    north : In(ArrayLayout(build.word, columns))
    o : Out(ArrayLayout(build.sum, columns))
        A row that enters in clock t gives its results in clock ``t + latency``; a drain in clock t gives row r of its
        sums in clock ``t + latency + r``.

    Attributes
    ----------
    latency : int
        ``(R - 1) + (C - 1) + crossings(R - 1) + 6``; where two columns share a multiplier
        ``(R - 1) + (C / 2 - 1) + crossings(R - 1) + 8``.
    """

    def __init__(
        self, build: ArrayBuild, *, site: Callable[[int, int], str | None] = lambda r, c: None
    ) -> None:
        self._build, self._site = build, site
        last = build.rows - 1
        self._bottom = last + build.crossings(last) + build.late_lag + 1
        self.latency = self._bottom + build.wave(build.columns - 1)
        h = data.ArrayLayout(build.word, build.rows)
        super().__init__(
            {
                "slot": In(SLOT),
                "h": In(h),
                "west": In(h),
                "north": In(data.ArrayLayout(build.word, build.columns)),
                "o": Out(data.ArrayLayout(build.sum, build.columns)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build = self._build
        m.submodules.skew = skew = Skew(build)
        m.submodules.mesh = mesh = Mesh(build, site=self._site)
        m.submodules.deskew = deskew = Deskew(build)
        m.d.comb += [
            skew.slot.eq(self.slot),
            skew.h.eq(self.h),
            skew.west.eq(self.west),
            skew.north.eq(self.north),
            mesh.h.eq(skew.mesh_h),
            mesh.west.eq(skew.mesh_west),
            mesh.north.eq(skew.mesh_north),
            mesh.early.eq(skew.mesh_early),
            mesh.late.eq(skew.mesh_late),
            deskew.sums.eq(mesh.sums),
            deskew.drained.eq(mesh.drained),
            self.o.eq(deskew.o),
        ]
        # A drain is seen at the foot of column 0 for as many clocks as there are rows.
        begins = delayed(m, "drain", self.slot.drain, self._bottom - 1, reset=True)
        left = Signal(range(build.rows))
        with m.If(begins):
            m.d.sync += [left.eq(build.rows - 1), deskew.drained_now.eq(1)]
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += deskew.drained_now.eq(0)
        return m
