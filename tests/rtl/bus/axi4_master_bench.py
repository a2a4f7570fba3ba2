"""cocotb bench of the memory master, against the memory of cocotbext-axi. Run by ``test_axi4_master.py``."""

from __future__ import annotations

import itertools
import logging
import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiRam

WIDTH = int(os.environ["PULLBACK_WIDTH"])
LONGEST = int(os.environ["PULLBACK_LONGEST"])
BYTES = WIDTH // 8
SIZE = 1 << 16
SLVERR = 2


class NoAnswerError(Exception):
    """Of an address that the memory does not answer."""


class Memory(AxiRam):
    """A memory with a hole, and notes of its bursts: (address, beats)."""

    def __init__(self, dut: Any, rng: random.Random, *, stalls: bool) -> None:
        super().__init__(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=SIZE)
        self.hole = range(0)
        write, read = self.write_if, self.read_if
        assert write is not None and read is not None
        self.channels = (
            write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel,
        )  # fmt: skip
        for side in (write, read):
            side.log.setLevel(logging.ERROR)
        for channel in self.channels:
            channel.log.setLevel(logging.ERROR)
            if stalls:
                of_channel = random.Random(rng.random())
                channel.set_pause_generator(of_channel.random() < 0.4 for _ in itertools.count())
        given_write, given_read = write._write, read._read

        async def write_(address: int, data: bytes) -> None:
            if address in self.hole:
                raise NoAnswerError(hex(address))
            await given_write(address, data)

        async def read_(address: int, length: int) -> bytes:
            if address in self.hole:
                raise NoAnswerError(hex(address))
            return await given_read(address, length)  # pyright: ignore[reportReturnType]

        write._write, read._read = write_, read_


class Bench:
    """A master, its streams, and a memory with random content."""

    def __init__(self, dut: Any, seed: int, *, stalls: bool) -> None:
        self.dut, self.rng, self.stalls = dut, random.Random(seed), stalls
        self.edge = RisingEdge(dut.clk)
        for name in ("read__valid", "write__valid", "i__valid", "o__ready", "clear"):
            getattr(dut, name).value = 0
        dut.rst.value = 1
        Clock(dut.clk, 10, "ns").start()
        self.memory = Memory(dut, self.rng, stalls=stalls)
        self.content = bytearray(self.rng.randbytes(SIZE))
        self.memory.write(0, bytes(self.content))
        self.bursts: list[tuple[str, int, int]] = []
        self.outstanding = self.most = 0

    async def start(self) -> None:
        for _ in range(4):
            await self.edge
        self.dut.rst.value = 0
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Bursts as the bus has them, and how many reads are open."""
        dut = self.dut
        while True:
            await self.edge
            for channel in ("ar", "aw"):
                if int(getattr(dut, f"m_axi_{channel}valid").value) and int(
                    getattr(dut, f"m_axi_{channel}ready").value
                ):
                    address = int(getattr(dut, f"m_axi_{channel}addr").value)
                    length = int(getattr(dut, f"m_axi_{channel}len").value) + 1
                    self.bursts.append((channel, address, length))
                    self.outstanding += channel == "ar"
            if all(int(getattr(dut, f"m_axi_r{what}").value) for what in ("valid", "ready", "last")):
                self.outstanding -= 1
            self.most = max(self.most, self.outstanding)

    async def offer(self, name: str, fields: dict[str, tuple[int, int]]) -> None:
        """A beat of a stream: fields with their values and widths, lowest first."""
        while self.stalls and self.rng.random() < 0.3:
            await self.edge
        low = bits = 0
        for value, width in fields.values():
            bits |= value << low
            low += width
        getattr(self.dut, f"{name}__payload").value = bits
        getattr(self.dut, f"{name}__valid").value = 1
        await self.edge
        while not int(getattr(self.dut, f"{name}__ready").value):
            await self.edge
        getattr(self.dut, f"{name}__valid").value = 0

    async def ask(self, name: str, address: int, beats: int) -> None:
        await self.offer(name, {"address": (address, 16), "beats": (beats, 10)})

    async def take(self, beats: int) -> list[tuple[int, int]]:
        """Data and ``last`` of so many beats."""
        found = []
        while len(found) < beats:
            ready = not self.stalls or self.rng.random() < 0.6
            self.dut.o__ready.value = int(ready)
            await self.edge
            if ready and int(self.dut.o__valid.value):
                bits = int(self.dut.o__payload.value)
                found.append((bits & ((1 << WIDTH) - 1), bits >> WIDTH))
        self.dut.o__ready.value = 0
        return found

    def run(self, most: int) -> tuple[int, int]:
        """Somewhere, of some length; often across or at a boundary of 4 KiB."""
        beats = self.rng.choice((1, 2, LONGEST, LONGEST + 1, self.rng.randrange(1, most)))
        place = self.rng.choice((self.rng.randrange(SIZE), 4096 * self.rng.randrange(1, 15)))
        place += self.rng.choice((0, -BYTES, -BYTES * beats, -BYTES * self.rng.randrange(1, most)))
        place = min(max(place, 0), SIZE - BYTES * beats) // BYTES * BYTES
        return place + self.rng.randrange(BYTES), beats  # bits within a beat are ignored

    def expected(self, address: int, beats: int) -> list[tuple[int, int]]:
        at = address // BYTES * BYTES
        words = [int.from_bytes(self.content[at + BYTES * k :][:BYTES], "little") for k in range(beats)]
        return [(word, int(k == beats - 1)) for k, word in enumerate(words)]

    def check_bursts(self, channel: str, runs: list[tuple[int, int]]) -> None:
        """As few as the rule needs, one after the other, none across a boundary."""
        found = [(address, beats) for name, address, beats in self.bursts if name == channel]
        wanted = []
        for address, beats in runs:
            at, end = address // BYTES, address // BYTES + beats
            while at < end:
                stop = min(end, (at // LONGEST + 1) * LONGEST)
                wanted.append((at * BYTES, stop - at))
                at = stop
        assert found == wanted
        assert all(a // 4096 == (a + BYTES * n - 1) // 4096 for a, n in found)


async def read(dut: Any, seed: int, *, stalls: bool) -> None:
    bench = Bench(dut, seed, stalls=stalls)
    await bench.start()
    runs = [bench.run(3 * LONGEST + 2) for _ in range(25)]

    async def asks() -> None:
        for address, beats in runs:
            await bench.ask("read", address, beats)

    cocotb.start_soon(asks())
    for address, beats in runs:
        assert await bench.take(beats) == bench.expected(address, beats), hex(address)
    bench.check_bursts("ar", runs)
    print("reads outstanding at most:", bench.most)
    assert bench.most <= 5  # a burst is off the list when its last beat leaves, two clocks after it has come
    assert int(dut.error_read.value) == 0


@cocotb.test()
async def reads(dut: Any) -> None:
    await read(dut, 1, stalls=False)


@cocotb.test()
async def reads_with_stalls(dut: Any) -> None:
    await read(dut, 2, stalls=True)


@cocotb.test()
async def writes(dut: Any) -> None:
    bench = Bench(dut, 3, stalls=True)
    await bench.start()
    runs = [bench.run(3 * LONGEST + 2) for _ in range(25)]

    async def asks() -> None:
        for address, beats in runs:
            await bench.ask("write", address, beats)

    asking = cocotb.start_soon(asks())
    some = 0
    for address, beats in runs:
        at = address // BYTES * BYTES
        for k in range(beats):
            data = bench.rng.randbytes(BYTES)
            strobe = bench.rng.choice(((1 << BYTES) - 1, bench.rng.getrandbits(BYTES), 0))
            some += strobe not in (0, (1 << BYTES) - 1)
            await bench.offer(
                "i", {"data": (int.from_bytes(data, "little"), WIDTH), "strobe": (strobe, BYTES)}
            )
            for j in range(BYTES):
                if strobe >> j & 1:
                    bench.content[at + BYTES * k + j] = data[j]
    await asking
    for _ in range(20_000):
        await bench.edge
        if int(dut.idle.value):
            break
    assert bench.memory.read(0, SIZE) == bytes(bench.content)
    bench.check_bursts("aw", runs)
    assert int(dut.error_write.value) == 0 and (some or BYTES == 1)


@cocotb.test()
async def rate(dut: Any) -> None:
    """A beat a clock as long as the memory gives one, once the first has come."""
    bench = Bench(dut, 4, stalls=False)
    await bench.start()
    beats = min(8 * LONGEST, 1000)
    dut.o__ready.value = 1
    cocotb.start_soon(bench.ask("read", 0, beats))
    came = clocks = 0
    while came < beats:
        await bench.edge
        came += int(dut.o__valid.value)
        clocks += came > 0
    print("clocks of", beats, "beats:", clocks)
    assert clocks == beats or LONGEST == 1


@cocotb.test()
async def errors_are_kept(dut: Any) -> None:
    """The first one, with the address of its burst, until it is cleared; runs come to their end."""
    bench = Bench(dut, 5, stalls=True)
    await bench.start()
    hole = 8 * LONGEST * BYTES
    bench.memory.hole = range(hole, hole + BYTES)
    for _ in range(2):
        cocotb.start_soon(bench.ask("read", hole - BYTES * LONGEST, 3 * LONGEST))
        found = await bench.take(3 * LONGEST)
        wanted = bench.expected(hole - BYTES * LONGEST, 3 * LONGEST)
        assert found[:LONGEST] == wanted[:LONGEST] and found[2 * LONGEST :] == wanted[2 * LONGEST :]
        assert int(dut.error_read.value) == 1 and int(dut.response_read.value) == SLVERR
        assert int(dut.address_read.value) == hole
        dut.clear.value = 1
        await bench.edge
        dut.clear.value = 0
        await bench.edge
        await bench.edge
        assert int(dut.error_read.value) == 0
    cocotb.start_soon(bench.ask("write", hole - BYTES, 2))
    for _ in range(2):
        await bench.offer("i", {"data": (0, WIDTH), "strobe": ((1 << BYTES) - 1, BYTES)})
    for _ in range(2000):
        await bench.edge
        if int(dut.idle.value):
            break
    assert int(dut.error_write.value) == 1 and int(dut.response_write.value) == SLVERR
    assert int(dut.address_write.value) == hole
    assert int(dut.error_read.value) == 0
