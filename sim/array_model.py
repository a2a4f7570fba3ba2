"""An array's unit as a fast callable: operands and a programme in, what leaves it out.

    model = ArrayModel(build)
    run = model.run(jobs, loads=[(Memory.ACTIVATIONS, matrix, values)])
    run.stored, run.emitted, run.cycles

Compiled with Verilator like :class:`~pullback.sim.model.Model`, and cached by content.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pullback.rtl.systolic.build import UnitBuild
from pullback.rtl.systolic.descriptor import Memory, encode
from pullback.rtl.systolic.tiler import Matrix
from pullback.rtl.systolic.unit import EVENTS, ArrayUnit
from pullback.sim.generated import generated
from pullback.sim.model import CoreError, StuckError
from pullback.sim.toolchain import model_tools
from pullback.sim.verilated import BuildFailed, Loop, Progress, shared_object

__all__ = ["ArrayModel", "ArrayRun", "Load", "packed", "unpacked"]

Load = tuple[Memory, Matrix, np.ndarray]

_STREAMS = ("load", "filled", "stored", "emitted")
_DONE, _STUCK, _OVERFLOW, _PAUSED = range(4)
_PATIENCE = 100_000


class _StreamJob(ctypes.Structure):  # struct Stream in array_loop.cpp
    _fields_ = [("data", ctypes.c_void_p), ("beats", ctypes.c_uint64), ("done", ctypes.c_uint64)]


class _Job(ctypes.Structure):  # struct Job in array_loop.cpp
    _fields_ = [
        *((name, _StreamJob) for name in _STREAMS),
        ("programme", ctypes.c_void_p), ("words", ctypes.c_uint64), ("patience", ctypes.c_uint64),
        ("cycles", ctypes.c_uint64), ("counts", ctypes.c_uint32 * 8), ("overflow", ctypes.c_int32),
        ("clipped", ctypes.c_int32),
    ]  # fmt: skip


@dataclass(frozen=True)
class ArrayRun:
    """What a programme left.

    Attributes
    ----------
    stored : [rows, lanes] int64
        Rows of STORE, in order.
    emitted : [rows, C] int64
        Rows of EMIT, in order.
    cycles : int
        From ``go`` until all results stood in memory and had left.
    counts : dict
        Clocks of each event of :data:`~pullback.rtl.systolic.unit.EVENTS`, and ``busy`` and ``span`` of the unit.
    overflow, clipped : bool
        A partial sum wrapped; a code saturated.
    """

    stored: np.ndarray
    emitted: np.ndarray
    cycles: int
    counts: Mapping[str, int]
    overflow: bool
    clipped: bool


def packed(fields: Sequence[tuple[np.ndarray, int]], words: int) -> np.ndarray:
    """[beats, words] uint32 out of columns of integers [beats] or [beats, lanes] and their bits, lowest first."""
    beats = len(fields[0][0])
    bits = []
    for values, width in fields:
        columns = values.astype(np.int64)[..., None]
        every = (columns >> np.arange(width)) & 1
        bits.append(every.reshape(beats, values[:1].size * width if beats else 0).astype(np.uint8))
    joined = np.concatenate(bits, axis=1)
    filled = np.pad(joined, ((0, 0), (0, 32 * words - joined.shape[1])))
    return np.packbits(filled, axis=1, bitorder="little").view("<u4")


def unpacked(beats: np.ndarray, lanes: int, width: int) -> np.ndarray:
    """[beats, lanes] int64, signed, out of [beats, words] uint32."""
    bits = np.unpackbits(beats.view(np.uint8), axis=1, bitorder="little")[:, : lanes * width]
    weights = np.int64(1) << np.arange(width)
    weights[-1] = -weights[-1]
    return bits.reshape(len(beats), lanes, width).astype(np.int64) @ weights


def _check(found: dict[str, tuple[str, int]]) -> None:
    needed = ["clk", "rst", "write_data", "go", "busy", "counts", *(f"{name}__payload" for name in _STREAMS)]
    if missing := [name for name in needed if name not in found]:
        raise BuildFailed(f"the top module has no port {', '.join(missing)}; it is no array unit")


def _header(found: dict[str, tuple[str, int]]) -> str:
    lines = []
    for name in _STREAMS:
        for part, macro in (("payload", ""), ("valid", "_VALID"), ("ready", "_READY")):
            lines.append(f"#define {name.upper()}{macro} {name}___05F{part}\n")
    return "".join(lines)


_LOOP = Loop(Path(__file__).with_name("array_loop.cpp"), _check, _header)


class ArrayModel:
    """One unit, verilated. Its memories keep what they hold from run to run.

    One instance belongs to one thread at a time. Calls into the simulation release the interpreter lock, and Ctrl-C
    ends them within a fraction of a second; the unit is reset then.

    Parameters
    ----------
    build : UnitBuild
    progress : callable, optional
        Gets (fraction, message) while it is built.
    optimise : str
        See :func:`~pullback.sim.verilated.shared_object`.

    Raises
    ------
    pullback.sim.toolchain.ToolMissing
        If Verilator or the C++ compiler is not there.
    """

    def __init__(self, build: UnitBuild, *, progress: Progress | None = None, optimise: str = "fast") -> None:
        self.build = build
        model_tools()
        sources, ports = generated(f"array unit {build}", lambda: ArrayUnit(build), flat=True)
        made = shared_object(_LOOP, sources, top="core", ports=ports, optimise=optimise, progress=progress)
        self._lib = _load(made)
        self._unit = ctypes.c_void_p(self._lib.pullback_new())
        self._finalizer = weakref.finalize(self, self._lib.pullback_delete, self._unit)
        words = (ctypes.c_uint64 * len(_STREAMS))()
        self._lib.pullback_words(self._unit, words)
        self._words = dict(zip(_STREAMS, words, strict=True))
        self.reset()

    def reset(self) -> None:
        """Stops what runs. Memories keep what they hold."""
        self._lib.pullback_reset(self._unit)

    def run(
        self,
        jobs: Sequence[Mapping[str, Any]],
        *,
        loads: Iterable[Load] = (),
        fills: np.ndarray | None = None,
        stored: int = 0,
        emitted: int = 0,
    ) -> ArrayRun:
        """Loads operands, then runs a programme.

        Parameters
        ----------
        jobs : sequence of dict
            Fields of descriptors, in order; the last one is marked as such here.
        loads : iterable of (memory, matrix, values)
        fills : [rows, C] int, optional
            Rows for jobs of kind FILL.
        stored, emitted : int
            Rows that leave.

        Raises
        ------
        ValueError
            If the programme is empty or too long for the unit, or a field does not fit.
        StuckError
            If nothing happens for 100 000 clocks: rows to fill are missing, or fewer leave than were announced.
        CoreError
            If more rows leave than were announced.
        """
        build = self.build
        if not jobs:
            raise ValueError("a programme of no jobs; give at least one")
        programme = np.array(
            [word for job in [*jobs[:-1], {**jobs[-1], "last": 1}] for word in encode(build, job)], np.uint32
        )
        if len(programme) > build.programme:
            raise ValueError(
                f"{len(jobs)} jobs have {len(programme)} words; the unit holds {build.programme}, so run them in parts"
            )
        columns = build.array.columns
        beats = {
            "load": self._loads(loads),
            "filled": packed(
                [(np.zeros((0, columns)) if fills is None else fills, build.total)], self._words["filled"]
            ),
            "stored": np.zeros((stored, self._words["stored"]), np.uint32),
            "emitted": np.zeros((emitted, self._words["emitted"]), np.uint32),
        }
        job = _Job(programme=programme.ctypes.data, words=len(programme), patience=_PATIENCE)
        for name, data in beats.items():
            beats[name] = data = np.ascontiguousarray(data)
            setattr(job, name, _StreamJob(data=data.ctypes.data, beats=len(data)))
        status, fresh = _PAUSED, 1
        try:
            while status == _PAUSED:
                status = self._lib.pullback_run(self._unit, ctypes.byref(job), fresh)
                fresh = 0
        except BaseException:
            self.reset()
            raise
        if status != _DONE:
            self.reset()
            where = ", ".join(
                f"{name} {getattr(job, name).done} of {len(data)}" for name, data in beats.items()
            )
            if status == _STUCK:
                raise StuckError(f"nothing happened for {_PATIENCE} clocks: {where}")
            raise CoreError(f"more rows leave than were announced: {where}")
        names = [*(name for name, _ in EVENTS), "busy", "span"]
        return ArrayRun(
            stored=unpacked(beats["stored"], build.lanes, build.array.operand),
            emitted=unpacked(beats["emitted"], columns, build.total),
            cycles=job.cycles,
            counts=dict(zip(names, job.counts, strict=False)),
            overflow=bool(job.overflow),
            clipped=bool(job.clipped),
        )

    def _loads(self, loads: Iterable[Load]) -> np.ndarray:
        """Beats of runs of `lanes` operands."""
        build, lanes = self.build, self.build.lanes
        at_bits = (build.elements - 1).bit_length()
        parts = []
        for memory, matrix, values in loads:
            if values.shape != (matrix.rows, matrix.columns):
                raise ValueError(f"values of {values.shape} for a matrix of {(matrix.rows, matrix.columns)}")
            matrix.inside(build.elements, "what is loaded")
            runs = -(-matrix.columns // lanes)
            rows = np.pad(values, ((0, 0), (0, runs * lanes - matrix.columns))).reshape(-1, lanes)
            first = np.arange(matrix.rows)[:, None] * matrix.stride + np.arange(runs) * lanes
            on = np.arange(runs * lanes).reshape(runs, lanes) < matrix.columns
            parts.append(
                packed(
                    [
                        (np.full(len(rows), memory.value), 2),
                        (matrix.at + first.reshape(-1), at_bits),
                        (np.tile(on, (matrix.rows, 1)), 1),
                        (rows, build.array.operand),
                    ],
                    self._words["load"],
                )
            )
        return np.concatenate(parts) if parts else np.zeros((0, self._words["load"]), np.uint32)


def _load(made: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(made))
    void = ctypes.c_void_p
    for name, result, arguments in (
        ("new", void, []),
        ("delete", None, [void]),
        ("reset", None, [void]),
        ("job_size", ctypes.c_uint64, []),
        ("run", ctypes.c_int32, [void, ctypes.POINTER(_Job), ctypes.c_int32]),
        ("words", None, [void, ctypes.POINTER(ctypes.c_uint64)]),
    ):
        function = getattr(lib, f"pullback_{name}")
        function.restype, function.argtypes = result, arguments
    if lib.pullback_job_size() != ctypes.sizeof(_Job):
        raise CoreError(f"{made} was compiled from another array_loop.cpp: delete it")
    return lib
