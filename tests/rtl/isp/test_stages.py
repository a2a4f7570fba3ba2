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
from pullback.sim.bench.core import Job, check_core
from pullback.sim.generated import generated
from pullback.sim.golden.pipeline import isp as golden_isp
from pullback.sim.stalls import BURSTS, NONE

# Stage, border, lanes: every stage, and over them every border and lane count.
BUILDS = {
    "black_level": (BlackLevel, "mirror", 1),
    "white_balance": (WhiteBalance, "mirror", 2),
    "bilinear": (Bilinear, "replicate", 1),
    "filter_bank": (FilterBank, "mirror", 1),
    "hamilton_adams_green": (HamiltonAdamsGreen, "zero", 1),
    "hamilton_adams_chroma": (HamiltonAdamsChroma, "mirror", 2),
    "ccm": (CCM, "mirror", 1),
    "tone_curve": (ToneCurve, "mirror", 2),
}
SIZES = [(2, 2), (5, 7), (1, 3)]


def _golden(name, border):
    for demosaic in ("bilinear", "hamilton_adams", "filter_bank"):
        for stage in golden_isp(demosaic, border=border).stages:
            if stage.name == name:
                return stage
    raise AssertionError(f"no golden model of {name}")


@pytest.mark.parametrize("simulator", ["icarus", "verilator"])
@pytest.mark.parametrize("name", BUILDS)
def test_stage_is_golden(cases, name, simulator):
    """All CFA phases, bypass, three sizes, two frames each, stalls on every stream."""
    stage, border, lanes = BUILDS[name]
    core = cases.stage_core(stage(), border, lanes)
    sources, _ = generated(f"stage {name} {border} {lanes} 32", lambda: core)
    golden = _golden(name, border)
    jobs = []
    for n, (height, width) in enumerate(SIZES * 2):
        case = cases.stage_case(
            golden, core.map, height=height, width=width, border=border, cfa=(n + n // 3) % 4,
            bypass=n == 5, spread=(0.02, 0.3)[n % 2], seed=n,
        )  # fmt: skip
        expected = case.expected
        signed = expected.picture.min() < 0 and container(core.pipeline.o) == 16
        picture = expected.picture & 0xFFFF if signed else expected.picture
        jobs.append(Job(
            words=case.words, raw=case.raw, **case.inputs, picture=picture, gradient=expected.gradient,
            results=np.array(expected.results), lanes=lanes, seed=n, stalls=BURSTS if n % 2 else NONE,
            containers={"raw": container(core.pipeline.i), "picture": container(core.pipeline.o),
                        "target": container(core.pipeline.o)},
        ))  # fmt: skip
    check_core(sources, jobs, simulator)
