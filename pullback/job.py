"""A tuning run from frame to report: what ``pullback tune`` does, without the terminal.

In the output directory, each file written in one step:

=======================  ====================================================================================
``tuned.toml``           the best parameters found, which ``tune``, ``generate`` and ``simulate`` read back
``before.png`` ...       ``before``, ``after``, ``target``, ``gradient_before``, ``gradient_after``,
                         ``error_after``
``loss.svg``             training and held-out PSNR over the steps
``report.html``          all of it in one page
``summary.json``         the figures
``state.npz``            masters, Adam's moments, and ``trajectory``: all parameter codes after every step, in
                         the order of the parameter memory; ``--resume`` goes on from it
=======================  ====================================================================================
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pullback import __version__, files
from pullback.backend import SCALE, Backend, Theta
from pullback.config import Config, FrameConfig, PipelineConfig, dump
from pullback.errors import UsageError
from pullback.raw import CFA, Raw
from pullback.report import Report
from pullback.report import write as write_report
from pullback.tune import (
    BackendObjective,
    Fit,
    Measure,
    Settings,
    Split,
    fit,
    held_out_psnr,
    identity,
    neutral,
    pullback_of,
    render,
)

__all__ = ["Outcome", "tune_frame"]

STATE = "state.npz"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a run came to; PSNR in dB over the held-out part."""

    start: float
    tuned: float
    steps: int
    stopped: bool
    seconds: float
    state: Fit
    theta: Theta
    files: list[Path]


def tune_frame(
    raw: Raw,
    backend: Backend,
    config: Config,
    out: Path,
    settings: Settings,
    *,
    title: str,
    resume: bool = False,
    progress: Callable[[Fit, Measure], None] = lambda state, measure: None,
) -> Outcome:
    """Tune a pipeline on a frame and write everything. Ctrl-C ends the descent early and keeps the best so far.

    Starts at ``config.parameters`` or, if it has none, at the neutral point of :func:`pullback.tune.neutral`.
    """
    begun = time.perf_counter()
    pipeline = backend.pipeline
    split = Split(width=raw.width, height=raw.height, max_width=pipeline.max_width)
    start = config.theta(pipeline) if config.parameters else neutral(pipeline, raw)
    mark = identity(raw, pipeline, start, settings.seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"{out} is not a directory; give --out a directory") from error
    state = Fit.load(out / STATE, mark) if resume else Fit.start(pipeline, start)
    first = held_out_psnr(backend, raw, start, split)
    if not state.held_out:
        state.held_out.append((0, first))

    def after(state: Fit, measure: Measure) -> None:
        if state.step % settings.every == 0 or state.step == settings.steps:
            codes = pipeline.encode(state.masters)
            state.held_out.append((state.step, held_out_psnr(backend, raw, codes, split)))
            state.save(out / STATE, mark)
        progress(state, measure)

    with _interruptible() as stopped:
        fit(BackendObjective(backend, raw), state, split, settings, after=after, stop=stopped)
    state.save(out / STATE, mark)
    last = held_out_psnr(backend, raw, state.best, split)
    seconds = time.perf_counter() - begun
    start_name = "given start" if config.parameters else "neutral start"
    written = _write(
        raw,
        backend,
        config.pipeline,
        out,
        split,
        start,
        state,
        settings,
        title=title,
        start_name=start_name,
        figures=(first, last, seconds),
    )
    return Outcome(
        start=first,
        tuned=last,
        steps=state.step,
        stopped=stopped(),
        seconds=seconds,
        state=state,
        theta=state.best,
        files=written,
    )


def _write(
    raw: Raw,
    backend: Backend,
    build: PipelineConfig,
    out: Path,
    split: Split,
    start: Theta,
    state: Fit,
    settings: Settings,
    *,
    title: str,
    start_name: str,
    figures: tuple[float, float, float],
) -> list[Path]:
    first, last, seconds = figures
    pipeline, view = backend.pipeline, split.view()
    tuned = Config(
        pipeline=build,
        frame=FrameConfig(cfa=CFA[raw.cfa], black=raw.black, white=raw.white),
        parameters=_tables(pipeline.decode(state.best)),
    )
    heading = (
        f"Written by pullback {__version__}: {title}, {state.step} steps, backend {backend.name}.\n"
        f"Held-out PSNR {first:.2f} dB at the start, {last:.2f} dB tuned."
    )
    files.write(out / "tuned.toml", dump(tuned, heading=heading))
    whole = "the upper three quarters of the frame, all of it in every step"
    patches = "one patch of the upper three quarters in every step"
    report = Report(
        title=f"tuned on {title}",
        facts=[
            (f"held-out PSNR, {start_name}", f"{first:.2f} dB"),
            ("held-out PSNR, tuned", f"{last:.2f} dB"),
            ("gradient steps", str(state.step)),
            ("gradients from", {"rtl": "simulated RTL"}.get(backend.name, f"{backend.name} model")),
            ("parameters", str(len(pipeline.words(start)))),
            ("seconds", f"{seconds:.0f}"),
        ],
        pipeline=pipeline,
        before=render(backend, raw, start),
        after=render(backend, raw, state.best),
        target=raw.target,
        target_name=raw.target_name,
        start_name=start_name,
        held_out=split.held_out,
        loss=[Measure(loss=loss, gradient={}).psnr for loss in state.loss],
        held_out_psnr=state.held_out,
        start=start,
        tuned=state.best,
        result_before=pullback_of(backend, raw, start, view),
        result_after=pullback_of(backend, raw, state.best, view),
        loss_scale=SCALE.decode(state.scale),
        cycles=state.cycles,
        notes=[
            f"Frame {raw.width}x{raw.height}, CFA {CFA[raw.cfa]}, black {', '.join(f'{b:g}' for b in raw.black)}, "
            f"white {raw.white:g}. Training: {whole if split.whole else patches}; "
            f"held out: the bottom {split.held_out.height} lines. Adam, {settings.steps} steps, seed {settings.seed}.",
            *raw.notes,
        ],
    )
    written = write_report(report, out)
    summary = {
        "version": __version__,
        "frame": title,
        "backend": backend.name,
        "steps": state.step,
        "seed": settings.seed,
        "held_out_psnr_start": first,
        "held_out_psnr_tuned": last,
        "training_psnr_tuned": Measure(loss=state.best_loss, gradient={}).psnr,
        "seconds": seconds,
        "cycles": state.cycles or None,
    }
    files.write(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    return [out / "tuned.toml", *written, out / "summary.json"]


def _tables(values: dict) -> dict[str, dict[str, list[float]]]:
    """``"stage.name" -> array`` as nested tables."""
    tables: dict[str, dict[str, list[float]]] = {}
    for key, array in values.items():
        stage, _, name = key.partition(".")
        tables.setdefault(stage, {})[name] = [float(v) for v in array]
    return tables


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a wish that is read between steps; the second one interrupts as always."""
    wished = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield wished.is_set
        return

    def wish(number, frame) -> None:
        wished.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, wish)
    try:
        yield wished.is_set
    finally:
        signal.signal(signal.SIGINT, before)
