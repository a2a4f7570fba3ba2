"""Products of matrices cut into tiles: the fields of their descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .build import UnitBuild
from .descriptor import Beginning, Branches, Kind, Memory
from .requantise import chosen
from .walk import Affine

__all__ = [
    "Fields",
    "Matrix",
    "Nest",
    "accumulating",
    "add",
    "db",
    "dw",
    "dx",
    "emit",
    "emit_branches",
    "fill",
    "narrow",
    "rests",
    "results",
    "sgd",
    "stationary",
    "store",
    "tiled",
    "tiles",
    "untiled",
    "y",
]

Fields = dict[str, Any]


@dataclass(frozen=True)
class Matrix:
    """``memory[at + stride i + j]``, row i, column j."""

    at: int
    rows: int
    columns: int
    stride: int

    def inside(self, elements: int, what: str) -> None:
        """Refuses a matrix that is empty, overlaps itself or leaves its memory.

        Raises
        ------
        ValueError
        """
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"{what} is {self.rows} x {self.columns}; give at least one row and one column")
        if self.rows > 1 and self.stride < self.columns:
            raise ValueError(f"the rows of {what} overlap: {self.columns} columns, a stride of {self.stride}")
        last = self.at + (self.rows - 1) * self.stride + self.columns
        if self.at < 0 or last > elements:
            raise ValueError(f"{what} lies in {self.at} to {last - 1}; the memory has {elements} operands")


@dataclass(frozen=True)
class Nest:
    """Addresses ``start + sum of stride[k] index[k]`` of rows, of the tiles that add up, and of sums side by side."""

    start: int
    rows: Sequence[int]
    inner: Sequence[int] = (0, 0, 0)
    outer: int = 0

    def fields(self, modulo: int, counts: Sequence[int]) -> Fields:
        """Start and deltas, for loops of such counts."""
        strides = [*self.rows, *self.inner, self.outer]
        deltas = Affine.deltas(strides, [count - 1 for count in counts])
        return {"start": self.start % modulo, "delta": [delta % modulo for delta in deltas]}


def tiles(length: int, tile: int) -> tuple[int, int]:
    """Tiles, and how much of the last one counts."""
    count = -(-length // tile)
    return count, length - (count - 1) * tile


def tiled(build: UnitBuild, values: np.ndarray) -> np.ndarray:
    """A matrix [K, N] as rows of partial sums, as dW leaves it: R a tile, the tiles of K inside those of N.

    Behind its ends stand zeros.
    """
    array = build.array
    full = np.pad(values, ((0, -values.shape[0] % array.rows), (0, -values.shape[1] % array.columns)))
    return full.reshape(len(full), -1, array.columns).transpose(1, 0, 2).reshape(-1, array.columns)


def untiled(build: UnitBuild, rows: np.ndarray, k: int, n: int) -> np.ndarray:
    """The matrix [K, N] of which such rows are."""
    array = build.array
    inner, outer = tiles(k, array.rows)[0], tiles(n, array.columns)[0]
    by_tile = rows.reshape(outer, inner * array.rows, array.columns)
    return by_tile.transpose(1, 0, 2).reshape(inner * array.rows, -1)[:k, :n]


def _inside(what: str, start: int, rows: int, depth: int) -> None:
    if start < 0 or start + rows > depth:
        raise ValueError(f"rows {start} to {start + rows - 1} of {what}; there are {depth}")


def rests(counts: Sequence[int]) -> list[int]:
    """Counts of loops as descriptors have them."""
    return [count - 1 for count in counts]


def results(
    build: UnitBuild,
    o: Nest,
    *,
    rows: Sequence[int],
    together: int,
    outer: int,
    tail: int,
    to: Memory,
    whole: int | None = None,
    branches: Nest | None = None,
    use: Branches = Branches.NONE,
    sums: Fields | None = None,
    how: Fields | None = None,
    keep: bool = False,
) -> Fields:
    """What becomes of rows of results: codes at the addresses of ``o``, or partial sums.

    ``rows``, ``together``, ``outer``: counts of the loops over rows, over what adds to one sum, and over sums side by
    side. ``tail``: results that count in the last of these, ``whole`` in the others (all columns). ``sums``: ``start``,
    where the partial sums lie if there are several tiles, and ``begin`` and ``bias``. ``how``: what
    :func:`~pullback.rtl.systolic.requantise.chosen` takes. ``keep``: sums stay there, those side by side behind each
    other.

    Raises
    ------
    ValueError
        If rows of partial sums, of biases or of branches are not there.
    """
    sums = sums or {}
    m = rows[0] * rows[1] * rows[2]
    if together > 1 or keep:
        _inside("partial sums", sums.get("start", 0), m * outer if keep else m, build.sums)
    if sums.get("begin", Beginning.ZERO) == Beginning.BIAS:
        _inside("partial sums", sums.get("bias", 0), outer, build.sums)
    noted = branches or Nest(0, (1, rows[0], rows[0] * rows[1]), outer=m)
    if use != Branches.NONE:
        last = (
            noted.start
            + sum(s * (n - 1) for s, n in zip(noted.rows, rows, strict=True))
            + noted.outer * (outer - 1)
        )
        _inside("branches", noted.start, last - noted.start + 1, build.masks)
    counts = [*rows, together, outer]

    def across(nest: Nest, modulo: int) -> Fields:
        return Nest(nest.start, nest.rows, (0,), nest.outer).fields(modulo, counts)

    return {
        "rest": rests(counts),
        "codes": {"whole": whole or build.array.columns, "tail": tail, "to": to} | across(o, build.elements),
        "branches": {"use": use} | across(noted, build.masks),
        "sums": sums,
        "how": chosen(build.total, **{"top": (1 << (build.array.operand - 1)) - 1} | (how or {})),
        "keep": int(keep),
    }


def stationary(
    build: UnitBuild,
    kind: Kind,
    h: Nest,
    w: Nest,
    o: Nest,
    *,
    rows: Sequence[int],
    inner: Sequence[int],
    outer: int,
    segment: int,
    tail: int,
    **result: Any,
) -> Fields:
    """A job of Y or dX.

    ``rows``, ``inner``, ``outer``: counts of the loops, of which the nests have the strides. ``w``: ``rows`` is the
    distance from one stationary row to the next. ``segment``: operands of a row that count in the last segment.
    ``tail`` and ``result``: as `results` has them, which also says what is refused.
    """
    together = inner[0] * inner[1] * inner[2]
    lead = build.lead["y" if kind == Kind.Y else "dx"]
    # The last stationary row comes first.
    (held,) = w.rows
    reversed_rows = Nest(w.start + (lead - 1) * held, (-held, 0, 0), w.inner, w.outer)
    counts = [*inner, outer]
    return {
        "kind": kind,
        "inner": rests(counts),
        "h": {"rest": rests(rows), "tail": segment} | h.fields(build.elements, [*rows, *counts]),
        "v": {
            "rest": [lead - 1, 0, 0],
            "tail": tail if kind == Kind.Y else build.array.rows,
            "tile": rows[0] * rows[1] * rows[2] - 1,
        }
        | reversed_rows.fields(build.elements, [lead, 1, 1, *counts]),
        "result": results(build, o, rows=rows, together=together, outer=outer, tail=tail, **result),
    }


def accumulating(
    build: UnitBuild,
    h: Nest,
    v: Nest,
    *,
    rows: Sequence[int],
    inner: Sequence[int],
    outer: int,
    segment: int,
    tail: int,
    start: int,
    add: bool,
) -> Fields:
    """A job of dW: R rows of partial sums a tile, tiles of ``inner`` inside those of ``outer``.

    Raises
    ------
    ValueError
        If a sum inside the mesh does not hold so many products, or rows of partial sums are not there.
    """
    array = build.array
    m = rows[0] * rows[1] * rows[2]
    if m > array.depth:
        raise ValueError(
            f"{m} rows; a sum inside the mesh holds {array.depth} products, so add them in parts"
        )
    together = inner[0] * inner[1] * inner[2]
    _inside("partial sums", start, together * outer * array.rows, build.sums)
    counts = [*inner, outer]
    return {
        "kind": Kind.DW,
        "inner": rests(counts),
        "h": {"rest": rests(rows), "tail": segment} | h.fields(build.elements, [*rows, *counts]),
        "v": {"rest": rests(rows), "tail": tail, "tile": max(m, array.rows - 1) - 1}
        | v.fields(build.elements, [*rows, *counts]),
        "result": {
            "rest": rests([array.rows, 1, 1, together, outer]),
            "codes": {"to": Memory.NONE},
            "sums": {"start": start, "begin": Beginning.SUMS if add else Beginning.ZERO},
        },
    }


def y(build: UnitBuild, x: Matrix, w: Matrix, o: Matrix, **result: Any) -> Fields:
    """``Y = X W``: X [M, K], W [K, N], Y [M, N]. ``result``: as of `stationary`."""
    if not (x.columns == w.rows and w.columns == o.columns and x.rows == o.rows):
        raise ValueError(f"X is {x.rows} x {x.columns}, W {w.rows} x {w.columns}, Y {o.rows} x {o.columns}")
    across = Nest(w.at, (w.stride,), (w.stride * build.array.rows, 0, 0), build.array.columns)
    return _of_matrices(build, Kind.Y, x, w, o, across, {"to": Memory.ACTIVATIONS} | result)


def dx(build: UnitBuild, dy: Matrix, w: Matrix, o: Matrix, **result: Any) -> Fields:
    """``dX = dY W^T``: dY [M, N], W [K, N], dX [M, K]. ``result``: as of `stationary`."""
    if not (dy.columns == w.columns and w.rows == o.columns and dy.rows == o.rows):
        raise ValueError(
            f"dY is {dy.rows} x {dy.columns}, W {w.rows} x {w.columns}, dX {o.rows} x {o.columns}"
        )
    across = Nest(w.at, (w.stride,), (build.array.rows, 0, 0), w.stride * build.array.columns)
    return _of_matrices(build, Kind.DX, dy, w, o, across, {"to": Memory.COTANGENTS} | result)


def _of_matrices(
    build: UnitBuild, kind: Kind, x: Matrix, w: Matrix, o: Matrix, w_nest: Nest, result: Fields
) -> Fields:
    for matrix, what in ((x, "the operand"), (w, "W"), (o, "the result")):
        matrix.inside(build.elements, what)
    inner, segment = tiles(x.columns, build.array.rows)
    outer, tail = tiles(o.columns, build.array.columns)
    return stationary(
        build, kind, Nest(x.at, (x.stride, 0, 0), (build.array.rows, 0, 0)), w_nest,
        Nest(o.at, (o.stride, 0, 0), outer=build.array.columns),
        rows=(x.rows, 1, 1), inner=(inner, 1, 1), outer=outer, segment=segment, tail=tail, **result,
    )  # fmt: skip


def dw(build: UnitBuild, x: Matrix, dy: Matrix, *, start: int = 0, add: bool = False) -> Fields:
    """``dW = X^T dY``, or added to what the rows of partial sums from ``start`` on hold."""
    if x.rows != dy.rows:
        raise ValueError(f"X has {x.rows} rows, dY {dy.rows}")
    for matrix, what in ((x, "X"), (dy, "dY")):
        matrix.inside(build.elements, what)
    inner, segment = tiles(x.columns, build.array.rows)
    outer, tail = tiles(dy.columns, build.array.columns)
    return accumulating(
        build, Nest(x.at, (x.stride, 0, 0), (build.array.rows, 0, 0)),
        Nest(dy.at, (dy.stride, 0, 0), outer=build.array.columns),
        rows=(x.rows, 1, 1), inner=(inner, 1, 1), outer=outer, segment=segment, tail=tail, start=start, add=add,
    )  # fmt: skip


def db(build: UnitBuild, one: int, dy: Matrix, *, start: int = 0, add: bool = False) -> Fields:
    """The gradient of a bias, ``sum over m of dY[m]``: a job of dW whose X is an operand 1 in the activations.

    The sums are the first of the R rows of partial sums of a tile; the others become 0, or stay where ``add`` is.
    """
    Matrix(one, 1, 1, 1).inside(build.elements, "the operand 1")
    dy.inside(build.elements, "dY")
    outer, tail = tiles(dy.columns, build.array.columns)
    return accumulating(
        build, Nest(one, (0, 0, 0)), Nest(dy.at, (dy.stride, 0, 0), outer=build.array.columns),
        rows=(dy.rows, 1, 1), inner=(1, 1, 1), outer=outer, segment=1, tail=tail, start=start, add=add,
    )  # fmt: skip


def add(
    build: UnitBuild,
    start: int,
    source: int,
    rows: int,
    shift: int,
    *,
    minus: bool = False,
    begin: Beginning = Beginning.SUMS,
) -> Fields:
    """``sums[start + k] += floor(sums[source + k] 2^-shift + 1/2)``, or taken off; or put there, if it begins with 0.

    Raises
    ------
    ValueError
        If rows of partial sums are not there, or both overlap without being the same; if what is taken off is not
        scaled: the least sum has no opposite.
    """
    if rows < 1:
        raise ValueError(f"{rows} rows of partial sums; give at least 1")
    for first in (start, source):
        _inside("partial sums", first, rows, build.sums)
    if 0 < abs(start - source) < rows:
        raise ValueError(
            f"rows {source} to {source + rows - 1} are added to {start} to {start + rows - 1}; give the same rows or "
            "others altogether"
        )
    if minus and shift < 1:
        raise ValueError(f"shift={shift} of what is taken off; give at least 1")
    rest = rests((rows, 1, 1))
    return {
        "kind": Kind.ADD,
        "h": {"rest": rest},
        "result": {
            "rest": rest,
            "codes": {"to": Memory.NONE},
            "sums": {"start": start, "bias": source, "begin": begin, "minus": int(minus)},
            "how": chosen(build.total, shift=shift, top=0),
            "keep": 1,
        },
    }


def sgd(
    build: UnitBuild, w: int, v: int, g: int, rows: int, *, damping: int, gain: int, rate: int
) -> list[Fields]:
    """A step of gradient descent with momentum on rows of partial sums, masters and momentum in place:

    ``v += g 2^-gain - v 2^-damping``, then ``w -= v 2^-rate``, each product rounded half up.
    """
    return [
        add(build, v, v, rows, damping, minus=True),
        add(build, v, g, rows, gain),
        add(build, w, v, rows, rate, minus=True),
    ]


def narrow(
    build: UnitBuild, start: int, o: Matrix, *, to: Memory = Memory.WEIGHTS, how: Fields | None = None
) -> Fields:
    """Rows of partial sums, lying as dW leaves them, become the codes of a matrix: masters the weights in use.

    R rows of a tile are written whole: behind a matrix whose rows do not fill them stand the codes of the rows of sums
    that dW fills with zeros.

    Raises
    ------
    ValueError
        If the matrix with those rows leaves its memory, or rows of partial sums are not there.
    """
    array = build.array
    inner, _ = tiles(o.rows, array.rows)
    outer, tail = tiles(o.columns, array.columns)
    Matrix(o.at, inner * array.rows, o.columns, o.stride).inside(build.elements, "the matrix in whole tiles")
    _inside("partial sums", start, inner * array.rows * outer, build.sums)
    rows = (array.rows, inner, 1)
    return {
        "kind": Kind.EMIT,
        "inner": rests((1, 1, 1, outer)),
        "h": {"rest": rests(rows)},
        "result": results(
            build, Nest(o.at, (o.stride, array.rows * o.stride, 0), outer=array.columns),
            rows=rows, together=1, outer=outer, tail=tail, to=to,
            sums={"start": start, "begin": Beginning.SUMS}, how=how,
        ),
    }  # fmt: skip


def store(build: UnitBuild, source: Memory, x: Matrix) -> Fields:
    """Rows of a matrix out, `lanes` operands at a time."""
    x.inside(build.elements, "what is stored")
    runs, tail = tiles(x.columns, build.lanes)
    counts = (runs, x.rows, 1, 1)
    return {
        "kind": Kind.STORE,
        "inner": rests(counts),
        "h": {"tail": tail, "source": source}
        | Nest(x.at, (0, 0, 0), (build.lanes, x.stride, 0)).fields(build.elements, (1, 1, 1, *counts)),
    }


def _passing(build: UnitBuild, kind: Kind, start: int, rows: int, begin: Beginning, *, keep: bool) -> Fields:
    if rows < 1:
        raise ValueError(f"{rows} rows of partial sums; give at least 1")
    _inside("partial sums", start, rows, build.sums)
    rest = rests((rows, 1, 1))
    sums = {"start": start, "begin": begin}
    return {
        "kind": kind,
        "h": {"rest": rest},
        "result": {"rest": rest, "codes": {"to": Memory.NONE}, "sums": sums, "keep": int(keep)},
    }


def emit(build: UnitBuild, start: int, rows: int) -> Fields:
    """Rows of partial sums out."""
    return _passing(build, Kind.EMIT, start, rows, Beginning.SUMS, keep=False)


def emit_branches(build: UnitBuild, start: int, rows: int) -> Fields:
    """Rows of branches out: of every element two bits, as `requantise` of the golden model has them."""
    if rows < 1:
        raise ValueError(f"{rows} rows of branches; give at least 1")
    _inside("branches", start, rows, build.masks)
    fields = _passing(build, Kind.EMIT, 0, 1, Beginning.ZERO, keep=False)
    rest = rests((rows, 1, 1))
    branches = {"use": Branches.TAKE} | Nest(start, (1, 0, 0), (0,)).fields(build.masks, [rows, 1, 1, 1, 1])
    return fields | {"h": {"rest": rest}, "result": fields["result"] | {"rest": rest, "branches": branches}}


def fill(build: UnitBuild, start: int, rows: int) -> Fields:
    """Rows of partial sums in."""
    return _passing(build, Kind.FILL, start, rows, Beginning.ZERO, keep=True)
