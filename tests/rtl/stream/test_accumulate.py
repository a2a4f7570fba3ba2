# amaranth: UnusedElaboratable=no
"""Accumulate, IndexedAccumulate, ScatterAdd against plain sums: gaps, groups back to back, ends of range, overruns."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from pullback.rtl.stream.accumulate import Accumulate
from pullback.rtl.stream.indexed_accumulate import IndexedAccumulate
from pullback.rtl.stream.scatter_add import ScatterAdd


def extreme(rng, width: int) -> int:
    """A signed value, often at either end."""
    lo, hi = -(1 << (width - 1)), (1 << (width - 1)) - 1
    return int(rng.choice([lo, hi, -1, 0, int(rng.integers(lo, hi, endpoint=True))]))


def run(
    dut,
    beats: list,
    *,
    sink: float,
    seed: int,
    busy_stops_last: bool = False,
    start: int = 0,
    gap: dict | None = None,
):
    """Feeds beats (a payload or None for a gap) from clock `start` on; returns the words in groups' order.

    In a clock without a beat the payload is `gap`, or what was there before with `last` now and then.

    Returns the words taken, the groups that an overrun named, the clocks of the groups' last beats, and the
    clocks from a `last` to `o.valid` whenever words begin to come.
    """
    rng = np.random.default_rng(seed)
    words, dropped, ends, waited = [], [], [], []

    async def bench(ctx):
        feed = iter(beats)
        beat, idle, clock = None, 0, 0
        shown = False
        while idle < 600:
            busy = ctx.get(dut.busy)
            if clock >= start and not (beat and beat["last"]):
                beat = next(feed, None)
            held = busy_stops_last and beat and beat["last"] and busy
            ctx.set(dut.i.valid, bool(beat) and not held)
            if beat and (not held or gap is None):
                ctx.set(dut.i.payload, beat)
                if beat["last"] and not held:
                    ends.append(clock)
            elif gap is not None:
                ctx.set(dut.i.payload, gap)
            elif rng.random() < 0.5:
                ctx.set(dut.i.payload.last, 1)  # means nothing without valid
            if not held and beat and beat["last"]:
                beat = None
            ctx.set(dut.o.ready, bool(rng.random() < sink))
            if ctx.get(dut.overrun):
                group = ends.index(clock - dut.overrun_latency)
                assert group not in dropped
                dropped.append(group)
            valid = ctx.get(dut.o.valid)
            if valid and not shown:
                waited.append(clock - ends[-1])
            shown = valid
            if valid and ctx.get(dut.o.ready):
                words.append(ctx.get(dut.o.payload))
                idle = 0
            idle += 1
            await ctx.tick()
            clock += 1

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return words, dropped, ends, waited


def check(words: list, dropped: list, expected: list):
    """Every group ends in its words or in an overrun."""
    want = [word for group, sums in enumerate(expected) if group not in dropped for word in sums]
    assert words == want


TERMS = [("offset", 18), ("gain", 34), ("flag", 2), ("wide", 40)]


def accumulate_case(rng, terms, lanes: int, lengths: list[int], gap: float):
    beats, expected = [], []
    for length in lengths:
        sums = dict.fromkeys((name for name, _ in terms), 0)
        for n in range(length):
            while rng.random() < gap:
                beats.append(None)
            beat = {"last": int(n == length - 1)}
            for name, width in terms:
                beat[name] = [extreme(rng, width) for _ in range(lanes)]
                sums[name] += sum(beat[name])
            beats.append(beat)
        expected.append(list(sums.values()))
    return beats, expected


@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
@pytest.mark.parametrize(("gap", "sink"), [(0.0, 1.0), (0.5, 0.5)])
def test_accumulate_groups_back_to_back(lanes, gap, sink):
    rng = np.random.default_rng(lanes)
    dut = Accumulate(TERMS, lanes=lanes)
    beats, expected = accumulate_case(rng, TERMS, lanes, [40, 31, 50, 12, 33], gap)
    words, dropped, _, waited = run(dut, beats, sink=sink, seed=lanes)
    check(words, dropped, expected)
    if gap == 0.0:
        assert dropped == []
        assert set(waited) == {dut.latency}


@pytest.mark.parametrize("stop", [False, True])
def test_accumulate_short_groups_and_slow_consumer(stop):
    rng = np.random.default_rng(5)
    dut = Accumulate(TERMS, lanes=2)
    beats, expected = accumulate_case(rng, TERMS, 2, [1, 1, 2, 1, 30, 1, 1, 9, 5, 60, 3], 0.2)
    words, dropped, _, _ = run(dut, beats, sink=0.3, seed=8, busy_stops_last=stop)
    check(words, dropped, expected)
    assert (not dropped) == stop


def test_accumulate_width():
    dut = Accumulate([("a", 5), ("b", 30)], log2_count=3)
    low = {"last": 0, "a": [-16], "b": [-(1 << 29)]}
    high = {"last": 0, "a": [15], "b": [(1 << 29) - 1]}
    beats = [low] * 7 + [low | {"last": 1}] + [None] * 10 + [high] * 7 + [high | {"last": 1}]
    words, dropped, _, _ = run(dut, beats, sink=1.0, seed=0)
    assert dropped == []
    assert words == [-128, -(1 << 32), 120, (1 << 32) - 8]


def indexed_case(rng, terms, entries: int, lanes: int, lengths: list[int], gap: float):
    """Beats of which some indices lie beyond the entries, and gaps whose index is noise."""
    rows = 1 << (entries - 1).bit_length()
    beats, expected = [], []
    for length in lengths:
        sums = {(entry, name): 0 for entry in range(entries) for name, _ in terms}
        fixed = int(rng.integers(0, entries))
        used = [int(k) for k in rng.permutation(entries)[: int(rng.integers(1, entries + 1))]]
        for n in range(length):
            while rng.random() < gap:
                beats.append(None)
            beat = {"last": int(n == length - 1), "index": [], **{name: [] for name, _ in terms}}
            for _ in range(lanes):
                # Runs of one index, alternations of two and three, all that this group uses, noise.
                patterns = (fixed, n % 2, n % 3 % entries, used[n % len(used)], int(rng.integers(0, rows)))
                index = patterns[n // 7 % len(patterns)]
                beat["index"].append(index)
                for name, width in terms:
                    value = extreme(rng, width)
                    beat[name].append(value)
                    if index < entries:
                        sums[index, name] += value
            beats.append(beat)
        expected.append(list(sums.values()))
    return beats, expected


def run_indexed(dut, terms, beats, **how):
    """As `run`; a gap keeps the contract that values are 0, with an index of its own."""
    lanes = len(beats[-1]["index"])
    gap = {"index": [1] * lanes, "last": 1} | {name: [0] * lanes for name, _ in terms}
    return run(dut, beats, gap=gap, **how)


@pytest.mark.parametrize("entries", [2, 3, 4, 8])
@pytest.mark.parametrize("lanes", [1, 2, 3, 4])
@pytest.mark.parametrize(("gap", "sink"), [(0.0, 1.0), (0.5, 0.5)])
def test_indexed_accumulate_groups_back_to_back(entries, lanes, gap, sink):
    rng = np.random.default_rng(lanes)
    dut = IndexedAccumulate(TERMS, entries=entries, lanes=lanes)
    least = entries * (len(TERMS) + dut.pause) + dut.latency
    lengths = [least, least + 31, least + 1, least + 60, least]
    beats, expected = indexed_case(rng, TERMS, entries, lanes, lengths, gap)
    words, dropped, _, waited = run_indexed(dut, TERMS, beats, sink=sink, seed=lanes)
    check(words, dropped, expected)
    if gap == 0.0:
        assert dropped == []
        assert waited[::entries] == [dut.latency] * len(lengths)


@pytest.mark.parametrize("stop", [False, True])
def test_indexed_accumulate_short_groups_and_slow_consumer(stop):
    terms = [("a", 5), ("b", 30)]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        dut = IndexedAccumulate(terms, entries=4, lanes=1 + seed % 2)
        lengths = [1, 1, 2, 1, 30, 1, 1, 3, 9, 1, 5, 60, 3, 1, 2, 2]
        beats, expected = indexed_case(rng, terms, 4, 1 + seed % 2, lengths, (0.0, 0.2)[seed % 2])
        words, dropped, _, _ = run_indexed(dut, terms, beats, sink=0.3, seed=8, busy_stops_last=stop)
        check(words, dropped, expected)
        assert (not dropped) == stop


def test_indexed_accumulate_before_the_first_beat():
    """What stands in the pipeline at reset adds to nothing."""
    dut = IndexedAccumulate([("a", 8)], entries=4)
    rng = np.random.default_rng(1)
    beats, expected = indexed_case(rng, [("a", 8)], 4, 1, [40, 3, 50], 0.0)
    junk = {"index": [2], "last": 1, "a": [77]}
    words, dropped, _, _ = run(dut, beats, sink=1.0, seed=0, start=9, gap=junk)
    assert 1 in dropped
    check(words, dropped, expected)


def test_indexed_accumulate_width():
    dut = IndexedAccumulate([("a", 5), ("b", 30)], entries=2, log2_count=3)
    low = {"last": 0, "index": [1], "a": [-16], "b": [-(1 << 29)]}
    high = {"last": 0, "index": [0], "a": [15], "b": [(1 << 29) - 1]}
    beats = [low] * 7 + [low | {"last": 1}] + [None] * 20 + [high] * 7 + [high | {"last": 1}]
    words, dropped, _, _ = run_indexed(dut, [("a", 5), ("b", 30)], beats, sink=1.0, seed=0)
    assert dropped == []
    assert words == [0, 0, -128, -(1 << 32), 120, (1 << 32) - 8, 0, 0]


def scatter_case(rng, dut, *, segments, lanes, channels, width, shared, lengths, gap):
    beats, expected = [], []
    for length in lengths:
        table = np.zeros((1 if shared else channels, segments + 1), dtype=object)
        walk = int(rng.integers(0, segments))
        for n in range(length):
            while rng.random() < gap:
                beats.append(None)
            beat = {"last": int(n == length - 1), "lane": []}
            for _ in range(lanes):
                entries = []
                for channel in range(channels):
                    # Repeats, alternations at every distance up to six, neighbours, noise.
                    pattern = n // 16 % 9
                    if pattern == 0:
                        index = walk
                    elif pattern < 7:
                        index = (walk + n % pattern) % segments
                    elif pattern == 7:
                        index = (walk + int(rng.integers(-1, 2))) % segments
                    else:
                        index = int(rng.integers(0, segments))
                    v0, v1 = extreme(rng, width), extreme(rng, width)
                    table[0 if shared else channel, index] += v0
                    table[0 if shared else channel, index + 1] += v1
                    entries.append({"index": index, "v0": v0, "v1": v1})
                beat["lane"].append(entries)
            beats.append(beat)
        expected.append(table.reshape(-1).tolist())
    return beats, expected


@pytest.mark.parametrize(
    ("segments", "lanes", "channels", "shared"),
    [
        (64, 1, 1, False),
        (8, 1, 3, False),
        (8, 1, 3, True),
        (8, 2, 3, False),
        (7, 2, 2, True),
        (2, 1, 2, False),
    ],
)
@pytest.mark.parametrize(("gap", "sink"), [(0.0, 1.0), (0.3, 0.5)])
def test_scatter_add(segments, lanes, channels, shared, gap, sink):
    shape = {"segments": segments, "lanes": lanes, "channels": channels, "shared": shared}
    dut = ScatterAdd(value_width=27, **shape)
    curve_words = dut.curves * (segments + 1)
    lengths = [150, curve_words + 20, 40 + curve_words, 300]
    rng = np.random.default_rng(segments + lanes)
    beats, expected = scatter_case(rng, dut, width=27, lengths=lengths, gap=gap, **shape)
    words, dropped, _, waited = run(dut, beats, sink=sink, seed=3, start=segments + 4)
    check(words, dropped, expected)
    if gap == 0.0:
        assert dropped == []
        assert set(waited) == {dut.latency}
    assert len(words) >= 2 * curve_words


@pytest.mark.parametrize("stop", [False, True])
def test_scatter_add_short_groups_and_slow_consumer(stop):
    shape = {"segments": 4, "lanes": 1, "channels": 2, "shared": False}
    dut = ScatterAdd(value_width=36, **shape)
    rng = np.random.default_rng(1)
    lengths = [1, 2, 1, 1, 40, 3, 60, 1, 1, 1, 1, 150, 90, 160, 150, 1]
    beats, expected = scatter_case(rng, dut, width=36, lengths=lengths, gap=0.1, **shape)
    words, dropped, _, _ = run(dut, beats, sink=0.3, seed=4, start=8, busy_stops_last=stop)
    check(words, dropped, expected)
    assert (not dropped) == stop
    assert len(words) >= 4 * 10


def test_scatter_add_too_early_after_reset():
    """A beat before the tables are cleared costs its group, and nothing else."""
    shape = {"segments": 8, "lanes": 1, "channels": 1, "shared": True}
    for early in (0, 5, 11):
        dut = ScatterAdd(value_width=20, **shape)
        rng = np.random.default_rng(early)
        beats, expected = scatter_case(rng, dut, width=20, lengths=[30, 40, 50], gap=0, **shape)
        words, dropped, _, _ = run(dut, beats, sink=1.0, seed=4, start=early)
        assert dropped == [0]
        check(words, dropped, expected)
    dut = ScatterAdd(value_width=20, **shape)
    beats, expected = scatter_case(rng, dut, width=20, lengths=[30, 40, 50], gap=0, **shape)
    words, dropped, _, _ = run(dut, beats, sink=1.0, seed=4, start=12)
    assert dropped == []
    check(words, dropped, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Accumulate([]), "no terms"),
        (lambda: Accumulate([("a", 8), ("a", 9)]), "term name 'a'"),
        (lambda: Accumulate([("last", 8)]), "term name 'last'"),
        (lambda: Accumulate([("a", 65)]), "term a has values of 65 bits"),
        (lambda: Accumulate([("a", 8)], lanes=0), "lanes 0"),
        (lambda: Accumulate([("a", 8)], width=65), "width 65"),
        (lambda: Accumulate([("a", 8)], log2_count=-1), "log2_count -1"),
        (lambda: IndexedAccumulate([], entries=4), "no terms"),
        (lambda: IndexedAccumulate([("a", 8), ("a", 9)], entries=4), "term name 'a'"),
        (lambda: IndexedAccumulate([("index", 8)], entries=4), "term name 'index'"),
        (lambda: IndexedAccumulate([("a", 65)], entries=4), "term a has values of 65 bits"),
        (lambda: IndexedAccumulate([("a", 8)], entries=1), "1 entries"),
        (lambda: IndexedAccumulate([("a", 8)], entries=9), "9 entries"),
        (lambda: IndexedAccumulate([("a", 8)], entries=4, lanes=0), "lanes 0"),
        (lambda: IndexedAccumulate([("a", 8)], entries=4, width=65), "width 65"),
        (lambda: IndexedAccumulate([("a", 8)], entries=4, log2_count=-1), "log2_count -1"),
        (lambda: ScatterAdd(value_width=8, shared=True, segments=1), "segments 1"),
        (lambda: ScatterAdd(value_width=8, shared=True, lanes=0), "lanes 0"),
        (lambda: ScatterAdd(value_width=8, shared=True, channels=0), "channels 0"),
        (lambda: ScatterAdd(value_width=0, shared=True), "value_width 0"),
        (lambda: ScatterAdd(value_width=8, shared=True, width=99), "width 99"),
        (lambda: ScatterAdd(value_width=8, shared=True, log2_count=-1), "log2_count -1"),
    ],
)
def test_bad_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
