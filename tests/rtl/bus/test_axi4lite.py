"""The AXI4-Lite front end against a scoreboard behind its request port."""

import itertools
import random

import pytest

from pullback.rtl.bus.axi4lite import OKAY, SLVERR, AXI4Lite


def memory(dut, words, log, *, seed):
    """Serves requests after random waits; addresses from 0x100 on are errors. Checks the port's promises."""

    async def serve(ctx):
        rng = random.Random(seed)
        port = dut.request
        while True:
            _, _, valid = await ctx.tick().sample(port.valid)
            if not valid:
                continue
            seen = [ctx.get(port.write), ctx.get(port.address), ctx.get(port.wdata)]
            for _ in range(rng.choice((0, 0, 1, 4))):
                await ctx.tick()
                assert ctx.get(port.valid)
                assert seen == [ctx.get(port.write), ctx.get(port.address), ctx.get(port.wdata)]
            write, address, wdata = seen
            error = address >= 0x100
            ctx.set(port.done, 1)
            ctx.set(port.error, error)
            ctx.set(port.rdata, 0 if write or error else words.get(address, 0))
            if write and not error:
                words[address] = wdata
            log.append((write, address))
            await ctx.tick()
            ctx.set(port.done, 0)
            ctx.set(port.error, 1)
            ctx.set(port.rdata, 0xBADBAD)
            assert not ctx.get(port.valid)

    return serve


def test_random_accesses_with_aw_and_w_in_any_order(simulate, host):
    dut = AXI4Lite()
    words, log = {}, []

    async def main(ctx):
        rng = random.Random(1)
        axi = host(ctx, dut)
        expected = {}
        for _ in range(150):
            address = rng.choice((rng.randrange(8), 0xFF, 0x100, 0x3FFF))
            delays = [rng.choice((0, 0, 1, 2, 7)) for _ in range(3)]
            bad = address >= 0x100
            if rng.random() < 0.5:
                data = rng.getrandbits(32)
                response = await axi.write(4 * address, data, aw=delays[0], w=delays[1], b=delays[2])
                assert response == (SLVERR if bad else OKAY)
                if not bad:
                    expected[address] = data
            else:
                data, response = await axi.read(4 * address + rng.randrange(4), ar=delays[0], r=delays[1])
                assert response == (SLVERR if bad else OKAY)
                assert data == (0 if bad else expected.get(address, 0))
        assert words == expected

    simulate(dut, main, memory(dut, words, log, seed=2))


@pytest.mark.parametrize("strobe", range(15))
def test_a_partial_write_is_refused_at_the_door(simulate, host, strobe):
    dut = AXI4Lite()
    words, log = {}, []

    async def main(ctx):
        axi = host(ctx, dut)
        assert await axi.write(4, 1) == OKAY
        assert await axi.write(4, 0xFFFFFFFF, strobe=strobe) == SLVERR
        assert await axi.read(4) == (1, OKAY)

    simulate(dut, main, memory(dut, words, log, seed=3))
    assert log == [(1, 1), (0, 1)]


def test_read_and_write_take_turns(simulate):
    dut = AXI4Lite()
    words, log = {}, []

    async def main(ctx):
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            ctx.set(getattr(dut, f"s_axil_{name}"), 1)
        ctx.set(dut.s_axil_wstrb, 0xF)
        await ctx.tick().repeat(200)

    simulate(dut, main, memory(dut, words, log, seed=4))
    kinds = [write for write, _ in log]
    assert len(kinds) > 20
    assert all(a != b for a, b in itertools.pairwise(kinds))


def test_a_response_that_is_not_taken_holds_back_its_own_direction_only(simulate, host):
    dut = AXI4Lite()
    words, log = {5: 55}, []

    async def main(ctx):
        axi = host(ctx, dut)
        # A write whose response nobody takes.
        ctx.set(dut.s_axil_awvalid, 1)
        ctx.set(dut.s_axil_awaddr, 16)
        ctx.set(dut.s_axil_wvalid, 1)
        ctx.set(dut.s_axil_wdata, 7)
        ctx.set(dut.s_axil_wstrb, 0xF)
        await ctx.tick().until(dut.s_axil_bvalid)
        assert await axi.read(20) == (55, OKAY)
        assert await axi.read(16) == (7, OKAY)
        assert ctx.get(dut.s_axil_bvalid)
        # The second write was accepted into the slots and waits there.
        assert log.count((1, 4)) == 1

    simulate(dut, main, memory(dut, words, log, seed=5))


def test_a_read_waits_until_the_one_before_it_is_taken(simulate, host):
    dut = AXI4Lite()
    words, log = {5: 55, 6: 66}, []

    async def main(ctx):
        axi = host(ctx, dut)
        ctx.set(dut.s_axil_arvalid, 1)
        ctx.set(dut.s_axil_araddr, 20)
        await ctx.tick().until(dut.s_axil_arready)
        ctx.set(dut.s_axil_araddr, 24)
        await ctx.tick().until(dut.s_axil_arready)
        ctx.set(dut.s_axil_arvalid, 0)
        assert await axi.write(28, 7) == OKAY
        await ctx.tick().repeat(30)
        assert ctx.get(dut.s_axil_rvalid) and ctx.get(dut.s_axil_rdata) == 55
        assert log == [(0, 5), (1, 7)]
        ctx.set(dut.s_axil_rready, 1)
        await ctx.tick()
        (data,) = await ctx.tick().sample(dut.s_axil_rdata).until(dut.s_axil_rvalid)
        assert data == 66

    simulate(dut, main, memory(dut, words, log, seed=6))
    assert log == [(0, 5), (1, 7), (0, 6)]


def test_outputs_are_low_in_reset(simulate):
    dut = AXI4Lite()

    async def main(ctx):
        outputs = ("awready", "wready", "bvalid", "arready", "rvalid")
        assert [ctx.get(getattr(dut, f"s_axil_{name}")) for name in outputs] == [0] * 5
        await ctx.tick()
        assert [ctx.get(getattr(dut, f"s_axil_{name}")) for name in outputs] == [1, 1, 0, 1, 0]

    simulate(dut, main)
