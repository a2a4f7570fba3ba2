"""Companions simulated on rows of fields: what leaves them, row by row and clock by clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from amaranth.lib import data

from pullback.gen.verilog import simulation_verilog
from pullback.sim.bench.waves import play
from pullback.sim.generated import generated

Row = dict[str, np.ndarray]


def packed(layout: data.StructLayout, row: Mapping[str, Any]) -> list[int]:
    """Beats of a row: fields are arrays [n], or numbers that hold for the whole row."""
    n = max(np.size(values) for values in row.values())
    fields = {**row, "last": np.arange(n) == n - 1}
    words = [0] * n
    for name, field in layout:
        values = np.broadcast_to(np.asarray(fields[name], np.int64), n).tolist()
        mask = (1 << field.width) - 1
        words = [word | (value & mask) << field.offset for word, value in zip(words, values, strict=True)]
    return words


def unpacked(layout: data.StructLayout, words: Sequence[int | None]) -> list[Row]:
    """Rows of the beats that left; the last one may lack its end."""
    found: list[list[int]] = [[]]
    for word in words:
        assert word is not None, "X in a payload"
        found[-1].append(word)
        if word >> layout["last"].offset & 1:
            found.append([])
    rows = []
    for beats in found:
        row = {}
        for name, field in layout:
            values = [(word >> field.offset) & ((1 << field.width) - 1) for word in beats]
            if getattr(field.shape, "signed", False):
                values = [x - (x >> (field.width - 1) << field.width) for x in values]
            row[name] = np.array(values, np.int64)
        rows.append(row)
    return rows if found[-1] else rows[:-1]


@dataclass
class Run:
    """What a simulation showed.

    Attributes
    ----------
    rows : list of dict
        Field -> [n], of every row that left.
    taken, offered : list of int
        Clocks in which an element was taken at ``i``, and in which one left ``o``.
    stalled : int
        Clocks in which an element waited at ``i``.
    seen : dict
        Output -> value in every clock.
    """

    rows: list[Row]
    taken: list[int]
    offered: list[int]
    stalled: int
    seen: dict[str, list[int | None]]

    @property
    def cycles(self) -> int:
        """From the first element taken to the last one that left, both counted."""
        return self.offered[-1] - self.taken[0] + 1


def run(
    make: Callable[[], Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str | None = None,
    simulator: str = "icarus",
    seed: int | None = None,
    reset: int | None = None,
) -> Run:
    """Plays rows on a companion; with a ``seed`` both ends stall; ``reset``: a clock of reset on the way.

    ``name`` says what ``make`` depends on; without it nothing is taken from the cache.
    """
    dut = make()
    i, o = dut.i.payload.shape(), dut.o.payload.shape()
    beats = [word for row in rows for word in packed(i, row)]
    clocks = len(beats) * (1 if seed is None else 4) + 2 * dut._build.longest + dut.latency + 20
    pulse = [int(k == reset) for k in range(clocks)]
    if name is None:
        sources = {"core.sv": simulation_verilog(make())}
    else:
        sources, _ = generated(f"companion {type(dut).__name__} {name}", make)
    watched = ["i__valid", "i__ready", "o__valid", "o__ready", "o__payload", "overlong"]
    seen = play(sources, {"rst": pulse}, watched, simulator, gives={"i": beats}, takes=["o"], seed=seed)
    for port in watched[:4]:
        assert None not in seen[port], f"X at {port}"
    taken = [k for k in range(clocks) if seen["i__valid"][k] and seen["i__ready"][k]]
    offered = [k for k in range(clocks) if seen["o__valid"][k] and seen["o__ready"][k]]
    stalled = sum(bool(v and not r) for v, r in zip(seen["i__valid"], seen["i__ready"], strict=True))
    after = -1 if reset is None else reset
    left = [seen["o__payload"][k] for k in offered if k > after]
    return Run(unpacked(o, left), taken, offered, stalled, seen)


def leaves(ends: Sequence[int], lengths: Sequence[int], latency: int) -> list[int]:
    """Clocks in which the last elements of rows leave a buffer, ``ends`` those in which they enter: a row begins
    ``latency`` clocks after it is complete, or when the one before has left.
    """
    found: list[int] = []
    for end, length in zip(ends, lengths, strict=True):
        begin = max(end + latency, found[-1] + 1 if found else 0)
        found.append(begin + length - 1)
    return found


class Rows:
    """What the tests of this folder share; a fixture, because test folders are no packages."""

    packed = staticmethod(packed)
    run = staticmethod(run)
    leaves = staticmethod(leaves)


@pytest.fixture(scope="session")
def rows() -> type[Rows]:
    """Simulations of companions."""
    return Rows
