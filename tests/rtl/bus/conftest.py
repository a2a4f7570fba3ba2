"""A host on the AXI4-Lite port of a component in Amaranth's simulator."""

import pytest
from amaranth.sim import Simulator

OKAY, SLVERR = 0b00, 0b10


class Host:
    """Blocking accesses; every delay is in clocks and counts from the start of the access."""

    def __init__(self, ctx, dut):
        self.ctx = ctx
        self.dut = dut

    async def write(self, address, data, *, strobe=0xF, aw=0, w=0, b=0):
        """The response code of a write."""
        ctx, dut = self.ctx, self.dut
        address_sent = data_sent = False
        clock = 0
        while True:
            ctx.set(dut.s_axil_awvalid, clock >= aw and not address_sent)
            ctx.set(dut.s_axil_awaddr, address if clock >= aw and not address_sent else 0xDEAD)
            ctx.set(dut.s_axil_wvalid, clock >= w and not data_sent)
            ctx.set(dut.s_axil_wdata, data & 0xFFFFFFFF if clock >= w and not data_sent else 0xDEADBEEF)
            ctx.set(dut.s_axil_wstrb, strobe if clock >= w and not data_sent else 0x5)
            ctx.set(dut.s_axil_bready, clock >= b)
            _, _, aw_ready, w_ready, b_valid, response = await ctx.tick().sample(
                dut.s_axil_awready, dut.s_axil_wready, dut.s_axil_bvalid, dut.s_axil_bresp
            )
            assert not b_valid or (address_sent and data_sent), "response before the request"
            if b_valid and clock >= b:
                ctx.set(dut.s_axil_bready, 0)
                return response
            address_sent |= clock >= aw and bool(aw_ready)
            data_sent |= clock >= w and bool(w_ready)
            clock += 1
            assert clock < 20000, f"no response to the write at 0x{address:04x}"

    async def read(self, address, *, ar=0, r=0):
        """Data and response code of a read."""
        ctx, dut = self.ctx, self.dut
        address_sent = False
        held = None
        clock = 0
        while True:
            ctx.set(dut.s_axil_arvalid, clock >= ar and not address_sent)
            ctx.set(dut.s_axil_araddr, address if clock >= ar and not address_sent else 0xDEAD)
            ctx.set(dut.s_axil_rready, clock >= r)
            _, _, ar_ready, valid, data, response = await ctx.tick().sample(
                dut.s_axil_arready, dut.s_axil_rvalid, dut.s_axil_rdata, dut.s_axil_rresp
            )
            if valid:
                assert address_sent, "response before the request"
                assert held in (None, (data, response)), "response changed while it waited"
                held = data, response
                if clock >= r:
                    ctx.set(dut.s_axil_rready, 0)
                    return held
            else:
                assert held is None, "response withdrawn"
            address_sent |= clock >= ar and bool(ar_ready)
            clock += 1
            assert clock < 20000, f"no response to the read at 0x{address:04x}"

    async def put(self, address, data):
        """A write that must succeed."""
        assert await self.write(address, data) == OKAY, f"write at 0x{address:04x}"

    async def get(self, address):
        """A read that must succeed."""
        data, response = await self.read(address)
        assert response == OKAY, f"read at 0x{address:04x}"
        return data

    async def settled(self):
        """Waits until no commit is pending."""
        for _ in range(1000):
            if not await self.get(0x00C) & 1:
                return
        raise AssertionError("the commit is still pending")


@pytest.fixture
def simulate():
    """``simulate(dut, main, *others)``: runs ``main(ctx)`` to its end, the others beside it."""

    def run(dut, main, *others):
        simulator = Simulator(dut)
        simulator.add_clock(1e-8)
        simulator.add_testbench(main)
        for other in others:
            simulator.add_testbench(other, background=True)
        simulator.run()

    return run


@pytest.fixture
def host():
    """The class :class:`Host`."""
    return Host
