"""The array as a core: its unit with registers on AXI4-Lite and four streams on AXI4-Stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from ..bus.axi4lite import axi4lite_members
from ..bus.axi4stream import Pack, Unpack, axi4stream_members
from ..bus.through import through
from ..numeric.format import SQ
from ..stream.pixel import Pixel
from ..stream.skid import SkidBuffer
from .build import UnitBuild
from .control import ArrayControl
from .packets import Closer, Loader, container
from .registers import ArrayMap
from .unit import ArrayUnit

__all__ = ["ArrayCore"]


def _row(name: str, lanes: int, bits: int) -> Pixel:
    """A row of codes travels as one pixel does, a channel a lane."""
    return Pixel(tuple((f"{name}_{k}", SQ(bits, 0)) for k in range(lanes)))


class ArrayCore(wiring.Component):
    """An array behind AXI: programmes and commands through registers, operands and results as packets of rows.

    A container is whole bytes and lane 0 lies lowest; codes that come saturate to their format and those that go are
    extended by their sign.

    =====================  ===============================================  ====================================
    port                   beats                                            ``tlast``
    =====================  ===============================================  ====================================
    ``s_axis_load_*``      a header, rows of operands (`Loader`)            ends a packet
    ``s_axis_filled_*``    a row of C partial sums for a FILL               is not looked at
    ``m_axis_stored_*``    ``lanes`` operands of a STORE                    last row of the job
    ``m_axis_emitted_*``   a row of C partial sums, or branches, of EMIT    last row of the job
    =====================  ===============================================  ====================================

    CONTROL.stop takes the programme away, whatever it does: the unit is reset and keeps what stands in its memories;
    what comes meanwhile is discarded; a packet that is half out is ended by one row of zeros with ``tlast``. A host
    sets it, lets its sources come to the end of a packet, and clears it. A reset (``rst``, synchronous, high) takes at
    least two clocks.

    Latency: what comes at ``load`` is in its memory ``1 + write_latency`` clocks after its beat has passed the edge, a
    clock, unless results are written to the same memory; a row leaves 1 clock after the unit offers it.

    Parameters
    ----------
    build : UnitBuild
    name : str
        Of the register map.
    site : callable
        As :class:`~pullback.rtl.systolic.mesh.Mesh`.

    Members
    -------
    ``s_axil_*`` : AXI4-Lite, :attr:`map` says what is where
    ``s_axis_load_*``, ``s_axis_filled_*``, ``m_axis_stored_*``, ``m_axis_emitted_*`` : AXI4-Stream without ``tuser``
    interrupt : Out(1)
        As the register INTERRUPTS says; high until what caused it is cleared.
    halted : Out(1)
        The array is stopped, or in reset: what comes is discarded.

    Raises
    ------
    ValueError
        If the programme's memory does not fit its region.
    """

    def __init__(
        self,
        build: UnitBuild,
        *,
        name: str = "array",
        site: Callable[[int, int], str | None] = lambda r, c: None,
    ) -> None:
        self.build, self.map = build, ArrayMap(build, name)
        array = build.array
        self._unit, self._loader = ArrayUnit(build, site=site), Loader(build)
        self._operands = _row("operand", build.lanes, array.operand)
        self._sums = _row("sum", array.columns, build.total)
        self._operand, self._sum = container(array.operand), container(build.total)
        rows, sums = build.lanes * self._operand, array.columns * self._sum
        members: dict[str, Any] = {**axi4lite_members(), "interrupt": Out(1), "halted": Out(1)}
        for prefix, width, sink in (
            ("s_axis_load_", self._loader.width, True),
            ("s_axis_filled_", sums, True),
            ("m_axis_stored_", rows, False),
            ("m_axis_emitted_", sums, False),
        ):
            members |= axi4stream_members(width, sink=sink, prefix=prefix)
            del members[f"{prefix}tuser"]
        super().__init__(members)

    def elaborate(self, platform) -> Module:
        m = Module()
        # A domain of its own for what a stop resets: its reset is a register, so none spans the core in one clock.
        m.domains.unit = domain = ClockDomain(local=True)
        m.submodules.control = control = ArrayControl(self.build)
        unit, loader = self._unit, self._loader
        m.submodules.unit = DomainRenamer("unit")(unit)
        m.submodules.loader = DomainRenamer("unit")(loader)
        m.d.comb += [domain.clk.eq(ClockSignal()), domain.rst.eq(control.halt)]

        through(m, self, control, axi4lite_members())
        m.d.comb += [self.interrupt.eq(control.interrupt), self.halted.eq(control.halt)]
        for name in ("write", "write_row", "write_data", "go", "start"):
            m.d.comb += getattr(unit, name).eq(getattr(control, name))
        for name in ("busy", "overflow", "clipped", "counts", "unknown", "over"):
            m.d.comb += getattr(control, name).eq(getattr(unit, name))
        # What is discarded is no error.
        m.d.comb += [
            control.header.eq(loader.header & ~control.halt),
            control.torn.eq(loader.torn & ~control.halt),
        ]

        m.submodules.load_edge = edge = SkidBuffer(data.StructLayout({"data": loader.width, "last": 1}))
        m.d.comb += [
            edge.i.valid.eq(self.s_axis_load_tvalid),
            edge.i.payload.data.eq(self.s_axis_load_tdata),
            edge.i.payload.last.eq(self.s_axis_load_tlast),
            self.s_axis_load_tready.eq(edge.i.ready),
        ]
        wiring.connect(m, edge.o, loader.i)
        wiring.connect(m, loader.o, unit.load)

        m.submodules.filled_edge = filled = Unpack(self._sums, lanes=1, container=self._sum)
        m.d.comb += [
            filled.tvalid.eq(self.s_axis_filled_tvalid),
            filled.tdata.eq(self.s_axis_filled_tdata),
            filled.tlast.eq(self.s_axis_filled_tlast),
            self.s_axis_filled_tready.eq(filled.tready),
            unit.filled.valid.eq(filled.o.valid),
            filled.o.ready.eq(unit.filled.ready | control.halt),
        ]
        for k, name in enumerate(self._sums.names):
            m.d.comb += unit.filled.payload[k].eq(filled.o.payload.lane[0][name])

        for name, pixel, bits in (
            ("stored", self._operands, self._operand),
            ("emitted", self._sums, self._sum),
        ):
            rows = getattr(unit, name)
            m.submodules[f"{name}_closer"] = closer = Closer(rows.payload.shape())
            m.submodules[f"{name}_edge"] = pack = Pack(pixel, lanes=1, container=bits)
            wiring.connect(m, rows, closer.i)
            m.d.comb += [
                closer.last.eq(getattr(unit, f"{name}_last")),
                closer.halt.eq(control.halt),
                pack.i.valid.eq(closer.o.valid),
                pack.i.payload.eol.eq(closer.o.payload.last),
                closer.o.ready.eq(pack.i.ready),
                pack.width.eq(1),
                pack.tready.eq(getattr(self, f"m_axis_{name}_tready")),
            ]
            for k, channel in enumerate(pixel.names):
                m.d.comb += pack.i.payload.lane[0][channel].eq(closer.o.payload.row[k])
            for signal in ("tdata", "tvalid", "tlast"):
                m.d.comb += getattr(self, f"m_axis_{name}_{signal}").eq(getattr(pack, signal))
        return m
