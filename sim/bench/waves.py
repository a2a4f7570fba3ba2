"""Plays values on the inputs of a design clock by clock and brings back its outputs: :func:`play`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pullback.sim.bench.runner import run_bench

__all__ = ["pack", "play", "unpack"]


def pack(row: Iterable[int], width: int) -> int:
    """A row of lanes as the bits of a port, lane 0 lowest."""
    return sum((int(x) & ((1 << width) - 1)) << (k * width) for k, x in enumerate(row))


def unpack(bits: int, lanes: int, width: int, *, signed: bool = True) -> list[int]:
    """The lanes of a port."""
    fields = [(bits >> (k * width)) & ((1 << width) - 1) for k in range(lanes)]
    return [x - ((x >> (width - 1)) << width) for x in fields] if signed else fields


def play(
    sources: Mapping[str, str],
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str],
    simulator: str = "icarus",
    *,
    top: str = "core",
    gives: Mapping[str, Sequence[int]] | None = None,
    takes: Sequence[str] = (),
    seed: int | None = None,
    until: str | None = None,
) -> dict[str, list[int | None]]:
    """Values of the outputs of a design in every clock.

    Element k of an input stands at its port during clock k, and element k of an output is what its port shows during
    that clock. Two clocks of reset come before clock 0, with every input at its first value. All lists must be of one
    length; values are the port's bits as an unsigned number, None where one of them is X.

    Streams beside that: the beats of ``gives`` are offered at theirs, those of ``takes`` taken, and what was taken is
    the value of their name. With a ``seed`` both stall at random, else never. It ends early when the output ``until``
    has fallen and nothing has been taken since for a while.

    Raises
    ------
    ValueError
        If inputs differ in length or there are none.
    BenchError
        If the design does not build or a port is not there.
    """
    lengths = {len(values) for values in inputs.values()}
    if len(lengths) != 1:
        raise ValueError(f"inputs have {sorted(lengths)} clocks; give all of them the same number")
    with tempfile.TemporaryDirectory(prefix="pullback-waves-") as scratch:
        job = {
            "inputs": {name: [int(v) for v in values] for name, values in inputs.items()},
            "outputs": list(outputs),
            "gives": {name: [int(v) for v in beats] for name, beats in (gives or {}).items()},
            "takes": list(takes),
            "seed": seed,
            "until": until,
        }
        (Path(scratch) / "job.json").write_text(json.dumps(job))
        run_bench(
            sources, "pullback.sim.bench.bench_waves", simulator=simulator, top=top,
            environment={"PULLBACK_WAVES": scratch},
        )  # fmt: skip
        return json.loads((Path(scratch) / "outputs.json").read_text())
