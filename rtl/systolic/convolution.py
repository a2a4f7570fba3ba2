"""Convolutions of pictures: their patches are read where the picture stands, so nothing is copied for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .build import UnitBuild
from .descriptor import Kind, Memory
from .tiler import Fields, Matrix, Nest, accumulating, stationary, tiles

__all__ = [
    "Part",
    "Picture",
    "Place",
    "Seen",
    "Taps",
    "db",
    "dw",
    "dx",
    "gradient",
    "noting",
    "parts",
    "places",
    "room",
    "rows_of",
    "weights",
    "y",
]


@dataclass(frozen=True)
class Picture:
    """``memory[at + ((b H' + y + frame) W' + x + frame) channels + c]``: pixel (y, x) of picture b.

    Around each picture stand ``frame`` pixels of zeros, which whoever lays it out writes once: H' and W' are height and
    width with the frame. Results are written inside it, so it stays.
    """

    at: int
    number: int
    height: int
    width: int
    channels: int
    frame: int = 0

    @property
    def line(self) -> int:
        """Operands from one line to the next."""
        return (self.width + 2 * self.frame) * self.channels

    @property
    def whole(self) -> int:
        """Operands from one picture to the next."""
        return (self.height + 2 * self.frame) * self.line

    @property
    def size(self) -> int:
        """Operands of all of them."""
        return self.number * self.whole

    def pixel(self, y: int, x: int) -> int:
        """Address of a pixel of the first picture, or of one in its frame."""
        return self.at + (y + self.frame) * self.line + (x + self.frame) * self.channels

    @property
    def lines(self) -> Matrix:
        """The pictures as a matrix of their lines, frames and all."""
        return Matrix(self.at, self.size // self.line, self.line, self.line)

    def framed(self, values: np.ndarray) -> np.ndarray:
        """Pictures [number, height, width, channels] as that matrix, with their frames of zeros."""
        f = self.frame
        return np.pad(values, ((0, 0), (f, f), (f, f), (0, 0))).reshape(-1, self.line)

    def inside(self, elements: int, what: str) -> None:
        """Refuses pictures that are empty or leave their memory.

        Raises
        ------
        ValueError
        """
        if min(self.number, self.height, self.width, self.channels) < 1 or self.frame < 0:
            raise ValueError(
                f"{what}: {self.number} pictures of {self.height} x {self.width} x {self.channels} with a frame of "
                f"{self.frame}; give at least one of each, and no negative frame"
            )
        if self.at < 0 or self.at + self.size > elements:
            raise ValueError(
                f"{what} lies in {self.at} to {self.at + self.size - 1}; the memory has {elements} operands"
            )


@dataclass(frozen=True, kw_only=True)
class Taps:
    """Where the taps of a kernel lie: tap i of result y at ``stride y + dilation i - padding``.

    Attributes
    ----------
    height, width : int
        Of the kernel.
    stride, padding, dilation : int
        The same for both directions.
    depthwise : bool
        A kernel for every channel, which sees no other channel. W then holds a diagonal of the tile's size for every
        tap of every group of channels (`diagonal`): only one multiplier of a column is of use.
    """

    height: int
    width: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    depthwise: bool = False

    def __post_init__(self) -> None:
        for name in ("height", "width", "stride", "dilation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; give at least 1")
        if self.padding < 0:
            raise ValueError(f"padding={self.padding}; give 0 or more")

    def size(self, length: int, kernel: int) -> int:
        """Length of the result."""
        return (length + 2 * self.padding - self.dilation * (kernel - 1) - 1) // self.stride + 1

    def reach(self, kernel: int) -> int:
        """Pixels from the first tap to the last."""
        return self.dilation * (kernel - 1)

    def inside(self, window: int, length: int, kernel: int) -> range:
        """Taps of a result that lie inside of the picture."""
        first = window * self.stride - self.padding
        start = max(-(first // self.dilation), 0)
        return range(start, max(start, min(-((first - length) // self.dilation), kernel)))

    def diagonal(self, build: UnitBuild) -> int:
        """Channels of a tile, if depthwise."""
        return min(build.array.rows, build.array.columns)

    def matrix(self, build: UnitBuild, at: int, inputs: int, outputs: int) -> Matrix:
        """Where W lies: a row of outputs for every tap and input; if depthwise a diagonal for every tap and group."""
        if not self.depthwise:
            return Matrix(at, self.height * self.width * inputs, outputs, outputs)
        d = self.diagonal(build)
        return Matrix(at, tiles(inputs, d)[0] * self.height * self.width * d, d, d)


@dataclass(frozen=True)
class Part:
    """A job, and the pixels of which it makes results: those of these pictures, lines and columns."""

    fields: Fields
    pictures: slice
    lines: slice
    columns: slice

    @classmethod
    def of(
        cls, fields: Fields, part: tuple[int, int, int, int], place: tuple[int, int] = (0, 0), stride: int = 1
    ) -> Part:
        """Of pixels that are ``stride`` apart, from ``place`` on."""
        b, number, line, lines = part
        first = place[0] + line * stride
        return cls(
            fields,
            slice(b, b + number),
            slice(first, first + lines * stride, stride),
            slice(place[1], None, stride),
        )


def weights(build: UnitBuild, taps: Taps, w: np.ndarray) -> np.ndarray:
    """The rows of W as :meth:`Taps.matrix` has them, of [h, w, channels, outputs] or depthwise [h, w, channels]."""
    if not taps.depthwise:
        return w.reshape(-1, w.shape[-1])
    d = taps.diagonal(build)
    padded = np.pad(w, ((0, 0), (0, 0), (0, -w.shape[2] % d))).reshape(*w.shape[:2], -1, d)
    return np.einsum("ijgc,ce->gijce", padded, np.eye(d, dtype=w.dtype)).reshape(-1, d)


def gradient(build: UnitBuild, taps: Taps, rows: np.ndarray, inputs: int, outputs: int) -> np.ndarray:
    """dW in the shape of W, of the rows of partial sums that :func:`dw` leaves."""
    r, c = build.array.rows, build.array.columns
    if taps.depthwise:
        d = taps.diagonal(build)
        groups = rows.reshape(-1, taps.height, taps.width, r, c)
        own = np.stack([groups[..., k, k] for k in range(d)], -1)  # group, line, tap, channel of it
        return own.transpose(1, 2, 0, 3).reshape(taps.height, taps.width, -1)[..., :inputs]
    # Without dilation the segments run through the taps of a line.
    run, runs = (
        (taps.width * inputs, taps.height) if taps.dilation == 1 else (inputs, taps.height * taps.width)
    )
    found = rows.reshape(tiles(outputs, c)[0], runs, tiles(run, r)[0] * r, c)[:, :, :run]
    return (
        found.transpose(1, 2, 0, 3)
        .reshape(runs * run, -1)[:, :outputs]
        .reshape(taps.height, taps.width, inputs, outputs)
    )


def _check(build: UnitBuild, taps: Taps, x: Picture, o: Picture, w: Matrix) -> None:
    x.inside(build.elements, "the picture")
    o.inside(build.elements, "the result")
    w.inside(build.elements, "W")
    high, wide = taps.size(x.height, taps.height), taps.size(x.width, taps.width)
    if (o.number, o.height, o.width) != (x.number, high, wide):
        raise ValueError(
            f"of {x.number} pictures of {x.height} x {x.width} a kernel of {taps.height} x {taps.width} makes "
            f"{high} x {wide}; the result has {o.number} of {o.height} x {o.width}"
        )
    if taps.depthwise and x.channels != o.channels:
        raise ValueError(f"depthwise from {x.channels} to {o.channels} channels; give the same number")
    wanted = taps.matrix(build, w.at, x.channels, o.channels)
    if (w.rows, w.columns) != (wanted.rows, wanted.columns):
        raise ValueError(
            f"W is {w.rows} x {w.columns}; this convolution has {wanted.rows} x {wanted.columns}"
        )


def _framed(picture: Picture, frame: int, what: str) -> None:
    if picture.frame < frame:
        raise ValueError(
            f"{what} has a frame of {picture.frame} pixels; this convolution reads {frame} beyond it"
        )


def parts(o: Picture, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Runs of pictures, or of lines of one, of at most so many pixels: first picture, pictures, first line, lines."""
    if o.width > most:
        raise ValueError(f"a line has {o.width} pixels; there is room for {most} partial sums")
    if o.height * o.width <= most:
        step = most // (o.height * o.width)
        for b in range(0, o.number, step):
            yield b, min(step, o.number - b), 0, o.height
        return
    step = most // o.width
    for b in range(o.number):
        for line in range(0, o.height, step):
            yield b, 1, line, min(step, o.height - line)


def rows_of(
    picture: Picture, at: int, step: int, part: tuple[int, int, int, int]
) -> tuple[int, Sequence[int]]:
    """Where the rows of a part begin, and their strides over x, y and pictures; ``step``: pixels between them."""
    b, _, line, _ = part
    start = at + b * picture.whole + line * step * picture.line
    return start, (step * picture.channels, step * picture.line, picture.whole)


def _patches(
    build: UnitBuild, taps: Taps, x: Picture
) -> tuple[Sequence[int], Sequence[int], int, Sequence[int]]:
    """Loops over a patch: counts, strides in the picture, operands of the last segment, strides in rows of W.

    Without dilation the taps of a line are neighbours, so its segments run through all of them.
    """
    rows = build.array.rows
    if taps.depthwise:
        d = taps.diagonal(build)
        return (
            (1, taps.width, taps.height),
            (0, taps.dilation * x.channels, taps.dilation * x.line),
            d,
            (0, d, taps.width * d),
        )
    if taps.dilation == 1:
        run = taps.width * x.channels
        count, segment = tiles(run, rows)
        return (count, 1, taps.height), (rows, 0, x.line), segment, (rows, 0, run)
    count, segment = tiles(x.channels, rows)
    return (
        (count, taps.width, taps.height),
        (rows, taps.dilation * x.channels, taps.dilation * x.line),
        segment,
        (rows, x.channels, taps.width * x.channels),
    )


def _side_by_side(build: UnitBuild, taps: Taps, channels: int) -> tuple[int, int, int]:
    """Groups of results, channels of the last one, channels of one."""
    step = taps.diagonal(build) if taps.depthwise else build.array.columns
    return (*tiles(channels, step), step)


def y(build: UnitBuild, taps: Taps, x: Picture, w: Matrix, o: Picture, **result: Any) -> list[Part]:
    """Jobs of ``Y = conv(X, W)``. W: rows in the order tap line, tap, channel. ``result``: as of `stationary`; where
    partial sums are needed the jobs share those from ``sums["start"]`` on.
    """
    _check(build, taps, x, o, w)
    _framed(x, taps.padding, "the picture")
    inner, strides, segment, w_rows = _patches(build, taps, x)
    outer, tail, step = _side_by_side(build, taps, o.channels)
    whole = taps.height * taps.width * step * w.stride  # of a group, if depthwise
    w_nest = Nest(w.at, (w.stride,), [w.stride * n for n in w_rows], whole if taps.depthwise else step)
    corner = x.pixel(-taps.padding, -taps.padding)
    jobs = []
    for part in parts(o, room(build, inner, outer, result)):
        start, rows = rows_of(x, corner, taps.stride, part)
        o_start, o_rows = rows_of(o, o.pixel(0, 0), 1, part)
        fields = stationary(
            build, Kind.Y, Nest(start, rows, strides, step if taps.depthwise else 0), w_nest,
            Nest(o_start, o_rows, outer=step),
            rows=(o.width, part[3], part[1]), inner=inner, outer=outer, segment=segment, tail=tail, whole=step,
            **noting(o, part, {"to": Memory.ACTIVATIONS} | result),
        )  # fmt: skip
        jobs.append(Part.of(fields, part))
    return jobs


def dx(build: UnitBuild, taps: Taps, dy: Picture, w: Matrix, o: Picture, **result: Any) -> list[Part]:
    """Jobs of the adjoint with respect to X: ``o`` has its shape.

    Pixels that have the same place within a stride see the same taps; there is a job for each such place.
    """
    _check(build, taps, o, dy, w)
    array = build.array
    outer, tail, step = _side_by_side(build, taps, o.channels)
    jobs = []
    for place in places(taps, dy, o):
        ys, xs = place.ys, place.xs
        count, segment = (1, step) if taps.depthwise else tiles(dy.channels, array.rows)
        # Pixels that see no tap get a cotangent of zero: a sum of nothing.
        inner, segment = ((count, xs.count, ys.count), segment) if place.sees else ((1, 1, 1), 0)
        if taps.depthwise:
            d = step
            w_lines, w_taps, w_segment = taps.width * d, d, 0
            across = taps.height * taps.width * d * w.stride
        else:
            w_lines, w_taps, w_segment = taps.width * o.channels, o.channels, array.rows
            across = step * w.stride
        first = (ys.tap * w_lines + xs.tap * w_taps) * w.stride
        w_nest = Nest(
            w.at + first, (w.stride,),
            (w_segment, xs.step * w_taps * w.stride, ys.step * w_lines * w.stride), across,
        )  # fmt: skip
        h_inner = (array.rows, xs.move * dy.channels, ys.move * dy.line)
        for part in parts(place.pixels, room(build, inner, outer, result)):
            start, rows = rows_of(dy, dy.pixel(ys.at, xs.at), 1, part)
            o_start, o_rows = rows_of(o, o.pixel(*place.at), taps.stride, part)
            fields = stationary(
                build, Kind.DX, Nest(start, rows, h_inner, step if taps.depthwise else 0), w_nest,
                Nest(o_start, o_rows, outer=step),
                rows=(place.pixels.width, part[3], part[1]), inner=inner, outer=outer,
                segment=segment, tail=tail, whole=step,
                **noting(o, part, {"to": Memory.COTANGENTS} | result, place.at, taps.stride),
            )  # fmt: skip
            jobs.append(Part.of(fields, part, place.at, taps.stride))
    return jobs


def dw(
    build: UnitBuild, taps: Taps, x: Picture, dy: Picture, *, start: int = 0, add: bool = False
) -> list[Fields]:
    """Jobs of ``dW``, in rows of partial sums: R for every tile of a patch, those inside the groups of outputs.

    If depthwise, the gradient is the diagonal of a tile.
    """
    _check(build, taps, x, dy, taps.matrix(build, 0, x.channels, dy.channels))
    _framed(x, taps.padding, "the picture")
    inner, strides, segment, _ = _patches(build, taps, x)
    outer, tail, step = _side_by_side(build, taps, dy.channels)
    corner = x.pixel(-taps.padding, -taps.padding)
    jobs = []
    for part in parts(dy, build.array.depth):
        h_start, h_rows = rows_of(x, corner, taps.stride, part)
        v_start, v_rows = rows_of(dy, dy.pixel(0, 0), 1, part)
        jobs.append(
            accumulating(
                build, Nest(h_start, h_rows, strides, step if taps.depthwise else 0),
                Nest(v_start, v_rows, outer=step),
                rows=(dy.width, part[3], part[1]), inner=inner, outer=outer, segment=segment, tail=tail,
                start=start, add=add or bool(jobs),
            )
        )  # fmt: skip
    return jobs


def db(build: UnitBuild, one: int, dy: Picture, *, start: int = 0, add: bool = False) -> list[Fields]:
    """Jobs of the gradient of a bias, ``sum of dY`` over pictures and pixels; see :func:`~.tiler.db`."""
    dy.inside(build.elements, "dY")
    outer, tail = tiles(dy.channels, build.array.columns)
    jobs = []
    for part in parts(dy, build.array.depth):
        start_at, strides = rows_of(dy, dy.pixel(0, 0), 1, part)
        jobs.append(
            accumulating(
                build, Nest(one, (0, 0, 0)), Nest(start_at, strides, outer=build.array.columns),
                rows=(dy.width, part[3], part[1]), inner=(1, 1, 1), outer=outer, segment=1, tail=tail,
                start=start, add=add or bool(jobs),
            )
        )  # fmt: skip
    return jobs


def room(build: UnitBuild, inner: Sequence[int], outer: int, result: Fields) -> int:
    """Rows that a job may have."""
    keep = result.get("keep", False)
    free = build.sums - (result.get("sums") or {}).get("start", 0)
    if keep:
        free //= outer
    elif inner[0] * inner[1] * inner[2] == 1:
        free = 1 << build.count
    return min(free, 1 << build.count)


def noting(
    o: Picture,
    part: tuple[int, int, int, int],
    result: Fields,
    place: tuple[int, int] = (0, 0),
    stride: int = 1,
) -> Fields:
    """``branches``, given as the row of the first pixel: a row for every pixel, pictures behind each other."""
    if "branches" not in result:
        return result
    b, _, line, _ = part
    pixels = o.height * o.width
    start = result["branches"] + b * pixels + (place[0] + line * stride) * o.width + place[1]
    return result | {"branches": Nest(start, (stride, stride * o.width, pixels), outer=o.number * pixels)}


@dataclass(frozen=True)
class Seen:
    """Taps that see the pixels ``a, a + stride ..``: ``count`` of them from ``tap`` on, ``step`` apart; pixel number u
    sees result ``at + u`` through the first, and ``move`` further on through each next one.
    """

    count: int
    tap: int = 0
    step: int = 0
    at: int = 0
    move: int = 0

    @classmethod
    def of(cls, taps: Taps, a: int, kernel: int) -> Seen:
        """Those of a kernel of this length."""
        seen = [i for i in range(kernel) if (a + taps.padding - taps.dilation * i) % taps.stride == 0]
        if not seen:
            return cls(0)
        step = seen[1] - seen[0] if len(seen) > 1 else 0
        at = (a + taps.padding - taps.dilation * seen[0]) // taps.stride
        return cls(len(seen), seen[0], step, at, -taps.dilation * step // taps.stride)


@dataclass(frozen=True)
class Place:
    """Pixels that have the same place within a stride, and so see the same taps.

    Attributes
    ----------
    at : (int, int)
        Line and column of the first of them.
    ys, xs : Seen
    pixels : Picture
        Without the others; only its numbers are of use, not where it stands.
    """

    at: tuple[int, int]
    ys: Seen
    xs: Seen
    pixels: Picture

    @property
    def sees(self) -> bool:
        """Whether they see any tap."""
        return bool(self.ys.count and self.xs.count)


def places(taps: Taps, dy: Picture, o: Picture) -> Iterator[Place]:
    """All places within a stride, for an adjoint of which ``o`` is the result and dy the cotangent.

    Raises
    ------
    ValueError
        If the frame of dy is narrower than what is read beyond it.
    """
    for a in range(min(taps.stride, o.height)):
        ys = Seen.of(taps, a, taps.height)
        for c in range(min(taps.stride, o.width)):
            xs = Seen.of(taps, c, taps.width)
            high, wide = tiles(o.height - a, taps.stride)[0], tiles(o.width - c, taps.stride)[0]
            for one, length, count in ((ys, dy.height, high), (xs, dy.width, wide)):
                if one.count:
                    first = one.at + one.move * (one.count - 1)
                    _framed(dy, max(-first, one.at + count - length, 0), "the cotangent")
            yield Place((a, c), ys, xs, Picture(o.at, o.number, high, wide, o.channels))
