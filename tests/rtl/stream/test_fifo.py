# amaranth: UnusedElaboratable=no
"""Fifo, FlowFifo, Tape and SkidBuffer against a list, with random stalls: order, rate, latency, capacity."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import signed
from amaranth.lib import data
from amaranth.sim import Simulator

from pullback.rtl.stream.fifo import Fifo, FlowFifo
from pullback.rtl.stream.skid import SkidBuffer
from pullback.rtl.stream.tape import Tape


def simulate(dut, *benches):
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    for bench in benches:
        sim.add_testbench(bench)
    sim.run()


def carry(dut, values, source, sink, *, check=lambda ctx, held: None):
    """Sends `values` through `dut`, offering with probability `source`, taking with `sink`.

    Returns what came out and the clock at which each beat was accepted and taken.
    """
    rng = np.random.default_rng(len(values) + int(100 * source) + int(10 * sink))
    got, accepted, taken = [], [], []

    async def bench(ctx):
        sent, offering, clock, held = 0, False, 0, 0
        while len(got) < len(values):
            if not offering and sent < len(values):
                offering = rng.random() < source
            ctx.set(dut.i.valid, offering)
            if offering:
                ctx.set(dut.i.payload, values[sent])
            ctx.set(dut.o.ready, bool(rng.random() < sink))
            check(ctx, held)
            push = offering and ctx.get(dut.i.ready)
            pop = ctx.get(dut.o.valid) and ctx.get(dut.o.ready)
            if pop:
                got.append(ctx.get(dut.o.payload))
                taken.append(clock)
            if push:
                accepted.append(clock)
                sent, offering = sent + 1, False
            held += push - pop
            await ctx.tick()
            clock += 1
            assert clock < 100 * len(values) + 100, "stuck"

    simulate(dut, bench)
    return got, accepted, taken


DUTS = {
    "skid": lambda shape: SkidBuffer(shape),
    "one": lambda shape: Fifo(shape, 1),
    "two": lambda shape: Fifo(shape, 2),
    "five": lambda shape: Fifo(shape, 5),
    "distributed": lambda shape: Fifo(shape, 64),
    "without a register": lambda shape: Fifo(shape, 25, registered=False),
    "block": lambda shape: Fifo(shape, 67),
    "tape": lambda shape: Tape(shape, 300),
}


@pytest.mark.parametrize("name", DUTS)
@pytest.mark.parametrize(("source", "sink"), [(1.0, 1.0), (0.5, 0.5), (1.0, 0.2), (0.2, 1.0), (0.9, 0.6)])
def test_same_beats_in_order(name, source, sink):
    values = np.random.default_rng(7).integers(-(1 << 17), 1 << 17, 400).tolist()
    dut = DUTS[name](signed(18))

    def check(ctx, held):
        if hasattr(dut, "level"):
            assert ctx.get(dut.level) == held

    got, _, _ = carry(dut, values, source, sink, check=check)
    assert got == values


@pytest.mark.parametrize(
    ("name", "latency"),
    [("skid", 1), ("five", 2), ("distributed", 2), ("without a register", 1), ("block", 5), ("tape", 5)],
)
def test_full_rate_and_latency(name, latency):
    values = list(range(200))
    dut = DUTS[name](8)
    got, accepted, taken = carry(dut, values, 1.0, 1.0)
    assert got == values
    assert accepted == list(range(200))
    assert taken == list(range(latency, 200 + latency))
    assert getattr(dut, "latency", latency) == latency


@pytest.mark.parametrize("depth", [1, 2, 3, 7, 64, 65, 200])
def test_holds_exactly_depth(depth):
    dut = Fifo(12, depth)

    async def bench(ctx):
        accepted = 0
        for _ in range(depth + 20):
            ctx.set(dut.i.valid, 1)
            ctx.set(dut.i.payload, accepted)
            accepted += ctx.get(dut.i.ready)
            await ctx.tick()
        assert accepted == depth
        assert ctx.get(dut.level) == depth
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        # A full FIFO empties at one beat a clock: nothing has to be fetched first.
        for n in range(depth):
            assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (1, n)
            await ctx.tick()
        assert (ctx.get(dut.o.valid), ctx.get(dut.level)) == (0, 0)

    simulate(dut, bench)


@pytest.mark.parametrize("depth", [4, 100])
def test_without_payload_it_counts(depth):
    dut = Fifo(data.StructLayout({}), depth)

    async def bench(ctx):
        rng = np.random.default_rng(depth)
        level = 0
        for _ in range(600):
            valid, ready = bool(rng.random() < 0.6), bool(rng.random() < 0.5)
            ctx.set(dut.i.valid, valid)
            ctx.set(dut.o.ready, ready)
            assert ctx.get(dut.level) == level
            assert ctx.get(dut.o.valid) == (level > 0)
            assert ctx.get(dut.i.ready) == (level < depth)
            level += (valid and level < depth) - (ready and level > 0)
            await ctx.tick()

    simulate(dut, bench)


def test_structured_payload():
    layout = data.StructLayout({"x": signed(5), "last": 1})
    values = [{"x": x, "last": x == 4} for x in range(-16, 16)]
    got, _, _ = carry(Fifo(layout, 9), values, 0.7, 0.7)
    assert [(v.x, v.last) for v in got] == [(v["x"], v["last"]) for v in values]


@pytest.mark.parametrize(("depth", "latency"), [(4, 3), (9, 3), (16, 12), (80, 20), (20, 0)])
def test_room_stops_a_pipeline_in_time(depth, latency):
    """A feeder that accepts while room is high, `latency` clocks of pipeline, then the FIFO."""
    dut = FlowFifo(16, depth, in_flight=latency)
    got, sent = [], []

    async def bench(ctx):
        rng = np.random.default_rng(depth)
        pipe = [None] * latency
        least = depth
        for clock in range(3000):
            ctx.set(dut.o.ready, bool(rng.random() < (0.02, 1.0, 0.5)[clock // 100 % 3]))
            room, level = ctx.get(dut.room), ctx.get(dut.level)
            assert room == (level + latency < depth)
            beat = None
            if room and rng.random() < (1.0, 1.0, 0.6, 0.9)[clock // 100 % 4]:
                beat = len(sent) * 7919 % 65536
                sent.append(beat)
            pipe.append(beat)
            arriving = pipe.pop(0)
            ctx.set(dut.i.valid, arriving is not None)
            ctx.set(dut.i.payload, arriving or 0)
            assert not ctx.get(dut.overflow)
            least = min(least, depth - level)
            if ctx.get(dut.o.valid) and ctx.get(dut.o.ready):
                got.append(ctx.get(dut.o.payload))
            await ctx.tick()
        assert least == 0, "never full: in_flight is larger than it needs to be, or the test is too tame"

    simulate(dut, bench)
    assert len(got) > 100
    assert sent[: len(got)] == got


def test_no_bubble_after_a_stall():
    latency, depth = 6, 15
    dut = FlowFifo(16, depth, in_flight=latency)

    async def bench(ctx):
        pipe, taken = [None] * latency, 0
        for clock in range(200):
            ready = not 30 <= clock < 70
            ctx.set(dut.o.ready, ready)
            pipe.append(clock if ctx.get(dut.room) else None)
            arriving = pipe.pop(0)
            ctx.set(dut.i.valid, arriving is not None)
            ctx.set(dut.i.payload, arriving or 0)
            if clock >= latency + 2:
                assert ctx.get(dut.o.valid)
            taken += ready
            await ctx.tick()

    simulate(dut, bench)


def test_a_broken_contract_is_reported():
    dut = FlowFifo(8, 4, in_flight=1)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        for clock in range(8):
            assert ctx.get(dut.overflow) == (clock >= 4)
            await ctx.tick()

    simulate(dut, bench)


def test_bad_parameters():
    with pytest.raises(ValueError, match=r"depth 0 .* at least 1"):
        Fifo(8, 0)
    with pytest.raises(ValueError, match=r"depth 65 needs block RAM.* at most 64"):
        Fifo(8, 65, registered=False)
    with pytest.raises(ValueError, match=r"depth 4 .* 4 beats in flight.* at least 5"):
        FlowFifo(8, 4, in_flight=4)
    with pytest.raises(ValueError, match="in_flight -1"):
        FlowFifo(8, 4, in_flight=-1)
