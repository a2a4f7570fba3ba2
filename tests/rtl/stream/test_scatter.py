"""Scatter as the exact transpose of Window in integers: every border, tiny and odd sizes, random stalls."""

import functools
import itertools
import random

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.sim import Simulator

from pullback.rtl.numeric.format import SQ, UQ
from pullback.rtl.stream.feeder import Feeder
from pullback.rtl.stream.pixel import Pixel, site_layout
from pullback.rtl.stream.scatter import Scatter
from pullback.rtl.stream.window import BORDERS, Edges, Window

LEAD = Pixel((("x", UQ(0, 6)),))
BITS = 4  # of one lane's cotangent of one tap
SIZES = [(1, 1), (2, 2), (1, 4), (5, 1), (2, 5), (3, 2), (4, 3), (7, 5), (9, 4)]
FRAMES = 3


@functools.cache
def index_by_definition(border, n, i):
    if border == "zero":
        return i if 0 <= i < n else None
    pad = 12
    line = np.pad(np.arange(n), pad, mode={"mirror": "reflect", "replicate": "edge"}[border])
    return int(line[i + pad])


def taps_by_definition(border, radius, frame):
    """S x: ``(H, W, 2r+1, 2r+1)``, the taps of every pixel."""
    height, width = frame.shape
    taps = np.zeros((height, width, 2 * radius + 1, 2 * radius + 1), dtype=np.int64)
    for y, x, j, k in np.ndindex(*taps.shape):
        yy = index_by_definition(border, height, y + j - radius)
        xx = index_by_definition(border, width, x + k - radius)
        if yy is not None and xx is not None:
            taps[y, x, j, k] = frame[yy, xx]
    return taps


def transpose_by_definition(border, radius, cotangents):
    """S^T c: each tap's cotangent goes to the pixel that the tap reads."""
    height, width = cotangents.shape[:2]
    result = np.zeros((height, width), dtype=np.int64)
    for y, x, j, k in np.ndindex(*cotangents.shape):
        yy = index_by_definition(border, height, y + j - radius)
        xx = index_by_definition(border, width, x + k - radius)
        if yy is not None and xx is not None:
            result[yy, xx] += cotangents[y, x, j, k]
    return result


class Dut(wiring.Component):
    """Feeder, Window and Scatter of an adjoint unit; a centre's trailing beat is the cotangents of its taps.

    Two channels: ``u`` and its negative ``v``, so that channels cannot be mixed up. ``alone`` leaves the
    Window out: the cotangents are the lead stream.
    """

    def __init__(self, *, lanes, radius, border, alone, delay=2):
        self.lanes, self.radius, self.alone, self.delay = lanes, radius, alone, delay
        cotangent = Pixel(
            tuple((f"c{j}_{k}", SQ(BITS, 0)) for j in range(2 * radius + 1) for k in range(2 * radius + 1))
        )
        self.tap = Pixel((("u", SQ(BITS + lanes - 1, 0)), ("v", SQ(BITS + lanes, 0))))
        self.scatter = Scatter(self.tap, lanes=lanes, radius=radius, border=border, max_width=12)
        if alone:
            self.feeder = Feeder(cotangent, lanes=lanes, scatter=radius, patience=6)
            self.window = self.c = None
        else:
            self.feeder = Feeder(
                LEAD, lanes=lanes, window=radius, scatter=radius, trailing=cotangent, patience=6
            )
            self.window = Window(
                LEAD, lanes=lanes, radius=radius, border=border, max_width=12, trailing=cotangent
            )
            self.c = self.feeder.c
        self.i, self.room = self.feeder.i, self.feeder.room
        self.width, self.height = Signal(16), Signal(16)
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        r, lanes = self.radius, self.lanes
        m.submodules.feeder, m.submodules.scatter = self.feeder, self.scatter
        parts = [self.feeder, self.scatter]
        if self.alone:
            m.submodules.edges = edges = Edges(radius=r, lanes=lanes)
            parts.append(edges)
            ticks = self.feeder.o
            m.d.comb += [edges.x.eq(ticks.payload.site.x), edges.y.eq(ticks.payload.site.y)]
            valid, tick, out = Signal(), Signal(), Signal()
            cotangents, mask = Signal.like(ticks.payload.lead), Signal(lanes)
            m.d.sync += [
                valid.eq(ticks.valid & ticks.payload.real),
                tick.eq(ticks.valid),
                out.eq(ticks.payload.out),
                cotangents.eq(ticks.payload.lead),
                mask.eq(ticks.payload.site.lanes),
            ]
            edges = edges.o
        else:
            m.submodules.window = self.window
            parts.append(self.window)
            wiring.connect(m, self.feeder.o, self.window.i)
            valid, tick, out = self.window.o.valid, self.window.tick.valid, self.window.tick.payload.out
            cotangents, edges = self.window.o.payload.trailing, self.window.o.payload.edges
            mask = self.window.o.payload.site.lanes
        for part in parts:
            m.d.comb += [part.width.eq(self.width), part.height.eq(self.height)]
        sums = Signal(self.scatter.i.payload.shape())
        m.d.comb += sums.edges.eq(edges)
        for j, k in itertools.product(range(2 * r + 1), range(2 * r + lanes)):
            given = [
                Mux(mask[p], cotangents[p][f"c{j}_{k - p}"], 0) for p in range(lanes) if 0 <= k - p <= 2 * r
            ]
            m.d.comb += [sums.taps[j][k].u.eq(sum(given)), sums.taps[j][k].v.eq(-sum(given))]
        for _ in range(self.delay):
            late = [Signal.like(s) for s in (valid, tick, out, sums)]
            m.d.sync += [a.eq(b) for a, b in zip(late, (valid, tick, out, sums), strict=True)]
            valid, tick, out, sums = late
        m.d.comb += [
            self.scatter.i.valid.eq(valid),
            self.scatter.i.payload.eq(sums),
            self.scatter.tick.valid.eq(tick),
            self.scatter.tick.payload.out.eq(out),
        ]
        return m


def beats(values, width_bits, lanes, rng):
    """``(H, W, n)`` codes -> packed beats; lanes outside the picture are noise."""
    height, width, count = values.shape
    words = []
    for y, x in itertools.product(range(height), range(0, width, lanes)):
        word = 0
        for p, k in itertools.product(range(lanes), range(count)):
            code = int(values[y, x + p, k]) if x + p < width else rng.getrandbits(width_bits)
            word |= (code & ((1 << width_bits) - 1)) << width_bits * (p * count + k)
        last = x + lanes >= width
        flags = (x == 0 and y == 0) | last << 1 | (last and y == height - 1) << 2
        words.append(word | flags << width_bits * lanes * count)
    return words


def simulate(dut, jobs, *, rough, seed):
    """Run jobs ``(width, height, streams)``, streams the packed beats of i and c; outputs per job."""
    rng = random.Random(seed)
    results = []
    window = dut.window.o if dut.window else None

    async def bench(ctx):
        for width, height, streams in jobs:
            ctx.set(dut.width, width)
            ctx.set(dut.height, height)
            await ctx.tick().repeat(4)
            ports = [dut.i, dut.c][: len(streams)]
            at = [0] * len(ports)
            wait = [0] * len(ports)
            outputs, taps, ticks = [], [], []
            cycle = quiet = 0
            while quiet < 24:
                for n, port in enumerate(ports):
                    offered = at[n] < len(streams[n]) and wait[n] == 0
                    ctx.set(port.valid, offered)
                    if offered:
                        ctx.set(port.payload.as_value(), streams[n][at[n]])
                    wait[n] = max(0, wait[n] - 1)
                ctx.set(dut.room, int(not rough or rng.random() < 0.8))
                taken = [ctx.get(port.valid & port.ready) for port in ports]
                await ctx.tick()
                cycle += 1
                for n in range(len(ports)):
                    if taken[n]:
                        at[n] += 1
                        if rough:
                            end = at[n] % (len(streams[n]) // FRAMES) == 0
                            wait[n] = rng.choice([0, 0, 3, 25] if end else [0, 0, 0, 1, 2, 9])
                if ctx.get(dut.feeder.o.valid):
                    ticks.append(cycle)
                if ctx.get(dut.scatter.o.valid):
                    outputs.append(ctx.get(dut.scatter.o.payload.as_value()))
                if window is not None and ctx.get(window.valid):
                    taps.append(ctx.get(window.payload.as_value()))
                done = all(a == len(s) for a, s in zip(at, streams, strict=True))
                quiet = quiet + 1 if done and ctx.get(dut.feeder.empty) else 0
                assert cycle < 20000, f"stuck at {at} for {width}x{height}"
            results.append((outputs, taps, ticks))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


def signed(word, at, width):
    value = word >> at & ((1 << width) - 1)
    return value - (value >> width - 1 << width)


def unpack(outputs, dut, width, height):
    """Output words -> ``(FRAMES, H, W, 2)``, checking flags, mask and zero padding on the way."""
    lanes = dut.lanes
    widths = [dut.scatter.output_width(n) for n in ("u", "v")]
    result = np.zeros((FRAMES, height, width, 2), dtype=np.int64)
    places = list(itertools.product(range(FRAMES), range(height), range(0, width, lanes)))
    assert len(outputs) == len(places)
    for word, (f, y, x) in zip(outputs, places, strict=True):
        at = 0
        for p, c in itertools.product(range(lanes), range(2)):
            value = signed(word, at, widths[c])
            at += widths[c]
            if x + p < width:
                result[f, y, x + p, c] = value
            else:
                assert value == 0
        eol = x + lanes >= width
        mask = sum((x + p < width) << p for p in range(lanes))
        assert word >> at == (x == y == 0) | eol << 1 | (eol and y == height - 1) << 2 | mask << 3
    return result


def window_dot(dut, words, cotangents, width, height):
    """<Window(x), c> over the taps that Window gave, in integers."""
    r, lanes = dut.radius, dut.lanes
    site = site_layout(lanes)
    site_at = dut.window.o.payload.shape()["site"].offset
    total = 0
    for word, (f, y, x) in zip(
        words, itertools.product(range(FRAMES), range(height), range(0, width, lanes)), strict=True
    ):
        got = site.from_bits(word >> site_at & ((1 << site.size) - 1))
        assert (got.x, got.y) == (x, y)
        for p, j, k in itertools.product(range(lanes), range(2 * r + 1), range(2 * r + 1)):
            if x + p < width:
                tap = word >> LEAD.width * (j * (2 * r + lanes) + k + p) & ((1 << LEAD.width) - 1)
                total += tap * int(cotangents[f][y, x + p, j, k])
    return total


def run(dut, border, sizes, rough, draw, seed):
    radius, lanes = dut.radius, dut.lanes
    rng = random.Random(seed)
    numbers = np.random.default_rng(seed)
    jobs, truth = [], []
    side = 2 * radius + 1
    for width, height in sizes:
        xs = [numbers.integers(0, 1 << LEAD.width, (height, width)) for _ in range(FRAMES)]
        cs = [draw(numbers, (height, width, side, side)) for _ in range(FRAMES)]
        lead = [w for x in xs for w in beats(x[..., None], LEAD.width, lanes, rng)]
        trail = [w for c in cs for w in beats(c.reshape(height, width, side * side), BITS, lanes, rng)]
        jobs.append((width, height, [trail] if dut.alone else [lead, trail]))
        truth.append((xs, cs))
    for (width, height, _), (xs, cs), (outputs, taps, ticks) in zip(
        jobs, truth, simulate(dut, jobs, rough=rough, seed=seed), strict=True
    ):
        got = unpack(outputs, dut, width, height)
        want = np.stack([transpose_by_definition(border, radius, c) for c in cs])
        assert np.array_equal(got[..., 0], want), (width, height)
        assert np.array_equal(got[..., 1], -want), (width, height)
        if not dut.alone:
            dot = sum(int((x * got[f, ..., 0]).sum()) for f, x in enumerate(xs))
            assert window_dot(dut, taps, cs, width, height) == dot
            assert dot == sum(
                int((taps_by_definition(border, radius, x) * c).sum()) for x, c in zip(xs, cs, strict=True)
            )
        per_frame = -(-width // lanes) * height
        if not rough:
            lags = dut.feeder.lag(width) + dut.feeder.scatter_lag(width)
            assert len(ticks) == FRAMES * per_frame + lags
            if width >= 4 * lanes:
                assert ticks[FRAMES * per_frame - 1] - ticks[0] == FRAMES * per_frame - 1


def uniform(numbers, shape):
    return numbers.integers(-(1 << BITS - 1), 1 << BITS - 1, shape)


def lowest(numbers, shape):
    """Every cotangent at its most negative code: the sums reach the bound that the widths come from."""
    return np.full(shape, -(1 << BITS - 1))


CASES = list(itertools.product(BORDERS, [1, 2], [1, 2]))


@pytest.mark.parametrize("border,radius,lanes", CASES)
def test_scatter_is_the_transpose_of_window(border, radius, lanes):
    """Back to back and ragged: the sums equal the definition, the dot products agree in exact integers."""
    dut = Dut(lanes=lanes, radius=radius, border=border, alone=False)
    run(dut, border, SIZES[::2], False, uniform, 11)
    run(Dut(lanes=lanes, radius=radius, border=border, alone=False), border, SIZES, True, uniform, 12)


@pytest.mark.parametrize("border,radius,lanes", CASES)
def test_nothing_overflows_at_the_bound(border, radius, lanes):
    """Cotangents all at the most negative code, no Window in the unit: the widths hold what they promise."""
    dut = Dut(lanes=lanes, radius=radius, border=border, alone=True)
    run(dut, border, [(1, 1), (2, 3), (3, 3), (6, 6), (9, 7)], False, lowest, 13)


@pytest.mark.parametrize("border,radius,lanes", CASES)
def test_growth_is_the_most_read_pixel(border, radius, lanes):
    """``growth`` is what large pictures need as well."""
    most = 0
    for n in range(1, 30):
        for lane_step in (lanes,):
            reads = np.zeros(n, dtype=int)
            for x in range(0, n, lane_step):
                seen = {(x + p + d) for p in range(lanes) for d in range(-radius, radius + 1) if x + p < n}
                for i in seen:
                    q = index_by_definition(border, n, i)
                    if q is not None:
                        reads[q] += 1
            most = max(most, reads.max())
    down = 0
    for n in range(1, 30):
        reads = [index_by_definition(border, n, y + d) for y in range(n) for d in range(-radius, radius + 1)]
        down = max(down, max(reads.count(q) for q in range(n)))
    scatter = Scatter(Pixel((("u", SQ(4, 2)),)), lanes=lanes, radius=radius, border=border, max_width=8)
    assert scatter.growth == int(most * down - 1).bit_length()
    assert scatter.output.format("u") == SQ(4 + scatter.growth, 2)


def test_bad_parameters_are_named():
    tap = Pixel((("u", SQ(4, 2)),))
    with pytest.raises(ValueError, match="'u' is UQ"):
        Scatter(Pixel((("u", UQ(4, 2)),)), radius=1, max_width=8)
    with pytest.raises(ValueError, match="radius=0"):
        Scatter(tap, radius=0, max_width=8)
    with pytest.raises(ValueError, match="max_width=0"):
        Scatter(tap, radius=1, max_width=0)
    with pytest.raises(ValueError, match="border='none'"):
        Scatter(tap, radius=1, border="none", max_width=8)


@pytest.mark.parametrize("lanes", [1, 2])
def test_reset_of_one_clock_leaves_no_sum_behind(lanes):
    """Reset for a single clock, at every step of a picture's way through the fold and the chain: the sums of the next
    picture are right."""
    radius, border, (width, height) = 2, "mirror", (7, 4)
    dut = Dut(lanes=lanes, radius=radius, border=border, alone=True)
    reset = Signal()
    rng, numbers = random.Random(14), np.random.default_rng(14)
    side = 2 * radius + 1
    before = [rng.getrandbits(len(dut.i.payload.as_value())) for _ in range(80)]
    pictures = [uniform(numbers, (height, width, side, side)) for _ in range(40)]

    async def bench(ctx):
        ctx.set(dut.width, width)
        ctx.set(dut.height, height)
        ctx.set(dut.room, 1)
        for cut, picture in enumerate(pictures, start=3 * width):
            ctx.set(dut.i.valid, 1)
            for word in before[:cut]:
                ctx.set(dut.i.payload.as_value(), word)
                await ctx.tick()
            ctx.set(dut.i.valid, 0)
            ctx.set(reset, 1)
            await ctx.tick()
            ctx.set(reset, 0)
            offered = iter(beats(picture.reshape(height, width, side * side), BITS, lanes, rng))
            word, outputs = next(offered), []
            for _ in range(200):
                ctx.set(dut.i.valid, word is not None)
                ctx.set(dut.i.payload.as_value(), word or 0)
                taken = ctx.get(dut.i.valid & dut.i.ready)
                await ctx.tick()
                if taken:
                    word = next(offered, None)
                if ctx.get(dut.scatter.o.valid):
                    outputs.append(ctx.get(dut.scatter.o.payload.as_value()))
            want = transpose_by_definition(border, radius, picture)
            bits = dut.scatter.output_width("u"), dut.scatter.output_width("v")
            got = [signed(w, p * sum(bits), bits[0]) for w in outputs for p in range(lanes)]
            got = np.reshape(got, (height, -1))[:, :width]
            assert np.array_equal(got, want), f"reset after {cut} clocks"

    simulator = Simulator(ResetInserter(reset)(dut))
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
