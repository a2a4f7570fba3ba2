"""What a multiplier gives, clock by clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.sim import Simulator

__all__ = ["products"]


def products(dut: Any, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """``p`` for each pair at ``a`` and ``b``, one a clock, as many clocks later as the ``latency`` says."""
    got = []

    async def bench(ctx):
        for x, y in [*pairs, *[(0, 0)] * dut.latency]:
            ctx.set(dut.a, x)
            ctx.set(dut.b, y)
            got.append(ctx.get(dut.p))
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return got[dut.latency :]
