"""Entries that the CFA colour chooses: recognised, loaded from the bus, read."""

from itertools import pairwise

import numpy as np
import pytest
from amaranth.sim import Simulator

from pullback.rtl.kernel import Parameter, evaluate, select, trace, where
from pullback.rtl.kernel.primitives.source import Entry, EntryOfColour
from pullback.rtl.numeric import SQ
from pullback.rtl.pipeline.colour_entries import ColourEntries, choose_by_colour

GAIN = Parameter(8, SQ(4, 4), (0,), "two entries a colour")


def chosen(function) -> tuple:
    """A kernel's output before and after."""
    kernel = trace(function, channels={"a": SQ(4, 4)}, parameters={"gain": GAIN})
    return kernel.outputs["y"], choose_by_colour(kernel.outputs, {"gain": GAIN})["y"]


def sources(node, kind) -> list:
    return [n.primitive for n in node.graph.live([node]) if isinstance(n.primitive, kind)]


def colour_by_colour(theta, site, k):
    return select(site.colour, [theta["gain", 2 * c + k] for c in range(4)])


def test_selections_by_colour_become_one_source():
    """Equal for every colour; no register is left."""
    before, after = chosen(lambda x, t, s: {"y": x.a * colour_by_colour(t, s, 0) + colour_by_colour(t, s, 1)})
    assert not sources(after, Entry)
    assert [(s.parameter, s.k) for s in sources(after, EntryOfColour)] == [("gain", 0), ("gain", 1)]
    rng = np.random.default_rng(0)
    a, colour = rng.integers(-128, 128, 100), rng.integers(0, 4, 100)
    theta = rng.integers(-128, 128, 8)
    common = {"a_y0_x0": a, "site_colour": colour}
    entries = {f"gain_{k}": theta[k] for k in range(8)}
    of_colour = {f"gain_of_colour_{k}": theta[2 * colour + k] for k in range(2)}
    np.testing.assert_array_equal(
        evaluate([before], common | entries)[0], evaluate([after], common | of_colour)[0]
    )


@pytest.mark.parametrize(
    "kernel",
    [
        lambda x, t, s: {"y": select(s.colour, [t["gain", k] for k in range(4)])},  # not 0, 2, 4, 6
        lambda x, t, s: {"y": select(s.colour, [t["gain", k] for k in (1, 3, 5, 6)])},
        lambda x, t, s: {"y": select(s.colour, [t["gain", k] for k in (6, 4, 2, 0)])},
        lambda x, t, s: {"y": where(x.a < 0, t["gain", 0], t["gain", 2])},
        lambda x, t, s: {"y": select(s.colour, [x.a, t["gain", 2], t["gain", 4], t["gain", 6]])},
        lambda x, t, s: {"y": t["gain", 0] + t["gain", 1]},
    ],
)
def test_other_selections_stay(kernel):
    before, after = chosen(kernel)
    assert after is before


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_load_and_read(count):
    """Words of the bus, the neighbours' included, twice; read two clocks after the colour, in any order."""
    base, rng = 7, np.random.default_rng(count)
    parameter = Parameter(4 * count, SQ(4, 8), (0,), "")
    dut = ColourEntries(parameter, base, range(count))

    async def bench(ctx):
        for _ in range(2):
            words = rng.integers(-2048, 2048, base + 4 * count + 5).tolist()
            for address in range(base - 3, len(words)):
                ctx.set(dut.load.valid, 1)
                ctx.set(dut.load.address, address)
                ctx.set(dut.load.data, words[address])
                await ctx.tick()
            ctx.set(dut.load.valid, 0)
            await ctx.tick().repeat(2)
            colours = rng.integers(0, 4, 30).tolist()
            ctx.set(dut.colour, colours[0])
            await ctx.tick()
            for colour, following in pairwise(colours):
                ctx.set(dut.colour, following)
                await ctx.tick()
                found = [ctx.get(o) for o in dut.o.values()]
                assert found == words[base + colour * count :][:count]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
