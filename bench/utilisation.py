"""How busy the array is: clocks in which a row of operands is read for a product, of those from the first such row to
the last result written, in simulated RTL with memories, partial sums and requantisation.

    python bench/utilisation.py

12 x 13 elements in three bands, as on an LFE5U-85F. Writes ``out/bench/utilisation.json``; every result is compared
with numpy.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pullback import files
from pullback.rtl.systolic import tiler
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.descriptor import Memory
from pullback.rtl.systolic.tiler import Fields, Matrix
from pullback.sim.array_model import ArrayModel, Load
from pullback.sim.golden import matmul
from pullback.sim.golden.requantise import Requantisation, requantise

BUILD = UnitBuild(array=ArrayBuild(rows=12, columns=13, band=4), memory=8192, sums=4096, masks=2)

# M, K, N: four times the array and more, with and without remainders, and smaller ones.
SHAPES = [
    (48, 48, 52), (52, 48, 52), (64, 64, 64), (96, 60, 65), (128, 128, 128), (256, 96, 104), (13, 12, 13),
    (24, 24, 26), (49, 50, 53), (500, 48, 52),
]  # fmt: skip
HOW = Requantisation(shift=10)


def job(kind: str, m: int, k: int, n: int) -> tuple[Fields, list[Fields], Any]:
    """A product, what brings its result out, and how that looks."""
    x, w, dy = Matrix(0, m, k, k), Matrix(0, k, n, n), Matrix(0, m, n, n)
    how = {"shift": HOW.shift}
    if kind == "y":
        o = Matrix(m * k, m, n, n)
        return tiler.y(BUILD, x, w, o, how=how), [tiler.store(BUILD, Memory.ACTIVATIONS, o)], o
    if kind == "dx":
        o = Matrix(m * n, m, k, k)
        return tiler.dx(BUILD, dy, w, o, how=how), [tiler.store(BUILD, Memory.COTANGENTS, o)], o
    rows = -(-k // 12) * -(-n // 13) * 12
    return tiler.dw(BUILD, x, dy, start=1024), [tiler.emit(BUILD, 1024, rows)], rows


def measure(model: ArrayModel, kinds: tuple[str, ...], m: int, k: int, n: int) -> dict[str, Any]:
    """One programme of some products, each on the same operands."""
    rng = np.random.default_rng(m + k + n)
    xs, ws, dys = (rng.integers(-128, 128, shape) for shape in ((m, k), (k, n), (m, n)))
    loads: list[Load] = [
        (Memory.ACTIVATIONS, Matrix(0, m, k, k), xs),
        (Memory.WEIGHTS, Matrix(0, k, n, n), ws),
        (Memory.COTANGENTS, Matrix(0, m, n, n), dys),
    ]
    jobs, leave, found = zip(*(job(kind, m, k, n) for kind in kinds), strict=True)
    stored = sum(o.rows * -(-o.columns // BUILD.lanes) for o in found if isinstance(o, Matrix))
    emitted = sum(o for o in found if isinstance(o, int))
    first = model.run(jobs, loads=loads)
    outs = [{**each, "fence": 1} for group in leave for each in group]
    brought = model.run(outs, stored=stored, emitted=emitted)
    at = 0
    for kind, o in zip(kinds, found, strict=True):
        if isinstance(o, int):
            tiles = brought.emitted.reshape(-(-n // 13), -1, 13).transpose(1, 0, 2)
            result = tiles.reshape(tiles.shape[0], -1)[:k, :n]
            want = matmul.dw(xs, dys)
        else:
            rows = o.rows * -(-o.columns // BUILD.lanes)
            result = brought.stored[at : at + rows].reshape(o.rows, -1)[:, : o.columns]
            at += rows
            want = requantise(matmul.y(xs, ws) if kind == "y" else matmul.dx(dys, ws), HOW)[0]
        if not np.array_equal(result, want):
            raise SystemExit(f"{kind} of {m} x {k} x {n} is wrong")
    macs = m * k * n * len(kinds)
    span, rows = first.counts["span"], first.counts["row"]
    return {
        "products": "+".join(kinds), "m": m, "k": k, "n": n, "span": span, "rows": rows, "busy": rows / span,
        "macs_per_clock": macs / span, "weights": first.counts["weights"], "cycles": first.cycles,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for utilisation.json")
    options = parser.parse_args()
    model = ArrayModel(
        BUILD, progress=lambda fraction, message: print(f"{fraction:4.0%} {message}", flush=True)
    )
    found = []
    for m, k, n in SHAPES:
        for kinds in (("y",), ("dx",), ("dw",), ("y", "dx", "dw")):
            if "dw" in kinds and m > BUILD.array.depth:
                continue
            found.append(measure(model, kinds, m, k, n))
            print(json.dumps(found[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    content = {"array": "12 x 13, 3 bands", "lanes": BUILD.lanes, "results": found}
    files.write(options.out / "utilisation.json", json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
