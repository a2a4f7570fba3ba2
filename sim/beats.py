"""Frames as AXI4-Stream Video beats, and back.

A beat of P lanes is ``tdata`` with one container per channel per lane, lane 0 lowest, channels in order;
``tuser`` marks the first beat of a frame and ``tlast`` the last of a line. A container is 16 bits (raw, picture,
target), or 24 bits two's complement (cotangent, gradient, and any stream with a wider format than 16 bits).
Lane p of beat b of a line is site x = b P + p.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["CONTAINER_BITS", "Beats", "pack_frames", "unpack_frames"]

CONTAINER_BITS = {"raw": 16, "target": 16, "picture": 16, "cotangent": 24, "gradient": 24}


@dataclass(frozen=True)
class Beats:
    """A sequence of beats.

    Attributes
    ----------
    data : [n, bytes] uint8
        ``tdata``, lowest byte first.
    user, last : [n] uint8
        0 or 1.
    """

    data: np.ndarray
    user: np.ndarray
    last: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.data)
        if self.data.ndim != 2 or len(self.user) != n or len(self.last) != n:
            raise ValueError(
                f"data {self.data.shape}, user {self.user.shape}, last {self.last.shape}: "
                "data is [n, bytes], user and last are [n]"
            )

    def __len__(self) -> int:
        return len(self.data)

    def select(self, index: slice | np.ndarray) -> Beats:
        """The beats at ``index`` (a slice or an array of positions), to cut, drop or repeat some."""
        return Beats(self.data[index], self.user[index], self.last[index])

    def integers(self) -> list[int]:
        """``tdata`` of each beat as an integer."""
        return [int.from_bytes(row.tobytes(), "little") for row in self.data]

    @classmethod
    def from_integers(cls, words: list[int], user: list[int], last: list[int], *, size: int) -> Beats:
        """Beats of ``size`` bytes out of integers."""
        data = np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), np.uint8)
        return cls(data.reshape(len(words), size), np.array(user, np.uint8), np.array(last, np.uint8))


def pack_frames(
    frames: np.ndarray, *, lanes: int, bits: int, rng: np.random.Generator | None = None
) -> Beats:
    """Packs [N,C,H,W] codes into N * H * ceil(W / lanes) beats.

    Lanes beyond the width carry what ``rng`` draws, or 0.

    Raises
    ------
    ValueError
        If a code does not fit its container of ``bits`` (16 or 24).
    """
    frames = np.asarray(frames)
    if frames.ndim != 4:
        raise ValueError(f"frames have shape {frames.shape}; they are [N,C,H,W]")
    low, high = (-(1 << 15), (1 << 16) - 1) if bits == 16 else (-(1 << 23), (1 << 23) - 1)
    if frames.size and (frames.min() < low or frames.max() > high):
        raise ValueError(
            f"codes span {frames.min()} to {frames.max()}; a container of {bits} bits holds {low} to {high}"
        )
    count, channels, height, width = frames.shape
    beats = -(-width // lanes)
    size = bits // 8
    codes = np.zeros((count, height, beats * lanes, channels), "<i4")
    codes[:, :, :width] = frames.transpose(0, 2, 3, 1)
    if rng is not None and beats * lanes > width:
        codes[:, :, width:] = rng.integers(low, high, codes[:, :, width:].shape, endpoint=True)
    data = np.ascontiguousarray(codes.view(np.uint8).reshape(-1, 4)[:, :size])
    user = np.zeros((count, height, beats), np.uint8)
    user[:, 0, 0] = 1
    last = np.zeros((count, height, beats), np.uint8)
    last[:, :, -1] = 1
    return Beats(data.reshape(count * height * beats, -1), user.ravel(), last.ravel())


def unpack_frames(beats: Beats, *, width: int, height: int, lanes: int, bits: int) -> np.ndarray:
    """The reverse: [N,C,H,W], uint16 out of containers of 16 bits, int32 with sign out of those of 24.

    Raises
    ------
    ValueError
        If the beats are not whole frames, ``tuser`` or ``tlast`` is out of place, or padding is not 0.
    """
    per_line = -(-width // lanes)
    per_frame = per_line * height
    if len(beats) % per_frame:
        raise ValueError(f"{len(beats)} beats are not whole frames of {per_frame} beats")
    count = len(beats) // per_frame
    position = np.arange(len(beats))
    for name, marks, expected in (
        ("tuser", beats.user, position % per_frame == 0),
        ("tlast", beats.last, position % per_line == per_line - 1),
    ):
        wrong = np.flatnonzero(np.asarray(marks).astype(bool) != expected)
        if wrong.size:
            frame, y, b = np.unravel_index(wrong[0], (count, height, per_line))
            raise ValueError(
                f"{name} is {int(marks[wrong[0]])} at beat {b} of line {y} of frame {frame} ({wrong.size} wrong in all)"
            )
    size = bits // 8
    channels = beats.data.shape[1] // size // lanes
    codes = np.zeros((count, height, per_line * lanes, channels, 4), np.uint8)
    codes[..., :size] = beats.data.reshape(count, height, per_line * lanes, channels, size)
    values = codes.view("<i4")[..., 0]
    if values[:, :, width:].any():
        raise ValueError(f"padding beyond width {width} is not 0")
    if bits == 24:
        values = values << 8 >> 8
    picture = values[:, :, :width].transpose(0, 3, 1, 2)
    return np.ascontiguousarray(picture, np.uint16 if bits == 16 else np.int32)
