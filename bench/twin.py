"""Does tuning through codes end where tuning through real numbers ends? The bundled picture, tuned both ways.

    python bench/twin.py

The two descents are those of ``make demo``: the same frame, target, start, learning rates, patches and seed, the
same Adam. One takes its losses and gradients from the integer model, which simulated RTL equals bit for bit
(``--backend rtl`` takes the RTL itself); the other from the float64 twin, which rounds nothing, scales no loss and
leaves the derivatives to autograd. Each end point is measured in its own model: codes there, real numbers here.
The goal is a difference of at most 0.1 dB in the final loss as PSNR. Writes ``out/bench/twin.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pullback import files
from pullback.backend import BACKENDS, SCALE, Backend, GoldenBackend, open_backend
from pullback.config import PipelineConfig
from pullback.raw import Raw, load
from pullback.tune import (
    BackendObjective,
    Fit,
    Measure,
    Objective,
    Settings,
    Split,
    fit,
    held_out_psnr,
    neutral,
)
from pullback.twin import TwinObjective

PICTURE = Path(__file__).resolve().parent.parent / "examples" / "data" / "bayer_small.png"
GOAL = 0.1  # dB


def held_out(objective: Objective, raw: Raw, state: Fit, split: Split) -> float:
    """PSNR of the held-out part at the state's masters, in the objective's own model."""
    if isinstance(objective, TwinObjective):
        return objective.held_out_psnr(state.masters, split)
    assert isinstance(objective, BackendObjective)
    codes = objective.pipeline.encode(state.masters)
    return held_out_psnr(objective.backend, raw, codes, split)


def descend(name: str, objective: Objective, raw: Raw, settings: Settings, bar: Progress) -> dict[str, Any]:
    """One descent from the neutral point; figures of its start and of its end, and its whole loss curve."""
    split = Split(width=raw.width, height=raw.height, max_width=objective.pipeline.max_width)
    state = Fit.start(objective.pipeline, neutral(objective.pipeline, raw))
    task = bar.add_task(name, total=settings.steps, figures="")
    began = time.perf_counter()
    first = held_out(objective, raw, state, split)

    def show(state: Fit, measure: Measure) -> None:
        bar.update(task, completed=state.step, figures=f"PSNR {measure.psnr:.2f} dB")

    fit(objective, state, split, settings, after=show)
    last = objective.measure(state.masters, split.patch(settings.seed, state.step), state.scale)
    return {
        "state": state,
        "training_psnr": [*(_psnr(loss) for loss in state.loss), last.psnr],
        "training_psnr_best": _psnr(state.best_loss),
        "held_out_psnr_start": first,
        "held_out_psnr_final": held_out(objective, raw, state, split),
        "seconds": time.perf_counter() - began,
    }


def compare(raw: Raw, backend: Backend, twin: TwinObjective, settings: Settings) -> dict[str, Any]:
    """Both descents and what lies between their ends: integers minus real numbers, in dB."""
    console = Console()
    columns = (
        TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        arms = {
            "codes": descend(backend.name, BackendObjective(backend, raw), raw, settings, bar),
            "real": descend("twin", twin, raw, settings, bar),
        }
    codes, real = arms["codes"].pop("state"), arms["real"].pop("state")
    split = Split(width=raw.width, height=raw.height, max_width=backend.pipeline.max_width)
    curves = arms["codes"]["training_psnr"], arms["real"]["training_psnr"]
    return {
        "backend": backend.name,
        "frame": f"{raw.width}x{raw.height}",
        "steps": settings.steps,
        "seed": settings.seed,
        "loss_scale": [float(SCALE.decode(pick(codes.scales))) for pick in (min, max)],
        **arms,
        # The twin's end point, brought to codes afterwards: what rounding alone costs.
        "held_out_psnr_of_the_twins_codes": held_out_psnr(
            backend, raw, backend.pipeline.encode(real.masters), split
        ),
        "difference": {
            "training_final": curves[0][-1] - curves[1][-1],
            "training_best": arms["codes"]["training_psnr_best"] - arms["real"]["training_psnr_best"],
            "training_largest": max((a - b for a, b in zip(*curves, strict=True)), key=abs),
            "held_out_start": arms["codes"]["held_out_psnr_start"] - arms["real"]["held_out_psnr_start"],
            "held_out_final": arms["codes"]["held_out_psnr_final"] - arms["real"]["held_out_psnr_final"],
        },
        "goal": GOAL,
    }


def _psnr(loss: float) -> float:
    return Measure(loss=loss, gradient={}).psnr


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", choices=BACKENDS, default="golden", help="whose codes (golden)")
    parser.add_argument("--steps", type=int, default=Settings().steps, help="gradient steps of each (240)")
    parser.add_argument("--seed", type=int, default=0, help="where patches lie, if there are any (0)")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps {options.steps} are none; give at least 1")

    raw = load(PICTURE, cfa="GRBG", black=16, white=960)
    choice = PipelineConfig(max_width=raw.width)
    backend = open_backend(options.backend, choice)
    twin = TwinObjective(GoldenBackend(choice), raw)
    result = compare(raw, backend, twin, Settings(steps=options.steps, seed=options.seed))
    result |= {"torch": torch.__version__, "target": raw.target_name}
    options.out.mkdir(parents=True, exist_ok=True)
    files.write(options.out / "twin.json", json.dumps(result, indent=2) + "\n")
    for what in ("codes", "real"):
        arm = result[what]
        print(
            f"{what:<6} training {arm['training_psnr'][0]:.3f} -> {arm['training_psnr'][-1]:.3f} dB, held out "
            f"{arm['held_out_psnr_start']:.3f} -> {arm['held_out_psnr_final']:.3f} dB, {arm['seconds']:.0f} s"
        )
    final = result["difference"]["training_final"]
    verdict = "within" if abs(final) <= GOAL else "NOT within"
    print(
        f"final loss: {final:+.4f} dB, {verdict} {GOAL} dB; held out {result['difference']['held_out_final']:+.4f} dB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
