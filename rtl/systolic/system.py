"""The array with a port to an external memory: matrices are fetched and delivered tile by tile."""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from ..bus.axi4_master import AXI4Reader, AXI4Writer, axi4_read_members, axi4_write_members
from ..bus.axi4lite import axi4lite_members
from ..bus.register_file import RegisterFile
from ..bus.registers import Field, Register, whole
from ..bus.through import through
from ..stream.fifo import Fifo
from .build import UnitBuild
from .core import ArrayCore
from .transfers import Deliver, Fetch, memory_port, transfer

__all__ = ["TRANSFERS", "TRANSFER_REGISTERS", "ArraySystem"]

TRANSFERS = 4
"""Transfers of each direction that wait for their turn."""


def _value(name: str, address: int, access: str, doc: str) -> Register:
    return Register(name, address, access, whole(doc), "")


TRANSFER_REGISTERS: tuple[Register, ...] = (
    _value("ADDRESS", 0x00, "rw", "byte address of the first row; begins a beat"),
    _value("PITCH", 0x04, "rw", "bytes from one row to the next, modulo 2**32; whole beats"),
    _value("ROWS", 0x08, "rw", "rows, 1 to 65536"),
    _value("AT", 0x0C, "rw", "operand of the array's memory at which a fetched matrix begins"),
    _value("STRIDE", 0x10, "rw", "operands from one of its rows to the next"),
    Register(
        "SHAPE",
        0x14,
        "rw",
        (Field("columns", 0, 24, "operands of a row"), Field("to", 24, 8, "memory to which it is fetched")),
        "",
    ),
    Register(
        "BEGIN",
        0x18,
        "w",
        (
            Field("fetch", 0, 1, "write 1: a packet of operands"),
            Field("deliver", 1, 1, "write 1: rows stored"),
        ),
        "",
    ),
    Register(
        "STATUS",
        0x1C,
        "r",
        (
            Field("fetching", 0, 1, "a fetch waits or is under way"),
            Field("delivering", 1, 1, "a delivery waits, is under way, or its last write has no answer yet"),
            Field("fetch_full", 2, 1, "no fetch can be taken"),
            Field("deliver_full", 3, 1, "no delivery can be taken"),
        ),
        "",
    ),
    Register(
        "ERRORS",
        0x20,
        "rw1c",
        (
            Field("refused", 0, 1, "begun while full"),
            Field(
                "bad_shape",
                1,
                1,
                "no row or column, too many rows, or more columns than operands in a memory",
            ),
            Field("short", 2, 1, "a packet ended before its delivery"),
            Field("read", 3, 1, "the memory answered a read with an error: READ_ERROR"),
            Field("write", 4, 1, "the memory answered a write with an error: WRITE_ERROR"),
        ),
        "",
    ),
    _value("READ_ERROR", 0x24, "r", "address of the first burst that was read with an error"),
    _value("WRITE_ERROR", 0x28, "r", "address of the first burst that was written with an error"),
    Register(
        "INTERRUPTS",
        0x2C,
        "rw",
        (
            Field("idle", 0, 1, "while nothing is under way"),
            Field("error", 1, 1, "while one of ERRORS is set"),
        ),
        "",
    ),
)
"""The registers of the transfers."""


class ArraySystem(wiring.Component):
    """`ArrayCore` whose operands come from an AXI4 memory and whose stored rows go there.

    Partial sums keep their streams. A matrix that does not fit is moved tile by tile: each transfer has its address,
    pitch and shape in the external memory, and a fetch its place in the array's. Fetches are packets of `Loader`, in
    order, while programmes run; a delivery takes the rows of a STORE. Up to `TRANSFERS` of either wait. Rows begin at
    whole beats of the memory, which are as wide as a row of the array's memories; of a row's last beat only the bytes
    of its operands are written.

    CONTROL.stop of the array discards what is fetched and what waits, and ends deliveries.

    Parameters
    ----------
    build : UnitBuild
    longest : int
        Beats of a burst at most.
    name : str
        Of the register map of the array.
    site : callable
        As :class:`~pullback.rtl.systolic.mesh.Mesh`.

    Members
    -------
    ``s_axil_*`` : AXI4-Lite, of the array
    ``s_axil_transfers_*`` : AXI4-Lite, `TRANSFER_REGISTERS`
    ``m_axi_*`` : AXI4
    ``s_axis_filled_*``, ``m_axis_emitted_*`` : AXI4-Stream, of the array
    interrupt, interrupt_transfers : Out(1)

    Raises
    ------
    ValueError
        As `ArrayCore` and :func:`~pullback.rtl.systolic.transfers.memory_port`.
    """

    def __init__(
        self,
        build: UnitBuild,
        *,
        longest: int = 16,
        name: str = "array",
        site: Callable[[int, int], str | None] = lambda r, c: None,
    ) -> None:
        self.build, self.port = build, memory_port(build, longest=longest)
        self._core = ArrayCore(build, name=name, site=site)
        self.map = self._core.map
        kept = ("s_axil_", "s_axis_filled_", "m_axis_emitted_", "interrupt")
        self._kept = {n: member for n, member in self._core.signature.members.items() if n.startswith(kept)}
        super().__init__(
            {
                **self._kept,
                **axi4lite_members("s_axil_transfers_"),
                **axi4_read_members(self.port),
                **axi4_write_members(self.port),
                "interrupt_transfers": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build, port = self.build, self.port
        m.submodules.core = core = self._core
        m.submodules.registers = registers = RegisterFile(TRANSFER_REGISTERS)
        m.submodules.fetch = fetch = Fetch(build, port)
        m.submodules.deliver = deliver = Deliver(build, port)
        m.submodules.reader = reader = AXI4Reader(port)
        m.submodules.writer = writer = AXI4Writer(port)
        m.submodules.fetches = fetches = Fifo(transfer(port), TRANSFERS)
        m.submodules.deliveries = deliveries = Fifo(transfer(port), TRANSFERS)

        through(m, self, core, self._kept)
        through(m, self, registers, axi4lite_members(), renamed=("s_axil_", "s_axil_transfers_"))
        through(m, self, reader, axi4_read_members(port))
        through(m, self, writer, axi4_write_members(port))

        # Matrices: memory, packets, array and back.
        wiring.connect(m, fetch.run, reader.run)
        wiring.connect(m, reader.o, fetch.rows)
        wiring.connect(m, deliver.run, writer.run)
        wiring.connect(m, deliver.o, writer.i)
        m.d.comb += [
            core.s_axis_load_tvalid.eq(fetch.o.valid),
            core.s_axis_load_tdata.eq(fetch.o.payload.data),
            core.s_axis_load_tlast.eq(fetch.o.payload.last),
            fetch.o.ready.eq(core.s_axis_load_tready),
            deliver.rows.valid.eq(core.m_axis_stored_tvalid),
            deliver.rows.payload.data.eq(core.m_axis_stored_tdata),
            deliver.rows.payload.last.eq(core.m_axis_stored_tlast),
            core.m_axis_stored_tready.eq(deliver.rows.ready),
            deliver.halt.eq(core.halted),
        ]

        # Registers.
        writes, given = registers.writes, registers.data
        held = {
            name: Signal(32, name=name.lower())
            for name in ("ADDRESS", "PITCH", "ROWS", "AT", "STRIDE", "SHAPE")
        }
        for name, register in held.items():
            with m.If(writes[name]):
                m.d.sync += register.eq(given)
        wants_idle = Signal()
        wants_error = Signal()
        with m.If(writes.INTERRUPTS):
            m.d.sync += Cat(wants_idle, wants_error).eq(given)
        some_rows = Signal()
        full = Signal()
        bad = Signal()
        less_one = Signal(32)
        m.d.comb += less_one.eq(held["ROWS"] - 1)
        m.d.sync += some_rows.eq(held["ROWS"].any() & ~less_one[16:].any())
        for bit, queue, part in ((0, fetches, fetch), (1, deliveries, deliver)):
            asks = Signal(name=f"asks_{bit}")
            m.d.comb += [
                asks.eq(writes.BEGIN & given[bit]),
                queue.i.valid.eq(asks & some_rows),
                queue.i.payload.address.eq(held["ADDRESS"]),
                queue.i.payload.pitch.eq(held["PITCH"]),
                queue.i.payload.rows.eq(less_one),
                queue.i.payload.header.at.eq(held["AT"]),
                queue.i.payload.header.stride.eq(held["STRIDE"]),
                queue.i.payload.header.columns.eq(held["SHAPE"][:24]),
                queue.i.payload.header.to.eq(held["SHAPE"][24:]),
                part.i.valid.eq(queue.o.valid & ~core.halted),
                part.i.payload.eq(queue.o.payload),
                queue.o.ready.eq(part.i.ready | core.halted),
            ]
            with m.If(asks & ~queue.i.ready):
                m.d.comb += full.eq(1)
            with m.If((asks & ~some_rows) | part.refused):
                m.d.comb += bad.eq(1)
        clear = Signal(5)
        sticky = Signal(3)
        m.d.comb += [
            clear.eq(Mux(writes.ERRORS, given, 0)),
            reader.clear.eq(clear[3]),
            writer.clear.eq(clear[4]),
        ]
        errors = Cat(sticky, reader.error, writer.error)
        busy = Cat(
            fetches.o.valid | (fetches.level != 0) | ~fetch.idle | ~reader.idle,
            deliveries.o.valid | (deliveries.level != 0) | ~deliver.idle | ~writer.idle,
        )
        m.d.sync += [
            sticky.eq((sticky & ~clear) | Cat(full, bad, deliver.short)),
            self.interrupt_transfers.eq((wants_idle & ~busy.any()) | (wants_error & errors.any())),
        ]
        values = {
            **held,
            "STATUS": Cat(busy, ~fetches.i.ready, ~deliveries.i.ready),
            "ERRORS": errors,
            "READ_ERROR": reader.error_address,
            "WRITE_ERROR": writer.error_address,
            "INTERRUPTS": Cat(wants_idle, wants_error),
        }
        m.d.comb += [registers.values[name].eq(value) for name, value in values.items()]
        return m
