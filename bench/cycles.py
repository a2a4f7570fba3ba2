"""Clock cycles per frame and latency of the cores, frames back to back, counted in simulated RTL.

    python bench/cycles.py

The goal is a steady state of exactly W H / P cycles per frame, forward and with the pullback. Frames follow one
another without a gap and nothing stalls, so what is counted is the core's own. Writes ``out/bench/cycles.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pullback import files
from pullback.gen.verilog import ports, rtlil, simulation_verilog
from pullback.rtl.bus.registers import FRAME_WORDS
from pullback.rtl.isp.pipeline import DEMOSAICS, isp
from pullback.rtl.pipeline import Build, Pipeline
from pullback.rtl.pipeline.core import ForwardCore, VJPCore
from pullback.sim.model import Model

SIZES = ((640, 480), (1920, 1080))


def words(pipeline: Pipeline, width: int, height: int) -> list[int]:
    """The parameter memory: one frame a group, GRBG, 16 bits, squared loss of scale 1, default parameters."""
    frame = [width, height, 1, 16, 1, 0, 0, 0, 256]
    codes = [
        code for stage in pipeline for parameter in stage.parameters.values() for code in parameter.codes
    ]
    return [*frame, *[0] * (FRAME_WORDS - len(frame)), *codes]


def measure(kind: str, demosaic: str, lanes: int, frames: int) -> list[dict[str, Any]]:
    """Cycles of one core at every size."""
    pipeline = isp(demosaic)
    build = Build(lanes=lanes)
    core = VJPCore(pipeline, build) if kind == "vjp" else ForwardCore(pipeline, build)
    text = simulation_verilog(rtlil(core, "core"))
    model = Model.build({"core.sv": text}, top="core", ports=ports(core), optimise="fast")
    rows = []
    for width, height in SIZES:
        rng = np.random.default_rng(0)
        raw = rng.integers(0, 1 << 16, (frames, 1, height, width), np.uint16)
        target = rng.integers(0, 1 << 12, (frames, 3, height, width), np.uint16) if kind == "vjp" else None
        model.load_parameters(words(pipeline, width, height))
        run = model.run(raw, target=target)
        cycles = run.cycles
        rows.append(
            {
                "core": kind,
                "demosaic": demosaic,
                "lanes": lanes,
                "width": width,
                "height": height,
                "frames": frames,
                # The last frame of all is pushed out by nobody.
                "cycles_per_frame": cycles.per_frame,
                "flush": int(cycles.last_out[-1] - cycles.last_out[-2] - cycles.per_frame),
                "ideal": width * height / lanes,
                "latency": int(cycles.first_out[0] - cycles.first_in[0]),
                "drain": int(cycles.last_out[-1] - cycles.last_in[-1]),
                "results_after_frame": int(cycles.results[0] - cycles.last_out[0]),
                "simulated_pixels_per_second": round(frames * width * height / run.seconds),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--demosaic", nargs="*", choices=list(DEMOSAICS), default=["filter_bank", "hamilton_adams"]
    )
    parser.add_argument("--lanes", nargs="*", type=int, default=[1, 2], help="pixels per clock (1 2)")
    parser.add_argument("--frames", type=int, default=3, help="frames back to back (3)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    options = parser.parse_args()
    if options.frames < 3:
        parser.error(
            f"--frames {options.frames}: the last one is flushed; give at least 3 to see a steady state"
        )
    rows: list[dict[str, Any]] = []
    options.out.mkdir(parents=True, exist_ok=True)
    for demosaic in options.demosaic:
        for kind in ("forward", "vjp"):
            for lanes in options.lanes:
                rows += measure(kind, demosaic, lanes, options.frames)
                files.write(options.out / "cycles.json", json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
