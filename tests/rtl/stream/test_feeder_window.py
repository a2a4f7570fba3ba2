"""Feeder and Window against the definition of a tap: every border, tiny and odd sizes, random stalls."""

import functools
import itertools
import random

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from pullback.rtl.numeric.format import SQ, UQ
from pullback.rtl.stream.feeder import MIN_LINE, Feeder
from pullback.rtl.stream.pixel import Pixel, site_layout
from pullback.rtl.stream.window import BORDERS, Window, border_index, selections

LEAD = Pixel((("a", UQ(0, 5)), ("b", SQ(1, 3))))
TRAIL = Pixel((("t", UQ(0, 8)),))
SIZES = [(1, 1), (2, 2), (1, 5), (5, 1), (2, 3), (3, 2), (4, 3), (3, 4), (7, 5), (9, 7)]


@functools.cache
def index_by_definition(border, n, i):
    """numpy's own padding says which index a border reads."""
    if border == "zero":
        return i if 0 <= i < n else None
    pad = 12
    line = np.pad(np.arange(n), pad, mode={"mirror": "reflect", "replicate": "edge"}[border])
    return int(line[i + pad])


@pytest.mark.parametrize("border", ["mirror", "replicate", "zero"])
def test_border_index_is_what_numpy_pads(border):
    for n, i in itertools.product(range(1, 6), range(-9, 12)):
        assert border_index(border, n, i) == index_by_definition(border, n, i)


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="border='wrap'"):
        Window(LEAD, radius=1, border="wrap", max_width=8)
    with pytest.raises(ValueError, match="radius=0"):
        Window(LEAD, radius=0, max_width=8)
    with pytest.raises(ValueError, match="max_width=0"):
        Window(LEAD, radius=1, max_width=0)
    with pytest.raises(ValueError, match="lanes=3"):
        Feeder(LEAD, lanes=3)
    with pytest.raises(ValueError, match="patience=1"):
        Feeder(LEAD, patience=1)
    with pytest.raises(ValueError, match="window=-1"):
        Feeder(LEAD, window=-1)
    with pytest.raises(ValueError, match="names"):
        Pixel((("a", UQ(0, 1)), ("a", UQ(0, 1))))
    with pytest.raises(ValueError, match="without channels"):
        Pixel(())


@pytest.mark.parametrize("border,radius,lanes", list(itertools.product(BORDERS, [1, 2, 3], [1, 2, 4])))
def test_selections_depend_on_the_edges_only(border, radius, lanes):
    """The table is keyed by saturated distances; far larger pictures must find the same entries in it."""
    table = selections(border, radius, lanes)
    for n in range(1, 40):
        for x in range(0, n, lanes):
            row = table[min(x, radius), min(n - 1 - x, radius + lanes - 1)]
            for p, dx in itertools.product(range(lanes), range(-radius, radius + 1)):
                if x + p < n:
                    expected = index_by_definition(border, n, x + p + dx)
                    got = row[radius + p + dx]
                    assert expected == (None if got is None else x + got - radius)


class Dut(wiring.Component):
    """Feeder, and behind it a Window if there is a radius."""

    def __init__(self, *, lanes, radius, border, trailing, patience=6):
        self.feeder = Feeder(LEAD, lanes=lanes, window=radius, trailing=trailing, patience=patience)
        self.window = None
        if radius:
            self.window = Window(
                LEAD, lanes=lanes, radius=radius, border=border, max_width=16, trailing=trailing
            )
        self.i, self.room = self.feeder.i, self.feeder.room
        self.c = self.feeder.c if trailing else None
        self.width, self.height = Signal(16), Signal(16)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.feeder = self.feeder
        m.d.comb += [self.feeder.width.eq(self.width), self.feeder.height.eq(self.height)]
        if self.window:
            m.submodules.window = self.window
            m.d.comb += [self.window.width.eq(self.width), self.window.height.eq(self.height)]
            wiring.connect(m, self.feeder.o, self.window.i)
        return m


def beats_of(frame, lanes, noise):
    """Pixels (H, W) of raw bits -> lane integers per beat; lanes outside the picture are noise."""
    height, width = frame.shape
    for y in range(height):
        for x in range(0, width, lanes):
            last = x + lanes >= width
            values = [int(frame[y, x + p]) if x + p < width else noise() for p in range(lanes)]
            yield values, (x == 0 and y == 0), last, (last and y == height - 1)


def pack(values, width, first, eol, last):
    word = sum(v << (width * k) for k, v in enumerate(values))
    return word | (first | eol << 1 | last << 2) << (width * len(values))


def simulate(dut, jobs, *, lanes, gap, rough, trailing, seed, limit=40000):
    """Run jobs [(frames, trails)], each with its own geometry; per job the outputs and the tick cycles."""
    rng = random.Random(seed)
    noise = lambda: rng.getrandbits(8)  # noqa: E731
    source = dut.window.o if dut.window else dut.feeder.o
    results = []

    async def bench(ctx):
        for frames, trails in jobs:
            height, width = frames[0].shape
            ctx.set(dut.width, width)
            ctx.set(dut.height, height)
            await ctx.tick().repeat(4)
            lead = [pack(v, 9, f, e, la) for fr in frames for v, f, e, la in beats_of(fr, lanes, noise)]
            trail = [pack(v, 8, f, e, la) for fr in trails for v, f, e, la in beats_of(fr, lanes, noise)]
            outputs, ticks = [], []
            state = {"lead": 0, "trail": 0, "wait": 0, "wait_c": 0, "high": 0}
            cycle = 0
            room = 1
            while True:
                if state["lead"] < len(lead) and state["wait"] == 0:
                    ctx.set(dut.i.payload.as_value(), lead[state["lead"]])
                    ctx.set(dut.i.valid, 1)
                else:
                    ctx.set(dut.i.valid, 0)
                    ctx.set(dut.i.payload.as_value(), rng.getrandbits(12))
                state["wait"] = max(0, state["wait"] - 1)
                if trailing:
                    if state["trail"] < len(trail) and state["wait_c"] == 0:
                        ctx.set(dut.c.payload.as_value(), trail[state["trail"]])
                        ctx.set(dut.c.valid, 1)
                    else:
                        ctx.set(dut.c.valid, 0)
                    state["wait_c"] = max(0, state["wait_c"] - 1)
                room = int(rng.random() < 0.7) if rough else 1
                ctx.set(dut.room, room)
                taken = ctx.get(dut.i.valid & dut.i.ready)
                taken_c = ctx.get(dut.c.valid & dut.c.ready) if trailing else 0
                await ctx.tick()
                if taken:
                    state["lead"] += 1
                    state["wait"] = gap(rng, state["lead"], len(lead) // len(frames))
                if taken_c:
                    state["trail"] += 1
                    state["wait_c"] = gap(rng, state["trail"], len(lead) // len(frames))
                cycle += 1
                if ctx.get(dut.feeder.o.valid):
                    ticks.append(cycle)
                if ctx.get(source.valid) and (dut.window or ctx.get(source.payload.real)):
                    outputs.append(ctx.get(source.payload.as_value()))
                if state["lead"] == len(lead) and ctx.get(dut.feeder.empty):
                    state["high"] += 1
                    if state["high"] > 6:
                        break
                assert cycle < limit, f"stuck at {state} of {len(lead)} for {width}x{height}"
            assert not trailing or state["trail"] == len(trail)
            results.append((outputs, ticks))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


def gapless(rng, index, per_frame):
    return 0


def ragged(rng, index, per_frame):
    """Idle cycles now and then, sometimes long enough at a frame's end for a flush."""
    if per_frame and index % per_frame == 0:
        return rng.choice([0, 0, 3, 25])
    return rng.choice([0, 0, 0, 1, 2, 9])


def bits(word, offset, width):
    return word >> offset & ((1 << width) - 1)


def check_frames(outputs, frames, trails, *, lanes, radius, border, trailing):
    """Compare every output word, field by field, with the definition."""
    height, width = frames[0].shape
    rows, cols = 2 * radius + 1, 2 * radius + lanes
    site = site_layout(lanes)
    outputs = iter(outputs)
    for frame, trail in zip(frames, trails, strict=True):
        for y, x in itertools.product(range(height), range(0, width, lanes)):
            word = next(outputs)
            at = 0
            for j in range(rows if radius else 0):
                for k in range(cols):
                    inside = any(x + p < width and 0 <= k - p <= 2 * radius for p in range(lanes))
                    yy = index_by_definition(border, height, y + j - radius)
                    if inside:
                        xx = index_by_definition(border, width, x + k - radius)
                        want = 0 if yy is None or xx is None else int(frame[yy, xx])
                        assert bits(word, at, 9) == want, (width, height, y, x, j, k)
                    at += 9
            if not radius:
                for p in range(lanes):
                    assert x + p >= width or bits(word, at, 9) == frame[y, x + p]
                    at += 9
            for p in range(lanes if trailing else 0):
                assert x + p >= width or bits(word, at, 8) == trail[y, x + p]
                at += 8
            got = site.from_bits(bits(word, at, site.size))
            end = x + lanes >= width
            mask = sum((x + p < width) << p for p in range(lanes))
            want = (x, y, x == 0 and y == 0, end, end and y == height - 1, mask)
            assert (got.x, got.y, got.first, got.eol, got.last, got.lanes) == want
    assert next(outputs, None) is None


def make_jobs(rng, sizes, frames=3):
    return [
        (
            [rng.integers(0, 1 << 9, (h, w)) for _ in range(frames)],
            [rng.integers(0, 1 << 8, (h, w)) for _ in range(frames)],
        )
        for w, h in sizes
    ]


@pytest.mark.parametrize("border,radius,lanes", list(itertools.product(BORDERS, [1, 2], [1, 2])))
def test_taps_sites_and_trailing_beats(border, radius, lanes):
    """Three frames of every size, gapless and then ragged: all taps, sites and trailing pixels as defined."""
    jobs = make_jobs(np.random.default_rng(radius * 10 + lanes), SIZES)
    for name, gap, trailing in (("gapless", gapless, None), ("ragged", ragged, TRAIL)):
        dut = Dut(lanes=lanes, radius=radius, border=border, trailing=trailing)
        rough = name == "ragged"
        some = jobs if rough else jobs[::2] + jobs[-1:]
        results = simulate(dut, some, lanes=lanes, gap=gap, rough=rough, trailing=trailing, seed=7)
        for (frames, trails), (outputs, ticks) in zip(some, results, strict=True):
            check_frames(
                outputs, frames, trails, lanes=lanes, radius=radius, border=border, trailing=trailing
            )
            height, width = frames[0].shape
            beats = -(-width // lanes)
            spaced = [b - a for a, b in zip(ticks, ticks[beats:], strict=False)]
            assert min(spaced, default=MIN_LINE) >= MIN_LINE
            if not rough:
                lag = dut.feeder.lag(width)
                assert lag == radius * beats + -(-radius // lanes)
                assert len(ticks) == 3 * beats * height + lag
                if beats >= MIN_LINE:
                    lead_ticks = ticks[: 3 * beats * height]
                    assert lead_ticks[-1] - lead_ticks[0] == len(lead_ticks) - 1


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_pointwise_feeder_is_a_join(lanes):
    """Without radius every tick is a centre, and a frame of B*H beats takes B*H ticks at any size."""
    jobs = make_jobs(np.random.default_rng(3), SIZES)
    for gap, rough in ((gapless, False), (ragged, True)):
        dut = Dut(lanes=lanes, radius=0, border="zero", trailing=TRAIL)
        results = simulate(dut, jobs, lanes=lanes, gap=gap, rough=rough, trailing=TRAIL, seed=5)
        for (frames, trails), (outputs, ticks) in zip(jobs, results, strict=True):
            check_frames(outputs, frames, trails, lanes=lanes, radius=0, border="zero", trailing=TRAIL)
            if not rough:
                assert ticks[-1] - ticks[0] == len(ticks) - 1 == len(outputs) - 1


def test_ticks_stop_within_the_margin():
    """When room falls, `margin` ticks appear at most, none after; when it rises they go on."""
    dut = Feeder(LEAD)
    seen = []

    async def bench(ctx):
        ctx.set(dut.width, 100)
        ctx.set(dut.height, 1)
        ctx.set(dut.i.valid, 1)
        for cycle in range(40):
            ctx.set(dut.room, not 10 <= cycle < 30)
            if ctx.get(dut.o.valid):
                seen.append(cycle)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [*range(seen[0], 10 + dut.margin), *range(32, 40)]
