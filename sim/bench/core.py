"""Checks a core against expected arrays on Icarus or Verilator: :func:`check_core`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pullback.sim.bench.runner import run_bench
from pullback.sim.stalls import NONE, Stall

__all__ = ["Job", "check_core"]

_ARRAYS = ("raw", "target", "cotangent", "picture", "gradient", "results")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to stream through a core, and what must come out. The caller has it from the golden model.

    Attributes
    ----------
    words : [n] int
        Parameter memory from word 0 on; the first two are width and height.
    raw, target, cotangent : [N,C,H,W] or None
        Inputs.
    picture, gradient : [N,C,H,W] or None
        Expected outputs; None where the core has no such output.
    results : [groups, words] or None
        Expected result words; None: they are not fetched (and the core then overruns them, which is no error).
    lanes : int
        Pixels per beat.
    containers : dict
        Bits per channel of streams, where they differ from ``pullback.sim.beats.CONTAINER_BITS``.
    stalls : dict
        Name of the stream -> pattern.
    seed : int
        Of stalls, bus delays and the garbage in padding lanes.
    timeout : int
        Clock cycles for the whole job.
    """

    words: Sequence[int] | np.ndarray
    raw: np.ndarray
    target: np.ndarray | None = None
    cotangent: np.ndarray | None = None
    picture: np.ndarray | None = None
    gradient: np.ndarray | None = None
    results: np.ndarray | None = None
    lanes: int = 1
    containers: Mapping[str, int] = field(default_factory=dict)
    stalls: Mapping[str, Stall] | Stall = NONE
    seed: int = 0
    timeout: int = 1_000_000


def _describe(job: Job, position: int, arrays: dict[str, np.ndarray]) -> dict[str, object]:
    for name in _ARRAYS:
        if (array := getattr(job, name)) is not None:
            arrays[f"{name}_{position}"] = np.asarray(array)
    stalls = job.stalls
    if isinstance(stalls, Stall):
        stalls = dict.fromkeys(("raw", "target", "cotangent", "picture", "gradient"), stalls)
    return {
        "words": [int(word) for word in job.words],
        "lanes": job.lanes,
        "containers": dict(job.containers),
        "stalls": {name: {"on": s.on, "off": s.off, "random": s.random} for name, s in stalls.items()},
        "seed": job.seed,
        "timeout": job.timeout,
    }


def check_core(
    sources: Mapping[str, str], job: Job | Sequence[Job], simulator: str = "icarus", *, top: str = "core"
) -> None:
    """Streams one job, or several with a reset before each, through a core and compares bit for bit.

    Frames follow back to back, every output is watched for stability, errors flagged by the core count as
    failures, and X on a handshake or in anything that is compared fails.

    Raises
    ------
    BenchError
        If anything differs; the message says where.
    """
    jobs = [job] if isinstance(job, Job) else list(job)
    if not jobs:
        raise ValueError("no job was given")
    with tempfile.TemporaryDirectory(prefix="pullback-job-") as scratch:
        arrays: dict[str, np.ndarray] = {}
        described = [_describe(one, position, arrays) for position, one in enumerate(jobs)]
        np.savez(Path(scratch) / "job.npz", allow_pickle=False, **arrays)
        (Path(scratch) / "job.json").write_text(json.dumps(described))
        run_bench(
            sources, "pullback.sim.bench.bench_core", simulator=simulator, top=top,
            environment={"PULLBACK_JOB": scratch}, seed=jobs[0].seed,
        )  # fmt: skip
