"""What a host does with an array's unit: loads operands, runs programmes, takes rows of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pullback.rtl.systolic.build import UnitBuild
from pullback.rtl.systolic.convolution import Picture
from pullback.rtl.systolic.descriptor import Memory, encode
from pullback.rtl.systolic.tiler import Matrix
from pullback.rtl.systolic.unit import ArrayUnit, load
from pullback.sim.bench.waves import pack, play, unpack
from pullback.sim.generated import generated

__all__ = ["Host"]


class Host:
    """Collects what to load, to fill and to run, then plays all of it on a unit at once.

    Parameters
    ----------
    build : UnitBuild
    """

    def __init__(self, build: UnitBuild) -> None:
        self.build = build
        self._loads: list[int] = []
        self._fills: list[int] = []
        self._jobs: list[dict[str, Any]] = []
        self._wanted: list[tuple[str, Matrix | int]] = []
        self.seen: dict[str, list[int | None]] = {}

    def load(self, memory: Memory, matrix: Matrix, values: np.ndarray) -> None:
        """A matrix into a memory, before anything runs."""
        build, lanes = self.build, self.build.lanes
        shape = load(build)
        for i, row in enumerate(np.asarray(values)):
            for j in range(0, matrix.columns, lanes):
                run = [int(x) for x in row[j : j + lanes]]
                fields: dict[int | str, Any] = {
                    "to": memory,
                    "at": matrix.at + i * matrix.stride + j,
                    "on": (1 << len(run)) - 1,
                    "row": run + [0] * (lanes - len(run)),
                }
                self._loads.append(shape.const(fields).as_value().value)

    def load_pictures(self, memory: Memory, picture: Picture, values: np.ndarray | None = None) -> None:
        """Pictures with their frames of zeros; without values the frames and nothing in them."""
        if values is None:
            values = np.zeros((picture.number, picture.height, picture.width, picture.channels), int)
        self.load(memory, picture.lines, picture.framed(values))

    def fill(self, rows: np.ndarray) -> None:
        """Rows of partial sums for jobs of kind FILL, in their order."""
        padded = np.pad(rows, ((0, 0), (0, self.build.array.columns - rows.shape[1])))
        self._fills += [pack(row, self.build.total) for row in padded]

    def run(self, fields: Mapping[str, Any], *, fence: bool = False) -> None:
        """A job."""
        self._jobs.append(dict(fields, fence=int(fence)))

    def want(self, fields: Mapping[str, Any], what: Matrix | int, *, fence: bool = True) -> None:
        """A STORE of a matrix or an EMIT of so many rows, after all before it."""
        self._wanted.append(("stored" if isinstance(what, Matrix) else "emitted", what))
        self.run(fields, fence=fence)

    def play(
        self,
        simulator: str = "icarus",
        *,
        clocks: int = 100_000,
        seed: int | None = None,
        sources: Mapping[str, str] | None = None,
        watch: Sequence[str] = (),
    ) -> list[np.ndarray]:
        """What was wanted, in order: matrices of operands, and [rows, C] of partial sums.

        It gives up ``clocks`` after ``go``. The outputs in ``watch``, and ``busy``, ``overflow`` and ``clipped``, are
        in `seen` afterwards, from the clock of ``go`` on.
        """
        build = self.build
        jobs = [*self._jobs[:-1], self._jobs[-1] | {"last": 1}]
        words = [word for job in jobs for word in encode(build, job)]
        if len(words) > build.programme:
            raise ValueError(f"{len(words)} words of programme; the unit has {build.programme}")
        loading = 2 * len(self._loads) + 20
        before = max(len(words), loading if seed is None else 4 * loading)
        quiet = [0] * (before - len(words))
        inputs = {
            "write": [1] * len(words) + quiet + [0] * clocks,
            "write_row": [*range(len(words))] + quiet + [0] * clocks,
            "write_data": words + quiet + [0] * clocks,
            "go": [0] * before + [1] + [0] * (clocks - 1),
            "start": [0] * (before + clocks),
        }
        outputs = ["busy", "overflow", "clipped", *watch]
        shown = play(
            sources or generated(f"array unit {build}", lambda: ArrayUnit(build))[0], inputs, outputs, simulator,
            gives={"load": self._loads, "filled": self._fills}, takes=["stored", "emitted"], seed=seed, until="busy",
        )  # fmt: skip
        self.seen = {name: shown[name][before:] for name in outputs}
        assert self.seen["busy"][-1] == 0, f"not done after {clocks} clocks"
        return self._given(shown)

    def _given(self, shown: Mapping[str, list[int | None]]) -> list[np.ndarray]:
        build = self.build
        at = {"stored": 0, "emitted": 0}
        found = []
        for name, what in self._wanted:
            rows = what if isinstance(what, int) else what.rows * -(-what.columns // build.lanes)
            beats = shown[name][at[name] : at[name] + rows]
            assert len(beats) == rows and None not in beats, f"{name}: {beats} of {rows} rows"
            at[name] += rows
            if isinstance(what, int):
                found.append(np.array([unpack(b or 0, build.array.columns, build.total) for b in beats]))
            else:
                runs = np.array([unpack(b or 0, build.lanes, build.array.operand) for b in beats])
                found.append(runs.reshape(what.rows, -1)[:, : what.columns])
        assert at == {name: len(shown[name]) for name in at}, "rows that nobody wanted"
        return found
