"""Cores of the whole ISP, simulated by Verilator, against the golden model, bit for bit.

One test a build: pictures, input gradients and every result word; 4 CFA orders, 4 losses, bypasses, sizes from
one pixel on, groups of frames, all streams stalling, frames back to back; saturation on both sides of every cut.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from pullback.sim.bench.coverage import Coverage
from pullback.sim.generated import generated
from pullback.sim.model import Model
from pullback.sim.stalls import ALTERNATING, BURSTS, LONG, NONE

DEMOSAICS = ("bilinear", "hamilton_adams", "filter_bank")
BORDERS = ("mirror", "replicate", "zero")
CURVES = ("shared", "per_channel")

# Every demosaicker, border, lane count and curve, and every pair of demosaicker with border and lanes.
QUICK = [
    ("bilinear", "mirror", 1, "per_channel"),
    ("bilinear", "zero", 2, "shared"),
    ("hamilton_adams", "replicate", 1, "shared"),
    ("hamilton_adams", "mirror", 2, "shared"),
    ("filter_bank", "zero", 1, "shared"),
    ("filter_bank", "replicate", 2, "per_channel"),
]
ALL = [(d, b, p, CURVES[(i + p) % 2]) for i, (d, b, p) in enumerate(product(DEMOSAICS, BORDERS, (1, 2)))]
REST = [build for build in ALL if build[:3] not in [quick[:3] for quick in QUICK]]

SIZES = [(2, 2), (1, 1), (1, 7), (6, 1), (3, 2), (5, 4), (7, 9), (2, 11), (16, 15), (33, 20), (48, 64)]
STALLS = {"none": NONE, "bursts": BURSTS, "alternating": ALTERNATING, "long": LONG}
NEVER = {
    # What cannot happen, by range: a difference of unsigned codes fits; averages stay inside; a curve of
    # non-negative knots is not negative; the black level passes its cotangent in the same format.
    "black_level below", "black_level above", "black_level.cotangent below", "black_level.cotangent above",
    "bilinear below", "bilinear above", "tone_curve below",
}  # fmt: skip


def _run(cases, demosaic, border, lanes, curve):
    sources, ports = generated(
        f"isp {demosaic} {border} {lanes} {curve} 64",
        lambda: cases.isp_core(demosaic, border, lanes, curve)[0],
    )
    golden = cases.isp_core(demosaic, border, lanes, curve)[1]
    model = Model.build(sources, ports=ports, optimise="quick")
    cuts = [f"{name}{what} {side}" for name in golden.names for what in ("", ".cotangent")
            for side in ("below", "above")]  # fmt: skip
    coverage = Coverage({
        "cfa": range(4), "loss": cases.KINDS, "stalls": STALLS, "size": SIZES, "depth": (8, 10, 12, 16),
        "frames per group": (1, 3), "bypass": ("none", "all", *golden.names),
        "clipped": [c for c in cuts if c not in NEVER],
    })  # fmt: skip
    bypasses = [(), (), (), *((name,) for name in golden.names), tuple(golden.names)]
    # Every size with every loss; phase, stalls, bypass, depth and group size turn at their own pace.
    for n, (size, kind) in enumerate(product(SIZES, cases.KINDS)):
        cfa, bypass = (n + n // 4) % 4, bypasses[n % len(bypasses)]
        stall = list(STALLS)[(n + n // 4) % 4]
        depth, frames = (8, 10, 12, 16)[n // 3 % 4], (1, 3)[n % 5 == 0]
        spread = (0.02, 0.3)[n % 2]
        case = cases.isp_case(golden, height=size[0], width=size[1], count=3, cfa=cfa, depth=depth, bypass=bypass,
                              kind=kind, frames=frames, spread=spread, seed=n)  # fmt: skip
        label = (
            f"{size} {kind} cfa={cfa} bypass={bypass} stalls={stall} depth={depth} frames={frames} seed={n}"
        )
        model.load_parameters(case.words)
        run = model.run(case.raw, stalls=STALLS[stall], seed=n, **case.inputs)
        np.testing.assert_array_equal(run.picture, case.expected.picture, err_msg=f"picture: {label}")
        np.testing.assert_array_equal(run.gradient, case.expected.gradient, err_msg=f"gradient: {label}")
        for found, expected in zip(run.results.tolist(), case.expected.results, strict=True):
            wrong = [
                (name, e, f)
                for name, e, f in zip(golden.result_names(), expected, found, strict=True)
                if e != f
            ]
            assert not wrong, f"{label}: (word, expected, found) {wrong[:5]}"
        assert model.errors == 0, label
        met = {
            "cfa": cfa,
            "loss": kind,
            "stalls": stall,
            "size": size,
            "depth": depth,
            "frames per group": frames,
        }
        for group, name in met.items():
            coverage.hit(group, name)
        for name in bypass if len(bypass) < 2 else ("all",):
            coverage.hit("bypass", name)
        if not bypass:
            coverage.hit("bypass", "none")
        for name in case.expected.bins:
            coverage.hit("clipped", name)
    print(coverage.report())
    coverage.require_full()


@pytest.mark.parametrize("build", QUICK, ids=lambda b: "-".join(map(str, b)))
def test_core_is_golden(cases, build):
    """The builds of every run."""
    _run(cases, *build)


@pytest.mark.slow
@pytest.mark.parametrize("build", REST, ids=lambda b: "-".join(map(str, b)))
def test_every_core_is_golden(cases, build):
    """The other combinations of demosaicker, border and lanes."""
    _run(cases, *build)
