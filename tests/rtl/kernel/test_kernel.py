"""The kernel: exact ranges, rules of the primitives, and a datapath that computes what the graph says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.rtl.kernel import (
    Datapath,
    Parameter,
    cut,
    evaluate,
    jvp,
    maximum,
    minimum,
    segment,
    select,
    total,
    trace,
    vjp,
    where,
)
from pullback.rtl.kernel.primitives.source import Entry, Tap
from pullback.rtl.numeric import SQ, UQ

X = {"a": SQ(2, 4), "b": UQ(1, 5)}
THETA = {"w": Parameter(2, SQ(1, 5), (0.5,), "weights")}


def _traced(function, parameters=THETA, radius=0):
    return trace(lambda x, theta, site: {"y": function(x, theta, site)}, channels=X, parameters=parameters,
                 radius=radius)  # fmt: skip


KERNELS = {
    "add": lambda x, t, s: x.a + x.b,
    "subtract": lambda x, t, s: x.b - x.a - t["w", 0],
    "negate": lambda x, t, s: -(x.a + t["w", 1]),
    "constant factor": lambda x, t, s: x.a * 0.40625 - 7 * x.b,
    "product": lambda x, t, s: x.a * t["w", 0] + x.b * t["w", 1],
    "shifts": lambda x, t, s: (x.a << 3) + (x.b >> 2),
    "where": lambda x, t, s: where(x.a < x.b, x.a + t["w", 0], x.b * t["w", 1]),
    "minimum": lambda x, t, s: minimum(x.a, x.b) + minimum(x.b, x.a * 2),
    "maximum": lambda x, t, s: maximum(x.a, x.b + t["w", 0]),
    "absolute": lambda x, t, s: abs(x.a - x.b) + abs(x.a),
    "select": lambda x, t, s: select(s.colour, [x.a, x.b, x.a + x.b, t["w", 0]]),
    "select folded": lambda x, t, s: select(s.colour, [x.a, x.b, x.a, x.b]) * t["w", 0],
    "logic": lambda x, t, s: where((x.a < x.b) & ~(x.b <= t["w", 0]) | (x.a > 1), x.a, x.b),
    "cut inside": lambda x, t, s: cut(x.a * x.b, SQ(1, 3)) + cut(x.a, SQ(3, 6)),
    "cut identity": lambda x, t, s: cut(x.a * 3 + x.b, SQ(2, 2), "identity"),
    "shared": lambda x, t, s: (x.a + x.b) * t["w", 0] + (x.b + x.a) * t["w", 1],
}


def _all_codes():
    """Every pair of input codes, each with three parameter settings and every colour."""
    pairs = list(itertools.product(range(X["a"].lo, X["a"].hi + 1), range(X["b"].lo, X["b"].hi + 1)))
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    for (w0, w1), colour in itertools.product(((-32, 31), (0, 5), (17, -8)), range(4)):
        yield {"a_y0_x0": a, "b_y0_x0": b, "w_0": w0, "w_1": w1, "site_colour": colour}


@pytest.mark.parametrize("name", KERNELS)
def test_ranges_hold_everything(name):
    """Exhaustive: no code leaves the range that was derived for it (the interpreter checks every node)."""
    kernel = _traced(KERNELS[name])
    for sources in _all_codes():
        evaluate(list(kernel.outputs.values()), sources)


@pytest.mark.parametrize("name", KERNELS)
def test_vjp_is_the_transpose_of_jvp(name):
    """``<J v, w> == <v, J^T w>`` in integers, at every input code (T1 of one pixel)."""
    kernel = _traced(KERNELS[name])
    graph, outputs = kernel.graph, kernel.outputs
    pullback = vjp(graph, outputs, {"y": SQ(9, 0)})
    tangent = jvp(graph, outputs, SQ(9, 0), along={Tap, Entry}).outputs["y"]
    rng = np.random.default_rng(len(name))
    for sources in _all_codes():
        v = {f"{label}_dot": int(rng.integers(-99, 100)) for label in ("a_y0_x0", "b_y0_x0", "w_0", "w_1")}
        w = int(rng.integers(-99, 100))
        values = sources | v | {"y_bar": w}
        nodes = [*pullback.taps.values(), *pullback.entries.values()]
        labels = [f"{c}_y0_x0" for c, _, _ in pullback.taps] + [f"{n}_{k}" for n, k in pullback.entries]
        f = max([node.f for node in nodes] + ([] if tangent is None else [tangent.f]))
        pulled = sum(
            (np.asarray(code, dtype=object) << (f - node.f)) * v[f"{label}_dot"]
            for label, node, code in zip(labels, nodes, evaluate(nodes, values), strict=True)
        )
        pushed = 0
        if tangent is not None:
            pushed = (np.asarray(evaluate([tangent], values)[0], dtype=object) << (f - tangent.f)) * w
        assert np.all(np.asarray(pulled - pushed) == 0)


@pytest.mark.parametrize("clock", [40e6, 175e6, 400e6], ids=["slow", "target", "a register per step"])
@pytest.mark.parametrize("name", KERNELS)
def test_datapath_computes_the_graph(name, clock):
    """The scheduled hardware equals the interpreter, whatever the clock puts between its registers."""
    kernel = _traced(KERNELS[name])
    pullback = vjp(kernel.graph, kernel.outputs, {"y": SQ(4, 6)})
    nodes = dict(kernel.outputs)
    nodes |= {f"{c}_bar": node for (c, _, _), node in pullback.taps.items()}
    nodes |= {f"{n}_{k}_bar": node for (n, k), node in pullback.entries.items()}
    datapath = Datapath(nodes, clock=clock)
    rng = np.random.default_rng(1)
    stimulus = [
        {
            "a_y0_x0": int(rng.integers(X["a"].lo, X["a"].hi + 1)),
            "b_y0_x0": int(rng.integers(X["b"].lo, X["b"].hi + 1)),
            "site_colour": int(rng.integers(4)),
            "y_bar": int(rng.integers(-512, 512)),
        }
        for _ in range(60)
    ]
    parameters = {"w_0": -32, "w_1": 13}
    seen = []

    async def bench(ctx):
        for label, code in parameters.items():
            if label in datapath.inputs:
                ctx.set(datapath.inputs[label], code)
        for sources in [*stimulus, *stimulus[: datapath.latency + 1]]:
            for label, code in sources.items():
                if label in datapath.inputs:
                    ctx.set(datapath.inputs[label], code)
            seen.append({n: ctx.get(s) for n, s in datapath.outputs.items()})
            await ctx.tick()

    module = Module()
    module.submodules.datapath = datapath
    # A purely combinational datapath has no clock of its own, and the bench needs one.
    module.d.sync += Signal(name="clocked").eq(1)
    simulator = Simulator(module)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    for t, sources in enumerate(stimulus):
        expected = dict(zip(nodes, evaluate(list(nodes.values()), sources | parameters), strict=True))
        found = seen[t + datapath.latency]
        assert found == {n: int(code) for n, code in expected.items()}, (t, sources)


def test_a_faster_clock_takes_more_registers():
    """Latency follows from the clock; a clock that leaves no time is refused."""
    kernel = _traced(KERNELS["cut inside"])
    slow, fast = (Datapath(kernel.outputs, clock=clock).latency for clock in (40e6, 400e6))
    assert slow < fast
    with pytest.raises(ValueError, match="900 MHz"):
        Datapath(kernel.outputs, clock=900e6)


def test_equal_subexpressions_are_one_node():
    """``a + b`` and ``b + a`` are computed once, and a shared factor takes one multiplier each."""
    kernel = _traced(KERNELS["shared"])
    live = kernel.graph.live(list(kernel.outputs.values()))
    assert sum(node.primitive.mnemonic == "product" for node in live) == 2
    assert sum(node.primitive.mnemonic == "sum" for node in live) == 2


def test_constants_fold_and_cost_no_multiplier():
    """Constant factors are shifts and adds of their canonical signed digits: 15/16 is one subtraction."""
    kernel = _traced(lambda x, t, s: x.a * (15 / 16))
    live = kernel.graph.live(list(kernel.outputs.values()))
    assert [node.primitive.mnemonic for node in live if node.primitive.mnemonic not in ("tap", "shift")] == [
        "difference"
    ]
    folded = _traced(lambda x, t, s: x.a + total([x.b * 0, x.b - x.b]) * 3)
    assert folded.outputs["y"].primitive.mnemonic == "tap"


def test_branches_of_one_selection_send_back_a_selection():
    """Reverse mode adds what branches send back; where they exclude each other no adder is left."""
    kernel = _traced(KERNELS["select folded"])
    pullback = vjp(kernel.graph, kernel.outputs, {"y": SQ(2, 6)})
    live = kernel.graph.live(list(pullback.taps.values()))
    assert not any(node.primitive.mnemonic == "sum" for node in live)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(1 << 30), (1 << 30)), st.integers(0, 12), st.integers(2, 12), st.booleans())
def test_cut_rounds_half_up_and_saturates(code, drop, width, signed):
    """Against the definition in rationals: floor(v + 1/2), limited."""
    from fractions import Fraction
    from math import floor

    form = SQ(width, 0) if signed else UQ(width, 0)
    kernel = trace(lambda x, t, s: {"y": cut(x.v, form)}, channels={"v": SQ(32 - drop, drop)}, parameters={})
    (found,) = evaluate([kernel.outputs["y"]], {"v_y0_x0": code})
    assert int(found) == min(max(floor(Fraction(code, 1 << drop) + Fraction(1, 2)), form.lo), form.hi)


@pytest.mark.parametrize("code, cotangent, passes", [
    (200, 5, True), (200, -5, False), (200, 0, False),  # above: only a positive cotangent leads back
    (-200, -5, True), (-200, 5, False), (-200, 0, False),
    (3, 5, True), (3, -5, True),
])  # fmt: skip
def test_identity_if_towards(code, cotangent, passes):
    """A clipped value passes the cotangent only if a descent step would bring it back into range."""
    kernel = trace(lambda x, t, s: {"y": cut(x.v, SQ(5, 0), "identity_if_towards")},
                   channels={"v": SQ(10, 0)}, parameters={})  # fmt: skip
    pullback = vjp(kernel.graph, kernel.outputs, {"y": SQ(8, 0)})
    (found,) = evaluate(list(pullback.taps.values()), {"v_y0_x0": code, "y_bar": cotangent})
    assert int(found) == (cotangent if passes else 0)


def test_curve_reads_its_two_knots():
    """Segment, fraction and reads: the value at a knot is the knot, between knots the chord."""
    parameters = {"k": Parameter(5, UQ(1, 5), (0.0,), "knots", table=5)}

    def curve(x, theta, site):
        s, t = segment(x.b >> 1, 4)
        low, high = theta.knots("k", 0, s)
        return {"y": low + (high - low) * t}

    kernel = trace(curve, channels=X, parameters=parameters)
    knots = [3, 9, 9, 1, 31]
    x = np.arange(64)
    (found,) = evaluate([kernel.outputs["y"]], {"b_y0_x0": x}, {"k": knots})
    real = np.interp(x / 64 * 4, np.arange(5), np.array(knots) / 32)
    assert np.array_equal(np.asarray(found) * 2.0 ** -kernel.outputs["y"].f, real)


@pytest.mark.parametrize("function, message", [
    (lambda x, t, s: x.a if x.a < x.b else x.b, "use where"),
    (lambda x, t, s: x.c, "no channel 'c'"),
    (lambda x, t, s: x.at("a", 0, 1), "outside a window of radius 0"),
    (lambda x, t, s: t["v", 0], "no parameter 'v'"),
    (lambda x, t, s: t["w", 2], "entry 2"),
    (lambda x, t, s: t.knots("w", 0, x.b), r'theta\["w", index\]'),
    (lambda x, t, s: (x.a << 0) * t["w", 0] * ((x.a * x.b) * (x.a * x.b)), "multiplier takes 18"),
    (lambda x, t, s: select(s.colour, [x.a, x.b, x.a]), "power of two"),
    (lambda x, t, s: segment(x.a, 4)[0], "may be negative"),
])  # fmt: skip
def test_mistakes_are_named(function, message):
    """What a kernel's author gets wrong is said in one sentence."""
    with pytest.raises((ValueError, TypeError), match=message):
        _traced(function)
