"""ResetLater: a component's registers start anew a clock after the others."""

from __future__ import annotations

from amaranth.hdl import ClockDomain, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator

from pullback.rtl.stream.reset import ResetLater


class Counter(wiring.Component):
    """Clocks since it was reset, from 5 on."""

    def __init__(self) -> None:
        super().__init__({"o": Out(8, init=5)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(self.o + 1)
        return m


def test_a_reset_comes_a_clock_later_and_lasts_as_long():
    m = Module()
    m.domains.sync = domain = ClockDomain()
    now, later = Counter(), Counter()
    m.submodules.now = now
    m.submodules.later = ResetLater(later)
    seen = []

    async def bench(ctx):
        for clock in range(20):
            ctx.set(domain.rst, clock in (4, 5, 6, 12))
            seen.append((ctx.get(now.o), ctx.get(later.o)))
            await ctx.tick()

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    at_once, after = zip(*seen, strict=True)
    want = [5, 6, 7, 8, 9, 5, 5, 5, 6, 7, 8, 9, 10, 5, 6, 7, 8, 9, 10, 11]
    assert list(at_once) == want
    # It counts on for one clock, and then is a clock behind.
    assert list(after) == [5, 6, 7, 8, 9, 10, 5, 5, 5, 6, 7, 8, 9, 10, 5, 6, 7, 8, 9, 10]
