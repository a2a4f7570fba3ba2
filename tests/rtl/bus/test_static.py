"""Static words bit by bit: what was sent arrives everywhere, each receiver a clock after the one before it."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, wiring
from amaranth.sim import Simulator

from pullback.rtl.bus.static import StaticReceiver, StaticSender

LAYOUTS = {
    "one bit": {"a": 1},
    "a core's": {"width": 16, "height": 16, "frames": 16, "cfa": 2, "bypass": 5},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_words_arrive_in_the_promised_clock(layout):
    struct = data.StructLayout(layout)
    sender, receivers = StaticSender(struct), [StaticReceiver(struct) for _ in range(3)]
    m = Module()
    m.submodules.sender, before = sender, sender.o
    for k, receiver in enumerate(receivers):
        m.submodules[f"receiver_{k}"] = receiver
        wiring.connect(m, before, receiver.i)
        before = receiver.o
    rng = np.random.default_rng(1)

    async def bench(ctx):
        for _ in range(5):
            words = {name: int(rng.integers(1 << bits)) for name, bits in layout.items()}
            ctx.set(sender.words, words)
            ctx.set(sender.start, 1)
            await ctx.tick()
            ctx.set(sender.start, 0)
            # What is offered without a start is not sent.
            ctx.set(sender.words, {name: int(rng.integers(1 << bits)) for name, bits in layout.items()})
            await ctx.tick().repeat(struct.size + 1)
            for receiver in receivers:
                assert {name: ctx.get(receiver.words[name]) for name in layout} == words
                await ctx.tick()
            await ctx.tick().repeat(int(rng.integers(1, 5)))
            assert [ctx.get(r.words.as_value()) for r in receivers] == [struct.const(words).as_bits()] * 3

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
