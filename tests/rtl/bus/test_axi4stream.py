"""The edges of AXI4-Stream Video: every code, every depth, padding, random stalls on both sides."""

import random

import pytest

from pullback.rtl.bus.axi4stream import Align, Pack, Unpack
from pullback.rtl.numeric.format import SQ, UQ
from pullback.rtl.stream.pixel import Pixel

RAW = Pixel((("raw", UQ(0, 16)),))
RGB = Pixel((("r", UQ(0, 12)), ("g", UQ(0, 12)), ("b", UQ(0, 12))))
COTANGENT = Pixel((("r", SQ(2, 16)), ("g", SQ(2, 16)), ("b", SQ(2, 16))))
MIXED = Pixel((("a", SQ(2, 14)), ("b", UQ(1, 3))))


def send(dut, transfers, *, seed, stall):
    async def run(ctx):
        rng = random.Random(seed)
        for data, user, last in transfers:
            while rng.random() < stall:
                await ctx.tick()
            ctx.set(dut.tdata, data)
            ctx.set(dut.tuser, user)
            ctx.set(dut.tlast, last)
            ctx.set(dut.tvalid, 1)
            await ctx.tick().until(dut.tready)
            ctx.set(dut.tvalid, 0)
            ctx.set(dut.tdata, rng.getrandbits(len(dut.tdata)))

    return run


async def receive(ctx, valid, ready, values, number, *, seed, stall):
    """``number`` tuples of ``values``, and the clocks it took from the first to the last."""
    rng = random.Random(seed)
    got, clocks, waiting = [], [], None
    clock = 0
    while len(got) < number:
        take = rng.random() >= stall
        ctx.set(ready, take)
        _, _, is_valid, *sample = await ctx.tick().sample(valid, *values)
        if waiting is not None:
            assert is_valid and sample == waiting, "not stable while it waits"
        waiting = None
        if is_valid and take:
            got.append(tuple(sample))
            clocks.append(clock)
        elif is_valid:
            waiting = sample
        clock += 1
        assert clock < 40 * number + 100
    return got, clocks[-1] - clocks[0]


def saturated(container, form, bits):
    value = container - (1 << bits) if form.signed and container >> (bits - 1) else container
    return min(max(value, form.lo), form.hi)


def containers(rng, pixel, lanes, bits):
    """Random containers, often at or just past an edge of the format."""
    result = []
    for _ in range(lanes):
        for _, form in pixel.channels:
            near = rng.choice((form.lo, form.hi, 0)) + rng.choice((-1, 0, 1))
            result.append(rng.choice((near & (1 << bits) - 1, rng.getrandbits(bits))))
    return result


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(
    "pixel, bits, lanes", [(RGB, 16, 2), (COTANGENT, 24, 1), (COTANGENT, 24, 2), (RAW, 16, 4), (MIXED, 16, 2)]
)
def test_unpack_takes_containers_apart_and_saturates(simulate, pixel, bits, lanes, stall):
    dut = Unpack(pixel, lanes=lanes, container=bits)
    rng = random.Random(f"{bits} {lanes}")
    transfers, expected = [], []
    for _ in range(60):
        codes = containers(rng, pixel, lanes, bits)
        user, last = rng.randrange(2), rng.randrange(2)
        transfers.append((sum(code << bits * k for k, code in enumerate(codes)), user, last))
        formats = [form for _ in range(lanes) for _, form in pixel.channels]
        expected.append((*(saturated(c, f, bits) for c, f in zip(codes, formats, strict=True)), user, last))

    async def main(ctx):
        beat = dut.o.payload
        values = [*(beat.lane[k][name] for k in range(lanes) for name in pixel.names), beat.user, beat.eol]
        got, clocks = await receive(ctx, dut.o.valid, dut.o.ready, values, 60, seed=1, stall=stall)
        assert got == expected
        assert stall or clocks == 59

    simulate(dut, main, send(dut, transfers, seed=2, stall=stall))


async def _send_raw(ctx, dut, codes, *, seed, stall):
    """Beats of raw codes, marked as three lines of a frame."""
    rng = random.Random(seed)
    for k, lanes in enumerate(codes):
        while rng.random() < stall:
            await ctx.tick()
        beat = dut.i.payload
        for lane, code in enumerate(lanes):
            ctx.set(beat.lane[lane].raw, code)
        for port, bit in (
            (beat.first, k == 0),
            (beat.eol, k % 20 == 19),
            (beat.last, k == 59),
            (dut.i.valid, 1),
        ):
            ctx.set(port, bit)
        await ctx.tick().until(dut.i.ready)
        ctx.set(dut.i.valid, 0)


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("depth", range(8, 17))
def test_raw_codes_move_to_the_top(simulate, depth, stall):
    dut = Align(RAW, lanes=2)
    rng = random.Random(depth)
    top = (1 << depth) - 1
    codes = [
        [rng.choice((0, 1, top - 1, top, top + 1, 0xFFFF, rng.getrandbits(16))) & 0xFFFF for _ in range(2)]
        for _ in range(60)
    ]

    async def source(ctx):
        await ctx.tick()  # the depth is there a clock before the first pixel
        await _send_raw(ctx, dut, codes, seed=3, stall=stall)

    async def main(ctx):
        ctx.set(dut.depth, depth)
        beat = dut.o.payload
        values = [beat.lane[0].raw, beat.lane[1].raw, beat.first, beat.eol, beat.last]
        got, clocks = await receive(ctx, dut.o.valid, dut.o.ready, values, 60, seed=1, stall=stall)
        assert got == [
            (min(a, top) << (16 - depth), min(b, top) << (16 - depth), k == 0, k % 20 == 19, k == 59)
            for k, (a, b) in enumerate(codes)
        ]
        assert stall or clocks == 59

    simulate(dut, main, source)


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize(
    "pixel, bits, lanes, width",
    [
        (RGB, 16, 1, 5),
        (RGB, 16, 2, 6),
        (RGB, 16, 2, 7),
        (COTANGENT, 24, 2, 1),
        (MIXED, 16, 4, 8),
        (MIXED, 16, 4, 9),
        (MIXED, 16, 4, 10),
        (MIXED, 16, 4, 11),
    ],
)
def test_pack_extends_codes_and_clears_padding(simulate, pixel, bits, lanes, width, stall):
    dut = Pack(pixel, lanes=lanes, container=bits)
    rng = random.Random(f"{bits} {lanes} {width}")
    beats = -(-width // lanes)
    sent, expected = [], []
    for line in range(12):
        for k in range(beats):
            codes = [[rng.randint(f.lo, f.hi) for _, f in pixel.channels] for _ in range(lanes)]
            first, eol = line % 4 == 0 and k == 0, k == beats - 1
            sent.append((codes, first, eol, eol and line % 4 == 3))
            flat = [
                code & (1 << bits) - 1 if k * lanes + lane < width else 0
                for lane in range(lanes)
                for code in codes[lane]
            ]
            expected.append((sum(code << bits * n for n, code in enumerate(flat)), first, eol))

    async def source(ctx):
        rng = random.Random(4)
        beat = dut.i.payload
        await ctx.tick()  # the width is there a clock before the first pixel
        for codes, first, eol, last in sent:
            while rng.random() < stall:
                await ctx.tick()
            for lane in range(lanes):
                for name, code in zip(pixel.names, codes[lane], strict=True):
                    ctx.set(beat.lane[lane][name], code)
            for port, bit in ((beat.first, first), (beat.eol, eol), (beat.last, last), (dut.i.valid, 1)):
                ctx.set(port, bit)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)

    async def main(ctx):
        ctx.set(dut.width, width)
        values = [dut.tdata, dut.tuser, dut.tlast]
        got, clocks = await receive(ctx, dut.tvalid, dut.tready, values, len(sent), seed=5, stall=stall)
        assert got == expected
        assert stall or clocks == len(sent) - 1

    simulate(dut, main, source)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"channel r of SQ\(2, 16\) does not fit a container of 16 bits"):
        Unpack(COTANGENT, lanes=1)
    with pytest.raises(ValueError, match="channel r of"):
        Pack(COTANGENT, lanes=1)
    with pytest.raises(ValueError, match=r"pixels of a .* cannot be aligned"):
        Align(MIXED, lanes=1)
    with pytest.raises(ValueError, match="lanes=3"):
        Unpack(RAW, lanes=3)
