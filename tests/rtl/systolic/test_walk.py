# amaranth: UnusedElaboratable=no
"""Loops and Affine: nested loops in Python say which index and which address comes when."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from pullback.rtl.systolic.walk import Affine, Loops

WIDTH = 16


def walk(counts: list[int], strides: list[int], start: int, clocks: int, seed: int) -> tuple[list, list]:
    """(indices, address) that ought to be there before each step, and what the RTL shows, with random pauses."""
    levels = len(counts)
    loops, affine = Loops(levels, 5), Affine(levels, WIDTH)
    m = Module()
    m.submodules += [loops, affine]
    m.d.comb += [affine.begin.eq(loops.begin), affine.step.eq(loops.step), affine.level.eq(loops.level)]
    rests = [count - 1 for count in counts]
    rng = np.random.default_rng(seed)
    late = Affine.latency
    nest = [tuple(reversed(indices)) for indices in product(*(range(count) for count in reversed(counts)))]
    want, got = [], []

    async def bench(ctx):
        for k in range(levels):
            ctx.set(affine.delta[k], Affine.deltas(strides, rests)[k] % (1 << WIDTH))
        ctx.set(affine.start, start)
        ctx.set(loops.idles, 1)
        for k in range(levels):
            ctx.set(loops.rest[k], int(rng.integers(32)))
        await ctx.tick()
        for k, rest in enumerate(rests):
            ctx.set(loops.rest[k], rest)
        await ctx.tick()
        for _ in range(Loops.ahead - 1):
            for k in range(levels):
                ctx.set(loops.rest[k], int(rng.integers(32)))
            await ctx.tick()
        ctx.set(loops.start, 1)
        ctx.set(loops.idles, 0)
        await ctx.tick()
        ctx.set(loops.start, 0)
        for k in range(levels):
            ctx.set(loops.rest[k], int(rng.integers(32)))
        assert ctx.get(loops.begin)
        await ctx.tick()
        position, shown = 0, []
        for _ in range(clocks):
            step = int(rng.random() < 0.7)
            ctx.set(loops.step, step)
            indices = nest[position % len(nest)]
            value = (start + sum(s * i for s, i in zip(strides, indices, strict=True))) % (1 << WIDTH)
            first = sum((i == 0) << k for k, i in enumerate(indices))
            last = sum((i == c - 1) << k for k, (i, c) in enumerate(zip(indices, counts, strict=True)))
            level = next((1 << k for k in range(levels) if not last >> k & 1), 0)
            ends = sum((level == 0 or 1 << k < level) << k for k in range(levels))
            shown.append(value)
            want.append((first, last, ends, level, shown[-1 - late] if len(shown) > late else None))
            address = ctx.get(affine.o) if len(shown) > late else None
            outputs = (loops.first, loops.last, loops.ends, loops.level)
            got.append((*(ctx.get(each) for each in outputs), address))
            position += step
            await ctx.tick()

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return want, got


@pytest.mark.parametrize(
    ("counts", "strides"),
    [
        ([1], [7]),
        ([5], [-3]),
        ([3, 4], [1, 10]),
        ([1, 3, 1, 2], [9, -100, 5, 1000]),
        ([4, 1, 2, 3, 2, 2], [1, 17, 300, -40, 0, 12345]),
        ([32, 2], [2047, 1]),
    ],
)
def test_indices_and_addresses(counts, strides):
    for seed, start in enumerate((0, 65000)):
        want, got = walk(counts, strides, start, 3 * int(np.prod(counts)) + 20, seed)
        assert got == want


def test_bad_parameters():
    for make in (Loops, Affine):
        for levels, width in ((0, 4), (2, 0)):
            with pytest.raises(ValueError, match=f"levels={levels}, width={width}; give at least 1 of both"):
                make(levels, width)
