"""The control plane: every register, commits, loads, results, counters; against the declared map."""

import random
from itertools import pairwise

import pytest
from amaranth.hdl import ResetInserter, Signal

from pullback.rtl.bus.axi4lite import OKAY, SLVERR
from pullback.rtl.bus.control import RESULT_CLOCKS, Control
from pullback.rtl.bus.registers import (
    CONTROL_REGISTERS,
    PARAMETER_BASE,
    RESULT_BASE,
    ParameterWords,
    RegisterMap,
    ResultWords,
)
from pullback.rtl.numeric.format import SQ, UQ

STATUS, ERRORS, COMMIT, ACK, RESULTS = 0x00C, 0x010, 0x008, 0x02C, 0x028
PENDING, BUSY, READY = 1, 2, 4


def make_map(**changes):
    return RegisterMap(
        **{
            "name": "core",
            "version": (0, 1, 0),
            "stages": ("gain", "tone"),
            "parameters": [
                ParameterWords("gain", "offset", 4, SQ(2, 14), (-1, 2, -3, 4), "offsets"),
                ParameterWords("tone", "knot", 9, UQ(1, 15), [1000 * k for k in range(9)], "knots"),
            ],
            "results": [
                ResultWords("tone", "knot", 9, 26, "knots"),
                ResultWords("gain", "offset", 4, 13, "offsets"),
            ],
            "lanes": 2,
            "max_width": 640,
            "max_height": 480,
            "vjp": True,
            **changes,
        }
    )


MAP = make_map()
FRAME = ("width", "height", "cfa", "depth", "frames", "bypass", "loss_kind", "loss_delta", "loss_scale")


def active(ctx, dut):
    return [ctx.get(getattr(dut, name)) for name in FRAME]


def watch_load(dut, log):
    """Logs (clock, address, data, hold) of every word on the load bus."""

    async def watch(ctx):
        clock = 0
        while True:
            _, _, valid, address, data, hold = await ctx.tick().sample(
                dut.load.valid, dut.load.address, dut.load.data, dut.hold
            )
            if valid:
                log.append((clock, address, data, hold))
            clock += 1

    return watch


def words_of(codes):
    return [code & 0xFFFFFFFF for code in codes]


def test_defaults_are_loaded_after_reset_in_order_and_without_gaps(simulate):
    dut = Control(MAP)
    log = []

    async def main(ctx):
        # `drained` stays 0: nothing can be in flight after reset.
        assert ctx.get(dut.hold)
        for _ in range(200):
            await ctx.tick()
            if not ctx.get(dut.hold):
                break
            assert len(log) <= MAP.parameter_words
        assert not ctx.get(dut.hold)
        assert active(ctx, dut) == list(MAP.defaults[:9])
        await ctx.tick().repeat(200)

    simulate(dut, main, watch_load(dut, log))
    start = log[0][0]
    assert [entry[:3] for entry in log] == [
        (start + k, k, word) for k, word in enumerate(words_of(MAP.defaults))
    ]
    assert all(entry[3] for entry in log)


@pytest.mark.parametrize("settle", (1, 8, 20))
def test_hold_stays_for_the_load_bus_to_settle(simulate, settle):
    dut = Control(MAP, settle=settle)
    log = []

    async def main(ctx):
        for clock in range(300):
            _, _, hold = await ctx.tick().sample(dut.hold)
            if not hold:
                assert clock - log[-1][0] > settle
                return
        raise AssertionError("hold never fell")

    simulate(dut, main, watch_load(dut, log))
    assert len(log) == MAP.parameter_words


def test_every_register_reads_what_it_should(simulate, host):
    dut = Control(MAP)

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        ctx.set(dut.busy, 1)
        expected = {name: MAP.constant(name) for name in ("ID", "VERSION", "MAX_SIZE", "BUILD")}
        expected |= {"PARAMETERS": 29, "RESULT_WORDS": 19, "STATUS": BUSY, "CONTROL": 0, "ACK": 0}
        expected |= {"ERRORS": 0, "FRAMES": 0, "RESULTS": 0, "PIXELS_LO": 0, "PIXELS_HI": 0, "CYCLES_HI": 0}
        for register in CONTROL_REGISTERS:
            if register.name in expected:
                assert await axi.get(register.address) == expected[register.name], register.name
        for k, word in enumerate(words_of(MAP.defaults)):
            assert await axi.get(PARAMETER_BASE + 4 * k) == word, k
        for k in range(2 * MAP.result_words):
            assert await axi.get(RESULT_BASE + 4 * k) == 0, k

    simulate(dut, main)


def test_read_only_and_unmapped_addresses_answer_slverr_and_do_nothing(simulate, host):
    dut = Control(MAP)
    log = []

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        before = [await axi.get(PARAMETER_BASE + 4 * k) for k in range(MAP.parameter_words)]
        parameter_end = PARAMETER_BASE + 4 * MAP.parameter_words
        result_end = RESULT_BASE + 8 * MAP.result_words
        unmapped = (0x040, 0x048, 0x800, 0xFFC, parameter_end, 0x1FFC, 0x3FFC, result_end, 0x8000, 0xFFFC)
        for address in unmapped:
            assert await axi.read(address) == (0, SLVERR), hex(address)
            assert await axi.write(address, 0xFFFFFFFF) == SLVERR, hex(address)
        for register in CONTROL_REGISTERS:
            response = await axi.write(register.address, 0xFFFFFFFE)
            assert response == (SLVERR if register.access == "r" else OKAY), register.name
        for k in range(2 * MAP.result_words):
            assert await axi.write(RESULT_BASE + 4 * k, 1) == SLVERR
        assert before == [await axi.get(PARAMETER_BASE + 4 * k) for k in range(MAP.parameter_words)]
        assert await axi.get(0x000) == 0x4B4C4250
        assert await axi.get(STATUS) == 0
        # The ends of the two memories are mapped.
        await axi.put(parameter_end - 4, 77)
        assert await axi.get(parameter_end - 4) == 77
        assert await axi.get(result_end - 4) == 0

    simulate(dut, main, watch_load(dut, log))
    assert len(log) == MAP.parameter_words


def test_reserved_words_read_and_load_zero_and_ignore_writes(simulate, host):
    dut = Control(MAP)
    log = []

    async def main(ctx):
        axi = host(ctx, dut)
        for k in range(9, 16):
            await axi.put(PARAMETER_BASE + 4 * k, 0xFFFFFFFF)
        assert [await axi.get(PARAMETER_BASE + 4 * k) for k in range(9, 16)] == [0] * 7
        assert await axi.get(PARAMETER_BASE + 4 * 16) == 0xFFFFFFFF  # -1, the default
        log.clear()
        ctx.set(dut.drained, 1)
        await axi.put(COMMIT, 1)
        await axi.settled()
        assert [entry[2] for entry in log[9:16]] == [0] * 7

    simulate(dut, main, watch_load(dut, log))


@pytest.mark.parametrize(
    ("address", "clocks"), [(0x00C, 6), (PARAMETER_BASE, 8), (RESULT_BASE, 8), (RESULT_BASE + 4, 8)]
)
def test_a_read_takes_as_long_as_it_says(simulate, host, address, clocks):
    dut = Control(MAP)

    async def main(ctx):
        await host(ctx, dut).settled()
        ctx.set(dut.s_axil_rready, 1)
        ctx.set(dut.s_axil_araddr, address)
        ctx.set(dut.s_axil_arvalid, 1)
        await ctx.tick().until(dut.s_axil_arready)
        ctx.set(dut.s_axil_arvalid, 0)
        passed = 0
        valid = 0
        while not valid:
            _, _, valid = await ctx.tick().sample(dut.s_axil_rvalid)
            passed += 1
            assert passed < 50
        assert passed == clocks

    simulate(dut, main)


def test_accesses_in_the_first_clocks_wait_for_the_defaults(simulate, host):
    dut = Control(MAP)

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.put(PARAMETER_BASE, 333)
        assert await axi.get(PARAMETER_BASE) == 333
        await axi.settled()
        assert ctx.get(dut.width) == 640
        assert await axi.get(PARAMETER_BASE) == 333

    simulate(dut, main)


def legal_words(rng):
    words = list(MAP.defaults)
    for word in MAP.words:
        for entry in range(word.entries):
            words[word.index + entry] = rng.choice((word.lo, word.hi, rng.randint(word.lo, word.hi)))
    MAP.check_parameters(words)
    return words


def test_a_commit_waits_for_drained_and_then_loads_everything(simulate, host):
    dut = Control(MAP)
    log = []

    async def main(ctx):
        rng = random.Random(1)
        axi = host(ctx, dut)
        await axi.settled()
        current = list(MAP.defaults)
        for wait in (0, 1, 40, 150):
            log.clear()
            words = legal_words(rng)
            for k, word in enumerate(words):
                await axi.put(PARAMETER_BASE + 4 * k, word)
            assert not ctx.get(dut.hold)
            await axi.put(COMMIT, 1)
            for _ in range(60 + wait):
                await ctx.tick()
            # Not drained: nothing moves, no parameter can be changed, everything else works.
            assert ctx.get(dut.hold) and not log
            assert active(ctx, dut) == current[:9]
            assert await axi.get(STATUS) == PENDING
            assert await axi.write(PARAMETER_BASE, 5) == SLVERR
            assert await axi.get(PARAMETER_BASE) == words[0]
            ctx.set(dut.drained, 1)
            await ctx.tick().repeat(3)
            await axi.settled()
            ctx.set(dut.drained, 0)
            assert not ctx.get(dut.hold)
            current = words
            assert active(ctx, dut) == current[:9]
            start = log[0][0]
            expected = [(start + k, k, word, 1) for k, word in enumerate(words_of(words))]
            assert log == expected
            assert await axi.get(ERRORS) == 0

    simulate(dut, main, watch_load(dut, log))


def test_drained_is_looked_at_only_after_hold_had_time_to_act(simulate, host):
    dut = Control(MAP, settle=8)
    log = []

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        log.clear()
        # Drained until a frame starts in the clock after hold rose, as a registered gate may let it.
        ctx.set(dut.drained, 1)
        await axi.put(COMMIT, 1)
        await ctx.tick().until(dut.hold)
        await ctx.tick().repeat(4)
        ctx.set(dut.drained, 0)
        await ctx.tick().repeat(100)
        assert not log and ctx.get(dut.hold)
        ctx.set(dut.drained, 1)
        await axi.settled()
        assert len(log) == MAP.parameter_words

    simulate(dut, main, watch_load(dut, log))


@pytest.mark.parametrize(
    "index, values",
    [
        (0, (0, 641, 0x10001, 0xFFFFFFFF)),
        (1, (0, 481, 0x80000001)),
        (2, (4, 0x100)),
        (3, (0, 7, 17, 0x10 + 0x20)),
        (4, (0, 0x10000)),
        (5, (4,)),
        (6, (4,)),
        (7, (0x1000,)),
        (8, (0x10000,)),
    ],
)
def test_a_refused_commit_keeps_the_active_values(simulate, host, index, values):
    dut = Control(MAP)
    log, holds = [], []

    async def watch_hold(ctx):
        while True:
            _, _, hold = await ctx.tick().sample(dut.hold)
            holds.append(hold)

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        log.clear()
        holds.clear()
        ctx.set(dut.drained, 1)
        await axi.put(PARAMETER_BASE + 4 * 17, 123)
        for value in values:
            await axi.put(PARAMETER_BASE + 4 * index, value)
            await axi.put(COMMIT, 1)
            await axi.settled()
            assert await axi.get(ERRORS) == 1 << 9, value
            assert active(ctx, dut) == list(MAP.defaults[:9])
            await axi.put(ERRORS, 1 << 9)
            assert await axi.get(ERRORS) == 0
        assert not log and not any(holds)
        # The shadow keeps what was written; mended, the commit goes through.
        assert await axi.get(PARAMETER_BASE + 4 * index) == values[-1]
        await axi.put(PARAMETER_BASE + 4 * index, MAP.defaults[index])
        await axi.put(COMMIT, 1)
        await axi.settled()
        assert await axi.get(ERRORS) == 0
        assert len(log) == MAP.parameter_words and log[17][2] == 123

    simulate(dut, main, watch_load(dut, log), watch_hold)


def test_a_commit_during_a_commit_follows_it(simulate, host):
    dut = Control(MAP)
    log = []

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        log.clear()
        await axi.put(PARAMETER_BASE, 100)
        await axi.put(COMMIT, 1)
        await axi.put(COMMIT, 1)
        ctx.set(dut.drained, 1)
        await axi.settled()
        assert len(log) == 2 * MAP.parameter_words
        assert ctx.get(dut.width) == 100

    simulate(dut, main, watch_load(dut, log))


def test_only_bit_0_of_control_commits(simulate, host):
    dut = Control(MAP)
    log = []

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        await axi.put(COMMIT, 0xFFFFFFFE)
        assert await axi.get(STATUS) == 0

    simulate(dut, main, watch_load(dut, log))
    assert len(log) == MAP.parameter_words


def test_counters(simulate, host):
    dut = Control(MAP)

    async def main(ctx):
        rng = random.Random(5)
        axi = host(ctx, dut)
        pixels = frames = 0
        for _ in range(500):
            count, done = rng.randrange(3), rng.random() < 0.1
            pixels, frames = pixels + count, frames + done
            ctx.set(dut.pixels, count)
            ctx.set(dut.frame_done, done)
            await ctx.tick()
        ctx.set(dut.pixels, 0)
        ctx.set(dut.frame_done, 0)
        assert await axi.get(0x018) == pixels > 400
        assert await axi.get(0x014) == frames > 20
        first = await axi.get(0x020)
        await ctx.tick().repeat(100)
        second = await axi.get(0x020)
        await ctx.tick().repeat(137)
        assert await axi.get(0x020) - second == second - first + 37

    simulate(dut, main)


@pytest.mark.parametrize("bit", range(9))
def test_errors_stick_and_clear_alone(simulate, host, bit):
    dut = Control(MAP)

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        other = (bit + 4) % 9
        ctx.set(dut.errors, 1 << bit | 1 << other)
        await ctx.tick()
        ctx.set(dut.errors, 0)
        assert await axi.get(ERRORS) == 1 << bit | 1 << other
        await axi.put(ERRORS, 1 << bit)
        assert await axi.get(ERRORS) == 1 << other
        # An error that keeps coming wins against its clearing.
        ctx.set(dut.errors, 1 << bit)
        await axi.put(ERRORS, 0xFFFFFFFF)
        assert await axi.get(ERRORS) == 1 << bit

    simulate(dut, main)


def feed(dut, groups, counts, *, seed, stall):
    """One process per port: sends its words of every group, with random waits before each."""

    def port(k):
        async def send(ctx):
            rng = random.Random(f"{seed} {k}")
            offset = sum(counts[:k])
            for group in groups:
                for word in group[offset : offset + counts[k]]:
                    while rng.random() < stall:
                        await ctx.tick()
                    ctx.set(dut.results[k].payload, word)
                    ctx.set(dut.results[k].valid, 1)
                    await ctx.tick().until(dut.results[k].ready)
                    ctx.set(dut.results[k].valid, 0)
                    ctx.set(dut.results[k].payload, -0x0123456789ABCDEF)

        return send

    return [port(k) for k in range(len(counts))]


def random_groups(rng, number, words):
    edges = (-(1 << 63), (1 << 63) - 1, -1, 0, 1 << 32, -(1 << 32))
    return [
        [rng.choice(edges) if rng.random() < 0.2 else rng.getrandbits(64) - (1 << 63) for _ in range(words)]
        for _ in range(number)
    ]


async def read_group(axi, words):
    group = []
    for k in range(words):
        low = await axi.get(RESULT_BASE + 8 * k)
        high = await axi.get(RESULT_BASE + 8 * k + 4)
        value = high << 32 | low
        group.append(value - (1 << 64) if value >> 63 else value)
    return group


@pytest.mark.parametrize("counts", [None, (19,), (2, 9, 8), (1,) * 19])
@pytest.mark.parametrize("stall", [0.0, 0.7])
def test_results_come_group_by_group(simulate, host, counts, stall):
    dut = Control(MAP, counts=counts)
    assert dut.counts == ((1, 1, 9, 1, 1, 4, 1, 1) if counts is None else counts)
    groups = random_groups(random.Random(7), 4, MAP.result_words)
    gate = []

    # One group is let in at a time by holding back the first port.
    async def first(ctx):
        rng = random.Random(3)
        for number, group in enumerate(groups):
            while len(gate) < number:
                await ctx.tick()
            for word in group[: dut.counts[0]]:
                while rng.random() < stall:
                    await ctx.tick()
                ctx.set(dut.results[0].payload, word)
                ctx.set(dut.results[0].valid, 1)
                await ctx.tick().until(dut.results[0].ready)
                ctx.set(dut.results[0].valid, 0)

    async def main(ctx):
        axi = host(ctx, dut)
        for number, group in enumerate(groups):
            while not await axi.get(STATUS) & READY:
                pass
            assert await axi.get(RESULTS) == number + 1
            assert await read_group(axi, MAP.result_words) == group
            await axi.put(ACK, 0)
            assert not await axi.get(STATUS) & READY
            gate.append(number)
        assert await axi.get(ERRORS) == 0

    simulate(dut, main, first, *feed(dut, groups, dut.counts, seed=1, stall=stall)[1:])


def test_the_host_reads_one_group_while_the_next_is_collected(simulate, host):
    dut = Control(MAP)
    groups = random_groups(random.Random(8), 2, MAP.result_words)

    async def main(ctx):
        axi = host(ctx, dut)
        while not await axi.get(STATUS) & READY:
            pass
        # All but the last word of the second group arrive in the meantime.
        await ctx.tick().repeat(100)
        assert await axi.get(RESULTS) == 1
        assert await read_group(axi, MAP.result_words) == groups[0]
        await axi.put(ACK, 1)
        ctx.set(dut.results[-1].payload, groups[1][-1])
        ctx.set(dut.results[-1].valid, 1)
        while not await axi.get(STATUS) & READY:
            pass
        assert await read_group(axi, MAP.result_words) == groups[1]
        assert await axi.get(ERRORS) == 0

    async def last(ctx):
        ctx.set(dut.results[-1].payload, groups[0][-1])
        ctx.set(dut.results[-1].valid, 1)
        await ctx.tick().until(dut.results[-1].ready)
        ctx.set(dut.results[-1].valid, 0)

    simulate(dut, main, last, *feed(dut, groups, dut.counts, seed=2, stall=0.0)[:-1])


def test_overrun_is_flagged_and_the_newest_group_shown(simulate, host):
    dut = Control(MAP)
    groups = random_groups(random.Random(9), 3, MAP.result_words)
    pulses = []

    async def count(ctx):
        while True:
            _, _, collected = await ctx.tick().sample(dut.collected)
            pulses.append(collected)

    async def main(ctx):
        axi = host(ctx, dut)
        while await axi.get(RESULTS) < 3:
            pass
        assert await axi.get(ERRORS) == 1 << 10
        assert await axi.get(STATUS) & READY
        assert await read_group(axi, MAP.result_words) == groups[2]
        await axi.put(ERRORS, 1 << 10)
        await axi.put(ACK, 1)
        assert await axi.get(ERRORS) == 0
        assert not await axi.get(STATUS) & READY

    simulate(dut, main, count, *feed(dut, groups, dut.counts, seed=3, stall=0.2))
    assert sum(pulses) == 3


def test_clocks_a_result(simulate):
    dut = Control(MAP)
    groups = random_groups(random.Random(9), 3, MAP.result_words)
    times = []

    async def main(ctx):
        for clock in range(4 * RESULT_CLOCKS * MAP.result_words):
            _, _, collected = await ctx.tick().sample(dut.collected)
            if collected:
                times.append(clock)

    simulate(dut, main, *feed(dut, groups, dut.counts, seed=3, stall=0.0))
    assert [b - a for a, b in pairwise(times)] == [RESULT_CLOCKS * MAP.result_words + 1] * 2


def test_the_high_half_of_a_result_is_latched(simulate, host):
    dut = Control(MAP)
    groups = random_groups(random.Random(11), 2, MAP.result_words)
    go = []

    async def first(ctx):
        for number, group in enumerate(groups):
            while len(go) < number:
                await ctx.tick()
            ctx.set(dut.results[0].payload, group[0])
            ctx.set(dut.results[0].valid, 1)
            await ctx.tick().until(dut.results[0].ready)
            ctx.set(dut.results[0].valid, 0)

    async def main(ctx):
        axi = host(ctx, dut)
        while await axi.get(RESULTS) < 1:
            pass
        low = await axi.get(RESULT_BASE + 8 * 4)
        go.append(1)
        while await axi.get(RESULTS) < 2:
            pass
        high = await axi.get(RESULT_BASE + 8 * 4 + 4)
        assert high << 32 | low == groups[0][4] & (1 << 64) - 1

    simulate(dut, main, first, *feed(dut, groups, dut.counts, seed=3, stall=0.0)[1:])


def test_the_smallest_core(simulate, host):
    """One stage, no parameters, forward only: one result word, sixteen parameter words."""
    small = make_map(stages=("gain",), parameters=[], results=[], vjp=False, lanes=1)
    dut = Control(small)
    assert (small.parameter_words, small.result_words) == (16, 1)

    async def main(ctx):
        axi = host(ctx, dut)
        ctx.set(dut.results[0].payload, -5)
        ctx.set(dut.results[0].valid, 1)
        while await axi.get(RESULTS) < 2:
            pass
        assert await read_group(axi, 1) == [-5]
        assert await axi.get(0x034) == 1 << 16 | 1
        assert await axi.read(PARAMETER_BASE + 64) == (0, SLVERR)
        assert await axi.read(RESULT_BASE + 8) == (0, SLVERR)

    simulate(dut, main)


def test_reset_restores_the_defaults(simulate, host):
    """A reset after the host wrote nonsense into the shadow loads the defaults again."""
    dut = Control(MAP)
    reset = Signal()
    log = []

    async def main(ctx):
        axi = host(ctx, dut)
        await axi.settled()
        for k in range(MAP.parameter_words):
            await axi.put(PARAMETER_BASE + 4 * k, 0xFFFFFFFF)
        log.clear()
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        await axi.settled()
        assert [entry[2] for entry in log] == words_of(MAP.defaults)
        assert active(ctx, dut) == list(MAP.defaults[:9])
        for k, word in enumerate(words_of(MAP.defaults)):
            assert await axi.get(PARAMETER_BASE + 4 * k) == word

    simulate(ResetInserter(reset)(dut), main, watch_load(dut, log))


@pytest.mark.parametrize("counts", [(18,), (20,), (0, 19), (9, 9)])
def test_counts_must_add_up(counts):
    with pytest.raises(ValueError, match="19 result words"):
        Control(MAP, counts=counts)


def test_settle_must_be_positive():
    with pytest.raises(ValueError, match="settle is 0"):
        Control(MAP, settle=0)
