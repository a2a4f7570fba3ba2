"""Pixels per second, forward and whole gradient, on one core: RTL as a callable beside PyTorch.

    python bench/throughput.py

Side by side in one process that is bound to one processor core run the VJP core's Verilog through Verilator
(bit-exact hardware, every clock simulated), built for one, two and four pixels per clock, and the same five stages
written in float32 PyTorch, eager and under ``torch.compile``. Each takes the same frames and gives the squared loss,
the gradient of the frame and the gradients of all parameters. They take turns, so that a busy machine slows all alike,
and the median of the turns counts. Writes ``out/bench/throughput.json``; the ratios in it are RTL over PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from pullback import files
from pullback.gen.verilog import ports, simulation_verilog
from pullback.rtl.bus.registers import FRAME_WORDS
from pullback.rtl.isp.pipeline import isp
from pullback.rtl.pipeline import Build
from pullback.rtl.pipeline.core import VJPCore
from pullback.sim.model import Model
from pullback.simulated import SIMULATED_CLOCK

CFA = 1  # GRBG
DEMOSAICS = ("bilinear", "filter_bank")
LANES = (1, 2, 4)


class Float(torch.nn.Module):
    """The ISP in float32: black level, white balance, a bank of eight 5x5 filters, CCM, 65-knot tone curve.

    Parameters have the sizes of the hardware's, the filters in their folded form of nine coefficients.
    Bilinear demosaicking has the filters fixed.
    """

    def __init__(self, height: int, width: int, demosaic: str) -> None:
        super().__init__()
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        colour = ((y & 1) ^ (CFA >> 1)) * 2 + ((x & 1) ^ (CFA & 1))
        self.colour = torch.nn.Buffer(colour)
        self.sites = torch.nn.Buffer(torch.stack([colour == c for c in range(4)]).float())
        self.black = torch.nn.Parameter(torch.zeros(4))
        self.gain = torch.nn.Parameter(torch.ones(4))
        bank = next(s for s in isp("filter_bank") if s.name == "filter_bank").parameters["coefficient"]
        folded = torch.tensor(bank.codes, dtype=torch.float32).reshape(8, 9) * bank.format.lsb
        self.coefficient = torch.nn.Parameter(folded, requires_grad=demosaic == "filter_bank")
        fold = torch.tensor([[3 * abs(dy) + abs(dx) for dx in range(-2, 3)] for dy in range(-2, 3)])
        self.fold = torch.nn.Buffer(fold)
        self.matrix = torch.nn.Parameter(torch.eye(3))
        self.offset = torch.nn.Parameter(torch.zeros(3))
        self.knots = torch.nn.Parameter(torch.linspace(0, 1, 65))

    def forward(self, raw: Tensor) -> Tensor:
        """[N, 1, H, W] in 0..1 to [N, 3, H, W] in 0..1."""
        x = raw - self.black[self.colour]
        x = torch.clamp(self.gain[self.colour] * x, -2, 2)
        filters = self.coefficient[:, self.fold].unsqueeze(1)
        missing = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), filters)
        r_, gr, gb, b_ = self.sites
        x, m = x[:, 0], missing
        red = r_ * x + gr * m[:, 2] + gb * m[:, 4] + b_ * m[:, 6]
        green = r_ * m[:, 0] + (gr + gb) * x + b_ * m[:, 7]
        blue = r_ * m[:, 1] + gr * m[:, 3] + gb * m[:, 5] + b_ * x
        rgb = torch.clamp(torch.stack([red, green, blue], 1), -2, 2)
        rgb = torch.einsum("ij,njhw->nihw", self.matrix, rgb) + self.offset[:, None, None]
        rgb = torch.clamp(rgb, 0, 1) * 64
        segment = torch.clamp(rgb.detach().floor(), 0, 63)
        k = segment.long()
        left, right = self.knots[k], self.knots[k + 1]
        return torch.clamp(left + (right - left) * (rgb - segment), 0, 1)


def hardware(
    demosaic: str, lanes: int, raw: np.ndarray, target: np.ndarray
) -> tuple[Callable[[], Any], float]:
    """A call that runs forward and pullback in simulated RTL, and the seconds that the build took."""
    frames, _, height, width = raw.shape
    pipeline = isp(demosaic)
    # As wide as the frame: what is not used need not be simulated.
    build = Build(lanes=lanes, max_width=width, max_height=height, clock=SIMULATED_CLOCK)
    core = VJPCore(pipeline, build)
    began = time.perf_counter()
    source = simulation_verilog(core, flat=True)
    model = Model.build({"core.sv": source}, top="core", ports=ports(core), optimise="fast")
    seconds = time.perf_counter() - began
    codes = [
        code for stage in pipeline for parameter in stage.parameters.values() for code in parameter.codes
    ]
    frame = [width, height, CFA, 16, frames, 0, 0, 0, 256]
    model.load_parameters([*frame, *[0] * (FRAME_WORDS - len(frame)), *codes])
    return lambda: model.run(raw, target=target), seconds


def software(demosaic: str, raw: np.ndarray, target: np.ndarray, *, compiled: bool) -> Callable[[], Any]:
    """The same work in float32 PyTorch."""
    model = Float(raw.shape[2], raw.shape[3], demosaic)
    x = torch.tensor(raw.astype(np.float32) / 65536, requires_grad=True)
    t = torch.tensor(target.astype(np.float32) / 4096)

    def loss(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * torch.sum((model(x) - t) ** 2)

    run = torch.compile(loss) if compiled else loss

    def step() -> None:
        x.grad = None
        model.zero_grad()
        run(x, t).backward()

    return step


def processor() -> str:
    """The processor's name, as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demosaic", nargs="*", choices=DEMOSAICS, default=list(DEMOSAICS))
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--frames", type=int, default=4, help="frames a call (4)")
    parser.add_argument(
        "--turns", type=int, default=7, help="calls of each, the first of them not counted (7)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    options = parser.parse_args()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    shape = (options.frames, options.height, options.width)
    raw = rng.integers(0, 1 << 16, (shape[0], 1, *shape[1:]), np.uint16)
    target = rng.integers(0, 1 << 12, (shape[0], 3, *shape[1:]), np.uint16)
    pixels = shape[0] * shape[1] * shape[2]

    result: dict[str, Any] = {
        "processor": processor(),
        "torch": torch.__version__,
        "width": options.width,
        "height": options.height,
        "frames": options.frames,
        "pipelines": {},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for demosaic in options.demosaic:
        arms, build_seconds = {}, {}
        for lanes in LANES:
            name = f"rtl_{lanes}"
            arms[name], build_seconds[name] = hardware(demosaic, lanes, raw, target)
        arms |= {
            "torch_eager": software(demosaic, raw, target, compiled=False),
            "torch_compile": software(demosaic, raw, target, compiled=True),
        }
        taken: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(options.turns):
            for name, call in arms.items():
                began = time.perf_counter()
                call()
                if turn:  # the first one compiles
                    taken[name].append(time.perf_counter() - began)
        rates = {name: pixels / statistics.median(seconds) for name, seconds in taken.items()}
        result["pipelines"][demosaic] = {
            "build_seconds": {name: round(seconds, 1) for name, seconds in build_seconds.items()},
            "pixels_per_second": {name: round(rate) for name, rate in rates.items()},
            "ratio": {
                name: {torch: rates[name] / rates[torch] for torch in ("torch_eager", "torch_compile")}
                for name in build_seconds
            },
        }
        print(demosaic, json.dumps(result["pipelines"][demosaic]), flush=True)
        files.write(options.out / "throughput.json", json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
