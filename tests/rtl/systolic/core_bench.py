"""cocotb bench of the array's core. Run by ``test_core.py``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Shape
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp
from core_host import BUILD, ArrayHost, packet

from pullback.rtl.systolic import tiler
from pullback.rtl.systolic.descriptor import Beginning, Branches, Kind, Memory, encode, layout
from pullback.rtl.systolic.registers import ARRAY_REGISTERS, PROGRAMME_BASE, ArrayMap
from pullback.rtl.systolic.tiler import Matrix, Nest
from pullback.sim.bench.axi_lite import BusError
from pullback.sim.golden import matmul
from pullback.sim.golden.requantise import Requantisation, requantise

MAP = ArrayMap(BUILD)
WORDS = MAP.descriptor
GOOD = BUILD.programme - 4 * WORDS  # where the known programme stands
KIND_BITS = Shape.cast(Kind).width
ROUNDS = int(os.environ.get("PULLBACK_ROUNDS", "5"))


ROWS, COLUMNS = BUILD.array.rows, BUILD.array.columns
BITS = BUILD.array.operand
HI = (1 << BITS - 1) - 1


def codes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Operands, now and then of the largest magnitude only."""
    return rng.choice([-HI - 1, HI], shape) if rng.random() < 0.2 else rng.integers(-HI - 1, HI + 1, shape)


def tiled(values: np.ndarray) -> np.ndarray:
    """A matrix of dW as its rows of partial sums: R a tile, tiles of K inside those of N."""
    k, n = values.shape
    full = np.pad(values, ((0, -k % ROWS), (0, -n % COLUMNS)))
    return (
        full.reshape(-1, ROWS, full.shape[1] // COLUMNS, COLUMNS).transpose(2, 0, 1, 3).reshape(-1, COLUMNS)
    )


def of_kind(word: int, kind: int) -> int:
    """The first word of a descriptor, of another kind."""
    return word >> KIND_BITS << KIND_BITS | kind


def tiles(k: int, n: int) -> tuple[int, int]:
    """Tiles of K and of N."""
    return -(-k // ROWS), -(-n // COLUMNS)


class Known:
    """Y with a bias and an activation, and dW: a programme of which is known what must come."""

    x, w, dy, o = Matrix(5, 4, 5, 6), Matrix(9, 5, 3, 3), Matrix(1, 4, 3, 4), Matrix(60, 4, 3, 3)
    how = Requantisation(bits=BITS, shift=5, relu=True, top=HI)

    def __init__(self) -> None:
        how = {"shift": self.how.shift, "relu": 1, "top": self.how.top}
        rows = tiles(5, 3)[0] * tiles(5, 3)[1] * ROWS
        self.jobs = [
            tiler.y(BUILD, self.x, self.w, self.o, how=how, sums={"start": 20}),
            {**tiler.store(BUILD, Memory.ACTIVATIONS, self.o), "fence": 1},
            tiler.dw(BUILD, self.x, self.dy, start=3),
            tiler.emit(BUILD, 3, rows),
        ]

    async def check(self, host: ArrayHost, rng: np.random.Generator, *, fresh: bool = True) -> None:
        """Runs it; ``fresh``: with new operands, else with those that the memories still hold."""
        if fresh:
            self.xs, self.ws, self.dys = codes(rng, 4, 5), codes(rng, 5, 3), codes(rng, 4, 3)
            await host.load(Memory.ACTIVATIONS, self.x, self.xs)
            await host.load(Memory.WEIGHTS, self.w, self.ws)
            await host.load(Memory.COTANGENTS, self.dy, self.dys)
            await host.loaded()
        await host.go(GOOD)
        expected, _ = requantise(matmul.y(self.xs, self.ws), self.how)
        np.testing.assert_array_equal(await host.stored(self.o), expected)
        np.testing.assert_array_equal(await host.emitted(), tiled(matmul.dw(self.xs, self.dys)))
        await host.done()
        assert await host.errors() == set()
        assert all(sink.empty() for sink in host.sinks.values()), "packets that nobody wanted"


async def started(dut: Any, seed: int | None = None, *, known: bool = True) -> ArrayHost:
    host = ArrayHost(dut, seed=seed)
    await host.reset()
    if known:
        await host.programme(Known().jobs, GOOD)
    return host


@cocotb.test()
async def registers(dut: Any) -> None:
    """Constants, what can be written, and what is refused, by a master of somebody else."""
    await started(dut, known=False)
    axi = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    for name, value in MAP.constants.items():
        assert await axi.read_dword(MAP.address(name)) == value, name
    for name, value, back in (
        ("START", 0xDEADBEEF, 0xDEADBEEF),
        ("INTERRUPTS", 0xFFFFFFFF, 3),
        ("CONTROL", 2, 2),
    ):
        await axi.write_dword(MAP.address(name), value)
        assert await axi.read_dword(MAP.address(name)) == back, name
    assert dut.interrupt.value == 0
    await axi.write_dword(MAP.address("CONTROL"), 0)
    end = PROGRAMME_BASE + 4 * BUILD.programme
    refused = [r.address for r in ARRAY_REGISTERS if r.access == "r"]
    for address in (*refused, 4 * len(ARRAY_REGISTERS), 0x7FFC, end, 0xFFFC):
        assert (await axi.write(address, b"\xff" * 4)).resp == AxiResp.SLVERR, hex(address)
    for address in (4 * len(ARRAY_REGISTERS), PROGRAMME_BASE, end, 0xFFFC):
        answer = await axi.read(address, 4)
        assert answer.resp == AxiResp.SLVERR and answer.data == bytes(4), hex(address)
    assert (await axi.write(end - 4, bytes(4))).resp == AxiResp.OKAY
    assert (await axi.write(MAP.address("START") + 1, b"\1")).resp == AxiResp.SLVERR
    assert await axi.read_dword(MAP.address("START")) == 0xDEADBEEF
    assert await axi.read_dword(MAP.address("STATUS")) == 0
    assert await axi.read_dword(MAP.address("ACK")) == 0


@cocotb.test()
async def known_products(dut: Any) -> None:
    """Without stalls: counters, the interrupt and its causes."""
    host, rng = await started(dut), np.random.default_rng(0)
    await host.put("INTERRUPTS", 1)
    known = Known()
    for k in range(2):
        await known.check(host, rng, fresh=k == 0)
    k, n = tiles(5, 3)
    assert await host.get("ROWS") == 2 * k * n * 4
    assert await host.get("RESULTS") == n * 4 + k * n * ROWS
    span, busy = await host.get("SPAN"), await host.get("BUSY")
    assert 0 < span < busy
    assert await host.get("STARVED") > 0 and await host.get("WEIGHTS") > 0
    assert dut.interrupt.value == 0  # acknowledged
    await host.go(GOOD)
    await host.stored(known.o)
    await host.emitted()
    while not int(dut.interrupt.value):
        await RisingEdge(dut.clk)
    assert await host.get("STATUS", "done") == 1 and await host.get("STATUS", "busy") == 0
    await host.put("INTERRUPTS", 2)
    assert dut.interrupt.value == 0
    await host.put("START", 1 << 31)
    await host.put("CONTROL", 1)
    assert dut.interrupt.value == 1
    assert await host.errors() == {"bad_start"}
    await host.clocks(2)
    assert dut.interrupt.value == 0
    await host.put("INTERRUPTS", 1)
    await host.clocks(2)
    assert dut.interrupt.value == 1
    await host.put("ACK", 0)
    await host.clocks(2)
    assert dut.interrupt.value == 0


@cocotb.test()
async def a_layer_forward_and_back(dut: Any) -> None:
    """A bias, Y with a leaky ReLU, dX, dW on top of sums that come in, with stalls on every stream."""
    host, rng = await started(dut, 1, known=False), np.random.default_rng(1)
    for _ in range(2):
        x, w, y = Matrix(3, 6, 5, 5), Matrix(1, 5, 4, 5), Matrix(40, 6, 4, 4)
        dy, dx = Matrix(2, 6, 4, 7), Matrix(60, 6, 5, 6)
        xs, ws, dys = codes(rng, 6, 5), codes(rng, 5, 4), codes(rng, 6, 4)
        k, n = tiles(5, 4)
        rows = k * n * ROWS
        bias = rng.integers(-999, 999, (n, COLUMNS))
        before = rng.integers(-99999, 99999, (rows, COLUMNS))
        how = Requantisation(bits=BITS, shift=6, leak=1, top=HI)
        settings = {"shift": how.shift, "leak": how.leak, "top": how.top}
        noting = Nest(1, (1, 0, 0), outer=6)
        y_job = tiler.y(
            BUILD, x, w, y, how=settings, sums={"start": 2, "bias": 0, "begin": Beginning.BIAS},
            branches=noting, use=Branches.NOTE,
        )  # fmt: skip
        jobs = [
            tiler.fill(BUILD, 0, n),
            y_job,
            {**tiler.store(BUILD, Memory.ACTIVATIONS, y), "fence": 1},
            tiler.dx(BUILD, dy, w, dx, how={"shift": 7}, sums={"start": 2}),
            tiler.fill(BUILD, 8, rows),
            tiler.dw(BUILD, x, dy, start=8, add=True),
            {**tiler.store(BUILD, Memory.COTANGENTS, dx), "fence": 1},
            tiler.emit(BUILD, 8, rows),
        ]
        for matrix, memory, values in (
            (x, Memory.ACTIVATIONS, xs), (w, Memory.WEIGHTS, ws), (dy, Memory.COTANGENTS, dys),
        ):  # fmt: skip
            await host.load(memory, matrix, values)
        await host.programme(jobs)
        await host.loaded()
        await host.go()
        await host.fill(bias)
        await host.fill(before)
        ys, noted = requantise(matmul.y(xs, ws) + bias.ravel()[:4], how)
        np.testing.assert_array_equal(await host.stored(y), ys)
        plain = Requantisation(bits=BITS, shift=7, top=HI)
        np.testing.assert_array_equal(await host.stored(dx), requantise(matmul.dx(dys, ws), plain)[0])
        np.testing.assert_array_equal(await host.emitted(), before + tiled(matmul.dw(xs, dys)))
        await host.done()
        # Branches leave as rows of partial sums do.
        await host.programme([tiler.emit_branches(BUILD, 1, 6 * n)])
        await host.go()
        branches = (await host.emitted()).reshape(n, 6, COLUMNS).transpose(1, 0, 2).reshape(6, -1)
        np.testing.assert_array_equal(branches[:, :4], noted)
        await host.done()
        assert await host.errors() == set()
        assert all(watch.waits > 0 for watch in host.watches.values()), "no stall at an output"


@cocotb.test()
async def overflow_and_clipping(dut: Any) -> None:
    host = await started(dut, known=False)
    one = Matrix(0, 1, 1, 1)
    for memory in (Memory.ACTIVATIONS, Memory.WEIGHTS, Memory.COTANGENTS):
        await host.load(memory, one, np.array([[30]]))
    most = (1 << BUILD.total - 1) - 1
    await host.programme(
        [tiler.fill(BUILD, 0, 3), tiler.dw(BUILD, one, one, add=True), tiler.emit(BUILD, 0, 1)]
    )
    await host.fill(np.full((3, COLUMNS), most))
    await host.loaded()
    await host.go()
    assert (await host.emitted()).tolist() == [[-most - 1 + 899, *[most] * (COLUMNS - 1)]]
    await host.done()
    assert await host.get("STATUS", "overflow") == 1 and await host.get("STATUS", "clipped") == 0
    await host.programme([tiler.y(BUILD, one, one, Matrix(8, 1, 1, 1))])
    await host.go()
    await host.done()
    assert await host.get("STATUS", "overflow") == 0 and await host.get("STATUS", "clipped") == 1


@cocotb.test()
async def bad_commands(dut: Any) -> None:
    """Each bad go is flagged and does nothing, and the array works on."""
    host, rng, known = await started(dut, 3), np.random.default_rng(3), Known()
    for start in (GOOD + 3 * WORDS + 1, BUILD.programme, BUILD.programme + GOOD, 1 << 31, 0xFFFFFFFF):
        await host.go(start)
        assert await host.errors() == {"bad_start"}
        assert await host.get("STATUS") == 0
    await known.check(host, rng)
    # A programme that waits for rows that do not come; a second go.
    await host.programme([tiler.fill(BUILD, 0, 2), tiler.emit(BUILD, 0, 2)])
    await host.go()
    assert await host.get("STATUS", "busy") == 1
    await host.go(GOOD)
    assert await host.errors() == {"refused"}
    rows = rng.integers(-99, 99, (2, COLUMNS))
    await host.fill(rows)
    np.testing.assert_array_equal(await host.emitted(), rows)
    await host.done()
    await known.check(host, rng)
    # Go beside a stop, while it is stopped, and in the very write that ends the stop.
    for value in (3, 3, 1):
        await host.put("CONTROL", value)
        assert await host.errors() == {"refused"}
        assert await host.get("STATUS", "busy") == 0 and await host.get("CONTROL") == value & 2
    await known.check(host, rng, fresh=False)


@cocotb.test()
async def bad_programmes(dut: Any) -> None:
    """What comes before a descriptor that is none is done, and no more; the array works on, without a stop."""
    host, rng, known = await started(dut, 4), np.random.default_rng(4), Known()
    await known.check(host, rng)
    rows = rng.integers(-99, 99, (2, COLUMNS))
    first = [tiler.fill(BUILD, 0, 2), tiler.emit(BUILD, 0, 2)]
    known_kinds = {kind.value for kind in Kind}
    for kind in set(range(1 << KIND_BITS)) - known_kinds:
        words = [word for job in first for word in encode(BUILD, job)]
        await host.words([*words, *(of_kind(int(w), kind) for w in rng.integers(0, 1 << 32, WORDS))])
        await host.go()
        await host.fill(rows)
        np.testing.assert_array_equal(await host.emitted(), rows)
        await host.done()
        assert await host.errors() == {"bad_kind"}
        await known.check(host, rng, fresh=False)
    # The last descriptor that fits, which is not the last one; with words behind it, and without.
    for start in (BUILD.programme - 2 * WORDS, BUILD.programme - 2 * WORDS - 5):
        await host.words([word for job in first for word in encode(BUILD, job)], start)
        await host.go(start)
        await host.fill(rows)
        np.testing.assert_array_equal(await host.emitted(), rows)
        await host.done()
        assert await host.errors() == {"bad_end"}
        await host.programme(known.jobs, GOOD)
        await known.check(host, rng, fresh=False)


@cocotb.test()
async def bad_packets(dut: Any) -> None:
    """Packets that cannot be loaded, or end too early: flagged, and nothing else changes."""
    host, rng, known = await started(dut, 5), np.random.default_rng(5), Known()
    await known.check(host, rng)
    hit: Counter[str] = Counter()
    beat = BUILD.lanes  # bytes
    header = -(-12 // beat) * beat

    async def send(data: bytes, errors: set[str]) -> None:
        await host.sources["load"].send(data)
        await host.loaded()
        assert await host.errors() == errors
        hit.update(errors)

    x = Matrix(200, 2, BUILD.lanes + 1, BUILD.lanes + 3)  # two beats a row
    values = codes(rng, 2, x.columns)
    whole = packet(BUILD, Memory.WEIGHTS.value, x, values)
    for fields in (
        {"to": 3}, {"to": 4}, {"to": 255}, {"columns": 0}, {"columns": BUILD.elements + 1}, {"columns": (1 << 24) - 1},
    ):  # fmt: skip
        await send(packet(BUILD, Memory.WEIGHTS.value, x, values, **fields), {"load_header"})
    await known.check(host, rng, fresh=False)
    for size in (*range(beat, header + 1, beat), header + beat, header + 3 * beat):
        await send(whole[:size], {"load_torn"})
    await known.check(host, rng, fresh=False)
    assert hit["load_header"] == 6 and hit["load_torn"] == header // beat + 2, hit
    # As many operands as a memory has are a row.
    every = codes(rng, 1, BUILD.elements)
    everything = Matrix(0, 1, BUILD.elements, BUILD.elements)
    await host.load(Memory.COTANGENTS, everything, every)
    await host.programme([tiler.store(BUILD, Memory.COTANGENTS, everything)])
    await host.loaded()
    await host.go()
    np.testing.assert_array_equal(await host.stored(everything), every)
    # Addresses and strides are modulo the size.
    rows = codes(rng, 3, 4)
    await host.load(
        Memory.COTANGENTS, Matrix(0, 3, 4, 4), rows, at=7 * BUILD.elements + 8, stride=(1 << 32) - 4
    )
    await host.loaded()
    await host.done()
    await host.go()
    every[0, 8:12], every[0, 4:8], every[0, 0:4] = rows
    np.testing.assert_array_equal(await host.stored(everything), every)
    await host.done()
    assert await host.errors() == set()
    await known.check(host, rng)


@cocotb.test()
async def stops(dut: Any) -> None:
    """Whatever it is doing: after a stop the array is idle, its packets are ended and its memories as they were."""
    host, rng, known = await started(dut), np.random.default_rng(6), Known()
    await known.check(host, rng)
    lanes = BUILD.lanes
    big = Matrix(0, BUILD.memory - 4, lanes, lanes)
    cut: Counter[str] = Counter()

    async def paused(name: str, beats: int) -> None:
        """Until so many beats have come."""
        until = host.watches[name].beats + beats
        while host.watches[name].beats < until:
            await host.edge
        host.sinks[name].pause = True
        await host.clocks(40)

    endless = {**tiler.store(BUILD, Memory.WEIGHTS, big), "inner": [0, 63, 63, 63]}
    silent = {**tiler.y(BUILD, known.x, known.w, known.o, sums={"start": 20})}
    silent["result"] = {
        **silent["result"],
        "codes": {"to": Memory.NONE},
    }  # of which there are more than rows:
    silent["result"] = {**silent["result"], "rest": [63, 63, 63, 63, 63]}  # it never ends
    cases: dict[str, tuple[list[dict[str, Any]], Callable[[], Any]]] = {
        "store": ([tiler.store(BUILD, Memory.WEIGHTS, big)], lambda: host.clocks(30)),
        "store that waits": ([tiler.store(BUILD, Memory.WEIGHTS, big)], lambda: paused("stored", 3)),
        "endless store": ([endless], lambda: host.clocks(500)),
        "emit": ([tiler.emit(BUILD, 0, 32)], lambda: host.clocks(25)),
        "emit that waits": ([tiler.emit(BUILD, 0, 32)], lambda: paused("emitted", 2)),
        "fill without rows": ([tiler.fill(BUILD, 0, 1)], lambda: host.clocks(50)),
        "results that do not end": ([silent, known.jobs[2]], lambda: host.clocks(400)),
        "just begun": (known.jobs, lambda: host.clocks(0)),
        "ended": ([tiler.emit(BUILD, 0, 2)], lambda: host.clocks(60)),
    }
    for name, (jobs, wait) in cases.items():
        await host.programme(jobs)
        await host.go()
        await wait()
        half = [watch for watch in host.watches.values() if watch.begun]
        running = await host.get("STATUS", "busy")
        assert running == (name != "ended") or "waits" in name, name
        await host.put("CONTROL", 2)
        for sink in host.sinks.values():
            sink.pause = False
        await host.stop()
        assert await host.get("STATUS", "busy") == 0 and await host.errors() == set(), name
        if "waits" in name:
            assert all(watch.data == 0 for watch in half), "a packet is ended by a row of zeros"
            cut.update(watch.name for watch in half)
        await host.put("ACK", 0)
        await known.check(host, rng, fresh=False)
    assert cut == {"m_axis_stored": 1, "m_axis_emitted": 1}
    # Within a packet of operands, and of partial sums: what is left of it is discarded.
    await host.load(Memory.WEIGHTS, Matrix(100, 40, 2, 2), codes(rng, 40, 2))
    await host.fill(rng.integers(-9, 9, (40, COLUMNS)))
    await host.clocks(20)
    assert not host.sources["load"].idle() and not host.sources["filled"].idle()
    await host.stop()
    assert await host.errors() == set()
    await known.check(host, rng, fresh=False)
    # A reset of the core does as well.
    await host.programme([endless])
    await host.go()
    await host.clocks(100)
    await host.reset()
    for sink in host.sinks.values():
        sink.clear()
    await known.check(host, rng, fresh=False)


def random_descriptor(rng: np.random.Generator, known: Known, mode: str) -> list[int]:
    """Words that may be anything, or nearly what they should be."""
    if mode == "random words":
        return [int(word) for word in rng.integers(0, 1 << 32, WORDS)]
    if mode == "mostly zeros":  # loops are short
        words = rng.integers(0, 1 << 32, (3, WORDS)).tolist()
        words = [x & y & z for x, y, z in zip(*words, strict=True)]
        return [of_kind(words[0], int(rng.integers(0, len(Kind)))), *words[1:]]
    words = encode(BUILD, known.jobs[int(rng.integers(0, 4))])
    if mode == "a bit flipped":
        at = int(rng.integers(0, layout(BUILD).size))
        words[at // 32] ^= 1 << at % 32
    elif mode == "one word random":
        words[int(rng.integers(0, WORDS))] = int(rng.integers(0, 1 << 32))
    return words


MODES = ("random words", "a bit flipped", "mostly zeros", "one word random", "in any order")


@cocotb.test()
async def fuzzed(dut: Any) -> None:
    """Random words as descriptors, random packets beside them; then a stop, and the known programme."""
    seed = int(os.environ.get("PULLBACK_SEED", "7"))
    host, rng, known = await started(dut), np.random.default_rng(seed), Known()
    hit: Counter[str] = Counter()
    area = GOOD // WORDS  # descriptors
    for number in range(ROUNDS):
        mode = MODES[number % len(MODES)]
        start = int(rng.integers(0, area))
        words = [word for _ in range(start, area) for word in random_descriptor(rng, known, mode)]
        if mode == "in any order":
            words[-WORDS:] = encode(BUILD, {**known.jobs[int(rng.integers(0, 4))], "last": 1})
        await host.words(words, start * WORDS)
        if rng.random() < 0.5:
            await host.sources["load"].send(rng.bytes(BUILD.lanes * int(rng.integers(1, 30))))
        if rng.random() < 0.5:
            await host.load(Memory(int(rng.integers(0, 3))), Matrix(9, 8, 5, 5), codes(rng, 8, 5))
        for _ in range(int(rng.integers(0, 3))):
            await host.fill(rng.integers(-99, 99, (int(rng.integers(1, 20)), COLUMNS)))
        beats = {name: watch.beats for name, watch in host.watches.items()}
        ordered = mode == "in any order"
        anywhere = not ordered and rng.random() < 0.3
        at = start * WORDS
        if anywhere:
            # Behind the first word of the last descriptor no start is left.
            last = GOOD + 3 * WORDS + 1
            at = int(rng.integers(last, BUILD.programme) if rng.random() < 0.2 else rng.integers(0, GOOD))
        await host.go(at)
        await host.clocks(500 if ordered else int(rng.integers(1, 400)))
        for sink in host.sinks.values():
            sink.pause = not ordered and rng.random() < 0.5
        await host.clocks(30)
        hit["runs" if await host.get("STATUS", "busy") else "ended"] += 1
        for name, watch in host.watches.items():
            hit[name] += watch.beats > beats[name]
            hit[f"{name} cut"] += watch.begun
        hit.update(await host.errors())
        await host.put("CONTROL", 2)
        for sink in host.sinks.values():
            sink.pause = False
        await host.stop()
        await host.errors()
        await host.put("ACK", 0)
        try:
            await known.check(host, rng)
        except (AssertionError, BusError) as error:
            raise AssertionError(f"round {number}, {mode}, seed {seed}") from error
    print(ROUNDS, "rounds", dict(sorted(hit.items())))
    wanted = ["runs", "ended"]
    if ROUNDS >= 100:
        wanted += ["stored", "stored cut", "emitted", "emitted cut"]
        # Not bad_end: the known programme, which ends by itself, stands at the end of the memory.
        wanted += ["bad_kind", "bad_start", "load_header", "load_torn"]
    assert all(hit[name] for name in wanted), hit
