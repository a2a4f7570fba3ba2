"""Stall patterns."""

from __future__ import annotations

from itertools import groupby, islice

import pytest

from pullback.sim.stalls import ALTERNATING, LONG, NONE, Stall


def test_exact_patterns() -> None:
    assert all(islice(NONE.cycles(0), 1000))
    assert list(islice(ALTERNATING.cycles(0), 4)) == [True, False, True, False]
    assert [len(list(run)) for _, run in islice(groupby(LONG.cycles(0)), 4)] == [40, 90, 40, 90]


def test_bursts_have_their_mean_lengths() -> None:
    cycles = list(islice(Stall(on=5, off=2).cycles(1), 70000))
    runs = [(active, len(list(run))) for active, run in groupby(cycles)]
    for active, mean in ((True, 5), (False, 2)):
        lengths = [n for kind, n in runs if kind == active]
        assert abs(sum(lengths) / len(lengths) - mean) < 0.15
        assert max(lengths) > 3 * mean and min(lengths) == 1
    assert cycles == list(islice(Stall(on=5, off=2).cycles(1), 70000))
    assert cycles != list(islice(Stall(on=5, off=2).cycles(2), 70000))


def test_impossible_patterns() -> None:
    with pytest.raises(ValueError, match=r"off is 0\.5"):
        Stall(off=0.5)
    with pytest.raises(ValueError, match="on is 0"):
        Stall(on=0)
