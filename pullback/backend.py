"""Backends: whatever computes a pipeline's forward pass and its pullback, behind one small protocol.

Everything at this border is integer codes of declared formats, in numpy:

    ``y = f(raw, theta)``                                    ``forward``
    ``(xbar, thetabar) = f*(raw, theta; ybar)``              ``vjp``

with ``ybar`` either the derivative of a loss against a target, made inside (*fused*), or given by the caller
(*external*). All backends agree to the bit: ``golden`` is numpy, ``rtl`` is the hardware simulated by Verilator,
and a board would be a third.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pullback.config import PipelineConfig
from pullback.errors import UsageError
from pullback.rtl.numeric import SQ, UQ, Format
from pullback.sim.golden.pipeline import Golden, isp
from pullback.sim.golden.stage import Stage as GoldenStage

__all__ = [
    "BACKENDS",
    "COTANGENT",
    "GRADIENT",
    "LOSSES",
    "PICTURE",
    "RAW",
    "SCALE",
    "Backend",
    "Forward",
    "Frame",
    "GoldenBackend",
    "Parameter",
    "Pipeline",
    "Result",
    "Stage",
    "Theta",
    "check_raw",
    "describe",
    "open_backend",
    "psnr",
]

BACKENDS = ("golden", "rtl")

RAW = UQ(0, 16)
"""A site at the input, left-aligned."""
PICTURE = UQ(0, 12)
"""A channel at the output, and of a target."""
COTANGENT = SQ(2, 16)
"""A cotangent of the picture."""
GRADIENT = SQ(5, 13)
"""A cotangent of the raw frame."""
SCALE = UQ(8, 8)
"""The loss scale."""
LOSS_F = 25
"""Fractional bits of the loss word."""

LOSSES = ("squared", "l1", "huber")
"""Fused losses, by the value of the ``loss.kind`` register."""

Codes = NDArray[np.int64]
Theta = dict[str, Codes]
"""Parameter codes (or their cotangents) by ``"stage.parameter"``."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A stage's parameter: ``entries`` codes of ``format``; its cotangent has ``f`` fractional bits, exact."""

    stage: str
    name: str
    format: Format
    default: tuple[int, ...]
    f: int

    @property
    def key(self) -> str:
        """``"stage.name"``, the index into a ``Theta``."""
        return f"{self.stage}.{self.name}"

    @property
    def entries(self) -> int:
        """Number of values."""
        return len(self.default)

    def encode(self, values: NDArray) -> Codes:
        """Nearest codes of real values, ``floor(v 2**f + 1/2)``, saturated."""
        codes = np.floor(np.ldexp(np.asarray(values, np.float64), self.format.f) + 0.5)
        return np.clip(codes, self.format.lo, self.format.hi).astype(np.int64)

    def decode(self, codes: NDArray) -> NDArray[np.float64]:
        """Real values of codes."""
        return np.ldexp(np.asarray(codes, np.float64), -self.format.f)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's border: channels and formats in and out, of values and of cotangents, and its parameters."""

    name: str
    i: Mapping[str, Format]
    o: Mapping[str, Format]
    cotangent_i: Format
    cotangent_o: Format
    radius: int
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A declared chain of stages. ``border`` and the rest are fixed when a core is built."""

    stages: tuple[Stage, ...]
    border: str = "mirror"
    lanes: int = 1
    max_width: int = 4096
    max_height: int = 4096

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters in the order of the parameter memory."""
        return tuple(parameter for stage in self.stages for parameter in stage.parameters)

    def defaults(self) -> Theta:
        """Default codes of all parameters."""
        return {parameter.key: np.array(parameter.default, np.int64) for parameter in self.parameters}

    def encode(self, values: Mapping[str, NDArray]) -> Theta:
        """Nearest codes of real values."""
        return {parameter.key: parameter.encode(values[parameter.key]) for parameter in self.parameters}

    def decode(self, theta: Theta) -> dict[str, NDArray[np.float64]]:
        """Real values of codes."""
        return {parameter.key: parameter.decode(theta[parameter.key]) for parameter in self.parameters}

    def words(self, theta: Theta) -> Codes:
        """The codes in the order of the parameter memory."""
        return np.concatenate(
            [theta[parameter.key] for parameter in self.parameters] or [np.zeros(0, np.int64)]
        )

    def tape_pixels(self, width: int) -> dict[str, int]:
        """Pixels that each stage's tape holds, ``W (r_k + 2 sum_{j>k} r_j)``: lines, not frames."""
        held, after = {}, 0
        for stage in reversed(self.stages):
            held[stage.name] = width * (stage.radius + 2 * after)
            after += stage.radius
        return {stage.name: held[stage.name] for stage in self.stages}

    def check(self, theta: Theta) -> None:
        """Refuse a theta that does not fit: missing or unknown parameter, wrong length, code out of range."""
        known = {parameter.key: parameter for parameter in self.parameters}
        for key in (*theta, *known):
            if key not in known:
                raise UsageError(f"unknown parameter {key!r}; this pipeline has {', '.join(known)}")
            if key not in theta:
                raise UsageError(
                    f"parameter {key!r} is missing; give {known[key].entries} codes of {known[key].format}"
                )
            codes, wanted = np.asarray(theta[key]), known[key]
            if codes.shape != (wanted.entries,):
                raise UsageError(f"{key} has the shape {codes.shape}; give ({wanted.entries},)")
            if codes.min() < wanted.format.lo or codes.max() > wanted.format.hi:
                raise UsageError(
                    f"{key} has codes {codes.min()}..{codes.max()}; {wanted.format} holds "
                    f"{wanted.format.lo}..{wanted.format.hi}"
                )


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What holds for a whole call besides the pixels.

    Attributes
    ----------
    cfa : int
        Phase of the colour filter array, 0..3: RGGB, GRBG, GBRG, BGGR.
    bypass : frozenset of str
        Names of the stages that are bypassed.
    loss : str
        One of :data:`LOSSES`; used when a target is given.
    delta : int
        Huber's threshold, a code of UQ(0, 12).
    scale : int
        Loss scale, a code of UQ(8, 8): gradients come out multiplied by ``scale / 256``.
    """

    cfa: int = 0
    bypass: frozenset[str] = field(default_factory=frozenset)
    loss: Literal["squared", "l1", "huber"] = "squared"
    delta: int = 0
    scale: int = 1 << SCALE.f


@dataclass(frozen=True, kw_only=True, eq=False)
class Forward:
    """``y`` [..., 3, H, W] in UQ(0, 12), and how many codes each stage's cuts clipped."""

    y: Codes
    saturated: dict[str, int]
    cycles: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A pullback.

    Attributes
    ----------
    y : int64 [..., 3, H, W]
        The picture.
    loss : int
        Sum over pixels, channels and frames, in units of ``2**-25``, unscaled; 0 with an external cotangent.
    xbar : int64 [..., H, W]
        Cotangent of the raw frame, SQ(5, 13), scaled.
    thetabar : Theta
        Cotangent of every parameter, exact, summed over the frames, scaled, ``Parameter.f`` fractional bits.
    saturated, cotangent_saturated : dict
        Clipped codes per stage, forward and of the cotangent at the stage's input; ``"loss"`` for the cut at y.
    cycles : int or None
        Clock cycles, where there is a clock.
    """

    y: Codes
    loss: int
    xbar: Codes
    thetabar: Theta
    saturated: dict[str, int]
    cotangent_saturated: dict[str, int]
    cycles: int | None = None

    @property
    def loss_real(self) -> float:
        """The loss as a real number."""
        return float(np.ldexp(float(self.loss), -LOSS_F))


class Backend(Protocol):
    """A pipeline that runs. ``raw`` is [H, W] or [N, H, W], codes UQ(0, 16); N frames share ``theta``."""

    name: str
    pipeline: Pipeline

    def forward(self, raw: Codes, theta: Theta, frame: Frame) -> Forward:
        """``y = f(raw, theta)``."""
        ...

    def vjp(
        self,
        raw: Codes,
        theta: Theta,
        frame: Frame,
        *,
        target: Codes | None = None,
        cotangent: Codes | None = None,
    ) -> Result:
        """The pullback of the loss against ``target`` (UQ(0, 12)), or of ``cotangent`` (SQ(2, 16)): one of the two."""
        ...


# Golden stages compute on whole frames and need no radius; the tape's size does.
RADII = {"bilinear": 1, "hamilton_adams_green": 2, "hamilton_adams_chroma": 1, "filter_bank": 2}


def describe(config: PipelineConfig | None = None) -> Pipeline:
    """The pipeline that a configuration stands for."""
    return GoldenBackend(config).pipeline


def open_backend(name: str, config: PipelineConfig | None = None) -> Backend:
    """The backend of that name (one of :data:`BACKENDS`) for a pipeline."""
    if name == "golden":
        return GoldenBackend(config)
    if name == "rtl":
        from pullback.simulated import RtlBackend  # the golden backend needs none of what this imports

        return RtlBackend(config)
    raise UsageError(f"backend {name!r} is unknown; give one of {', '.join(BACKENDS)}")


def psnr(squares: float, samples: int) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(1 / MSE)`` with white = 4095 codes = 1."""
    return float(10 * np.log10(4095.0**2 * samples / squares)) if squares else float("inf")


class GoldenBackend:
    """The numpy model of ``sim/golden``: the definition of right, and quick enough to train with.

    Parameters
    ----------
    config : PipelineConfig, optional
        Which ISP.
    golden : Golden, optional
        Any pipeline of golden stages instead of the ISP.
    """

    name = "golden"

    def __init__(self, config: PipelineConfig | None = None, *, golden: Golden | None = None) -> None:
        config = config or PipelineConfig()
        if golden is None:
            golden = isp(config.demosaic, curve=config.curve, border=config.border)
        self.golden = golden
        self.pipeline = Pipeline(
            stages=tuple(_stage(stage) for stage in golden.stages),
            border=golden.border,
            lanes=config.lanes,
            max_width=config.max_width,
            max_height=config.max_height,
        )

    def forward(self, raw: Codes, theta: Theta, frame: Frame) -> Forward:
        """See :class:`Backend`."""
        check_raw(raw, self.pipeline)
        picture = self.golden.forward(raw, theta, cfa=frame.cfa, bypass=frame.bypass)
        return Forward(y=picture.y, saturated=_counts(picture.saturated, "saturated"))

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
        gradient = self.golden.vjp(
            raw, theta, target=target, kind=frame.loss, delta=frame.delta, scale=frame.scale, cotangent=cotangent,
            cfa=frame.cfa, bypass=frame.bypass,
        )  # fmt: skip
        return Result(
            y=gradient.y,
            loss=gradient.loss,
            xbar=gradient.xbar,
            thetabar=dict(gradient.thetabar),
            saturated=_counts(gradient.saturated, "saturated"),
            cotangent_saturated=_counts(gradient.saturated, "cotangent_saturated"),
        )


def check_raw(raw: Codes, pipeline: Pipeline) -> None:
    """Refuse raw frames that no core of this pipeline takes."""
    if raw.ndim not in (2, 3) or 0 in raw.shape:
        raise UsageError(
            f"raw has the shape {raw.shape}; give (height, width) or (frames, height, width), not empty"
        )
    for side, what, limit in ((-1, "wide", pipeline.max_width), (-2, "high", pipeline.max_height)):
        if raw.shape[side] > limit:
            name = "max_width" if side == -1 else "max_height"
            raise UsageError(
                f"raw is {raw.shape[side]} {what}, the pipeline is built for {limit}; "
                f"give {name}={raw.shape[side]} or crop the frame"
            )


def _stage(stage: GoldenStage) -> Stage:
    return Stage(
        name=stage.name,
        i=stage.i,
        o=stage.o,
        cotangent_i=stage.cotangent_i,
        cotangent_o=stage.cotangent_o,
        radius=getattr(stage, "radius", RADII.get(stage.name, 0)),
        parameters=tuple(
            Parameter(stage=stage.name, name=name, format=p.format, default=p.default, f=p.f)
            for name, p in stage.parameters.items()
        ),
    )


def _counts(saturated: Mapping[str, int], kind: str) -> dict[str, int]:
    """``"stage.kind" -> n`` to ``stage -> n``."""
    return {key.removesuffix(f".{kind}"): n for key, n in saturated.items() if key.endswith(f".{kind}")}
