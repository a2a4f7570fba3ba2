# amaranth: UnusedElaboratable=no
"""The array with an external memory: products that do not fit, transfers of every shape, bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.system import ArraySystem
from pullback.sim.bench.runner import run_bench
from pullback.sim.generated import generated

from .core_host import BUILDS

TESTS = 3


@pytest.mark.parametrize("simulator", ["icarus", pytest.param("verilator", marks=pytest.mark.slow)])
def test_system(simulator, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the runner hands its path on
    build = BUILDS["small"]
    sources = generated(f"array system {build}", lambda: ArraySystem(build, longest=4))[0]
    assert run_bench(sources, "system_bench", simulator=simulator) == TESTS


def test_containers_that_make_no_beat_are_named():
    with pytest.raises(ValueError, match="operand=18 bits lie in 24; give at most 16"):
        ArraySystem(UnitBuild(array=ArrayBuild(operand=18, accumulator=48), total=48))
