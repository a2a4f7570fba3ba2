"""The cut: the one place where a value narrows, and its derivative.

``code = min(max(floor(value * 2**(to.f - f) + 1/2), lo), hi)``: round half up, then saturate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pullback.rtl.numeric import Format

__all__ = ["CLIP_MODES", "Cut", "cut"]

CLIP_MODES = ("disconnected", "identity", "identity_if_towards")
"""Derivatives of saturation. Rounding always has derivative 1. Where a code clipped, the derivative is

``disconnected``
    0.
``identity``
    1.
``identity_if_towards``
    1 if a descent step (against the cotangent) moves the value back towards the range: cotangent < 0
    where it clipped at ``lo``, cotangent > 0 where it clipped at ``hi``; otherwise 0.
"""


@dataclass(frozen=True)
class Cut:
    """What a cut did.

    Members
    -------
    code : integer array
        The codes after the cut.
    below, above : bool arrays
        Where the *rounded* value lay under ``to.lo`` / over ``to.hi`` and was clipped.
    value, f : integer array, int
        The uncut value and its fractional bits.
    to : Format
        The format of ``code``.
    """

    code: np.ndarray
    below: np.ndarray
    above: np.ndarray
    value: np.ndarray
    f: int
    to: Format

    @property
    def clipped(self) -> np.ndarray:
        """Where saturation changed the rounded value."""
        return self.below | self.above

    @property
    def remainder_f(self) -> int:
        """Fractional bits of ``remainder``: ``max(f, to.f)``."""
        return max(self.f, self.to.f)

    @property
    def remainder(self) -> np.ndarray:
        """What the cut added, exactly: ``code - value`` with ``remainder_f`` fractional bits.

        Without clipping ``-half < remainder <= half`` with half an LSB of ``to`` (half goes up).
        """
        code_shift, value_shift = self.remainder_f - self.to.f, self.remainder_f - self.f
        return (self.code << code_shift) - (self.value << value_shift)

    def pull(self, ybar: np.ndarray, clip: str = "disconnected") -> np.ndarray:
        """Cotangent of the uncut value: ``ybar`` times the derivative of the cut."""
        return np.where(self._blocked(clip, ybar), 0, ybar)

    def push(
        self, v: np.ndarray, clip: str = "disconnected", towards: np.ndarray | None = None
    ) -> np.ndarray:
        """Tangent of the code (as a real number): ``v`` times the derivative of the cut.

        ``towards`` is the cotangent at the code; ``identity_if_towards`` depends on its sign.
        """
        return np.where(self._blocked(clip, towards), 0, v)

    def _blocked(self, clip: str, ybar: np.ndarray | None) -> np.ndarray:
        if clip == "disconnected":
            return self.clipped
        if clip == "identity":
            return np.zeros_like(self.below)
        if clip == "identity_if_towards":
            if ybar is None:
                raise ValueError(
                    "clip mode identity_if_towards depends on the cotangent's sign; give towards=cotangent"
                )
            return (self.below & (ybar >= 0)) | (self.above & (ybar <= 0))
        raise ValueError(f"clip mode {clip!r} is unknown; give one of {', '.join(CLIP_MODES)}")


def cut(value: np.ndarray, f: int, to: Format) -> Cut:
    """Cut ``value`` (``f`` fractional bits, any integer array) to ``to``: round half up, then saturate."""
    shift = f - to.f
    rounded = (value + (1 << (shift - 1))) >> shift if shift > 0 else value << -shift
    below, above = (rounded < to.lo).astype(bool), (rounded > to.hi).astype(bool)
    return Cut(np.clip(rounded, to.lo, to.hi), below, above, value, f, to)
