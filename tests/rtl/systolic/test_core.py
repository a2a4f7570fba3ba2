# amaranth: UnusedElaboratable=no
"""The array's core on its AXI ports: registers, products, bad input, stops, and random words as descriptors."""

from __future__ import annotations

from pathlib import Path

import pytest

from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.core import ArrayCore
from pullback.rtl.systolic.registers import ARRAY_REGISTERS, COUNTERS, ArrayMap
from pullback.rtl.systolic.unit import EVENTS
from pullback.sim.bench.runner import run_bench
from pullback.sim.generated import generated

from .core_host import BUILDS

TESTS = 9


@pytest.fixture
def bench(monkeypatch):
    """``bench(build, simulator, **variables)``: runs ``core_bench.py``; how many of its tests passed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the runner hands its path on

    def run(name: str, simulator: str, **variables: str) -> int:
        build = BUILDS[name]
        sources = generated(f"array core {build}", lambda: ArrayCore(build))[0]
        return run_bench(
            sources, "core_bench", simulator=simulator, environment={"PULLBACK_BUILD": name, **variables}
        )

    return run


@pytest.mark.parametrize(
    ("name", "simulator"),
    [
        ("small", "icarus"),
        pytest.param("narrow", "icarus", marks=pytest.mark.slow),
        pytest.param("small", "verilator", marks=pytest.mark.slow),
    ],
)
def test_core(bench, name, simulator):
    assert bench(name, simulator) == TESTS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8, 11))
def test_fuzzed_for_long(bench, seed):
    assert bench("small", "icarus", PULLBACK_ROUNDS="300", PULLBACK_SEED=str(seed)) == TESTS


def test_counters_are_those_of_the_unit():
    assert [name for name, _ in EVENTS] == ["row", "result", "weights", "starved", "blocked"]
    assert COUNTERS == ("ROWS", "RESULTS", "WEIGHTS", "STARVED", "BLOCKED", "BUSY", "SPAN")


def test_registers_have_no_gaps():
    assert [register.address for register in ARRAY_REGISTERS] == [4 * k for k in range(len(ARRAY_REGISTERS))]
    assert ArrayMap(UnitBuild()).address("PROGRAMME") == 0x050
    with pytest.raises(ValueError, match="no register is called 'STOP'; there are ID, VERSION"):
        ArrayMap(UnitBuild()).address("STOP")


@pytest.mark.parametrize("programme", [32, 8193])
def test_a_programme_that_does_not_fit_is_named(programme):
    most = 1 << 20
    with pytest.raises(ValueError, match=rf"programme={programme} words; give 3\d \(a descriptor\) to 8192"):
        ArrayCore(
            UnitBuild(
                array=ArrayBuild(rows=64, columns=64),
                programme=programme, count=16, memory=most, sums=most, masks=most,
            )
        )  # fmt: skip
