"""What every golden stage is: an exact integer function of codes, a cut, and their derivatives.

A stage maps codes ``x[..., C, H, W]`` to codes ``y[..., C', H, W]``:

    ``N = value(x, theta)``   exact integers with ``f`` fractional bits: no rounding inside
    ``y = cut(N, o)``         the only rounding

A subclass writes three functions by hand from its equation: ``value`` (N), ``pullback`` (the transpose of the
integer Jacobian of N) and ``pushforward`` (the integer Jacobian of N). All take int64 arrays, or object
arrays of Python ints where 63 bits are not enough, or int64 arrays that wrap (arithmetic modulo 2**64):
the operations are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from pullback.rtl.numeric import Format

from .cut import CLIP_MODES, Cut, cut

__all__ = ["Frame", "Parameter", "Pullback", "Stage", "Theta", "channels"]

Theta = Mapping[str, np.ndarray]
"""Parameter codes of a stage: name -> integer array of ``entries`` codes."""


def channels(**formats: Format) -> Mapping[str, Format]:
    """The channels of one side of a stage, in order: ``channels(r=SQ(2, 14), ...)``. Read-only."""
    return MappingProxyType(formats)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a stage must know of the frame besides its pixels.

    Parameters
    ----------
    cfa : int
        Phase of the colour filter array, 0..3.
    border : str
        One of ``border.BORDERS``.
    bypass : frozenset of str
        Names of the bypassed stages.
    """

    cfa: int = 0
    border: str = "mirror"
    bypass: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A stage's parameter: ``entries`` codes of ``format``; its cotangent is an exact integer with ``f``
    fractional bits."""

    entries: int
    format: Format
    default: tuple[int, ...]
    f: int

    def __post_init__(self) -> None:
        if len(self.default) != self.entries:
            raise ValueError(f"{len(self.default)} default codes for {self.entries} entries; give one each")


@dataclass(frozen=True)
class Pullback:
    """The vector-Jacobian product of one stage, exact.

    Members
    -------
    xbar, f
        Cotangent of the input ``[..., C, H, W]``, not yet cut, and its fractional bits.
    thetabar : dict
        Cotangent of each parameter, ``[..., entries]``: summed over the pixels, leading (frame) axes kept.
    cut : Cut
        The forward's final cut, recomputed.
    """

    xbar: np.ndarray
    f: int
    thetabar: dict[str, np.ndarray]
    cut: Cut


class Stage(ABC):
    """A golden stage.

    Members (class attributes of a subclass)
    ----------------------------------------
    name : str
    i, o : mapping
        Channel name -> Format, in order, made with ``channels``. All channels of a side share one format.
    f : int
        Fractional bits of the exact value.
    parameters : dict
        Name -> Parameter, in declaration order.
    cotangent_i, cotangent_o : Format
        Formats of the cotangents at the input (cut) and at the output.

    Parameters
    ----------
    clip : str
        Derivative where the final cut clipped, one of ``cut.CLIP_MODES``.
    """

    name: str
    i: Mapping[str, Format]
    o: Mapping[str, Format]
    f: int
    cotangent_i: Format
    cotangent_o: Format

    def __init__(self, *, clip: str = "disconnected"):
        if clip not in CLIP_MODES:
            raise ValueError(f"clip mode {clip!r} is unknown; give one of {', '.join(CLIP_MODES)}")
        self.clip = clip
        self.parameters: dict[str, Parameter] = {}

    # What a subclass writes -------------------------------------------------------------------------------

    @abstractmethod
    def value(self, x: np.ndarray, theta: Theta, frame: Frame) -> np.ndarray:
        """The exact value N before the cut, ``f`` fractional bits."""

    @abstractmethod
    def pullback(
        self, x: np.ndarray, theta: Theta, frame: Frame, a: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """``(J_x^T a, {parameter: J_theta^T a})`` with J the integer Jacobian of N."""

    def pushforward(
        self, x: np.ndarray, theta: Theta, frame: Frame, v: np.ndarray, dtheta: Theta
    ) -> np.ndarray:
        """``J_x v + J_theta dtheta`` with J the integer Jacobian of N: the exact tests need it, the backends do not."""
        raise TypeError(f"{type(self).__name__} defines no pushforward(x, theta, frame, v, dtheta)")

    def through(self, x: np.ndarray) -> np.ndarray:
        """The value N of the bypassed stage: y = x. Linear, so it is its own Jacobian."""
        return x << (self.f - self.i_f)

    def through_transpose(self, a: np.ndarray) -> np.ndarray:
        """The transpose of ``through``."""
        return a << (self.f - self.i_f)

    # What every stage shares ------------------------------------------------------------------------------

    @property
    def i_f(self) -> int:
        """Fractional bits of the input codes."""
        return _common(self.i).f

    @property
    def o_format(self) -> Format:
        """The format of every output channel."""
        return _common(self.o)

    @property
    def defaults(self) -> dict[str, np.ndarray]:
        """Default codes of the parameters."""
        return {name: np.array(p.default, np.int64) for name, p in self.parameters.items()}

    def forward(self, x: np.ndarray, theta: Theta, frame: Frame) -> Cut:
        """``y = cut(N)``; ``.code`` are the output codes, ``.below`` and ``.above`` the saturation masks."""
        value = self.through(x) if self.name in frame.bypass else self.value(x, theta, frame)
        return cut(value, self.f, self.o_format)

    def vjp(
        self, x: np.ndarray, theta: Theta, frame: Frame, ybar: np.ndarray, *, f: int | None = None
    ) -> Pullback:
        """Pull the cotangent ``ybar`` of the output (``f`` fractional bits, default ``cotangent_o.f``) back.

        Exact: nothing is cut. The fractional bits of the result are ``f + self.f - i_f``, and a parameter's
        are ``Parameter.f + f - cotangent_o.f``.
        """
        forward = self.forward(x, theta, frame)
        a = forward.pull(ybar, self.clip)
        if self.name in frame.bypass:
            xbar = self.through_transpose(a)
            thetabar = {k: np.zeros((*a.shape[:-3], p.entries), a.dtype) for k, p in self.parameters.items()}
        else:
            xbar, thetabar = self.pullback(x, theta, frame, a)
        return Pullback(xbar, (self.cotangent_o.f if f is None else f) + self.f - self.i_f, thetabar, forward)

    def jvp(
        self,
        x: np.ndarray,
        theta: Theta,
        frame: Frame,
        v: np.ndarray,
        dtheta: Theta,
        *,
        towards: np.ndarray | None = None,
    ) -> np.ndarray:
        """Push the tangents ``v`` (of the input codes) and ``dtheta`` (of the parameter codes) forward.

        Exact: the result counts units of ``2**-f``, that is ``2**(o.f - f)`` output codes. ``towards`` is the
        cotangent at the output, which only ``clip="identity_if_towards"`` needs.
        """
        forward = self.forward(x, theta, frame)
        if self.name in frame.bypass:
            tangent = self.through(v)
        else:
            tangent = self.pushforward(x, theta, frame, v, dtheta)
        return forward.push(tangent, self.clip, towards)


def _common(channels: Mapping[str, Format]) -> Format:
    (one,) = set(channels.values())
    return one
