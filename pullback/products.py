"""Products of matrices and convolutions on integer codes, behind one small protocol: what layers are made of.

    ``y = requantise(x w + bias)``, ``dx = dy w^T``, ``dw = x^T dy``, ``db = sum of dy``

and the same for convolutions, and max pools. Operands are signed codes of 8 bits, ``[M, K]``, or of pictures
``[number, height, width, channels]``; dx, dw and db are exact sums. ``golden`` is numpy; ``rtl`` is the array's unit
simulated by Verilator; they agree to the bit.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pullback.errors import UsageError
from pullback.rtl.systolic import convolution, pooling, tiler
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.convolution import Part, Picture, Taps
from pullback.rtl.systolic.descriptor import Beginning, Branches, Kind, Memory
from pullback.rtl.systolic.tiler import Fields, Matrix, Nest, tiles
from pullback.sim.array_model import ArrayModel, ArrayRun, Load
from pullback.sim.golden import matmul
from pullback.sim.golden.convolution import Convolution
from pullback.sim.golden.pool import MaxPool
from pullback.sim.golden.requantise import Requantisation, requantise

__all__ = [
    "OPERAND_BITS",
    "SIMULATED",
    "TOTAL_BITS",
    "GoldenProducts",
    "Products",
    "RtlProducts",
    "open_products",
]

Codes = NDArray[np.int64]

OPERAND_BITS = 8
"""Bits of an operand's code."""

TOTAL_BITS = 32
"""Bits of a sum."""

SIMULATED = UnitBuild(
    array=ArrayBuild(rows=8, columns=8),
    memory=1 << 15,
    sums=1 << 12,
    masks=1 << 12,
    total=TOTAL_BITS,
    programme=1 << 13,
)
"""What is simulated unless another unit is asked for: memories larger than a small chip's, so that layers fit."""


class Products(Protocol):
    """Whatever computes the three products of a layer."""

    name: str

    def y(
        self, x: Codes, w: Codes, bias: Codes | None, how: Requantisation, taps: Taps | None
    ) -> tuple[Codes, Codes]:
        """Codes, and what `requantise` says of each: 0 where its derivative is zero, 1 and 3 on its branches."""
        ...

    def dx(self, dy: Codes, w: Codes, shape: tuple[int, ...], taps: Taps | None) -> Codes:
        """Sums of dX, of X with ``shape``."""
        ...

    def dw(self, x: Codes, dy: Codes, taps: Taps | None) -> tuple[Codes, Codes]:
        """Sums of dW, in the shape of W: [K, N], [h, w, channels, outputs], or depthwise [h, w, channels]; and db."""
        ...

    def max_pool(self, x: Codes, taps: Taps) -> tuple[Codes, Codes]:
        """The largest code of every window, and the number of its tap, line by line."""
        ...

    def max_pool_dx(self, dy: Codes, numbers: Codes, shape: tuple[int, ...], taps: Taps) -> Codes:
        """Sums of dX, of X with ``shape``."""
        ...


def _golden(taps: Taps) -> Convolution:
    return Convolution(stride=taps.stride, padding=taps.padding, dilation=taps.dilation)


def _golden_pool(taps: Taps) -> MaxPool:
    return MaxPool(
        height=taps.height, width=taps.width, stride=taps.stride, padding=taps.padding, dilation=taps.dilation
    )


_WRAPS = f"a sum does not fit {TOTAL_BITS} bits; give smaller operands or fewer of them"


def _fit(sums: Codes) -> Codes:
    """Sums that the array holds as well; its own flag them on the way, numpy's at their end."""
    half = 1 << (TOTAL_BITS - 1)
    if sums.size and not (-half <= sums.min() and sums.max() < half):
        raise OverflowError(_WRAPS)
    return sums


class GoldenProducts:
    """The products in numpy, from their equations."""

    name = "golden"

    def y(
        self, x: Codes, w: Codes, bias: Codes | None, how: Requantisation, taps: Taps | None
    ) -> tuple[Codes, Codes]:
        """See :class:`Products`."""
        sums = matmul.y(x, w) if taps is None else _golden(taps).y(x, w)
        return requantise(_fit(sums if bias is None else sums + bias), how)

    def dx(self, dy: Codes, w: Codes, shape: tuple[int, ...], taps: Taps | None) -> Codes:
        """See :class:`Products`."""
        return _fit(matmul.dx(dy, w) if taps is None else _golden(taps).dx(dy, w, shape))

    def dw(self, x: Codes, dy: Codes, taps: Taps | None) -> tuple[Codes, Codes]:
        """See :class:`Products`."""
        db = dy.reshape(-1, dy.shape[-1]).astype(np.int64).sum(0)
        if taps is None:
            return _fit(matmul.dw(x, dy)), _fit(db)
        kernel = (taps.height, taps.width)
        return _fit(_golden(taps).dw(x, dy, kernel, depthwise=taps.depthwise)), _fit(db)

    def max_pool(self, x: Codes, taps: Taps) -> tuple[Codes, Codes]:
        """See :class:`Products`."""
        return _golden_pool(taps).y(x)

    def max_pool_dx(self, dy: Codes, numbers: Codes, shape: tuple[int, ...], taps: Taps) -> Codes:
        """See :class:`Products`."""
        return _golden_pool(taps).dx(dy, numbers, shape)


def _alone(method):
    """One thread at a time: partial sums stay in the unit from one programme to the next."""

    @functools.wraps(method)
    def locked(self, *args):
        with self._lock:
            return method(self, *args)

    return locked


class RtlProducts:
    """The array's unit, simulated clock by clock; compiled on first use.

    Batches that do not fit its memories go through it in parts. Weights must fit whole.

    Parameters
    ----------
    build : UnitBuild
    progress : callable, optional
        Gets (fraction, message) while the model is built.

    Attributes
    ----------
    cycles : int
        Clocks that its programmes took, all together.
    macs : int
        Products of operands that were asked for, all together.

    Raises
    ------
    pullback.sim.toolchain.ToolMissing
        On first use, if Verilator or the C++ compiler is not there.
    """

    name = "rtl"

    def __init__(
        self, build: UnitBuild = SIMULATED, *, progress: Callable[[float, str], None] | None = None
    ) -> None:
        if build.array.operand != OPERAND_BITS or build.total != TOTAL_BITS:
            raise ValueError(
                f"a unit of {build.array.operand}-bit operands and {build.total}-bit sums; layers have {OPERAND_BITS} "
                f"and {TOTAL_BITS}"
            )
        self.build = build
        self.cycles, self.macs = 0, 0
        self._progress = progress
        self._model: ArrayModel | None = None
        self._lock = threading.Lock()  # a product of several programmes belongs to one thread at a time

    def prepare(self) -> ArrayModel:
        """The simulated unit; builds it if it is not there."""
        if self._model is None:
            self._model = ArrayModel(self.build, progress=self._progress)
        return self._model

    # What both kinds of operands share.

    def _run(self, jobs: list[Fields], loads: list[Load], **more: Any) -> ArrayRun:
        run = self.prepare().run(jobs, loads=loads, **more)
        self.cycles += run.cycles
        if run.overflow:
            raise OverflowError(_WRAPS)
        return run

    def _biases(
        self, bias: Codes | None, step: int
    ) -> tuple[list[Fields], dict[str, Any], np.ndarray | None]:
        """A job that fills them in, what a sum begins with, and the rows."""
        if bias is None:
            return [], {"begin": Beginning.ZERO, "start": 0}, None
        outer, tail = tiles(len(bias), step)
        rows = np.pad(bias, (0, step - tail)).reshape(outer, step)
        rows = np.pad(rows, ((0, 0), (0, self.build.array.columns - step)))
        begin = {"begin": Beginning.BIAS, "bias": 0, "start": outer}
        return [tiler.fill(self.build, 0, outer)], begin, rows

    def _fits(self, what: str, size: int) -> None:
        if size > self.build.elements:
            raise UsageError(
                f"{what} takes {size} operands; a memory of this unit holds {self.build.elements}, so build it with "
                f"memory={1 << (-(-size // self.build.lanes) - 1).bit_length()} rows"
            )

    @_alone
    def y(
        self, x: Codes, w: Codes, bias: Codes | None, how: Requantisation, taps: Taps | None
    ) -> tuple[Codes, Codes]:
        """See :class:`Products`."""
        build = self.build
        settings = {"shift": how.shift, "leak": how.leak, "relu": int(how.relu), "top": how.top}
        self.macs += _macs(x, w, taps)
        if taps is not None:
            return self._convolve(x, w, bias, settings, taps)
        (m, k), n = x.shape, w.shape[1]
        outer = tiles(n, build.array.columns)[0]
        wm = Matrix(0, k, n, n)
        self._fits("W", k * n)
        fills, begin, rows = self._biases(bias, build.array.columns)
        most = min((build.sums - outer), build.masks // outer, build.elements // (k + n), 1 << build.count)
        self._some(most, f"a row of {k} and {n} operands")
        codes, branches = [], []
        for first in range(0, m, most):
            part = x[first : first + most]
            xm, om = Matrix(0, len(part), k, k), Matrix(len(part) * k, len(part), n, n)
            noted = len(part) * outer
            job = tiler.y(
                build, xm, wm, om, how=settings, sums=begin,
                use=Branches.NOTE, branches=Nest(0, (1, 0, 0), outer=len(part)),
            )  # fmt: skip
            run = self._run(
                [*fills, job, _fenced(tiler.store(build, Memory.ACTIVATIONS, om)), _branches(build, noted)],
                [(Memory.WEIGHTS, wm, w), (Memory.ACTIVATIONS, xm, part)],
                fills=rows, stored=len(part) * tiles(n, build.lanes)[0], emitted=noted,
            )  # fmt: skip
            codes.append(run.stored.reshape(len(part), -1)[:, :n])
            branches.append(_side_by_side(run.emitted, outer)[:, :n])
        return np.concatenate(codes), np.concatenate(branches)

    @_alone
    def dx(self, dy: Codes, w: Codes, shape: tuple[int, ...], taps: Taps | None) -> Codes:
        """See :class:`Products`."""
        build = self.build
        self.macs += _macs(np.empty(shape, np.int8), w, taps)
        if taps is not None:
            return self._convolve_back(dy, w, shape, taps)
        (m, n), k = dy.shape, w.shape[0]
        outer = tiles(k, build.array.columns)[0]
        wm = Matrix(0, k, n, n)
        self._fits("W", k * n)
        # The codes that sums which stay do not become have a place all the same.
        most = min(build.sums // outer, build.elements // (k + n), 1 << build.count)
        self._some(most, f"a row of {k} and {n} operands")
        found = []
        for first in range(0, m, most):
            part = dy[first : first + most]
            dym, om = Matrix(0, len(part), n, n), Matrix(len(part) * n, len(part), k, k)
            job = tiler.dx(build, dym, wm, om, sums={"start": 0}, keep=True)
            run = self._run(
                [job, tiler.emit(build, 0, len(part) * outer)],
                [(Memory.WEIGHTS, wm, w), (Memory.COTANGENTS, dym, part)],
                emitted=len(part) * outer,
            )  # fmt: skip
            found.append(_side_by_side(run.emitted, outer)[:, :k])
        return np.concatenate(found)

    @_alone
    def dw(self, x: Codes, dy: Codes, taps: Taps | None) -> tuple[Codes, Codes]:
        """See :class:`Products`."""
        build, array = self.build, self.build.array
        if taps is not None:
            self.macs += _macs(x, np.empty((taps.height, taps.width, x.shape[-1], dy.shape[-1])), taps)
            return self._correlate(x, dy, taps)
        (m, k), n = x.shape, dy.shape[1]
        self.macs += m * k * n
        inner = tiles(k, array.rows)[0]
        # As many outputs at a time as the partial sums hold, with a tile for the bias; every row of the batch passes
        # for each of them.
        wide = build.sums // ((inner + 1) * array.rows) * array.columns
        self._some(wide, f"dW of {k} rows")
        most = min(array.depth, (build.elements - 1) // max(k, n))
        self._some(most, f"a row of {max(k, n)} operands")
        weights, biases = [], []
        for left in range(0, n, wide):
            columns = min(wide, n - left)
            outer = tiles(columns, array.columns)[0]
            rows = inner * outer * array.rows
            every = rows + outer * array.rows
            emitted = np.zeros((0, 0), np.int64)
            for first in range(0, m, most):
                xs, dys = x[first : first + most], dy[first : first + most, left : left + columns]
                xm, dym = Matrix(0, len(xs), k, k), Matrix(0, len(xs), columns, columns)
                one, last = build.elements - 1, first + most >= m
                run = self._run(
                    [
                        tiler.dw(build, xm, dym, start=0, add=first > 0),
                        tiler.db(build, one, dym, start=rows, add=first > 0),
                        *([tiler.emit(build, 0, every)] if last else []),
                    ],
                    [(Memory.ACTIVATIONS, xm, xs), _one(one), (Memory.COTANGENTS, dym, dys)],
                    emitted=every if last else 0,
                )  # fmt: skip
                emitted = run.emitted
            weights.append(tiler.untiled(build, emitted[:rows], k, columns))
            biases.append(tiler.untiled(build, emitted[rows:], 1, columns)[0])
        return np.concatenate(weights, axis=1), np.concatenate(biases)

    # Convolutions: whole pictures at a time.

    def _pictures(self, sizes: list[int], rows: int, limit: int) -> int:
        """Pictures of a part: operands of one in each memory, and rows of one of what is limited to so many."""
        most = min(self.build.elements // max(sizes), limit // max(rows, 1))
        self._some(most, f"a picture of {max(sizes)} operands and {rows} rows of results")
        return most

    def _convolve(
        self, x: Codes, w: Codes, bias: Codes | None, how: dict[str, int], taps: Taps
    ) -> tuple[Codes, Codes]:
        build = self.build
        (number, height, width, inputs), outputs = x.shape, w.shape[-1]
        high, wide = taps.size(height, taps.height), taps.size(width, taps.width)
        step = taps.diagonal(build) if taps.depthwise else build.array.columns
        outer = tiles(outputs, step)[0]
        wm = taps.matrix(build, 0, inputs, outputs)
        self._fits("W", wm.rows * wm.stride)
        fills, begin, rows = self._biases(bias, step)

        def places(count: int) -> tuple[Picture, Picture]:
            xp = Picture(0, count, height, width, inputs, frame=taps.padding)
            return xp, Picture(xp.size, count, high, wide, outputs)

        pixels = high * wide
        most = self._pictures([sum(p.size for p in places(1))], pixels * outer, build.masks)
        codes, branches = [], []
        for first in range(0, number, most):
            part = x[first : first + most]
            xp, op = places(len(part))
            parts = convolution.y(build, taps, xp, wm, op, how=how, sums=begin, use=Branches.NOTE, branches=0)
            noted = len(part) * pixels * outer
            om = op.lines
            run = self._run(
                [
                    *fills,
                    *(p.fields for p in parts),
                    _fenced(tiler.store(build, Memory.ACTIVATIONS, om)),
                    _branches(build, noted),
                ],
                [
                    (Memory.WEIGHTS, wm, convolution.weights(build, taps, w)),
                    (Memory.ACTIVATIONS, xp.lines, xp.framed(part)),
                ],
                fills=rows, stored=om.rows * tiles(om.columns, build.lanes)[0], emitted=noted,
            )  # fmt: skip
            codes.append(run.stored.reshape(om.rows, -1)[:, : om.columns].reshape(-1, high, wide, outputs))
            noted_rows = _side_by_side(run.emitted.reshape(outer, -1, build.array.columns)[..., :step], outer)
            branches.append(noted_rows[:, :outputs].reshape(-1, high, wide, outputs))
        return np.concatenate(codes), np.concatenate(branches)

    def _convolve_back(self, dy: Codes, w: Codes, shape: tuple[int, ...], taps: Taps) -> Codes:
        build = self.build
        number, height, width, inputs = shape
        _, high, wide, outputs = dy.shape
        step = taps.diagonal(build) if taps.depthwise else build.array.columns
        outer = tiles(inputs, step)[0]
        wm = taps.matrix(build, 0, inputs, outputs)
        self._fits("W", wm.rows * wm.stride)
        frame = max(taps.reach(taps.height), taps.reach(taps.width)) + taps.padding

        def places(count: int) -> tuple[Picture, Picture]:
            dyp = Picture(0, count, high, wide, outputs, frame=frame)
            return dyp, Picture(dyp.size, count, height, width, inputs)

        most = self._pictures([sum(p.size for p in places(1))], height * width * outer, build.sums)
        found = np.zeros(shape, np.int64)
        for first in range(0, number, most):
            part = dy[first : first + most]
            dyp, op = places(len(part))
            parts = convolution.dx(build, taps, dyp, wm, op, sums={"start": 0}, keep=True)
            loads = [
                (Memory.WEIGHTS, wm, convolution.weights(build, taps, w)),
                (Memory.COTANGENTS, dyp.lines, dyp.framed(part)),
            ]
            self._gather(found[first : first + most], parts, loads, step)
        return found

    def _gather(self, found: Codes, parts: list[Part], loads: list[Load], step: int) -> None:
        """Runs jobs whose sums stay, and puts these where they belong; ``step``: channels of a row of sums."""
        build, channels = self.build, found.shape[-1]
        outer = tiles(channels, step)[0]
        counts = [_rows(p.fields) for p in parts]
        jobs = []
        for p, count in zip(parts, counts, strict=True):
            jobs += [p.fields, tiler.emit(build, 0, count)]
        run = self._run(jobs, loads, emitted=sum(counts))
        for p, rows in zip(parts, np.split(run.emitted, np.cumsum(counts)[:-1]), strict=True):
            sums = _side_by_side(rows.reshape(outer, -1, build.array.columns)[..., :step], outer)
            some = found[p.pictures, p.lines, p.columns]
            some[...] = sums[:, :channels].reshape(some.shape)

    @_alone
    def max_pool(self, x: Codes, taps: Taps) -> tuple[Codes, Codes]:
        """See :class:`Products`."""
        build = self.build
        number, height, width, channels = x.shape
        high, wide = taps.size(height, taps.height), taps.size(width, taps.width)

        def places(count: int) -> tuple[Picture, Picture, Picture]:
            xp = Picture(0, count, height, width, channels)
            op = Picture(xp.size, count, high, wide, channels)
            return xp, op, replace(op, at=op.at + op.size)

        most = self._pictures([sum(p.size for p in places(1))], 0, 1 << build.count)
        codes, numbers = [], []
        for first in range(0, number, most):
            part = x[first : first + most]
            xp, op, tp = places(len(part))
            parts = [
                *pooling.largest(build, taps, xp, op),
                *pooling.largest(build, taps, xp, tp, argmax=True),
            ]
            stores = [tiler.store(build, Memory.ACTIVATIONS, each.lines) for each in (op, tp)]
            run = self._run(
                [*(p.fields for p in parts), *map(_fenced, stores)],
                [(Memory.ACTIVATIONS, xp.lines, xp.framed(part))],
                stored=2 * op.lines.rows * tiles(op.line, build.lanes)[0],
            )
            both = run.stored.reshape(2, op.lines.rows, -1)[..., : op.line].reshape(
                2, -1, high, wide, channels
            )
            codes.append(both[0])
            numbers.append(both[1] & ((1 << OPERAND_BITS) - 1))
        return np.concatenate(codes), np.concatenate(numbers)

    @_alone
    def max_pool_dx(self, dy: Codes, numbers: Codes, shape: tuple[int, ...], taps: Taps) -> Codes:
        """See :class:`Products`."""
        build = self.build
        number, height, width, channels = shape
        frame = max(taps.reach(taps.height), taps.reach(taps.width)) + taps.padding
        columns = build.array.columns
        outer = tiles(channels, columns)[0]

        def places(count: int) -> tuple[Picture, Picture]:
            dyp = Picture(0, count, dy.shape[1], dy.shape[2], channels, frame=frame)
            return dyp, Picture(dyp.size, count, height, width, channels)

        most = self._pictures([sum(p.size for p in places(1))], height * width * outer, build.sums)
        found = np.zeros(shape, np.int64)
        half = 1 << (OPERAND_BITS - 1)
        for first in range(0, number, most):
            part, taken = dy[first : first + most], numbers[first : first + most]
            dyp, op = places(len(part))
            loads = [
                (Memory.COTANGENTS, dyp.lines, dyp.framed(part)),
                (Memory.ACTIVATIONS, dyp.lines, dyp.framed((taken + half) % (2 * half) - half)),
            ]
            parts = pooling.route(build, taps, dyp, op, sums={"start": 0}, keep=True)
            self._gather(found[first : first + most], parts, loads, columns)
        return found

    def _correlate(self, x: Codes, dy: Codes, taps: Taps) -> tuple[Codes, Codes]:
        build = self.build
        number, height, width, inputs = x.shape
        _, high, wide, outputs = dy.shape

        def places(count: int) -> tuple[Picture, Picture]:
            return (
                Picture(0, count, height, width, inputs, frame=taps.padding),
                Picture(0, count, high, wide, outputs),
            )

        one = build.elements - 1
        most = self._pictures([p.size + 1 for p in places(1)], 0, 1 << 30)
        run, rows = None, 0
        for first in range(0, number, most):
            xs, dys = x[first : first + most], dy[first : first + most]
            xp, dyp = places(len(xs))
            jobs = convolution.dw(build, taps, xp, dyp, start=0, add=first > 0)
            rows = _rows(jobs[0])
            biases = convolution.db(build, one, dyp, start=rows, add=first > 0)
            every = rows + _rows(biases[0])
            last = first + most >= number
            run = self._run(
                [*jobs, *biases, *([tiler.emit(build, 0, every)] if last else [])],
                [
                    (Memory.ACTIVATIONS, xp.lines, xp.framed(xs)), _one(one),
                    (Memory.COTANGENTS, dyp.lines, dyp.framed(dys)),
                ],
                emitted=every if last else 0,
            )  # fmt: skip
        assert run is not None
        return (
            convolution.gradient(build, taps, run.emitted[:rows], inputs, outputs),
            tiler.untiled(build, run.emitted[rows:], 1, outputs)[0],
        )

    def _some(self, most: int, what: str) -> None:
        if most < 1:
            raise UsageError(
                f"{what} does not fit this unit: {self.build.elements} operands a memory, {self.build.sums} rows of "
                f"{self.build.array.columns} partial sums, {self.build.masks} of branches"
            )


def _one(at: int) -> Load:
    """The operand that sums what it is multiplied with."""
    return Memory.ACTIVATIONS, Matrix(at, 1, 1, 1), np.ones((1, 1), np.int64)


def _fenced(fields: Fields) -> Fields:
    return {**fields, "fence": 1}


def _branches(build: UnitBuild, rows: int) -> Fields:
    return tiler.emit_branches(build, 0, rows)


def _rows(fields: Fields) -> int:
    """Rows of partial sums that stay of a job: those of a tile or of all tiles, for all sums side by side."""
    x, line, number, together, outer = (rest + 1 for rest in fields["result"]["rest"])
    return x * line * number * outer * (together if fields["kind"] == Kind.DW else 1)


def _side_by_side(rows: np.ndarray, outer: int) -> np.ndarray:
    """[M, outer C] of rows that come for one group of C columns after the other."""
    groups = rows.reshape(outer, -1, rows.shape[-1])
    return groups.transpose(1, 0, 2).reshape(groups.shape[1], -1)


def _macs(x: np.ndarray, w: np.ndarray, taps: Taps | None) -> int:
    """Products of operands of a layer, in each of its three passes."""
    if taps is None:
        return x.shape[0] * w.shape[0] * w.shape[1]
    pixels = x.shape[0] * taps.size(x.shape[1], taps.height) * taps.size(x.shape[2], taps.width)
    channels = x.shape[3] if taps.depthwise else x.shape[3] * w.shape[3]
    return pixels * taps.height * taps.width * channels


def open_products(name: str, build: UnitBuild = SIMULATED) -> Products:
    """``"golden"`` or ``"rtl"``.

    Raises
    ------
    UsageError
        If the name is another.
    """
    if name == "golden":
        return GoldenProducts()
    if name == "rtl":
        return RtlProducts(build)
    raise UsageError(f"backend {name!r} is unknown; choose golden or rtl")
