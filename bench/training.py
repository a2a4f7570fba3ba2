"""Seconds for a training step, and products a second: the simulated array beside numpy and float32 PyTorch.

    python bench/training.py

A small convolutional network on pictures of 8 x 8, forward, backward and a step of gradient descent, in one process
that is bound to one processor core. The three take turns on the same batches, so that a busy machine slows all alike,
and the median of the turns counts. What it shows is how long a network takes to train through bit-exact hardware in a
simulation that computes every clock of it; it says nothing of a chip, whose time is clocks over its frequency, and
PyTorch on such a small network is bound by its calls rather than by products. Writes ``out/bench/training.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from throughput import processor
from torch import nn

import pullback
from pullback import files
from pullback.products import SIMULATED, GoldenProducts, RtlProducts


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * 4 * 4, 10),
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--turns", type=int, default=11, help="steps of each, the first of them not counted (11)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for training.json")
    options = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rtl = RtlProducts(progress=lambda fraction, message: print(f"{fraction:4.0%} {message}", flush=True))
    began = time.perf_counter()
    rtl.prepare()
    build_seconds = time.perf_counter() - began
    models = {
        "rtl": pullback.convert(network(), backend=rtl),
        "golden": pullback.convert(network(), backend=GoldenProducts()),
        "float32": network(),
    }
    optimisers = {name: torch.optim.SGD(model.parameters(), lr=0.05) for name, model in models.items()}
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in models}
    cycles, macs = [], []
    for turn in range(options.turns):
        x = torch.tensor(rng.random((options.batch, 1, 8, 8)), dtype=torch.float32)
        labels = torch.tensor(rng.integers(0, 10, options.batch))
        for name, model in models.items():
            before = rtl.cycles, rtl.macs
            began = time.perf_counter()
            optimisers[name].zero_grad()
            nn.functional.cross_entropy(model(x), labels).backward()
            optimisers[name].step()
            if turn:
                taken[name].append(time.perf_counter() - began)
            if name == "rtl":
                cycles.append(rtl.cycles - before[0])
                macs.append(rtl.macs - before[1])
        for (name, a), b in zip(models["rtl"].named_parameters(), models["golden"].parameters(), strict=True):
            if not torch.equal(a, b):
                raise SystemExit(f"{name} differs between the simulated array and numpy")
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    result: dict[str, Any] = {
        "processor": processor(),
        "torch": torch.__version__,
        "array": f"{SIMULATED.array.rows} x {SIMULATED.array.columns}",
        "batch": options.batch,
        "build_seconds": round(build_seconds, 1),
        "seconds_a_step": seconds,
        "ratio": {name: seconds["rtl"] / seconds[name] for name in ("golden", "float32")},
        "cycles_a_step": cycles[-1],
        "products_a_step": macs[-1],
        "products_a_second": {name: round(macs[-1] / each) for name, each in seconds.items()},
        "products_a_clock": macs[-1] / cycles[-1],
    }
    print(json.dumps(result, indent=1))
    options.out.mkdir(parents=True, exist_ok=True)
    files.write(options.out / "training.json", json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
