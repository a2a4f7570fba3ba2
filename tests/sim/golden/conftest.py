"""A second model of the forward, per pixel in fractions: the definition spelled out, for tiny frames."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest


def _cut(value, fmt):
    code = floor(value * 2**fmt.f + Fraction(1, 2))
    return min(max(code, fmt.lo), fmt.hi), not fmt.lo <= code <= fmt.hi


def _read(p, n, border):
    """The site that position p reads, None for none: reflect step by step, never repeating the edge."""
    if 0 <= p < n:
        return p
    if border == "zero":
        return None
    if border == "replicate" or n == 1:
        return 0 if p < 0 else n - 1
    return _read(-p if p < 0 else 2 * (n - 1) - p, n, border)


TILES = (("R", "Gr", "Gb", "B"), ("Gr", "R", "B", "Gb"), ("Gb", "B", "R", "Gr"), ("B", "Gb", "Gr", "R"))
"""The 2x2 tile of RGGB, GRBG, GBRG, BGGR, row by row."""


def _stage(name, at, site, theta, shared):
    """The uncut outputs of a stage at a site: ``at(channel, dy, dx)`` reads its input."""

    def mean(channel, *taps):
        return sum(at(channel, *tap) for tap in taps) / len(taps)

    n, s, w, e = (-1, 0), (1, 0), (0, -1), (0, 1)
    corners = ((-1, -1), (-1, 1), (1, -1), (1, 1))
    order = ("R", "Gr", "Gb", "B").index(site)
    c = at(0, 0, 0)
    if name == "black_level":
        return [c - theta["black"][order]]
    if name == "white_balance":
        return [c * theta["gain"][order]]
    if name == "bilinear":
        return {
            "R": lambda: [c, mean(0, n, s, w, e), mean(0, *corners)],
            "Gr": lambda: [mean(0, w, e), c, mean(0, n, s)],
            "Gb": lambda: [mean(0, n, s), c, mean(0, w, e)],
            "B": lambda: [mean(0, *corners), mean(0, n, s, w, e), c],
        }[site]()
    if name == "hamilton_adams_green":
        if site in ("Gr", "Gb"):
            return [c, c]
        ww, ee, nn, ss = at(0, 0, -2), at(0, 0, 2), at(0, -2, 0), at(0, 2, 0)
        dh = abs(at(0, *w) - at(0, *e)) + abs(2 * c - ww - ee)
        dv = abs(at(0, *n) - at(0, *s)) + abs(2 * c - nn - ss)
        gh = mean(0, w, e) + (2 * c - ww - ee) / 4
        gv = mean(0, n, s) + (2 * c - nn - ss) / 4
        return [c, gh if dh < dv else gv if dv < dh else (gh + gv) / 2]
    if name == "hamilton_adams_chroma":
        g = at(1, 0, 0)

        def with_difference(*taps):
            return g + sum(at(0, *tap) - at(1, *tap) for tap in taps) / len(taps)

        return {
            "R": lambda: [c, g, with_difference(*corners)],
            "Gr": lambda: [with_difference(w, e), g, with_difference(n, s)],
            "Gb": lambda: [with_difference(n, s), g, with_difference(w, e)],
            "B": lambda: [with_difference(*corners), g, c],
        }[site]()
    if name == "filter_bank":
        present = {"R": 0, "Gr": 1, "Gb": 1, "B": 2}[site]
        out = [c, c, c]
        for m, channel in enumerate(k for k in range(3) if k != present):
            out[channel] = sum(
                theta["coefficient"][(2 * order + m) * 9 + 3 * abs(dy) + abs(dx)] * at(0, dy, dx)
                for dy in range(-2, 3)
                for dx in range(-2, 3)
            )
        return out
    x = [at(channel, 0, 0) for channel in range(3)]
    if name == "ccm":
        return [
            sum(theta["matrix"][3 * i + j] * x[j] for j in range(3)) + theta["offset"][i] for i in range(3)
        ]
    assert name == "tone_curve"
    out = []
    for channel in range(3):
        first = 0 if shared else 65 * channel
        s, place = int(x[channel] * 64), x[channel] * 64 % 1
        left, right = theta["knots"][first + s], theta["knots"][first + s + 1]
        out.append(left + (right - left) * place)
    return out


def _bypassed(name, at):
    outputs = {"black_level": [0], "white_balance": [0], "hamilton_adams_green": [0, 0]}
    take = outputs.get(name, [0, 1, 2] if name in ("ccm", "tone_curve") else [0, 0, 0])
    return [at(channel, 0, 0) for channel in take]


def brute_force(golden, raw, theta, *, cfa=0, depth=16, bypass=()):
    """``raw [H, W]`` -> codes ``[3, H, W]`` and the number of clipped codes of each stage."""
    height, width = raw.shape
    x = [[[Fraction(int(raw[y, x]), 2**depth) for x in range(width)] for y in range(height)]]
    saturated, codes = {}, np.zeros(0)
    for stage in golden.stages:
        fractions = {
            name: [Fraction(int(code), 2**p.format.f) for code in theta[f"{stage.name}.{name}"]]
            for name, p in stage.parameters.items()
        }
        formats = list(stage.o.values())
        y = np.zeros((len(formats), height, width), object)
        clipped = 0
        for row, column in np.ndindex(height, width):

            def at(channel, dy, dx, row=row, column=column, x=x):
                p, q = _read(row + dy, height, golden.border), _read(column + dx, width, golden.border)
                return Fraction(0) if p is None or q is None else x[channel][p][q]

            site = TILES[cfa][2 * (row % 2) + column % 2]
            shared = getattr(stage, "curve", "shared") == "shared"
            if stage.name in bypass:
                values = _bypassed(stage.name, at)
            else:
                values = _stage(stage.name, at, site, fractions, shared)
            for channel, (value, fmt) in enumerate(zip(values, formats, strict=True)):
                code, clips = _cut(value, fmt)
                y[channel, row, column] = Fraction(code, 2**fmt.f)
                clipped += clips
        x = y.tolist()
        saturated[f"{stage.name}.saturated"] = clipped
        codes = (y * 2 ** formats[0].f).astype(np.int64)
    return codes, saturated


@pytest.fixture(name="brute_force", scope="session")
def brute_force_fixture():
    return brute_force
