# amaranth: UnusedElaboratable=no
"""The array's unit: programmes of products, tiles with every remainder, biases and activations, cycles to the clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator

from pullback.rtl.systolic import tiler
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.descriptor import Beginning, Branches, Kind, Memory, encode
from pullback.rtl.systolic.tiler import Matrix, Nest, tiled, untiled
from pullback.rtl.systolic.unit import EVENTS, ArrayUnit
from pullback.sim.bench.host import Host
from pullback.sim.bench.runner import SIMULATORS
from pullback.sim.bench.waves import unpack
from pullback.sim.golden import matmul
from pullback.sim.golden.requantise import Requantisation, requantise, requantise_vjp

ACTIVATIONS = {
    "none": Requantisation(shift=9),
    "relu": Requantisation(shift=8, relu=True),
    "leaky": Requantisation(shift=9, leak=2),
    "clipped": Requantisation(shift=7, relu=True, top=100),
}


def unit(rows: int, columns: int, **options: Any) -> UnitBuild:
    array = ArrayBuild(
        rows=rows, columns=columns, band=options.pop("band", 0), packed=options.pop("packed", False)
    )
    return UnitBuild(array=array, **{"memory": 2048, "sums": 1024, "masks": 512, "programme": 1024} | options)


def how(given: Requantisation) -> dict[str, int]:
    return {"shift": given.shift, "leak": given.leak, "relu": int(given.relu), "top": given.top}


class Session:
    """Random jobs on a unit, each on operands of its own, and what has to come of them."""

    def __init__(self, build: UnitBuild, seed: int) -> None:
        self.build, self.rng, self.host = build, np.random.default_rng(seed), Host(build)
        self.free = dict.fromkeys((Memory.ACTIVATIONS, Memory.COTANGENTS, Memory.WEIGHTS), 0)
        self.sums, self.masks = 0, 0
        self.wanted: list[tuple[dict[str, Any], Matrix | int, np.ndarray]] = []
        self.hit: Counter[str] = Counter()
        self.expected: list[np.ndarray] = []

    def place(self, memory: Memory, rows: int, columns: int) -> Matrix:
        """Room for a matrix, beginning anywhere, with rows any distance apart."""
        at = self.free[memory] + int(self.rng.integers(0, 4))
        matrix = Matrix(at, rows, columns, columns + int(self.rng.integers(0, 4)))
        self.free[memory] = at + rows * matrix.stride
        return matrix

    def given(self, memory: Memory, rows: int, columns: int) -> tuple[Matrix, np.ndarray]:
        """A loaded matrix; now and then one of the largest magnitudes only."""
        matrix = self.place(memory, rows, columns)
        extreme = self.rng.random() < 0.3
        values = (
            self.rng.choice([-128, 127], (rows, columns))
            if extreme
            else self.rng.integers(-128, 128, (rows, columns))
        )
        self.host.load(memory, matrix, values)
        return matrix, values

    def rows(self, count: int) -> int:
        """Rows of partial sums."""
        start, self.sums = self.sums, self.sums + count
        return start

    def want(self, memory: Memory, matrix: Matrix, values: np.ndarray) -> None:
        self.wanted.append((tiler.store(self.build, memory, matrix), matrix, values))

    def length(self, tile: int) -> int:
        """One to three tiles; every remainder."""
        return int(self.rng.integers(1, 3 * tile + 1))

    def y(self, m: int | None = None) -> None:
        array = self.build.array
        m, k, n = m or int(self.rng.integers(1, 30)), self.length(array.rows), self.length(array.columns)
        x, xs = self.given(Memory.ACTIVATIONS, m, k)
        w, ws = self.given(Memory.WEIGHTS, k, n)
        o = self.place(Memory.ACTIVATIONS, m, n)
        name = str(self.rng.choice([*ACTIVATIONS]))
        sums, begin = matmul.y(xs, ws), Beginning.ZERO
        bias = 0
        if self.rng.random() < 0.6:
            outer = -(-n // array.columns)
            bias, begin = self.rows(outer), Beginning.BIAS
            values = self.rng.integers(-30000, 30000, n)
            self.host.fill(np.pad(values, (0, outer * array.columns - n)).reshape(outer, -1))
            self.host.run(tiler.fill(self.build, bias, outer))
            sums = sums + values
        self.host.run(
            tiler.y(
                self.build, x, w, o, how=how(ACTIVATIONS[name]),
                sums={"start": self.rows(m), "bias": bias, "begin": begin},
            )
        )  # fmt: skip
        codes, branches = requantise(sums, ACTIVATIONS[name])
        self.want(Memory.ACTIVATIONS, o, codes)
        self.hit[f"y {name}"] += 1
        self.hit[f"y K % R = {k % array.rows}"] += 1
        self.hit[f"y N % C = {n % array.columns}"] += 1
        self.hit["low"] += int((codes == -128).any())
        self.hit["high"] += int(((branches == 0) & (codes == ACTIVATIONS[name].top)).any())

    def dx(self, m: int | None = None) -> None:
        array = self.build.array
        m, k, n = m or int(self.rng.integers(1, 30)), self.length(array.columns), self.length(array.rows)
        dy, dys = self.given(Memory.COTANGENTS, m, n)
        w, ws = self.given(Memory.WEIGHTS, k, n)
        o = self.place(Memory.COTANGENTS, m, k)
        self.host.run(
            tiler.dx(self.build, dy, w, o, how=how(ACTIVATIONS["none"]), sums={"start": self.rows(m)})
        )
        codes, _ = requantise(matmul.dx(dys, ws), ACTIVATIONS["none"])
        self.want(Memory.COTANGENTS, o, codes)
        self.hit["dx"] += 1
        self.hit[f"dx N % R = {n % array.rows}"] += 1
        self.hit[f"dx K % C = {k % array.columns}"] += 1

    def dw(self, m: int | None = None) -> None:
        """One or two batches that add to the same sums."""
        array = self.build.array
        k, n = self.length(array.rows), self.length(array.columns)
        inner, outer = -(-k // array.rows), -(-n // array.columns)
        rows = inner * outer * array.rows
        start = self.rows(rows)
        total = np.zeros((k, n), int)
        batches = int(self.rng.integers(1, 3))
        for batch in range(batches):
            m_ = m or int(self.rng.integers(1, 30))
            x, xs = self.given(Memory.ACTIVATIONS, m_, k)
            dy, dys = self.given(Memory.COTANGENTS, m_, n)
            self.host.run(tiler.dw(self.build, x, dy, start=start, add=batch > 0))
            total += matmul.dw(xs, dys)
            self.hit[f"dw short {m_ < array.rows - 1}"] += 1
        self.wanted.append((tiler.emit(self.build, start, rows), rows, tiled(self.build, total)))
        self.hit[f"dw {batches}"] += 1
        self.hit[f"dw K % R = {k % array.rows}"] += 1
        self.hit[f"dw N % C = {n % array.columns}"] += 1

    def check(self, simulator: str, *, seed: int | None) -> None:
        for fields, what, _ in self.wanted:
            self.host.want(fields, what)
        for found, (_, what, expected) in zip(self.host.play(simulator, seed=seed), self.wanted, strict=True):
            np.testing.assert_array_equal(found, expected, str(what))
        assert not self.host.seen["overflow"][-1]


@pytest.mark.parametrize(
    ("rows", "columns", "packed", "simulator"),
    [
        (4, 3, False, "icarus"),
        (3, 5, False, "icarus"),
        (1, 1, False, "icarus"),
        (2, 4, True, "icarus"),
        (4, 3, False, "verilator"),
        *(
            pytest.param(*size, marks=pytest.mark.slow)
            for size in (
                (2, 4, False, "icarus"),
                (5, 4, False, "icarus"),
                (3, 5, False, "verilator"),
                (1, 1, False, "verilator"),
                (2, 4, True, "verilator"),
            )
        ),
    ],
)
def test_products_in_any_order(rows, columns, packed, simulator):
    hit: Counter[str] = Counter()
    for seed in (None, 1):
        session = Session(unit(rows, columns, packed=packed), seed or 0)
        before = ""
        for k in range(12):
            kind = ("y", "dx", "dw")[k] if k < 3 else str(session.rng.choice(["y", "dx", "dw"]))
            getattr(session, kind)()
            session.hit[f"{before}->{kind}"] += 1
            before = kind
        session.check(simulator, seed=seed)
        hit += session.hit
    print(rows, columns, packed, simulator, dict(sorted(hit.items())))


@pytest.mark.parametrize(("rows", "columns"), [(4, 3), (3, 5), (5, 4)])
def test_dw_of_fewer_rows_than_a_tile_takes(rows, columns):
    """Tiles of M < R - 1 rows are filled up; the last one of several, with a job behind it, ends no clock too early.

    The walk of such a job was taken for ended with a row that still waited, and the next job hung.
    """
    build = unit(rows, columns)
    session = Session(build, rows)
    host = session.host
    k, n = 3 * rows - 1, 2 * columns + 1
    wanted = []
    for job, m in enumerate((1, 1, 2, 1, rows, 1)):
        xs, dys = (session.rng.integers(-128, 128, (m, size)) for size in (k, n))
        x, dy = Matrix(100 * job, m, k, k), Matrix(100 * job, m, n, n)
        host.load(Memory.ACTIVATIONS, x, xs)
        host.load(Memory.COTANGENTS, dy, dys)
        host.run(tiler.dw(build, x, dy, start=50 * job))
        wanted.append((50 * job, matmul.dw(xs, dys)))
    rows_of_sums = 3 * 3 * rows
    for start, _ in wanted:
        host.want(tiler.emit(build, start, rows_of_sums), rows_of_sums)
    for found, (_, want) in zip(host.play(clocks=20_000), wanted, strict=True):
        np.testing.assert_array_equal(untiled(build, found, k, n), want)


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_a_layer_forward_and_back(simulator):
    """Two layers with an activation between, from X to both dW; each step waits for the one before by a fence."""
    build = unit(4, 3)
    for seed, (name, activation) in enumerate(ACTIVATIONS.items()):
        rng = np.random.default_rng(seed)
        host = Host(build)
        m, k, n, p = 13, 9, 7, 5
        x, hidden, o = Matrix(3, m, k, k), Matrix(200, m, n, n + 1), Matrix(400, m, p, p)
        w, u = Matrix(1, k, n, n), Matrix(100, n, p, p + 2)
        do, dhidden, dx = Matrix(0, m, p, p), Matrix(100, m, n, n), Matrix(300, m, k, k + 3)
        xs, ws, us, dos = (rng.integers(-128, 128, shape) for shape in ((m, k), (k, n), (n, p), (m, p)))
        for memory, matrix, values in (
            (Memory.ACTIVATIONS, x, xs), (Memory.WEIGHTS, w, ws), (Memory.WEIGHTS, u, us),
            (Memory.COTANGENTS, do, dos),
        ):  # fmt: skip
            host.load(memory, matrix, values)
        activation = replace(activation, shift=activation.shift - 2)  # some clip
        sums = {"start": 0}
        notes = {"branches": Nest(40, (1, 0, 0), outer=m), "use": Branches.NOTE}
        takes = {"branches": Nest(40, (1, 0, 0), outer=m), "use": Branches.TAKE}
        plain = Requantisation(shift=8)
        host.run(tiler.y(build, x, w, hidden, how=how(activation), sums=sums, **notes))
        host.run(tiler.y(build, hidden, u, o, how=how(plain), sums=sums), fence=True)
        host.run(tiler.dx(build, do, u, dhidden, how=how(activation), sums=sums, **takes))
        host.run(tiler.dw(build, hidden, do, start=100))
        host.run(tiler.dx(build, dhidden, w, dx, how=how(plain), sums=sums), fence=True)
        host.run(tiler.dw(build, x, dhidden, start=200))
        for memory, matrix in ((Memory.ACTIVATIONS, o), (Memory.COTANGENTS, dx), (Memory.WEIGHTS, u)):
            host.want(tiler.store(build, memory, matrix), matrix)
        host.want(tiler.emit(build, 100, 2 * 2 * 4), 2 * 2 * 4)
        host.want(tiler.emit(build, 200, 3 * 3 * 4), 3 * 3 * 4)
        o_, dx_, u_, du, dw = host.play(simulator, seed=seed or None)

        hs, branches = requantise(matmul.y(xs, ws), activation)
        dhs = requantise_vjp(matmul.dx(dos, us), branches, activation)
        np.testing.assert_array_equal(u_, us)
        np.testing.assert_array_equal(o_, requantise(matmul.y(hs, us), plain)[0], name)
        np.testing.assert_array_equal(dx_, requantise(matmul.dx(dhs, ws), plain)[0], name)
        np.testing.assert_array_equal(untiled(build, du, n, p), matmul.dw(hs, dos), name)
        np.testing.assert_array_equal(untiled(build, dw, k, n), matmul.dw(xs, dhs), name)
        assert len(np.unique(branches)) >= (2 if activation.relu else 3), branches


def clocks(build: UnitBuild, host: Host) -> tuple[int, int]:
    """From the first row read to the last result written, both counted; and rows read."""
    events = {name: [bool(e >> k & 1) for e in host.seen["events"]] for k, (name, _) in enumerate(EVENTS)}
    first = events["row"].index(True)
    last = len(events["result"]) - events["result"][::-1].index(True)
    return last - first, sum(events["row"])


def formula(build: UnitBuild, product: str, tiles: int, m: int) -> int:
    """The array's cycles, and those of what is around it: reading, partial sums, requantisation."""
    array = build.array
    across = (array.columns // 2 - 1) + 2 if array.packed else array.columns - 1
    mesh = (array.rows - 1) + across + array.crossings(array.rows - 1) + 6
    read = 2 + (build.lanes.bit_length()) // 2  # block RAM; rotation by two bits a clock
    if product == "dw":
        return tiles * (m + 1) - 1 + array.rows + mesh + read + 1
    return tiles * m + mesh + read + 1 + 4


@pytest.mark.parametrize("product", ["y", "dx", "dw"])
@pytest.mark.parametrize(
    ("rows", "columns", "band", "packed", "simulator"),
    [
        (4, 7, 0, False, "icarus"),
        (4, 3, 0, False, "verilator"),
        (6, 4, 3, False, "icarus"),
        (4, 6, 0, True, "icarus"),
    ],
)
def test_cycles(rows, columns, band, packed, simulator, product):
    """From the first operand read to the last result written, no clock but those of the formulas."""
    build = unit(rows, columns, band=band, packed=packed)
    most = max(rows, columns, 5)
    for m, k, n in (
        (most, 2 * rows, columns),
        (3 * most, 3 * rows, 2 * columns),
        (4 * most + 1, rows, columns),
    ):
        if product == "dx":
            k, n = n, k
        session = Session(build, m)
        host = session.host
        x, w, dy = Matrix(0, m, k, k), Matrix(3, k, n, n), Matrix(5, m, n, n)
        for memory, matrix in ((Memory.ACTIVATIONS, x), (Memory.WEIGHTS, w), (Memory.COTANGENTS, dy)):
            host.load(memory, matrix, session.rng.integers(-128, 128, (matrix.rows, matrix.columns)))
        o = Matrix(1000, m, k if product == "dx" else n, 64)
        job = {
            "y": lambda x=x, w=w, o=o: tiler.y(build, x, w, o),
            "dx": lambda dy=dy, w=w, o=o: tiler.dx(build, dy, w, o),
            "dw": lambda x=x, dy=dy: tiler.dw(build, x, dy),
        }[product]()
        host.run(job)
        host.play(simulator, watch=["events", "counts"])
        tiles = (-(-n // rows) if product == "dx" else -(-k // rows)) * (
            -(-k // columns) if product == "dx" else -(-n // columns)
        )
        cycles = formula(build, product, tiles, m)
        assert clocks(build, host) == (cycles, tiles * m), (m, k, n)
        counted = unpack(host.seen["counts"][-1] or 0, EVENTS.size + 2, 32, signed=False)
        assert counted[0] == tiles * m and counted[-1] == cycles


def test_short_tiles_wait_for_weights():
    """Where M is smaller than the rows of W a tile needs, tiles come as often as these; the counter tells."""
    build = unit(4, 7)
    x, w, o = Matrix(0, 2, 12, 12), Matrix(0, 12, 7, 7), Matrix(100, 2, 7, 7)
    host = Host(build)
    host.load(Memory.ACTIVATIONS, x, np.ones((2, 12), int))
    host.load(Memory.WEIGHTS, w, np.ones((12, 7), int))
    host.run(tiler.y(build, x, w, o))
    host.want(tiler.store(build, Memory.ACTIVATIONS, o), o)
    (found,) = host.play(watch=["events", "counts"])
    assert (found == 12).all()
    assert clocks(build, host) == (formula(build, "y", 1, 2) + 2 * 5, 6)
    last = unpack(host.seen["counts"][-1] or 0, EVENTS.size + 2, 32, signed=False)
    counts = dict(zip([*(name for name, _ in EVENTS), "busy", "span"], last, strict=True))
    # The first tile's clocks of W, and three of the five of each of the others.
    assert counts["weights"] == 5 + 3 + 3 and counts["row"] == 6 and counts["result"] == 2
    assert counts["busy"] == sum(host.seen["busy"])


@pytest.mark.parametrize(
    "job",
    [lambda b, rows: tiler.emit(b, 0, rows), lambda b, rows: tiler.fill(b, 0, rows)],
    ids=["emit", "fill"],
)
def test_busy_while_a_single_row_is_on_its_way(job):
    """A row more takes as many clocks more, whether it is the second or the third."""
    build = unit(4, 3)
    lengths = []
    for rows in (1, 2, 3):
        host = Host(build)
        fields = job(build, rows)
        if fields["kind"] == Kind.EMIT:
            host.want(fields, rows, fence=False)
        else:
            host.fill(np.zeros((rows, 3), int))
            host.run(fields)
        host.play()
        lengths.append(sum(b or 0 for b in host.seen["busy"]))
    assert lengths[2] - lengths[1] == lengths[1] - lengths[0] > 0, lengths


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda b: tiler.y(b, Matrix(0, 2, 3, 3), Matrix(0, 4, 2, 2), Matrix(0, 2, 2, 2)),
            "X is 2 x 3, W 4 x 2",
        ),
        (
            lambda b: tiler.y(b, Matrix(0, 0, 3, 3), Matrix(0, 3, 2, 2), Matrix(0, 0, 2, 2)),
            "the operand is 0 x 3",
        ),
        (
            lambda b: tiler.y(b, Matrix(0, 2, 3, 2), Matrix(0, 3, 2, 2), Matrix(0, 2, 2, 2)),
            "rows of the operand overlap: 3 columns, a stride of 2",
        ),
        (
            lambda b: tiler.dx(b, Matrix(8190, 2, 3, 3), Matrix(0, 2, 3, 3), Matrix(0, 2, 2, 2)),
            "the operand lies in 8190 to 8195; the memory has 8192",
        ),
        (
            lambda b: tiler.dw(b, Matrix(0, 512, 3, 3), Matrix(0, 512, 2, 2)),
            "512 rows; .* holds 511 products",
        ),
        (
            lambda b: tiler.dw(b, Matrix(0, 8, 300, 300), Matrix(0, 8, 100, 100)),
            "partial sums; there are 1024",
        ),
        (lambda b: tiler.emit(b, 1000, 25), "rows 1000 to 1024 of partial sums; there are 1024"),
        (lambda b: encode(b, {"kindd": 1}), "kindd is no field; give kind"),
        (lambda b: encode(b, {"inner": [1 << 12]}), "inner.0=4096; this unit has 12 bits for it, 0 to 4095"),
    ],
)
def test_bad_jobs(make, message):
    with pytest.raises(ValueError, match=message):
        make(unit(4, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 300}, "memory=300 rows; give a power of two"),
        ({"sums": 0}, "sums=0; give 1 to"),
        ({"total": 20}, "total=20; give 24"),
        ({"count": 3}, "count=3; give 4 to 16"),
        ({"ram": "flash"}, "ram='flash'; choose one of"),
    ],
)
def test_bad_builds(options, message):
    with pytest.raises(ValueError, match=message):
        UnitBuild(**options)


def test_overflow_and_clipping_are_flagged():
    """A partial sum that wraps and a code that saturates are seen afterwards."""
    build = unit(4, 3)
    host = Host(build)
    top = (1 << 31) - 1
    host.fill(np.full((1, 3), top))
    host.run(tiler.fill(build, 0, 1))
    x, dy = Matrix(0, 4, 1, 1), Matrix(0, 4, 1, 1)
    host.load(Memory.ACTIVATIONS, x, np.ones((4, 1), int))
    host.load(Memory.COTANGENTS, dy, np.ones((4, 1), int))
    host.run(tiler.dw(build, x, dy, start=0, add=True))
    host.want(tiler.emit(build, 0, 1), 1)
    (found,) = host.play()
    assert found[0].tolist() == [-top - 1 + 3, top, top]
    assert host.seen["overflow"][-1] == 1
    assert host.seen["clipped"][-1] == 0  # no codes were wanted
    o = Matrix(100, 4, 1, 1)
    host.load(Memory.WEIGHTS, Matrix(0, 1, 1, 1), np.full((1, 1), 100))
    host.load(Memory.ACTIVATIONS, Matrix(20, 4, 1, 1), np.array([[1], [2], [-1], [-2]]))
    host.run(tiler.y(build, Matrix(20, 4, 1, 1), Matrix(0, 1, 1, 1), o, how={"top": 127}))
    host.want(tiler.store(build, Memory.ACTIVATIONS, o), o)
    host.play()
    assert host.seen["clipped"][-1] == 1


def test_nothing_overtakes_a_long_accumulation():
    """While a tile of dW goes on for longer than a row is on its way nothing leaves the array; it is not idle for that:
    what comes after waits, without a fence.
    """
    build = unit(4, 3)
    session = Session(build, 3)
    for m in (40, 100, 300):
        session.dw(m)
        fields, rows, values = session.wanted.pop()
        session.host.want(fields, rows, fence=False)
        session.expected.append(values)
    for found, values in zip(session.host.play(), session.expected, strict=True):
        np.testing.assert_array_equal(found, values)


def test_busy_until_the_last_result():
    """Also where the programme ends with a long tile, whose results come at once at its end."""
    build = unit(4, 3)
    session = Session(build, 4)
    session.dw(100)
    session.host.play(watch=["events"])
    busy = session.host.seen["busy"]
    results = [k for k, events in enumerate(session.host.seen["events"]) if (events or 0) >> 1 & 1]
    fall = busy.index(0, busy.index(1))
    assert len(results) > 0 and results[-1] < fall and 1 not in busy[fall:]


def test_a_reset_takes_back_what_is_offered():
    """Two clocks of reset while a row waits: it is gone in the second of them, and does not come back."""
    build = UnitBuild(array=ArrayBuild(rows=2, columns=2), memory=16, sums=16, masks=2, programme=64, count=4)
    words = encode(build, tiler.emit(build, 0, 6) | {"last": 1})
    m = Module()
    m.domains.sync = domain = ClockDomain()
    m.submodules.unit = unit = ArrayUnit(build)
    seen = []

    async def bench(ctx):
        for row, word in enumerate(words):
            for port, value in ((unit.write, 1), (unit.write_row, row), (unit.write_data, word)):
                ctx.set(port, value)
            await ctx.tick()
        ctx.set(unit.write, 0)
        for _ in range(2):
            ctx.set(unit.go, 1)
            await ctx.tick()
            ctx.set(unit.go, 0)
            await ctx.tick().until(unit.emitted.valid)
            for _ in range(10):
                await ctx.tick()
            offers = []
            for clock in range(40):
                ctx.set(domain.rst, clock < 2)
                offers.append(ctx.get(unit.emitted.valid))
                await ctx.tick()
            seen.append(offers)

    sim = Simulator(m)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert seen == 2 * [[1] + 39 * [0]]
