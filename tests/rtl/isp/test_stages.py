"""Each stage alone, as a core, on Icarus and on Verilator, against its golden model, bit for bit.

One set of bodies: the cocotb bench streams frames back to back with stalls on every stream and compares picture,
input gradient and result words.
"""

from __future__ import annotations

import numpy as np
import pytest

from pullback.rtl.isp import (
    CCM,
    Bilinear,
    BlackLevel,
    FilterBank,
    HamiltonAdamsChroma,
    HamiltonAdamsGreen,
    ToneCurve,
    WhiteBalance,
)
from pullback.rtl.pipeline.core import container
from pullback.rtl.stream.window import BORDERS
from pullback.sim.bench.core import Job, check_core
from pullback.sim.bench.coverage import Coverage
from pullback.sim.bench.runner import SIMULATORS
from pullback.sim.generated import generated
from pullback.sim.golden.pipeline import isp as golden_isp
from pullback.sim.stalls import BURSTS, NONE

STAGES = {
    stage().name: stage
    for stage in (
        BlackLevel, WhiteBalance, Bilinear, FilterBank, HamiltonAdamsGreen, HamiltonAdamsChroma, CCM, ToneCurve,
    )
}  # fmt: skip

# Stage, border, lanes: every stage, and over them every border and lane count.
QUICK = [
    ("black_level", "mirror", 1),
    ("white_balance", "mirror", 2),
    ("bilinear", "replicate", 1),
    ("filter_bank", "mirror", 1),
    ("hamilton_adams_green", "zero", 1),
    ("hamilton_adams_chroma", "mirror", 2),
    ("ccm", "mirror", 1),
    ("tone_curve", "mirror", 2),
]
# Every stage with both lane counts and, where it has a window, with every border.
ALL = [
    (name, border, lanes)
    for name, stage in STAGES.items()
    for border in (BORDERS if stage.radius else BORDERS[:1])
    for lanes in (1, 2)
]
SIZES = [(2, 2), (5, 6), (1, 3), (7, 9), (3, 1), (6, 5), (3, 3), (5, 7)]
LARGE = [(16, 21), (48, 64)]
# Cuts that cannot saturate, by range: a difference of unsigned codes fits; averages stay inside; a curve of
# non-negative knots is not negative; the black level passes its cotangent in the same format.
IMPOSSIBLE = {
    "black_level below", "black_level above", "black_level.cotangent below", "black_level.cotangent above",
    "bilinear below", "bilinear above", "tone_curve below",
}  # fmt: skip
# What takes cotangents larger than the +-2 of a core's output; the cores of the whole ISP are made to reach it.
NOT_ALONE = {"bilinear.cotangent", "hamilton_adams_green.cotangent", "hamilton_adams_chroma.cotangent"}


def _golden(name, border):
    for demosaic in ("bilinear", "hamilton_adams", "filter_bank"):
        for stage in golden_isp(demosaic, border=border).stages:
            if stage.name == name:
                return stage
    raise AssertionError(f"no golden model of {name}")


def _check(cases, name, border, lanes, simulator, sizes):
    """All CFA phases, bypass, saturation on both sides; three frames each, as one group back to back without a gap
    or with stalls on every stream, or as groups of one, whose results are read while the next frame runs."""
    core = cases.stage_core(STAGES[name](), border, lanes)
    sources, _ = generated(f"stage {name} {border} {lanes} 64", lambda: core)
    golden = _golden(name, border)
    cuts = [cut for cut in (name, f"{name}.cotangent") if cut not in NOT_ALONE]
    sides = {f"{cut} {side}" for cut in cuts for side in ("below", "above")} - IMPOSSIBLE
    bins = {"cfa": range(4), "bypass": (False, True), "flow": ("no gap", "stalls", "groups")}
    coverage = Coverage(bins | ({"clipped": sorted(sides)} if sides else {}))
    jobs = []
    for n, (height, width) in enumerate(sizes):
        cfa, bypass, flow = (n + n // 4) % 4, n == 5, ("no gap", "stalls", "groups")[n % 3]
        case = cases.stage_case(
            golden, core.map, height=height, width=width, border=border, cfa=cfa,
            bypass=bypass, frames=1 if flow == "groups" else 3, spread=(0.02, 1)[n % 4 > 1], seed=n,
        )  # fmt: skip
        expected = case.expected
        signed = expected.picture.min() < 0 and container(core.pipeline.o) == 16
        picture = expected.picture & 0xFFFF if signed else expected.picture
        jobs.append(Job(
            words=case.words, raw=case.raw, **case.inputs, picture=picture, gradient=expected.gradient,
            results=np.array(expected.results), lanes=lanes, seed=n, stalls=BURSTS if flow == "stalls" else NONE,
            containers={"raw": container(core.pipeline.i), "picture": container(core.pipeline.o),
                        "target": container(core.pipeline.o)},
        ))  # fmt: skip
        for group, met in {"cfa": cfa, "bypass": bypass, "flow": flow}.items():
            coverage.hit(group, met)
        assert not expected.bins & IMPOSSIBLE
        for met in expected.bins & sides:
            coverage.hit("clipped", met)
    check_core(sources, jobs, simulator)
    print(coverage.report())
    coverage.require_full()


@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("build", QUICK, ids=lambda b: "-".join(map(str, b)))
def test_stage_is_golden(cases, build, simulator):
    """The builds of every run."""
    _check(cases, *build, simulator, SIZES)


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("build", ALL, ids=lambda b: "-".join(map(str, b)))
def test_every_stage_is_golden(cases, build, simulator):
    """Every border and lane count, up to the largest frame."""
    _check(cases, *build, simulator, SIZES + LARGE)
