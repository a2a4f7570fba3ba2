"""The tape: what a stage read or decided, kept until the cotangent of what it made of it comes back."""

from __future__ import annotations

from .fifo import Fifo

__all__ = ["Tape"]


class Tape(Fifo):
    """``o[n] = i[n]``: an elastic FIFO of ``depth`` beats between a stage and its adjoint.

    It delays by lines, not frames: the beats between a stage and the cotangent of its output are
    those inside the rest of the pipeline, a few windows' worth of lines. It fills as far as that path is long
    and never further, so its depth is an upper bound and not a delay: size it for the longest line. A tape
    that is too short stops the fork at the stage while the path behind it waits for a cotangent, a
    deadlock; one that is too long costs RAM and nothing else.

    Depth, throughput, latency, ports and errors are :class:`Fifo`'s. A tape without payload (a stage whose
    pullback needs the site only) carries the flags of its beats, or with zero width just their count.
    """
