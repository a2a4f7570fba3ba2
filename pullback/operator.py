"""A unit as a function of floats, in numpy: what the torch and the JAX operators share.

``raw`` in [0, 1) and ``theta`` in real units are quantised to codes, ``floor(v 2^f + 1/2)`` saturated, on the way in;
the derivative of quantising is 1, also where a value lies outside its format and is held at its end, so that descent
can bring it back. ``y`` in [0, 1) are codes of UQ(0, 12), exact in float32.

**Scale of cotangents.** A cotangent is a code of SQ(2, 16), but a gradient of a mean can be of any size. So it is
multiplied by the power of two that brings its largest element into [1/2, 1), and the results are divided by it. If
more than 1/1000 of some boundary's cotangents saturate, the pass is repeated with a quarter of that scale, at most
four times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pullback.backend import COTANGENT, GRADIENT, PICTURE, RAW, Backend, Codes, Frame, Theta
from pullback.errors import UsageError
from pullback.raw import parse_cfa

__all__ = ["DOUBLE_BACKWARD", "Operator"]

DOUBLE_BACKWARD = (
    "pullback units have no second derivative: the hardware computes y and its vector-Jacobian product, nothing "
    "further. Differentiate once (create_graph=False), or use the float64 twin, pullback.sim.golden.twin.Twin"
)

Real = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Operator:
    """``y = f(raw, theta)`` and its pullback on floats.

    Parameters
    ----------
    backend : Backend
    cfa : str
        CFA order of the frames.
    bypass : iterable of str
        Stages that are bypassed.
    """

    backend: Backend
    cfa: str = "RGGB"
    bypass: Iterable[str] = ()
    frame: Frame = field(init=False)

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.backend.pipeline.stages]
        for name in self.bypass:
            if name not in names:
                raise UsageError(f"bypass of {name!r}: no such stage; this unit has {', '.join(names)}")
        object.__setattr__(self, "frame", Frame(cfa=parse_cfa(self.cfa), bypass=frozenset(self.bypass)))

    def __deepcopy__(self, memo: dict) -> Operator:
        return self  # nothing here changes; copies of a module share the hardware behind it

    @property
    def entries(self) -> int:
        """Length of the flat theta: all parameters in the order of the parameter memory."""
        return sum(parameter.entries for parameter in self.backend.pipeline.parameters)

    @property
    def channels(self) -> int:
        """Channels of y."""
        return len(self.backend.pipeline.stages[-1].o)

    def default(self) -> NDArray[np.float64]:
        """The defaults as a flat theta."""
        values = self.backend.pipeline.decode(self.backend.pipeline.defaults())
        return np.concatenate([*values.values(), np.zeros(0)])

    def check(self, raw_shape: tuple[int, ...], theta_shape: tuple[int, ...]) -> None:
        """Refuse shapes that do not fit."""
        pipeline = self.backend.pipeline
        if len(raw_shape) < 2 or 0 in raw_shape:
            raise UsageError(f"raw has the shape {tuple(raw_shape)}; give (..., height, width), not empty")
        for name, size, limit in (
            ("max_height", raw_shape[-2], pipeline.max_height),
            ("max_width", raw_shape[-1], pipeline.max_width),
        ):
            if size > limit:
                raise UsageError(f"raw has the shape {tuple(raw_shape)}, the unit is built for {name}={limit}; "
                                 f"build it with {name}={size} or crop the frame")  # fmt: skip
        if tuple(theta_shape) != (self.entries,):
            raise UsageError(f"theta has the shape {tuple(theta_shape)}; give ({self.entries},)")

    def forward(self, raw: Real, theta: Real) -> Real:
        """``raw [..., H, W]``, ``theta [entries]`` -> ``y [..., C, H, W]`` of raw's dtype."""
        self.check(raw.shape, theta.shape)
        frames = _frames(raw)
        y = self.backend.forward(frames, self._theta(theta), self.frame).y
        return np.ldexp(y.astype(np.float64), -PICTURE.f).reshape(self._picture(raw)).astype(raw.dtype)

    def pull(self, raw: Real, theta: Real, ybar: Real) -> tuple[Real, Real]:
        """``ybar [..., C, H, W]`` -> ``(xbar [..., H, W], thetabar [entries])``, of the dtypes of raw and theta."""
        self.check(raw.shape, theta.shape)
        if ybar.shape != self._picture(raw):
            raise UsageError(f"cotangent has the shape {ybar.shape}; give {self._picture(raw)}")
        peak = float(np.max(np.abs(ybar)))
        if not np.isfinite(peak):
            raise UsageError(
                "the cotangent of the picture holds NaN or infinity; look at the loss that made it"
            )
        if peak == 0.0:
            return np.zeros_like(raw), np.zeros_like(theta)
        frames, codes = _frames(raw), self._theta(theta)
        exponent = -int(np.frexp(peak)[1])
        lowest = exponent - 8
        wide = ybar.astype(np.float64).reshape(len(frames), self.channels, *raw.shape[-2:])
        while True:
            cotangent = np.floor(np.ldexp(wide, exponent + COTANGENT.f) + 0.5).astype(np.int64)
            result = self.backend.vjp(frames, codes, self.frame, cotangent=cotangent)
            if exponent == lowest or max(result.cotangent_saturated.values()) * 1000 <= wide.size:
                break
            exponent -= 2
        parts = [
            np.ldexp(result.thetabar[p.key].astype(np.float64), -p.f - exponent)
            for p in self.backend.pipeline.parameters
        ]
        xbar = np.ldexp(result.xbar.astype(np.float64), -GRADIENT.f - exponent)
        return xbar.reshape(raw.shape).astype(raw.dtype), np.concatenate([*parts, np.zeros(0)]).astype(
            theta.dtype
        )

    def _theta(self, theta: Real) -> Theta:
        codes, place = {}, 0
        for p in self.backend.pipeline.parameters:
            values = theta[place : place + p.entries].astype(np.float64)
            if np.isnan(values).any():
                raise UsageError(f"{p.key} holds NaN; give numbers in [{p.format.min:g}, {p.format.max:g}]")
            codes[p.key] = p.encode(values)
            place += p.entries
        return codes

    def _picture(self, raw: Real) -> tuple[int, ...]:
        return (*raw.shape[:-2], self.channels, *raw.shape[-2:])


def _frames(raw: Real) -> Codes:
    """Codes of UQ(0, 16), [frames, H, W]."""
    scaled = np.floor(np.ldexp(raw.astype(np.float64), RAW.f) + 0.5)
    if np.isnan(scaled).any():
        raise UsageError("raw holds NaN; give numbers in [0, 1)")
    return np.clip(scaled, RAW.lo, RAW.hi).astype(np.int64).reshape(-1, *raw.shape[-2:])
