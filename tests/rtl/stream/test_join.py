"""Join: pairs in order, under stalls on every side."""

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator

from pullback.rtl.stream.join import Join


@pytest.mark.parametrize("rates", [(1, 1, 1), (0.3, 1, 1), (1, 0.3, 1), (1, 1, 0.3), (0.5, 0.5, 0.5)])
def test_pairs(rates):
    """``o[n] = (a[n], b[n])``: nothing lost, nothing twice."""
    count, rng = 200, np.random.default_rng(int(10 * sum(rates)))
    dut = Join(8, 4)
    sent = [rng.integers(0, 1 << bits, count).tolist() for bits in (8, 4)]
    found = []

    def source(port, values, rate):
        async def process(ctx):
            for value in values:
                while rng.random() >= rate:
                    ctx.set(port.valid, 0)
                    await ctx.tick()
                ctx.set(port.valid, 1)
                ctx.set(port.payload, value)
                await ctx.tick().until(port.ready)
            ctx.set(port.valid, 0)

        return process

    async def sink(ctx):
        while len(found) < count:
            ctx.set(dut.o.ready, int(rng.random() < rates[2]))
            _, _, valid, ready, a, b = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload.a, dut.o.payload.b
            )
            if valid and ready:
                found.append((a, b))

    m = Module()
    m.domains.sync = ClockDomain()  # Join itself has no register
    m.submodules.dut = dut
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_process(source(dut.a, sent[0], rates[0]))
    simulator.add_process(source(dut.b, sent[1], rates[1]))
    simulator.add_testbench(sink)
    simulator.run_until(1e-6 * 100 * count)
    assert found == list(zip(*sent, strict=True))
