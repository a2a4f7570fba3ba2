"""Tone curve: 64 straight segments between 65 knots.

x : 3 x UQ(0, 16)   knots : 65 or 195 x UQ(1, 15)   y : 3 x UQ(0, 12)

    ``s = x >> 10``, ``t = x & 1023``, ``y = cut( K[s] + (K[s+1] - K[s]) t / 1024 )``

All channels share one curve of 65 knots, or channel ch has its own at ``knots[65 ch + k]``.
"""

from __future__ import annotations

import numpy as np

from pullback.rtl.numeric import SQ, UQ

from .stage import Frame, Parameter, Stage, Theta, channels

__all__ = ["CURVES", "ToneCurve"]

CURVES = ("shared", "per_channel")


class ToneCurve(Stage):
    """``dy/dx`` is the slope of the segment, ``64 (K[s+1] - K[s])`` in real units (s itself has derivative
    0); ``ybar`` goes to knots s and s + 1 with the weights ``1 - t/1024`` and ``t/1024``.

    Parameters
    ----------
    curve : str
        ``"shared"`` or ``"per_channel"``.
    """

    name = "tone_curve"
    i = channels(r=UQ(0, 16), g=UQ(0, 16), b=UQ(0, 16))
    o = channels(r=UQ(0, 12), g=UQ(0, 12), b=UQ(0, 12))
    f = 25
    cotangent_i = SQ(4, 14)
    cotangent_o = SQ(2, 16)

    def __init__(self, *, curve: str = "shared", clip: str = "disconnected"):
        super().__init__(clip=clip)
        if curve not in CURVES:
            raise ValueError(f"curve {curve!r} is unknown; give one of {', '.join(CURVES)}")
        self.curve = curve
        curves = 1 if curve == "shared" else 3
        identity = tuple(k << 9 for k in range(65)) * curves
        self.parameters = {"knots": Parameter(entries=65 * curves, format=UQ(1, 15), default=identity, f=26)}

    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        left, t = self._locate(x)
        knot = theta["knots"]
        return (knot[left] << 10) + (knot[left + 1] - knot[left]) * t

    def pullback(self, x, theta, frame, a):
        left, t = (np.broadcast_to(part, a.shape) for part in self._locate(x))
        knot = theta["knots"]
        frames, entries = int(np.prod(a.shape[:-3])), len(knot)
        index = (left.reshape(frames, -1) + entries * np.arange(frames)[:, None]).ravel()
        knotbar = np.zeros(frames * entries, a.dtype)
        np.add.at(knotbar, index, (a * (1024 - t)).ravel())
        np.add.at(knotbar, index + 1, (a * t).ravel())
        return a * (knot[left + 1] - knot[left]), {"knots": knotbar.reshape(*a.shape[:-3], entries)}

    def pushforward(self, x, theta, frame, v, dtheta):
        left, t = self._locate(x)
        knot, dknot = theta["knots"], dtheta["knots"]
        return (knot[left + 1] - knot[left]) * v + dknot[left] * (1024 - t) + dknot[left + 1] * t

    def _locate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of the knot to the left, and the place in the segment in 1/1024."""
        first = 0 if self.curve == "shared" else 65 * np.arange(3)[:, None, None]
        return (x >> 10) + first, x & 1023
