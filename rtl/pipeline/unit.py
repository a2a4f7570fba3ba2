"""What every unit has, forward, loss and adjoint: geometry in, the ends of frames and lost groups out."""

from __future__ import annotations

from amaranth.lib.wiring import In, Out

__all__ = ["unit_members"]


def unit_members() -> dict:
    """``width``, ``height``, ``frames`` : static; pixels, and frames per group.

    ``done`` : one clock when the last beat of a frame has left the datapath. ``overrun`` : a group ended before the
    results of the one before were taken.
    """
    return {"width": In(16), "height": In(16), "frames": In(16), "done": Out(1), "overrun": Out(1)}
