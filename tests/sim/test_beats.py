"""Packing frames into beats and back."""

from __future__ import annotations

import numpy as np
import pytest

from pullback.sim.beats import Beats, pack_frames, unpack_frames


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize(("bits", "low", "high"), [(16, 0, 1 << 16), (24, -(1 << 23), 1 << 23)])
def test_round_trip(lanes: int, bits: int, low: int, high: int) -> None:
    for width in (1, 4, 7):
        frames = np.random.default_rng(width).integers(low, high, (2, 3, 5, width))
        beats = pack_frames(frames, lanes=lanes, bits=bits)
        back = unpack_frames(beats, width=width, height=5, lanes=lanes, bits=bits)
        np.testing.assert_array_equal(back, frames)
        again = Beats.from_integers(
            beats.integers(), list(beats.user), list(beats.last), size=beats.data.shape[1]
        )
        np.testing.assert_array_equal(again.data, beats.data)


def test_order_of_containers() -> None:
    """Lane 0 lowest, channels in order within a lane, written out by hand."""
    frames = np.array([[[[0x11, 0x44, 0x77]], [[0x22, 0x55, 0x88]], [[0x33, 0x66, 0x99]]]])
    beats = pack_frames(frames, lanes=2, bits=16)
    assert beats.integers() == [0x0066_0055_0044_0033_0022_0011, 0x0099_0088_0077]
    assert (beats.user.tolist(), beats.last.tolist()) == ([1, 0], [0, 1])
    assert pack_frames(frames - 0x12, lanes=2, bits=24).integers()[0] & 0xFFFFFF == 0xFFFFFF


def test_garbage_beyond_the_width() -> None:
    frames = np.ones((1, 1, 2, 3), np.uint16)
    beats = pack_frames(frames, lanes=2, bits=16, rng=np.random.default_rng(0))
    assert beats.integers()[1] >> 16
    with pytest.raises(ValueError, match="padding beyond width 3 is not 0"):
        unpack_frames(beats, width=3, height=2, lanes=2, bits=16)


def test_misplaced_marks_are_named() -> None:
    beats = pack_frames(np.zeros((2, 1, 3, 4)), lanes=1, bits=16)
    user, last = beats.user.copy(), beats.last.copy()
    user[13] = 1
    with pytest.raises(ValueError, match="tuser is 1 at beat 1 of line 0 of frame 1"):
        unpack_frames(Beats(beats.data, user, last), width=4, height=3, lanes=1, bits=16)
    last[7] = 0
    with pytest.raises(ValueError, match="tlast is 0 at beat 3 of line 1 of frame 0"):
        unpack_frames(Beats(beats.data, beats.user, last), width=4, height=3, lanes=1, bits=16)
    with pytest.raises(ValueError, match="23 beats are not whole frames of 12"):
        unpack_frames(beats.select(slice(23)), width=4, height=3, lanes=1, bits=16)


def test_codes_must_fit() -> None:
    with pytest.raises(ValueError, match="span 0 to 65536"):
        pack_frames(np.array([[[[0, 65536]]]]), lanes=1, bits=16)
    with pytest.raises(ValueError, match="frames have shape"):
        pack_frames(np.zeros((2, 2)), lanes=1, bits=16)
