"""Pools of pictures: the largest code of every window, where it stood, and the adjoint.

An average pool is a depthwise convolution with the weights ``1 / (h w)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .build import UnitBuild
from .convolution import Part, Picture, Taps, noting, parts, places, room, rows_of
from .descriptor import Kind, Memory
from .tiler import Fields, Nest, rests, results, tiles

__all__ = ["largest", "route"]


def _check(build: UnitBuild, taps: Taps, x: Picture, o: Picture) -> None:
    x.inside(build.elements, "the picture")
    o.inside(build.elements, "the result")
    most = 1 << build.array.operand
    if taps.height * taps.width > most:
        raise ValueError(
            f"a window of {taps.height} x {taps.width} has {taps.height * taps.width} taps; codes of "
            f"{build.array.operand} bits number {most}"
        )
    high, wide = taps.size(x.height, taps.height), taps.size(x.width, taps.width)
    if (o.number, o.height, o.width, o.channels) != (x.number, high, wide, x.channels):
        raise ValueError(
            f"of {x.number} pictures of {x.height} x {x.width} x {x.channels} windows of {taps.height} x "
            f"{taps.width} make {high} x {wide} x {x.channels}; the result has {o.number} of {o.height} x {o.width} x "
            f"{o.channels}"
        )


def _alike(taps: Taps, length: int, kernel: int) -> Iterator[tuple[range, range]]:
    """Runs of windows along a length that have the same taps inside of the picture, and these taps."""
    windows = taps.size(length, kernel)
    begin = 0
    for window in range(1, windows + 1):
        inside = taps.inside(begin, length, kernel)
        if window == windows or taps.inside(window, length, kernel) != inside:
            yield range(begin, window), inside
            begin = window


def _job(
    build: UnitBuild, kind: Kind, source: Memory, h: Nest, tap: Nest, inner: tuple[int, int, int], outer: int,
    rows: tuple[int, int, int], result: Fields, *, counts: bool = True,
) -> Fields:  # fmt: skip
    loops = [*rows, *inner, outer]
    return {
        "kind": kind,
        "inner": rests([*inner, outer]),
        "h": {"rest": rests(rows), "tail": build.lanes if counts else 0, "source": source}
        | h.fields(build.elements, loops),
        "tap": tap.fields(1 << build.array.operand, loops),
        "result": result,
    }


def largest(
    build: UnitBuild,
    taps: Taps,
    x: Picture,
    o: Picture,
    *,
    argmax: bool = False,
    source: Memory = Memory.ACTIVATIONS,
    to: Memory = Memory.ACTIVATIONS,
) -> list[Part]:
    """Jobs of ``Y = max over taps of X``, or of the number ``i w + j`` of the first tap that has it, as a code.

    Taps outside of the picture do not count, whatever its frame holds: windows that have the same taps inside of it
    make a job.

    Raises
    ------
    ValueError
        If the sizes do not belong together, a picture leaves its memory, there are more taps than codes, or a window
        has no tap in the picture.
    """
    _check(build, taps, x, o)
    outer, tail = tiles(x.channels, build.array.columns)
    jobs = []
    for lines, i in _alike(taps, x.height, taps.height):
        for columns, j in _alike(taps, x.width, taps.width):
            if not (i and j):
                raise ValueError(
                    f"the window of line {lines[0]}, column {columns[0]} has no tap in the picture of {x.height} x "
                    f"{x.width}; give a padding below the reach of its {taps.height} x {taps.width} taps"
                )
            corner = x.pixel(
                lines[0] * taps.stride + i[0] * taps.dilation - taps.padding,
                columns[0] * taps.stride + j[0] * taps.dilation - taps.padding,
            )
            windows = (len(columns), len(lines), x.number)
            h = Nest(
                corner, (taps.dilation * x.channels, taps.dilation * x.line, 0),
                (taps.stride * x.channels, taps.stride * x.line, x.whole), build.array.columns,
            )  # fmt: skip
            fields = _job(
                build, Kind.ARGMAX if argmax else Kind.MAX, source, h,
                Nest(i[0] * taps.width + j[0], (1, taps.width, 0)), windows, outer, (len(j), len(i), 1),
                results(
                    build,
                    Nest(o.pixel(lines[0], columns[0]), (o.channels, o.line, o.whole), outer=build.array.columns),
                    rows=windows, together=1, outer=outer, tail=tail, to=to,
                ),
            )  # fmt: skip
            across = slice(columns[0], columns[-1] + 1)
            jobs.append(Part(fields, slice(0, x.number), slice(lines[0], lines[-1] + 1), across))
    return jobs


def route(build: UnitBuild, taps: Taps, dy: Picture, o: Picture, **result: Any) -> list[Part]:
    """Jobs of the adjoint: ``o`` has the shape of X. dY stands in the cotangents, and in the activations, at the same
    addresses, the numbers that `largest` gives with ``argmax``.

    Around dY stands a frame of zeros, as wide as it is for the adjoint of a convolution; what stands around the numbers
    is of no meaning. ``result``: as of :func:`~pullback.rtl.systolic.tiler.results`.

    Raises
    ------
    ValueError
        As `largest`, and if the frame is too narrow.
    """
    _check(build, taps, o, dy)
    columns = build.array.columns
    outer, tail = tiles(o.channels, columns)
    jobs = []
    for place in places(taps, dy, o):
        ys, xs = place.ys, place.xs
        inner = (1, xs.count, ys.count) if place.sees else (1, 1, 1)
        for part in parts(place.pixels, room(build, inner, outer, result)):
            start, strides = rows_of(dy, dy.pixel(ys.at, xs.at), 1, part)
            o_start, o_strides = rows_of(o, o.pixel(*place.at), taps.stride, part)
            rows = (place.pixels.width, part[3], part[1])
            fields = _job(
                build, Kind.ROUTE, Memory.COTANGENTS,
                Nest(start, strides, (0, xs.move * dy.channels, ys.move * dy.line), columns),
                Nest(ys.tap * taps.width + xs.tap, (0, 0, 0), (0, xs.step, ys.step * taps.width)),
                inner, outer, rows,
                results(
                    build, Nest(o_start, o_strides, outer=columns),
                    rows=rows, together=inner[1] * inner[2], outer=outer, tail=tail,
                    **noting(o, part, {"to": Memory.COTANGENTS} | result, place.at, taps.stride),
                ),
                counts=place.sees,
            )  # fmt: skip
            jobs.append(Part.of(fields, part, place.at, taps.stride))
    return jobs
