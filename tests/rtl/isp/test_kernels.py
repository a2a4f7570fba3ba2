"""Kernels of the ISP's stages, interpreted, against the golden models: values, cotangents, tangents.

No hardware here: what fails in this file is arithmetic. The window and its transpose are stood in for by
explicit index arithmetic.
"""

from __future__ import annotations

import numpy as np
import pytest

from pullback.rtl.isp import isp
from pullback.rtl.kernel import cut, evaluate
from pullback.rtl.kernel.primitives.source import Entry
from pullback.rtl.pipeline.pipeline import Pipeline
from pullback.rtl.stream.window import BORDERS, border_index
from pullback.sim.golden.pipeline import isp as golden_isp
from pullback.sim.golden.stage import Frame

H, W = 7, 6
CASES = [(d, c) for d in ("bilinear", "hamilton_adams", "filter_bank") for c in ("shared", "per_channel")]


def _stages():
    seen = {}
    for demosaic, curve in CASES:
        pipeline: Pipeline = isp(demosaic, curve=curve)
        golden = golden_isp(demosaic, curve=curve)
        for index, (stage, model) in enumerate(zip(pipeline, golden.stages, strict=True)):
            key = stage.name + ("" if curve == "shared" else "_per_channel")
            seen.setdefault(key, (stage, model, pipeline.output_cotangent(index)))
    return seen


STAGES = _stages()


def _random(rng, form, shape):
    """Codes of a format: uniform, with the extremes and zero mixed in."""
    codes = rng.integers(form.lo, form.hi + 1, size=shape)
    special = rng.choice([form.lo, form.hi, 0 if form.lo <= 0 <= form.hi else form.lo], size=shape)
    return np.where(rng.random(shape) < 0.3, special, codes)


def _indices(border, radius):
    """Row and column that every tap reads, and whether it reads a pixel at all: [2r+1, 2r+1, H, W]."""
    rows, columns, real = (np.zeros((2 * radius + 1, 2 * radius + 1, H, W), int) for _ in range(3))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            for y in range(H):
                for x in range(W):
                    row, column = border_index(border, H, y + dy), border_index(border, W, x + dx)
                    at = (radius + dy, radius + dx, y, x)
                    if row is not None and column is not None:
                        rows[at], columns[at], real[at] = row, column, 1
    return rows, columns, real


def _sources(stage, x, theta, cfa, bypass, border):
    y, column = np.mgrid[0:H, 0:W]
    colour = ((y & 1) ^ (cfa >> 1)) * 2 + ((column & 1) ^ (cfa & 1))
    values = {"site_colour": colour, "bypass": int(bypass)}
    rows, columns, real = _indices(border, stage.radius)
    for c, channel in enumerate(stage.i.names):
        for dy in range(-stage.radius, stage.radius + 1):
            for dx in range(-stage.radius, stage.radius + 1):
                at = stage.radius + dy, stage.radius + dx
                name = "".join(f"_{axis}{'m' if k < 0 else 'p' if k else ''}{abs(k)}"
                               for axis, k in (("y", dy), ("x", dx)))  # fmt: skip
                values[f"{channel}{name}"] = x[c][rows[at], columns[at]] * real[at]
    for name, codes in theta.items():
        values |= {f"{name}_{k}": int(code) for k, code in enumerate(codes)}
    return values


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("bypass", [False, True], ids=["active", "bypassed"])
@pytest.mark.parametrize("name", STAGES)
def test_kernel_is_golden(name, bypass, border):
    """Forward codes, saturation counts, exact input cotangents and parameter cotangents, all CFA phases."""
    stage, model, cotangent = STAGES[name]
    if stage.radius == 0 and border != "mirror":
        return  # pointwise: no border is read
    graph = stage.trace()
    pullback = graph.pullback(dict.fromkeys(stage.o.names, cotangent))
    clipped = 0
    for cfa in range(4):
        rng = np.random.default_rng([cfa, bypass, len(name)])
        x = np.stack([_random(rng, form, (H, W)) for _, form in stage.i.channels])
        theta = {n: _random(rng, p.format, p.entries) for n, p in stage.parameters.items()}
        ybar = np.stack([_random(rng, cotangent, (H, W)) for _ in stage.o.channels])
        frame = Frame(cfa=cfa, border=border, bypass=frozenset([stage.name] if bypass else []))
        sources = _sources(stage, x, theta, cfa, bypass, border)
        sources |= {f"{channel}_bar": ybar[c] for c, channel in enumerate(stage.o.names)}
        tables = {n: theta[n] for n, p in stage.parameters.items() if p.table}

        wanted = [*graph.outputs.values(), *pullback.taps.values(), *pullback.entries.values()]
        wanted += [node for t in pullback.tables for node in (t.index, t.value)]
        wanted += [graph.saturated] if graph.saturated is not None else []
        codes = {
            node.index: np.broadcast_to(code, (H, W))
            for node, code in zip(wanted, evaluate(wanted, sources, tables), strict=True)
        }

        forward = model.forward(x, theta, frame)
        np.testing.assert_array_equal(
            np.stack([codes[o.index] for o in graph.outputs.values()]), forward.code
        )
        count = int(codes[graph.saturated.index].sum()) if graph.saturated is not None else 0
        assert count == int(forward.clipped.sum())
        clipped += count

        expected = model.vjp(x, theta, frame, ybar)
        xbar = np.zeros(x.shape, dtype=np.int64)
        rows, columns, real = _indices(border, stage.radius)
        for (channel, dy, dx), node in pullback.taps.items():
            at = stage.radius + dy, stage.radius + dx
            value = codes[node.index] * real[at]
            c = stage.i.names.index(channel)
            assert node.f <= expected.f
            np.add.at(xbar[c], (rows[at], columns[at]), value << (expected.f - node.f))
        np.testing.assert_array_equal(xbar, expected.xbar)

        for parameter, declared in stage.parameters.items():
            fraction = model.parameters[parameter].f
            total = np.zeros(declared.entries, dtype=np.int64)
            for (owner, k), node in pullback.entries.items():
                if owner == parameter:
                    total[k] += int(codes[node.index].sum()) << (fraction - node.f)
            for contribution in pullback.tables:
                if contribution.read.parameter == parameter:
                    shifted = codes[contribution.value.index] << (fraction - contribution.value.f)
                    np.add.at(total, contribution.read.base + codes[contribution.index.index], shifted)
            np.testing.assert_array_equal(total, expected.thetabar[parameter])
    if stage.name in ("white_balance", "filter_bank", "ccm", "tone_curve") and not bypass:
        assert clipped, "the stimulus never reached a saturation"


@pytest.mark.parametrize("name", STAGES)
def test_fractions_agree(name):
    """The units of parameter cotangents that the RTL derives are those of the golden model."""
    stage, model, _ = STAGES[name]
    for demosaic, curve in CASES:
        pipeline = isp(demosaic, curve=curve)
        for index, other in enumerate(pipeline):
            if type(other) is type(stage):
                fractions = pipeline.gradient_fractions(index)
                assert fractions == {n: p.f for n, p in model.parameters.items()}


def test_a_cut_narrower_than_its_input_is_seen():
    """The comparison above fails if a kernel rounds down instead of half up: a planted fault."""
    stage, model, _ = STAGES["ccm"]
    rng = np.random.default_rng(0)
    x = np.stack([_random(rng, form, (H, W)) for _, form in stage.i.channels])
    theta = {n: _random(rng, p.format, p.entries) for n, p in stage.parameters.items()}
    graph = stage.trace()
    half = 2.0 ** -(stage.o.channels[0][1].f + 1)
    lowered = [
        cut(o.arguments[0].arguments[0] - half, form)
        for o, (_, form) in zip(graph.outputs.values(), stage.o.channels, strict=True)
    ]
    outputs = evaluate(lowered, _sources(stage, x, theta, 0, False, "mirror"), {})
    assert not np.array_equal(np.stack(outputs), model.forward(x, theta, Frame(cfa=0)).code)
    assert any(isinstance(node.primitive, Entry) for node in graph.graph.nodes)
