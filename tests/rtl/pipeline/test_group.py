"""The end of a group against counting by hand."""

import random
from collections import Counter

import pytest
from amaranth.sim import Simulator

from pullback.rtl.pipeline.group import GroupEnd


@pytest.mark.parametrize("seed", range(4))
def test_groups_end_where_counting_says(seed):
    rng = random.Random(seed)
    unit, seen = GroupEnd(), Counter()

    async def drive(ctx):
        done, before = 0, None
        for _ in range(40):
            # A commit: also in the middle of a group, which it may make shorter than it is already.
            frames = rng.choice([1, 1, 2, 3, 4, 7])
            ctx.set(unit.frames, frames)
            ctx.set(unit.beat, 0)
            ctx.set(unit.last, rng.random() < 0.5)  # counts with a beat only
            await ctx.tick().repeat(unit.settle)
            seen["shorter than it is"] += before is not None and done >= frames
            before = frames
            for _ in range(rng.randrange(20)):
                beat, last = rng.random() < 0.8, rng.random() < 0.7
                ctx.set(unit.beat, beat)
                ctx.set(unit.last, last)
                ends = done >= frames - 1
                if beat:
                    assert ctx.get(unit.end) == (last and ends)
                if beat and last:
                    done = 0 if ends else done + 1
                    seen["end" if ends else "frame"] += 1
                await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    assert all(seen[what] for what in ("end", "frame", "shorter than it is")), seen
