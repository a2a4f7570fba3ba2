"""The backend that is the hardware itself, simulated."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pullback.backend import (
    COTANGENT,
    LOSSES,
    PICTURE,
    RAW,
    Codes,
    Forward,
    Frame,
    Parameter,
    Pipeline,
    Result,
    Stage,
    Theta,
    check_raw,
)
from pullback.config import PipelineConfig
from pullback.errors import UsageError
from pullback.gen.verilog import ports, simulation_verilog
from pullback.rtl.bus.registers import FRAME_WORDS
from pullback.rtl.isp.pipeline import isp as rtl_isp
from pullback.rtl.numeric import Format
from pullback.rtl.pipeline.build import Build
from pullback.rtl.pipeline.core import VJPCore
from pullback.rtl.pipeline.pipeline import Pipeline as RtlPipeline
from pullback.sim.generated import generated
from pullback.sim.model import Model
from pullback.sim.toolchain import model_tools

__all__ = ["RtlBackend"]

SIMULATED_CLOCK = 20e6
"""Hertz that the core's registers are placed for: what is only simulated pays for every register and gains nothing."""

EXTERNAL = 3
"""``loss.kind`` of an external cotangent."""


class RtlBackend:
    """The hardware: a core's Verilog, simulated cycle by cycle by Verilator.

    One core holds forward and pullback, and serves both methods. Its Verilog is generated and compiled when it is
    first needed; the compiled model is kept in a cache, so that this costs time once per configuration.

    Parameters
    ----------
    config : PipelineConfig, optional
        Which ISP, and how its core is built.
    pipeline : rtl Pipeline, optional
        Any other chain of stages instead of the ISP.
    progress : callable, optional
        Gets (fraction, message) while the model is built.

    Raises
    ------
    pullback.sim.toolchain.ToolMissing
        On first use, if Verilator or the C++ compiler is not there.
    """

    name = "rtl"

    def __init__(
        self,
        config: PipelineConfig | None = None,
        *,
        pipeline: RtlPipeline | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> None:
        config = config or PipelineConfig()
        self._rtl = pipeline or rtl_isp(config.demosaic, curve=config.curve)
        self._build = Build(
            lanes=config.lanes,
            max_width=config.max_width,
            max_height=config.max_height,
            border=config.border,
            clock=SIMULATED_CLOCK,
        )
        self._known = f"isp {config.demosaic} {config.curve}" if pipeline is None else None
        self._progress = progress
        self._model: Model | None = None
        self._loaded: list[int] | None = None  # what the parameter memory holds
        self._lock = threading.Lock()  # a model belongs to one thread at a time
        self.pipeline = Pipeline(
            stages=tuple(_rtl_stage(self._rtl, k) for k in range(len(self._rtl))),
            border=config.border,
            lanes=config.lanes,
            max_width=config.max_width,
            max_height=config.max_height,
        )

    def prepare(self) -> Model:
        """The simulated core; builds it if it is not there."""
        if self._model is None:
            model_tools()
            if self._progress:
                self._progress(0.0, "generating Verilog")
            sources, described = self._sources()
            self._model = Model.build(sources, ports=described, progress=self._progress)
        return self._model

    def _sources(self) -> tuple[dict[str, str], Mapping[str, Any]]:
        """Verilog and ports; from the cache if the pipeline is one of ours, whose sources are known."""

        def make() -> VJPCore:
            return VJPCore(self._rtl, self._build)

        if self._known is not None:
            return generated(f"{self._known} {self._build}", make, flat=True)
        core = make()
        return {"core.sv": simulation_verilog(core, flat=True)}, ports(core)

    def forward(self, raw: Codes, theta: Theta, frame: Frame) -> Forward:
        """See :class:`Backend`."""
        # The one core always wants a cotangent: against an empty target it is made inside, and dropped.
        shape = (*raw.shape[:-2], len(self._rtl.o.channels), *raw.shape[-2:])
        result = self.vjp(raw, theta, frame, target=np.zeros(shape, np.int64))
        return Forward(y=result.y, saturated=result.saturated, cycles=result.cycles)

    def vjp(
        self,
        raw: Codes,
        theta: Theta,
        frame: Frame,
        *,
        target: Codes | None = None,
        cotangent: Codes | None = None,
    ) -> Result:
        """See :class:`Backend`."""
        check_raw(raw, self.pipeline)
        self.pipeline.check(theta)
        if (target is None) == (cotangent is None):
            raise ValueError(
                "give either a target (fused loss) or a cotangent (external), not both and not neither"
            )
        batch = raw.reshape(-1, 1, *raw.shape[-2:])
        with self._lock:
            model = self.prepare()
            try:
                words = self._words(batch, theta, frame, external=target is None)
                if words != self._loaded:  # a commit drains the pipeline; the same words need none
                    model.load_parameters(words)
                    self._loaded = words
                run = model.run(
                    batch.astype(np.uint16),
                    target=_stream(target, batch, PICTURE, np.uint16),
                    cotangent=_stream(cotangent, batch, COTANGENT, np.int32),
                )
            except BaseException:
                self._loaded = None
                model.reset()  # an interrupted core stands in the middle of a frame; the next call starts afresh
                raise
        assert run.picture is not None and run.gradient is not None
        words = iter(run.results[0])
        loss, clipped = int(next(words)), int(next(words))
        thetabar, saturated, cotangent_saturated = {}, {}, {"loss": clipped}
        for stage in reversed(self.pipeline.stages):
            for p in stage.parameters:
                thetabar[p.key] = np.array([next(words) for _ in range(p.entries)], np.int64)
            saturated[stage.name] = int(next(words))
            cotangent_saturated[stage.name] = int(next(words))
        return Result(
            y=run.picture.astype(np.int64).reshape(*raw.shape[:-2], -1, *raw.shape[-2:]),
            loss=loss,
            xbar=run.gradient.astype(np.int64).reshape(raw.shape),
            thetabar={p.key: thetabar[p.key] for p in self.pipeline.parameters},
            saturated={stage.name: saturated[stage.name] for stage in self.pipeline.stages},
            cotangent_saturated=cotangent_saturated,
            cycles=run.cycles.total,
        )

    def _words(self, batch: Codes, theta: Theta, frame: Frame, *, external: bool) -> list[int]:
        """The parameter memory."""
        names = [stage.name for stage in self.pipeline.stages]
        if unknown := set(frame.bypass) - set(names):
            raise UsageError(f"bypass of {sorted(unknown)} is unknown; the pipeline has {', '.join(names)}")
        values = {
            "width": batch.shape[-1],
            "height": batch.shape[-2],
            "cfa": frame.cfa,
            "depth": RAW.width,
            "frames": len(batch),
            "bypass": sum(1 << k for k, name in enumerate(names) if name in frame.bypass),
            "loss.kind": EXTERNAL if external else LOSSES.index(frame.loss),
            "loss.delta": frame.delta,
            "loss.scale": frame.scale,
        }
        return [
            *values.values(),
            *[0] * (FRAME_WORDS - len(values)),
            *(int(c) for c in self.pipeline.words(theta)),
        ]


def _stream(codes: Codes | None, batch: Codes, form: Format, dtype: type) -> np.ndarray | None:
    """Pictures as [N, C, H, W] of the simulator's type, checked against their format."""
    if codes is None:
        return None
    if codes.shape[-2:] != batch.shape[-2:] or codes.size % batch.size:
        raise UsageError(
            f"target or cotangent has the shape {codes.shape}; raw has {batch.shape[-2:]} sites a frame"
        )
    if codes.min() < form.lo or codes.max() > form.hi:
        raise UsageError(
            f"target or cotangent has codes {codes.min()}..{codes.max()}; {form} holds {form.lo}..{form.hi}"
        )
    return codes.reshape(len(batch), -1, *batch.shape[-2:]).astype(dtype)


def _rtl_stage(pipeline: RtlPipeline, index: int) -> Stage:
    stage = pipeline.stages[index]
    fractions = pipeline.gradient_fractions(index)
    return Stage(
        name=stage.name,
        i=dict(stage.i.channels),
        o=dict(stage.o.channels),
        cotangent_i=stage.cotangent,
        cotangent_o=pipeline.output_cotangent(index),
        radius=stage.radius,
        parameters=tuple(
            Parameter(stage=stage.name, name=name, format=p.format, default=tuple(p.codes), f=fractions[name])
            for name, p in stage.parameters.items()
        ),
    )
