"""cocotb bench of the array's system, with the memory of cocotbext-axi. Run by ``test_system.py``."""

from __future__ import annotations

import itertools
import logging
import random
from typing import Any

import cocotb
import numpy as np
from cocotbext.axi import AxiBus, AxiRam
from core_host import BUILD, PATIENCE, ArrayHost, packed

from pullback.rtl.systolic import tiler
from pullback.rtl.systolic.descriptor import Beginning, Memory
from pullback.rtl.systolic.packets import container
from pullback.rtl.systolic.system import TRANSFER_REGISTERS, TRANSFERS
from pullback.rtl.systolic.tiler import Matrix
from pullback.sim.bench.axi_lite import AXILite
from pullback.sim.golden import matmul
from pullback.sim.golden.requantise import Requantisation, requantise

SIZE = 1 << 16
LANES, COLUMNS = BUILD.lanes, BUILD.array.columns
BYTES = container(BUILD.array.operand) // 8
BITS = BUILD.array.operand
HI = (1 << BITS - 1) - 1
ADDRESSES = {register.name: register.address for register in TRANSFER_REGISTERS}
BITS_OF = {r.name: {f.name: f.low for f in r.fields} for r in TRANSFER_REGISTERS}


class SystemHost(ArrayHost):
    """An `ArraySystem` with its memory, full of random bytes."""

    def __init__(self, dut: Any, *, seed: int | None) -> None:
        super().__init__(dut, seed=seed, inward=["filled"], outward=["emitted"])
        self.rng = np.random.default_rng(seed or 0)
        self.transfers = AXILite(dut, "s_axil_transfers", seed=seed)
        self.memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=SIZE)
        write, read = self.memory.write_if, self.memory.read_if
        assert write is not None and read is not None
        channels = [write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel]
        for k, port in enumerate((write, read, *channels)):
            port.log.setLevel(logging.ERROR)
            if seed is not None and port in channels:
                pauses = random.Random(f"{k} {seed}")
                port.set_pause_generator(pauses.random() < 0.3 for _ in itertools.count())
        self.content = bytearray(self.rng.bytes(SIZE))
        self.memory.write(0, bytes(self.content))

    def codes(self, rows: int, columns: int) -> np.ndarray:
        return self.rng.integers(-HI - 1, HI + 1, (rows, columns))

    def put_matrix(self, address: int, pitch: int, values: np.ndarray) -> None:
        """A matrix into the memory, before anything runs."""
        for i, row in enumerate(values):
            data = packed(row, BITS)
            self.content[address + i * pitch : address + i * pitch + len(data)] = data
        self.memory.write(0, bytes(self.content))

    async def ask(self, name: str) -> int:
        return await self.transfers.read(ADDRESSES[name])

    async def tell(self, name: str, value: int) -> None:
        await self.transfers.write(ADDRESSES[name], value)

    async def transfer(
        self, what: str, address: int, pitch: int, matrix: Matrix, *, to: int = 0, rows: int | None = None
    ) -> None:
        """Begins it; waits until it can be taken."""
        for name, value in (
            ("ADDRESS", address), ("PITCH", pitch), ("ROWS", matrix.rows if rows is None else rows),
            ("AT", matrix.at), ("STRIDE", matrix.stride), ("SHAPE", matrix.columns | to << 24),
        ):  # fmt: skip
            await self.tell(name, value & 0xFFFFFFFF)
        full = BITS_OF["STATUS"][f"{what}_full"]
        while await self.ask("STATUS") >> full & 1:
            pass
        await self.tell("BEGIN", 1 << BITS_OF["BEGIN"][what])

    async def quiet(self) -> None:
        """No transfer is under way."""
        for _ in range(PATIENCE // 8):
            if not await self.ask("STATUS") & 3:
                await self.clocks(16)  # to the memories
                return
        raise AssertionError("a transfer does not end")

    async def failures(self) -> set[str]:
        """Errors of the transfers; they are cleared."""
        value = await self.ask("ERRORS")
        await self.tell("ERRORS", value)
        return {name for name, low in BITS_OF["ERRORS"].items() if value >> low & 1}


async def started(dut: Any, seed: int | None) -> SystemHost:
    host = SystemHost(dut, seed=seed)
    await host.reset()
    return host


@cocotb.test()
async def a_product_that_does_not_fit(dut: Any) -> None:
    """Y = X W in tiles of K and N: X and W are each larger than a memory of the array; sums grow from tile to tile."""
    host = await started(dut, 1)
    m, k, n = 8, 9 * LANES, 9 * LANES - 1
    x, w, y = 0x100, 0x3000, 0xA000
    pitch_x, pitch_w, pitch_y = k * BYTES + 3 * LANES * BYTES, 9 * LANES * BYTES, 10 * LANES * BYTES
    xs, ws = host.codes(m, k), host.codes(k, n)
    assert xs.size > BUILD.elements and ws.size > BUILD.elements
    host.put_matrix(x, pitch_x, xs)
    host.put_matrix(w, pitch_w, ws)
    how = Requantisation(bits=BITS, shift=8, top=HI)
    step_k, step_n = 3 * LANES, 2 * LANES  # whole beats
    for n0 in range(0, n, step_n):
        wide = min(step_n, n - n0)
        o = Matrix(m * step_k, m, wide, wide)
        for k0 in range(0, k, step_k):
            tile_x, tile_w = Matrix(0, m, step_k, step_k), Matrix(0, step_k, wide, wide)
            await host.transfer("fetch", x + k0 * BYTES, pitch_x, tile_x, to=Memory.ACTIVATIONS.value)
            await host.transfer(
                "fetch", w + k0 * pitch_w + n0 * BYTES, pitch_w, tile_w, to=Memory.WEIGHTS.value
            )
            ends = k0 + step_k == k
            jobs = []
            for c in range(0, wide, COLUMNS):  # each with rows of partial sums of its own
                some = min(COLUMNS, wide - c)
                sums = {"start": c // COLUMNS * m, "begin": Beginning.SUMS if k0 else Beginning.ZERO}
                jobs.append(
                    tiler.y(
                        BUILD, tile_x, Matrix(c, step_k, some, wide), Matrix(o.at + c, m, some, wide),
                        how={"shift": how.shift}, keep=not ends, sums=sums,
                    )
                )  # fmt: skip
            if ends:
                jobs.append({**tiler.store(BUILD, Memory.ACTIVATIONS, o), "fence": 1})
                await host.transfer("deliver", y + n0 * BYTES, pitch_y, o)
            await host.programme(jobs)
            while await host.ask("STATUS") & 1:
                pass
            await host.clocks(16)
            await host.go()
            await host.done()
    await host.quiet()
    expected, _ = requantise(matmul.y(xs, ws), how)
    found = host.memory.read(0, SIZE)
    host.put_matrix(y, pitch_y, expected)
    assert found == bytes(host.content), "the result, and no byte beside it"
    assert await host.failures() == set() and await host.errors() == set()


@cocotb.test()
async def transfers_queue(dut: Any) -> None:
    """Fetches wait for their turn; one too many is refused; every shape comes as it was, in either direction."""
    host = await started(dut, None)
    await host.tell("INTERRUPTS", 1)
    await host.clocks(2)
    assert dut.interrupt_transfers.value == 1  # nothing is under way
    shapes = [(1, 1), (2, LANES), (3, LANES + 1), (5, 2 * LANES - 1), (1, 3 * LANES)]
    at = 0
    for number, (rows, columns) in enumerate(shapes):
        values, matrix = host.codes(rows, columns), Matrix(at, rows, columns, columns + number)
        source, target = 0x1000 * number + 0xFFC // (LANES * BYTES) * LANES * BYTES, 0x8000 + 0x1000 * number
        pitch = (-(-columns // LANES) + number) * LANES * BYTES
        host.put_matrix(source, pitch, values)
        await host.transfer("fetch", source, pitch, matrix, to=Memory.COTANGENTS.value)
        assert dut.interrupt_transfers.value == 0
        await host.quiet()
        await host.programme([tiler.store(BUILD, Memory.COTANGENTS, matrix)])
        await host.transfer("deliver", target, -pitch, Matrix(0, rows, columns, 0))
        await host.go()
        await host.quiet()
        await host.done()
        for i, row in enumerate(values):
            assert host.memory.read(target - i * pitch, columns * BYTES) == packed(row, BITS), (number, i)
        at += rows * matrix.stride
    # More than can wait, each of which is longer than the writing of the next.
    long = Matrix(0, BUILD.memory, LANES, LANES)
    for name, value in (("ADDRESS", 0), ("PITCH", 0), ("ROWS", 60_000), ("SHAPE", long.columns | 3 << 24)):
        await host.tell(name, value)
    for _ in range(TRANSFERS + 2):
        await host.tell("BEGIN", 1)
    assert await host.failures() == {"refused"}
    assert await host.ask("STATUS") == 0b101
    # A stop takes away what waits, and lets what is under way come to its end.
    await host.put("CONTROL", 2)
    await host.clocks(10)
    assert await host.ask("STATUS") == 0b001
    await host.reset()


@cocotb.test()
async def bad_transfers(dut: Any) -> None:
    """Each is flagged, none hangs, and the next one is right."""
    host = await started(dut, 3)
    for rows, columns in (
        (0, 4),
        (65537, 4),
        (1 << 31, 4),
        (1, 0),
        (1, BUILD.elements + 1),
        (1, (1 << 24) - 1),
    ):
        for what in ("fetch", "deliver"):
            await host.transfer(what, 0, LANES * BYTES, Matrix(0, 1, columns, 4), rows=rows)
            await host.quiet()
            assert await host.failures() == {"bad_shape"}, (rows, columns, what)
    values = host.codes(4, LANES)
    matrix = Matrix(8, 4, LANES, LANES)
    host.put_matrix(0x200, LANES * BYTES, values)
    await host.transfer("fetch", 0x200, LANES * BYTES, matrix, to=3)
    await host.quiet()
    assert await host.errors() == {"load_header"} and await host.failures() == set()

    async def there_and_back() -> None:
        await host.transfer("fetch", 0x200, LANES * BYTES, matrix, to=Memory.WEIGHTS.value)
        await host.quiet()
        await host.programme([tiler.store(BUILD, Memory.WEIGHTS, matrix)])
        await host.transfer("deliver", 0x400, LANES * BYTES, matrix)
        await host.go()
        await host.quiet()
        await host.done()
        assert host.memory.read(0x400, 4 * LANES * BYTES) == packed(values, BITS)
        assert await host.failures() == set()

    await there_and_back()
    # A delivery of more rows than the packet has: no byte beyond them is written.
    host.memory.write(0x400, bytes(host.content[0x400:0x500]))
    await host.transfer("deliver", 0x400, LANES * BYTES, matrix, rows=9)
    await host.go()
    await host.quiet()
    await host.done()
    assert await host.failures() == {"short"}
    found = host.memory.read(0x400, 9 * LANES * BYTES)
    assert found == packed(values, BITS) + host.content[0x400 + 4 * LANES * BYTES : 0x400 + 9 * LANES * BYTES]
    await there_and_back()
    # A delivery for which nothing is stored, and one whose programme is stopped.
    for stored in (False, True):
        await host.transfer("deliver", 0x800, LANES * BYTES, matrix, rows=60)
        if stored:
            await host.programme([{**tiler.store(BUILD, Memory.WEIGHTS, matrix), "inner": [0, 63, 63, 63]}])
            await host.go()
            await host.clocks(60)
        assert await host.ask("STATUS") == 0b10
        await host.stop()
        await host.quiet()
        assert await host.failures() == set()
        await there_and_back()
