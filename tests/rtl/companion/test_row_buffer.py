# amaranth: UnusedElaboratable=no
"""RowBuffer: rows of any lengths with their statistics, in order, none lost, however its ends stall; no gap if not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from pullback.rtl.companion.row_buffer import RowBuffer, RowEnd


def simulate(
    lengths: list[int], *, longest: int, in_flight: int, lag: int, feed: float, drain: float, seed: int
):
    """Beats (element, last, statistic) and the clocks in which they left and their rows' last elements entered."""
    dut = RowBuffer(16, 16, longest=longest, in_flight=in_flight, lag=lag)
    rng = random.Random(seed)
    left: list[tuple[int, int, int]] = []
    clocks: list[int] = []
    ends: list[int] = []
    beats = [(k, int(k == n - 1), n) for n in lengths for k in range(n)]

    async def bench(ctx: Any) -> None:
        # The pipeline before the buffer, as long as `in_flight`, and the statistic's, `lag` clocks longer.
        line: list[tuple[int, int, int] | None] = [None] * (in_flight + lag + 1)
        number, row, clock, silent = 0, 0, 0, 0
        while silent < 1000 and len(left) < len(beats):
            accepts = bool(ctx.get(dut.room)) and number < len(beats) and rng.random() < feed
            line.insert(0, beats[number] if accepts else None)
            line.pop()
            number += accepts
            enters, ended = line[in_flight], line[in_flight + lag]
            ctx.set(dut.i.valid, enters is not None)
            if enters:
                ctx.set(dut.i.payload.element, enters[0])
                ctx.set(dut.i.payload.last, enters[1])
                if enters[1]:
                    ends.append(clock)
            closes = ended is not None and ended[1]
            ctx.set(dut.statistic.valid, closes)
            ctx.set(dut.statistic.payload, 1000 + row if closes else 0)
            row += bool(closes)
            ctx.set(dut.o.ready, rng.random() < drain)
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                beat = dut.o.payload
                left.append((ctx.get(beat.element), ctx.get(beat.last), ctx.get(beat.statistic)))
                clocks.append(clock)
                silent = 0
            silent += 1
            clock += 1
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    wanted = [(k, int(k == n - 1), 1000 + row) for row, n in enumerate(lengths) for k in range(n)]
    assert left == wanted
    return dut, clocks, ends


@pytest.mark.parametrize(("longest", "in_flight", "lag"), [(1, 0, 3), (5, 0, 3), (9, 7, 5), (40, 2, 30)])
@pytest.mark.parametrize(("feed", "drain"), [(1.0, 0.3), (0.4, 1.0), (0.7, 0.7)])
def test_rows_keep_their_statistics(longest, in_flight, lag, feed, drain):
    rng = random.Random(longest)
    lengths = [longest, 1, *([1] * 40), *(rng.randint(1, longest) for _ in range(12)), longest, longest]
    simulate(lengths, longest=longest, in_flight=in_flight, lag=lag, feed=feed, drain=drain, seed=longest)


@pytest.mark.parametrize(("longest", "in_flight", "lag"), [(1, 0, 3), (9, 18, 14), (40, 0, 24)])
def test_no_gap(rows, longest, in_flight, lag):
    """Unstalled, every row leaves `latency` clocks after it is complete or right behind the one before."""
    rng = random.Random(lag)
    lengths = [1] * 50 + [longest] * 3 + [1] * 10 + [rng.randint(1, longest) for _ in range(10)] + [longest]
    dut, clocks, ends = simulate(
        lengths, longest=longest, in_flight=in_flight, lag=lag, feed=1.0, drain=1.0, seed=0
    )
    last = [clocks[sum(lengths[: k + 1]) - 1] for k in range(len(lengths))]
    assert last == rows.leaves(ends, lengths, dut.latency)
    # Elements entered without a gap as well.
    assert ends[-1] - ends[0] == sum(lengths[1:])


def test_row_end():
    """first, number and last of every element; a row that goes on is cut after `longest` and flagged."""
    for longest in (1, 3):
        dut = RowEnd(longest)
        given = [1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1]
        got, want, number = [], [], 1
        for ends in given:
            last = ends or number == longest
            want.append((int(number == 1), number, int(last)))
            number = 1 if last else number + 1

        async def bench(ctx: Any, dut: RowEnd = dut, given: list[int] = given, got: list = got) -> None:
            for k, ends in enumerate(given):
                ctx.set(dut.step, 0)  # nothing moves without a step
                ctx.set(dut.ends, 1)
                await ctx.tick()
                ctx.set(dut.step, 1)
                ctx.set(dut.ends, ends)
                got.append((ctx.get(dut.first), ctx.get(dut.number), ctx.get(dut.last)))
                if k == 1 and dut._longest == 3:
                    assert not ctx.get(dut.overlong)
                await ctx.tick()
            assert ctx.get(dut.overlong)

        sim = Simulator(dut)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.run()
        assert got == want


def test_bad_parameters():
    with pytest.raises(ValueError, match="lag=2; give at least 3"):
        RowBuffer(8, 8, longest=4, in_flight=0, lag=2)
