"""The cocotb bench on the toy core: it passes what is right and fails what is wrong, on both simulators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pullback.sim.bench.core import Job, check_core
from pullback.sim.bench.runner import SIMULATORS, BenchError, run_bench
from pullback.sim.stalls import PATTERNS, Stall


def job(toy: Any, *, kind: int = 0, fault: str = "none", **options: Any) -> Job:
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 1 << 16, (4, 1, 3, 5)).astype(np.uint16)
    given: dict[str, np.ndarray] = {}
    if kind == 3:
        given["cotangent"] = rng.integers(-(1 << 23), 1 << 23, (4, 3, 3, 5)).astype(np.int32)
    else:
        given["target"] = rng.integers(0, 1 << 16, (4, 3, 3, 5)).astype(np.uint16)
    gradient = toy.gradient(raw, **given)
    return Job(
        **{
            "words": toy.frame_words(width=5, height=3, frames=2, kind=kind, fault=fault),
            "raw": raw,
            "picture": toy.picture(raw),
            "gradient": gradient,
            "results": toy.expected_results(gradient, 2),
            "lanes": 2,
            "timeout": 20000,
            **given,
            **options,
        }
    )


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_right_core_passes(toy: Any, simulator: str) -> None:
    jobs = [job(toy, stalls=pattern, seed=seed) for seed, pattern in enumerate(PATTERNS.values())]
    check_core({"core.sv": toy.toy_core(lanes=2)}, [*jobs, job(toy, kind=3)], simulator)


WAITING = {"picture": Stall(on=2, off=2, random=False)}


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_unstable_payload_fails(toy: Any, simulator: str) -> None:
    with pytest.raises(BenchError, match="m_axis_picture: the payload changed from"):
        check_core(
            {"core.sv": toy.toy_core(lanes=2)}, job(toy, fault="changes_payload", stalls=WAITING), simulator
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"fault": "drops_valid", "stalls": WAITING},
            "m_axis_picture: valid dropped before the beat was taken",
        ),
        ({"fault": "no_last"}, "tlast is 0 at beat 2 of line 0 of frame 0"),
        ({"fault": "dirty_padding", "results": None}, "padding beyond width 5 is not 0"),
        ({"fault": "extra_beat"}, r"\d+ beats are not whole frames"),
        ({"fault": "stuck"}, "SimTimeoutError"),
        (
            {"picture": np.zeros((4, 3, 3, 5), np.uint16)},
            r"picture\[0, 0, 0, 0\] is \d+, expected 0; \d+ of 180",
        ),
        ({"results": np.zeros((2, 2), np.int64)}, r"results\[0, 0\] is -?\d+, expected 0; 4 of 4"),
    ],
)
def test_wrong_core_fails(toy: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        check_core({"core.sv": toy.toy_core(lanes=2)}, job(toy, **options))


def test_unknown_state_fails(toy: Any) -> None:
    """Icarus starts registers as X: a payload that is never set must not compare equal to anything."""
    text = toy.toy_core(lanes=2).replace("pd <= pd_next;", "pd <= 'x;")
    with pytest.raises(BenchError, match=r"m_axis_(picture|gradient)_tdata is .*: X in a simulation"):
        check_core({"core.sv": text}, job(toy))


def test_nothing_run_is_a_failure(toy: Any) -> None:
    with pytest.raises(BenchError, match="has no test"):
        run_bench({"core.sv": toy.toy_core(lanes=2)}, "pullback.sim.stalls", simulator="icarus")


def test_what_does_not_build_is_said(toy: Any) -> None:
    with pytest.raises(BenchError, match="icarus does not build core"):
        check_core({"core.sv": "module core(input clk; endmodule"}, job(toy))
    with pytest.raises(ValueError, match="simulator is 'vcs'"):
        check_core({"core.sv": toy.toy_core()}, job(toy), "vcs")
    with pytest.raises(ValueError, match="no source has a module 'core'"):
        check_core({"core.sv": "module other; endmodule"}, job(toy), "verilator")
