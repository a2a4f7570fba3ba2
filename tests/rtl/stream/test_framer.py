"""Framer against a model of its rules: well-formed video, every fault, random faults, hold, random stalls."""

import itertools
import random

import pytest
from amaranth.sim import Simulator

from pullback.rtl.numeric.format import UQ
from pullback.rtl.stream.framer import Framer
from pullback.rtl.stream.pixel import Pixel

PIXEL = Pixel((("a", UQ(0, 4)), ("b", UQ(0, 3))))


def model(transfers, width, height, lanes):
    """The rules: transfers ``(value, user, eol)`` -> beats ``(value, first, eol, last)`` and faults."""
    beats = -(-width // lanes)
    out, faults = [], {"too_long": 0, "too_short": 0, "out_of_step": 0}

    def emit(value):
        nonlocal x, y
        eol, last = x == beats - 1, x == beats - 1 and y == height - 1
        out.append((value, x == 0 and y == 0, eol, last))
        x, y = (0, 0 if last else y + 1) if eol else (x + 1, y)

    x = y = 0
    excess = False
    for value, user, eol in transfers:
        if user and (x, y) != (0, 0):
            faults["out_of_step"] += 1
            while (x, y) != (0, 0):
                emit(0)
        elif not user and excess:
            excess = not eol
            continue
        elif not user and (x, y) == (0, 0):
            faults["out_of_step"] += 1
            continue
        at_end = x == beats - 1
        emit(value)
        excess = at_end and not eol
        faults["too_long"] += excess
        if eol and not at_end:
            faults["too_short"] += 1
            while x:
                emit(0)
    return out, faults


def simulate(transfers, width, height, lanes, *, rng=None, hold=None, cycles=None):
    """Feed the transfers; beats with the cycle they were taken in, pulses per fault, and idle per cycle."""
    dut = Framer(PIXEL, lanes=lanes)
    bits = PIXEL.width * lanes
    taken, pulses, idles = [], {"too_long": 0, "too_short": 0, "out_of_step": 0}, []

    async def bench(ctx):
        ctx.set(dut.width, width)
        ctx.set(dut.height, height)
        ctx.set(dut.hold, 1)
        await ctx.tick().repeat(4)
        at = quiet = cycle = wait = 0
        before = None
        while quiet < (cycles or width * height + 8):
            offered = at < len(transfers) and wait == 0
            ctx.set(dut.i.valid, offered)
            if offered:
                value, user, eol = transfers[at]
                ctx.set(dut.i.payload.as_value(), value | user << bits | eol << bits + 1)
            wait = max(0, wait - 1)
            ctx.set(dut.o.ready, rng is None or rng.random() < 0.7)
            ctx.set(dut.hold, hold(cycle) if hold else 0)
            valid, ready = ctx.get(dut.o.valid), ctx.get(dut.o.ready)
            word = ctx.get(dut.o.payload.as_value())
            idles.append(ctx.get(dut.idle))
            if before is not None:
                assert valid and word == before, "an offered beat changed or went away"
            before = word if valid and not ready else None
            if valid and ready:
                value = word & ((1 << bits) - 1)
                taken.append(((value, *(bool(word >> bits + k & 1) for k in range(3))), cycle))
            went = ctx.get(dut.i.valid & dut.i.ready)
            await ctx.tick()
            cycle += 1
            for name in pulses:
                pulses[name] += ctx.get(getattr(dut, name))
            if went:
                at += 1
                wait = rng.choice([0, 0, 0, 1, 4]) if rng else 0
            quiet = 0 if went or valid else quiet + 1
            assert cycle < 40000
        assert at == len(transfers) or cycles

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return taken, pulses, idles


def frame(rng, width, height, lanes, *, lengths=None, lines=None):
    """One frame of transfers; ``lengths[y]`` overrides the length of a line, ``lines`` their number."""
    beats = -(-width // lanes)
    result = []
    for y in range(height if lines is None else lines):
        length = (lengths or {}).get(y, beats)
        for x in range(length):
            value = rng.getrandbits(PIXEL.width * lanes) | 1  # never the zero of the filling
            result.append((value, x == 0 and y == 0, x == length - 1))
    return result


def check(transfers, width, height, lanes, **options):
    want, faults = model(transfers, width, height, lanes)
    taken, pulses, _ = simulate(transfers, width, height, lanes, **options)
    assert [beat for beat, _ in taken] == want
    assert pulses == faults
    return taken, faults


@pytest.mark.parametrize("lanes,size", list(itertools.product([1, 2], [(1, 1), (1, 3), (4, 1), (5, 3)])))
def test_well_formed_frames_pass_without_bubbles(lanes, size):
    """Three frames back to back: as many cycles as beats, nothing flagged; the same under random stalls."""
    rng = random.Random(1)
    transfers = [t for _ in range(3) for t in frame(rng, *size, lanes)]
    taken, faults = check(transfers, *size, lanes)
    assert not any(faults.values())
    cycles = [cycle for _, cycle in taken]
    assert cycles == list(range(cycles[0], cycles[0] + len(transfers)))
    check(transfers, *size, lanes, rng=rng)


@pytest.mark.parametrize("lanes", [1, 2])
def test_each_fault_is_mended_and_flagged(lanes):
    """A frame with one fault between two good ones: exact beats, exactly the fault's flag."""
    rng = random.Random(2)
    size = (7, 4)
    good = lambda: frame(rng, *size, lanes)  # noqa: E731
    cases = {
        "long": (frame(rng, *size, lanes, lengths={1: 9}), {"too_long": 1}),
        "long last line": (frame(rng, *size, lanes, lengths={3: 12}), {"too_long": 1}),
        "short": (frame(rng, *size, lanes, lengths={0: 1, 2: 3}), {"too_short": 2}),
        "few lines": (frame(rng, *size, lanes, lines=2), {"out_of_step": 1}),
        "start in a line": (good()[:5], {"out_of_step": 1}),
        "many lines": (frame(rng, *size, lanes, lines=5), {"out_of_step": -(-7 // lanes)}),
    }
    for name, (transfers, expected) in cases.items():
        for stalls in (None, rng):
            _, faults = check(good() + transfers + good(), *size, lanes, rng=stalls)
            assert {k: v for k, v in faults.items() if v} == expected, name
    transfers = [(v, False, e) for v, _, e in good()] + good()
    _, faults = check(transfers, *size, lanes)
    assert faults["out_of_step"] == len(transfers) // 2


@pytest.mark.parametrize("lanes,size", list(itertools.product([1, 2], [(1, 1), (1, 2), (3, 2), (4, 3)])))
def test_random_marks_give_whole_frames(lanes, size):
    """Marks thrown at random: still whole frames, as the rules say, under random stalls."""
    rng = random.Random(3)
    for rate in (0.1, 0.4):
        transfers = [
            (rng.getrandbits(PIXEL.width * lanes) | 1, rng.random() < rate, rng.random() < 0.4)
            for _ in range(150)
        ]
        taken, _ = check(transfers, *size, lanes, rng=rng)
        beats = -(-size[0] // lanes) * size[1]
        assert len(taken) > 4 * beats
        for n, ((_, first, _, _), _) in enumerate(taken):
            assert first == (n % beats == 0)


def test_hold_gates_at_frame_boundaries_only():
    """While hold is high the running frame ends, idle rises and stays, and no frame begins."""
    rng = random.Random(4)
    transfers = [t for _ in range(3) for t in frame(rng, 4, 3, 1)]
    taken, _, idles = simulate(transfers, 4, 3, 1, hold=lambda cycle: 5 <= cycle < 60, cycles=64)
    assert [beat for beat, _ in taken] == model(transfers, 4, 3, 1)[0]
    cycles = [cycle for _, cycle in taken]
    assert cycles[:12] == list(range(1, 13)) and cycles[12] == 61
    assert idles[1:13] == [0] * 12 and idles[13:61] == [1] * 48 and idles[0] == 1 and idles[61] == 0


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="lanes=0"):
        Framer(PIXEL, lanes=0)
