# amaranth: UnusedElaboratable=no
"""Faults planted in the VJP rules and in the RTL, each caught by a check that passes without it.

The checks are tests of this repository, on a stimulus that is small and yet meets the fault; a fault replaces
a rule, a table, a component or one of its constants. Those of the golden model are planted next to its tests.
A fault counts as caught where an assertion of the check fails; any other exception is an error.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Const, Fragment, Module, Mux, Signal, Value
from amaranth.sim import Simulator

from pullback.rtl.isp import WhiteBalance
from pullback.rtl.kernel import (
    cut,
    decisions,
    differentiate,
    evaluate,
    lower,
    maximum,
    minimum,
    substitute,
    trace,
    vjp,
)
from pullback.rtl.kernel.primitives import arithmetic, table
from pullback.rtl.kernel.primitives.cut import Round, Saturate, clips
from pullback.rtl.kernel.primitives.select import Absolute, Extremum, Where, both, either, less, where
from pullback.rtl.kernel.primitives.source import Decision, Entry, EntryOfColour
from pullback.rtl.numeric import SQ
from pullback.rtl.pipeline import colour_entries
from pullback.rtl.pipeline.parameters import StageParameters
from pullback.rtl.stream import accumulate, fifo, indexed_accumulate, scatter, scatter_add, skid, window
from pullback.rtl.stream.enable import enables
from pullback.rtl.stream.feeder import Feeder
from pullback.rtl.stream.ram import DistributedRam

from .rtl.isp import test_kernels as kernels
from .rtl.kernel import test_decisions as taped
from .rtl.kernel import test_kernel as datapaths
from .rtl.pipeline import test_colour_entries as colours
from .rtl.stream import test_accumulate as sums
from .rtl.stream import test_feeder_window as windows
from .rtl.stream import test_fifo as fifos
from .rtl.stream import test_scatter as scatters
from .rtl.stream.formal import signal_of

# The VJP rules.


@functools.cache
def stage(name: str) -> Callable[[], None]:
    """A stage's kernel and pullback against the golden model: see `tests/rtl/isp`."""
    return lambda: kernels.test_kernel_is_golden(name, False, "mirror")


PIXELS: dict[str, tuple[Callable, Callable]] = {
    "absolute": (lambda a, b: abs(a), lambda a, b, g: (np.sign(a) * g, 0 * g)),
    "minimum": (lambda a, b: minimum(a, b), lambda a, b, g: ((a <= b) * g, (a > b) * g)),
    "maximum": (lambda a, b: maximum(a, b), lambda a, b, g: ((a >= b) * g, (a < b) * g)),
    "minus": (lambda a, b: -abs(a) - b, lambda a, b, g: (-np.sign(a) * g, -g)),
    "towards": (
        lambda a, b: cut(a, SQ(2, 0), "identity_if_towards") + b,
        lambda a, b, g: (np.where(a > 1, g > 0, np.where(a < -2, g < 0, True)) * g, g),
    ),
}
"""Kernels of one pixel ``y = f(a, b)``, and the cotangents of a and b that a cotangent g gives."""


@functools.cache
def pixel(name: str) -> Callable[[], None]:
    """Every pair of 4-bit codes under nine cotangents."""

    def check() -> None:
        function, pullback = PIXELS[name]
        kernel = trace(lambda x, t, s: {"y": function(x.a, x.b)},
                       channels={"a": SQ(4, 0), "b": SQ(4, 0)}, parameters={})  # fmt: skip
        taps = vjp(kernel.graph, kernel.outputs, {"y": SQ(4, 0)}).taps
        a, b, g = (
            np.array(axis) for axis in zip(*product(range(-8, 8), range(-8, 8), range(-4, 5)), strict=True)
        )
        sources = {"a_y0_x0": a, "b_y0_x0": b, "y_bar": g}
        for channel, expected in zip("ab", pullback(a, b, g), strict=True):
            node = taps.get((channel, 0, 0))
            found = 0 * g if node is None else np.asarray(evaluate([node], sources)[0])
            np.testing.assert_array_equal(found, expected if node is None else expected << node.f)

    return check


def replaced(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Plant ``owner.name = value``."""
    return lambda patch: patch.setattr(owner, name, value)


def rule(primitive: type, pulled: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    """Plant a VJP rule ``pulled(node, cotangent)``."""
    return replaced(primitive, "vjp", lambda self, node, cotangent: pulled(node, cotangent))


def sign_only_below(node, cotangent):
    """|a| with derivative 1 at 0."""
    return [where(less(node.arguments[0], 0), -cotangent, cotangent)]


def tie_to_the_second(self, node):
    a, b = node.arguments
    return less(b, a) if self.largest else less(a, b)


def blocked_above_only(self, node, cotangent):
    blocked = clips(node.arguments[0], self.format, "above")
    return where(blocked, node.graph.constant(0), cotangent)


def away_from_range(self, node, cotangent):
    """A descent step against the cotangent's sign."""
    (a,), zero = node.arguments, node.graph.constant(0)
    above = both(clips(a, self.format, "above"), less(zero, cotangent))
    below = both(clips(a, self.format, "below"), less(cotangent, zero))
    return where(either(above, below), zero, cotangent)


def into_the_left_knot(read, index, value):
    left = dataclasses.replace(read, base=read.base // 65 * 65)
    return TABLE_CONTRIBUTION(left, index, value)


TABLE_CONTRIBUTION = differentiate.TableContribution
COTANGENT = differentiate.Cotangent

VJP_FAULTS = {
    "sum: the second operand gets nothing": (rule(arithmetic.Add, lambda n, c: [c, None]), stage("bilinear")),
    "difference: the second operand keeps the sign": (
        rule(arithmetic.Sub, lambda n, c: [c, c]),
        stage("black_level"),
    ),
    "minus: the sign is lost": (rule(arithmetic.Neg, lambda n, c: [c]), pixel("minus")),
    "product: each operand is multiplied by itself": (
        rule(arithmetic.Mul, lambda n, c: [arithmetic.mul(c, a) for a in n.arguments]),
        stage("white_balance"),
    ),
    "product: the second operand gets nothing": (
        rule(arithmetic.Mul, lambda n, c: [arithmetic.mul(c, n.arguments[1]), None]),
        stage("white_balance"),
    ),
    "shift: the other way": (
        rule(arithmetic.Shift, lambda n, c: [arithmetic.shift(c, -n.primitive.k)]),
        stage("bilinear"),
    ),
    "selection: both branches get the cotangent": (
        rule(Where, lambda n, c: [None, c, c]),
        stage("bilinear"),
    ),
    "selection: the other branch gets it": (
        rule(
            Where,
            lambda n, c: [None, where(n.arguments[0], 0, c), where(n.arguments[0], c, 0)],
        ),
        stage("hamilton_adams_green"),
    ),
    "absolute: derivative 1 below 0": (rule(Absolute, lambda n, c: [c]), pixel("absolute")),
    "absolute: derivative 1 at 0": (rule(Absolute, sign_only_below), pixel("absolute")),
    "maximum: a tie goes to the second": (
        replaced(Extremum, "first", tie_to_the_second),
        pixel("maximum"),
    ),
    "minimum: a tie goes to the second": (
        replaced(Extremum, "first", tie_to_the_second),
        pixel("minimum"),
    ),
    "rounding: derivative 1/2": (rule(Round, lambda n, c: [arithmetic.shift(c, -1)]), stage("ccm")),
    "saturation: passes where it clips": (
        replaced(Saturate, "_passed", lambda self, node, cotangent: cotangent),
        stage("ccm"),
    ),
    "saturation: blocks above only": (replaced(Saturate, "_passed", blocked_above_only), stage("ccm")),
    "saturation: passes what leads away from range": (
        replaced(Saturate, "_passed", away_from_range),
        pixel("towards"),
    ),
    "fraction: derivative 0": (rule(table.Fraction, lambda n, c: [None]), stage("tone_curve")),
    "table: both knots' shares go to the left one": (
        replaced(differentiate, "TableContribution", into_the_left_knot),
        stage("tone_curve_per_channel"),
    ),
    "reverse sweep: the second use of a value is dropped": (
        replaced(differentiate, "total", lambda terms: terms[0]),
        stage("ccm"),
    ),
    "reverse sweep: every output has the first one's cotangent": (
        replaced(differentiate, "Cotangent", lambda form, channel: COTANGENT(form, "r")),
        stage("ccm"),
    ),
}

# The RTL.


def taps_of_a_window() -> None:
    """Every tap and trailing beat of three frames, mirrored, at every distance from the edges."""
    jobs = windows.make_jobs(np.random.default_rng(1), [(5, 4), (2, 3)])
    dut = windows.Dut(lanes=1, radius=1, border="mirror", trailing=windows.TRAIL)
    results = windows.simulate(
        dut, jobs, lanes=1, gap=windows.ragged, rough=True, trailing=windows.TRAIL, seed=7, limit=2000
    )
    for (frames, trails), (outputs, _) in zip(jobs, results, strict=True):
        windows.check_frames(
            outputs, frames, trails, lanes=1, radius=1, border="mirror", trailing=windows.TRAIL
        )


def transpose_of_a_window() -> None:
    """Scatter against the definition of the transpose, and the dot product with the Window's taps."""
    dut = scatters.Dut(lanes=1, radius=1, border="mirror", alone=False)
    scatters.run(dut, "mirror", [(5, 4), (2, 2)], False, scatters.uniform, 3)


def transpose_at_the_bound() -> None:
    """Scatter with all cotangents at the most negative code."""
    dut = scatters.Dut(lanes=1, radius=1, border="mirror", alone=True)
    scatters.run(dut, "mirror", [(3, 3)], False, scatters.lowest, 3)


BY_INDEX = indexed_accumulate.IndexedAccumulate


def never(prefix: str) -> Callable[..., list[Value]]:
    """`enables` of which those with a prefix stay 0."""

    def planted(m: Module, name: str, before: Value, count: int, **options: bool) -> list[Value]:
        return enables(m, name, Const(0) if name.startswith(prefix) else before, count, **options)

    return planted


CONTROLS = BY_INDEX._controls


def never_first(self, m: Module, lane: int, row: Value, first: Value) -> list:
    """Sums whose first value joins what was there."""
    return CONTROLS(self, m, lane, row, Const(0))


def sums_of_groups() -> None:
    """Accumulate against plain sums: three groups back to back."""
    dut = sums.Accumulate(sums.TERMS, log2_count=6)
    beats, expected = sums.accumulate_case(np.random.default_rng(2), sums.TERMS, 1, [30, 25, 40], 0.0)
    words, dropped, _, _ = sums.run(dut, beats, sink=1.0, seed=1)
    assert not dropped
    sums.check(words, dropped, expected)


def sums_by_index() -> None:
    """IndexedAccumulate against plain sums: repeats, alternations and noise among the indices."""
    terms = [("a", 20)]
    dut = sums.IndexedAccumulate(terms, entries=4, log2_count=8)
    beats, expected = sums.indexed_case(np.random.default_rng(4), terms, 4, 1, [150, 60, 90], 0.0)
    words, dropped, _, _ = sums.run_indexed(dut, terms, beats, sink=1.0, seed=1)
    assert not dropped
    sums.check(words, dropped, expected)


def sums_of_a_table() -> None:
    """ScatterAdd against plain sums: repeats, alternations and neighbours among the indices."""
    shape = {"segments": 8, "lanes": 1, "channels": 1, "shared": True}
    dut = sums.ScatterAdd(value_width=20, log2_count=8, **shape)
    rng = np.random.default_rng(3)
    beats, expected = sums.scatter_case(rng, dut, width=20, lengths=[150, 60], gap=0.0, **shape)
    words, dropped, _, _ = sums.run(dut, beats, sink=1.0, seed=1, start=12)
    assert not dropped
    sums.check(words, dropped, expected)


@functools.cache
def datapath(name: str) -> Callable[[], None]:
    """A scheduled datapath against the interpreter, its VJP included."""
    return lambda: datapaths.test_datapath_computes_the_graph(name, 175e6)


@functools.cache
def beats(name: str) -> Callable[[], None]:
    """A buffer against a list."""
    return lambda: fifos.test_same_beats_in_order(name, 0.9, 0.6)


def capacity() -> None:
    """A FIFO holds as many beats as it says."""
    fifos.test_holds_exactly_depth(7)


def capacity_of_a_tape() -> None:
    """A FIFO in block RAM does so too: a tape that holds less than its lines stops the pipeline for good."""
    fifos.test_holds_exactly_depth(65)


def entries_of_a_colour() -> None:
    """Two entries a colour, loaded from the bus."""
    colours.test_load_and_read(2)


def pipeline_into_a_flow_fifo() -> None:
    """Nothing overflows behind three clocks of pipeline."""
    fifos.test_room_stops_a_pipeline_in_time(9, 3)


def loaded_parameters() -> None:
    """Words of the load bus, the neighbours' included, against the entries they belong to."""
    dut = StageParameters(WhiteBalance(), 5)
    form = WhiteBalance.parameters["gain"].format
    entries = [dut.entry(Entry(form, "gain", k)) for k in range(4)]
    words = {address: 100 + address for address in range(3, 12)}

    async def bench(ctx):
        for address, word in words.items():
            ctx.set(dut.load.valid, 1)
            ctx.set(dut.load.address, address)
            ctx.set(dut.load.data, word)
            await ctx.tick()
        ctx.set(dut.load.valid, 0)
        await ctx.tick().repeat(3)
        assert [ctx.get(entry) for entry in entries] == [words[5 + k] for k in range(4)]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def with_table(cls: type, attribute: str, change: Callable[[dict], dict]):
    """The component with one of its border tables changed."""

    class Faulty(cls):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            setattr(self, attribute, change(getattr(self, attribute)))

    return Faulty


def repeats_the_edge(border: str, n: int, i: int) -> int | None:
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


def other_end(selections: dict) -> dict:
    """Situations at one edge are taken for those at the other: first and last line exchanged."""
    return {(after, before): row for (before, after), row in selections.items()}


def nearer_neighbour(selections: dict) -> dict:
    """At the first column the selection reads one neighbour too near."""
    return {
        key: tuple(s if s is None or s == k else s - 1 for k, s in enumerate(row)) if key[0] == 0 else row
        for key, row in selections.items()
    }


def no_fold(selections: dict) -> dict:
    """What taps beyond the first column or line read gets nothing from them."""
    return {
        key: tuple(s if s == k else None for k, s in enumerate(row)) if key[0] == 0 else row
        for key, row in selections.items()
    }


def with_elaborated(cls: type, change: Callable[[Any, Module], None]):
    """The component with a change to its module: the last assignment to a signal counts."""

    class Faulty(cls):
        def elaborate(self, platform) -> Module:
            m = super().elaborate(platform)
            change(self, m)
            return m

    return Faulty


def trailing_with_its_own_pixel(dut, m: Module) -> None:
    m.d.comb += dut.c.ready.eq(dut.i.ready & dut.i.valid)


def counts_wider(dut, m: Module) -> None:
    m.d.comb += m.submodules.raster.width.eq(dut.width + 1)


class LooksAtRamOnly(scatter_add._Bank):
    """The sums of the last four beats are not taken from the adder, though they are not in the RAM yet."""

    def elaborate(self, platform) -> Fragment:
        fragment = Fragment.get(super().elaborate(platform), platform)
        fragment.add_statements("comb", signal_of(fragment, "hits").eq(0))
        return fragment


class Carryless(indexed_accumulate._Half):
    """Half of the sums that hears of no carry."""

    def elaborate(self, platform) -> Module:
        self.carry_in = Const(0)
        return super().elaborate(platform)


def skips_a_register(dut, m: Module) -> None:
    if dut._depth > dut._distributed:
        m.d.comb += dut._prefetch.i.valid.eq(dut._reading[0])


def never_parks(dut, m: Module) -> None:
    m.d.sync += dut._ready.eq(1)


def room_late(dut, m: Module) -> None:
    """``room`` reaches the producer through one register more."""
    now, before = Signal(init=1), Signal(init=1)
    m.d.comb += now.eq((dut.level + 1 < dut._limit) | ((dut.level < dut._limit) & ~dut.i.valid))
    m.d.sync += [before.eq(now), dut.room.eq(before)]


def wraps_late(shape, depth):
    dut = fifo.Fifo(shape, depth)
    dut._read = fifo._Pointer(depth + 1)
    return dut


def no_restart(condition, a, b):
    """Accumulators whose next group joins the last."""
    return b if isinstance(a, int) else Mux(condition, a, b)


def backwards(patch: pytest.MonkeyPatch) -> None:
    original = StageParameters.elaborate

    def faulty(self, platform) -> Module:
        self._entries = dict(zip(self._entries, reversed(self._entries.values()), strict=True))
        return original(self, platform)

    patch.setattr(StageParameters, "elaborate", faulty)


class FirstRowOnly(DistributedRam):
    """A RAM whose write row is ignored."""

    def elaborate(self, platform) -> Module:
        self.write_row = Const(0, len(self.write_row))
        return super().elaborate(platform)


def with_the_next_entry(nodes, parameters):
    """Selections by colour that read entry k ^ 1."""
    changed = colour_entries.choose_by_colour(nodes, parameters)
    graph = next(iter(changed.values())).graph
    swapped = {
        node.index: graph.node(dataclasses.replace(node.primitive, k=node.primitive.k ^ 1))
        for node in list(graph.nodes)
        if isinstance(node.primitive, EntryOfColour)
    }
    return substitute(changed, swapped)


def delays(change: int) -> Callable[[pytest.MonkeyPatch], None]:
    class Faulty(lower.DelayLine):
        def __init__(self, shape, depth) -> None:
            super().__init__(shape, max(depth + change, 0))

    return replaced(lower, "DelayLine", Faulty)


def floors(self, lowering, node, a):
    return a >> node.arguments[0].f - self.f


def wraps_around(self, lowering, node, a):
    wrapped = a[: self.format.width]
    return wrapped.as_signed() if self.format.signed else wrapped


RTL_FAULTS = {
    "window: mirror repeats the edge": (
        replaced(window, "border_index", repeats_the_edge),
        taps_of_a_window,
    ),
    "window: first and last line exchanged": (
        replaced(windows, "Window", with_table(window.Window, "_rows", other_end)),
        taps_of_a_window,
    ),
    "window: first column reads one neighbour too near": (
        replaced(windows, "Window", with_table(window.Window, "_columns", nearer_neighbour)),
        taps_of_a_window,
    ),
    "feeder: the trailing beat comes with its own pixel": (
        replaced(windows, "Feeder", with_elaborated(Feeder, trailing_with_its_own_pixel)),
        taps_of_a_window,
    ),
    "scatter: no fold at the first column": (
        replaced(scatters, "Scatter", with_table(scatter.Scatter, "_columns", no_fold)),
        transpose_of_a_window,
    ),
    "scatter: no fold at the first line": (
        replaced(scatters, "Scatter", with_table(scatter.Scatter, "_rows", no_fold)),
        transpose_of_a_window,
    ),
    "scatter: the transpose of another border": (
        replaced(scatters, "Scatter", lambda *a, border, **o: scatter.Scatter(*a, border="replicate", **o)),
        transpose_of_a_window,
    ),
    "scatter: flags of a wider picture": (
        replaced(scatters, "Scatter", with_elaborated(scatter.Scatter, counts_wider)),
        transpose_of_a_window,
    ),
    "scatter: sums too narrow": (
        replaced(scatter, "_partial_reads", lambda table, radius, lanes: [1] * (2 * radius + lanes)),
        transpose_at_the_bound,
    ),
    "accumulate: sums too narrow": (
        replaced(sums, "Accumulate", lambda terms, log2_count: accumulate.Accumulate(terms, log2_count=1)),
        sums_of_groups,
    ),
    "accumulate: no restart between groups": (replaced(accumulate, "Mux", no_restart), sums_of_groups),
    "accumulate by index: sums too narrow": (
        replaced(sums, "IndexedAccumulate", lambda *a, **o: BY_INDEX(*a, **o | {"log2_count": 1})),
        sums_by_index,
    ),
    "accumulate by index: the sum of two beats before is read from the RAM": (
        replaced(indexed_accumulate, "enables", never("far_")),
        sums_by_index,
    ),
    "accumulate by index: the sum of the beat before is read from the RAM": (
        replaced(indexed_accumulate, "enables", never("near_")),
        sums_by_index,
    ),
    "accumulate by index: what the RAM holds is not added": (
        replaced(indexed_accumulate, "enables", never("stored_")),
        sums_by_index,
    ),
    "accumulate by index: a group adds to the one before": (
        replaced(BY_INDEX, "_controls", never_first),
        sums_by_index,
    ),
    "accumulate by index: no carry into the upper half": (
        replaced(indexed_accumulate, "_Half", Carryless),
        sums_by_index,
    ),
    "scatter-add: the last beats' sums are read from the RAM": (
        replaced(scatter_add, "_Bank", LooksAtRamOnly),
        sums_of_a_table,
    ),
    "scatter-add: entries too narrow": (
        replaced(sums, "ScatterAdd", lambda log2_count, **o: scatter_add.ScatterAdd(log2_count=0, **o)),
        sums_of_a_table,
    ),
    "fifo: the read row wraps late": (replaced(fifos, "Fifo", wraps_late), beats("five")),
    "fifo: a register of the block RAM skipped": (
        replaced(fifos, "Fifo", with_elaborated(fifo.Fifo, skips_a_register)),
        beats("block"),
    ),
    "fifo: one place missing": (
        replaced(fifos, "Fifo", lambda shape, depth: fifo.Fifo(shape, depth - 1)),
        capacity,
    ),
    "tape: one place missing": (
        replaced(fifos, "Fifo", lambda shape, depth: fifos.Tape(shape, depth - 1)),
        capacity_of_a_tape,
    ),
    "flow fifo: room a clock late": (
        replaced(fifos, "FlowFifo", with_elaborated(fifo.FlowFifo, room_late)),
        pipeline_into_a_flow_fifo,
    ),
    "flow fifo: room for one beat less than is in flight": (
        replaced(
            fifos, "FlowFifo", lambda shape, depth, in_flight: fifo.FlowFifo(shape, depth, in_flight - 1)
        ),
        pipeline_into_a_flow_fifo,
    ),
    "skid buffer: forgets": (
        replaced(fifos, "SkidBuffer", with_elaborated(skid.SkidBuffer, never_parks)),
        beats("skid"),
    ),
    "cut: rounds down": (replaced(Round, "lower", floors), datapath("cut inside")),
    "cut: wraps around": (replaced(Saturate, "lower", wraps_around), datapath("cut inside")),
    "datapath: delay lines one clock short": (delays(-1), datapath("product")),
    "datapath: delay lines one clock long": (delays(1), datapath("product")),
    "multiplier: thought a clock quicker": (replaced(arithmetic.Mul, "latency", 2), datapath("product")),
    "parameters: loaded backwards": (backwards, loaded_parameters),
    "entries of a colour: all in the first colour's row": (
        replaced(colour_entries, "DistributedRam", FirstRowOnly),
        entries_of_a_colour,
    ),
    "entries of a colour: a neighbour's": (
        replaced(colours, "choose_by_colour", with_the_next_entry),
        colours.test_selections_by_colour_become_one_source,
    ),
    "decisions: one for all": (
        replaced(decisions, "Decision", lambda form, condition: Decision(form, "any")),
        lambda: taped.test_pullback_with_decisions_from_the_tape("filter_bank"),
    ),
}

FAULTS = VJP_FAULTS | RTL_FAULTS


@functools.cache
def passes_unbroken(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault, monkeypatch):
    """The check passes; with the fault it fails."""
    plant, check = FAULTS[fault]
    passes_unbroken(check)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
