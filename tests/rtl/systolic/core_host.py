"""A host of the array's core inside a simulation: registers, programmes, packets. See ``core_bench.py``."""

from __future__ import annotations

import itertools
import logging
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiStreamBus, AxiStreamSink, AxiStreamSource

from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.descriptor import Memory, encode
from pullback.rtl.systolic.packets import HEADER, container
from pullback.rtl.systolic.registers import ARRAY_REGISTERS, PROGRAMME_BASE, ArrayMap
from pullback.rtl.systolic.tiler import Matrix
from pullback.sim.bench.axi_lite import AXILite

BUILDS = {
    # A programme that is no power of two of words; sums that are no whole bytes; a header of three beats.
    "small": UnitBuild(
        array=ArrayBuild(rows=3, columns=2), memory=64, sums=32, total=28, masks=16, count=6, programme=130
    ),
    # Operands that are no whole bytes; a header that leaves half a beat over.
    "narrow": UnitBuild(
        array=ArrayBuild(rows=5, columns=4, operand=6, accumulator=20),
        memory=32, sums=32, total=33, masks=16, count=6, programme=130,
    ),
}  # fmt: skip
BUILD = BUILDS[os.environ.get("PULLBACK_BUILD", "small")]

FIELDS = {r.name: {f.name: (f.low, (1 << f.width) - 1) for f in r.fields} for r in ARRAY_REGISTERS}
PERIOD = 10  # ns
PATIENCE = 20_000  # clocks


def packed(rows: np.ndarray, bits: int) -> bytes:
    """Codes in containers, one after the other."""
    size = container(bits) // 8
    return b"".join(int(x).to_bytes(size, "little", signed=True) for x in np.asarray(rows).ravel())


def unpacked(frame: bytes, bits: int, lanes: int) -> np.ndarray:
    """The reverse, a row a beat; what lies above a code must be its sign."""
    size = container(bits) // 8
    codes = [int.from_bytes(frame[k : k + size], "little", signed=True) for k in range(0, len(frame), size)]
    assert all(-(1 << bits - 1) <= code < 1 << bits - 1 for code in codes), "no sign above a code"
    return np.array(codes).reshape(-1, lanes)


def packet(build: UnitBuild, memory: int, matrix: Matrix, values: np.ndarray, **fields: int) -> bytes:
    """A packet of operands; ``fields`` of its header other than they should be."""
    lanes, size = build.lanes, container(build.array.operand) // 8
    given = {"at": matrix.at, "stride": matrix.stride, "columns": matrix.columns, "to": memory} | fields
    header = HEADER.const(given).as_value().value.to_bytes(HEADER.size // 8, "little")
    padded = np.pad(values, ((0, 0), (0, -matrix.columns % lanes)), constant_values=-1)
    return header + bytes(-len(header) % (lanes * size)) + packed(padded, build.array.operand)


class Watch:
    """Looks at a stream that leaves: an offer that waits stays as it is, but for a reset.

    ``begun``: a packet is half out; ``busy``: it is, or something is offered; ``data``: of the last beat.
    """

    def __init__(self, dut: Any, name: str) -> None:
        self.name, self.begun = name, False
        self.waits, self.beats, self.data = 0, 0, 0
        self._reset, self._edge = dut.rst, RisingEdge(dut.clk)
        self._valid, *self._ports = [
            getattr(dut, f"{name}_{what}") for what in ("tvalid", "tready", "tdata", "tlast")
        ]
        self._offers = RisingEdge(self._valid)
        cocotb.start_soon(self._run())

    @property
    def busy(self) -> bool:
        return self.begun or bool(int(self._valid.value))

    async def _run(self) -> None:
        waiting: tuple[int, int] | None = None
        while True:
            if waiting is None and not int(self._valid.value):
                await self._offers
            await self._edge
            if int(self._reset.value):
                self.begun, waiting = False, None
                continue
            valid, (ready, data, last) = int(self._valid.value), (int(port.value) for port in self._ports)
            assert valid or waiting is None, f"{self.name}: an offer was withdrawn"
            assert waiting in (None, (data, last)), (
                f"{self.name}: {waiting} became {data, last} while it waited"
            )
            if valid and ready:
                self.begun, self.beats, self.data, waiting = not last, self.beats + 1, data, None
            elif valid:
                waiting, self.waits = (data, last), self.waits + 1


class ArrayHost:
    """What a driver does with an `ArrayCore`.

    With a seed every stream and every channel of AXI4-Lite stalls at random, two clocks of five. ``inward`` and
    ``outward`` are the streams there are.
    """

    def __init__(
        self,
        dut: Any,
        *,
        seed: int | None = None,
        inward: Sequence[str] = ("load", "filled"),
        outward: Sequence[str] = ("stored", "emitted"),
    ) -> None:
        self.dut, self.build, self.map = dut, BUILD, ArrayMap(BUILD)
        self.edge = RisingEdge(dut.clk)
        dut.rst.value = 1
        Clock(dut.clk, PERIOD, "ns").start()
        self.axi = AXILite(dut, seed=seed)
        self.sources = {
            name: AxiStreamSource(AxiStreamBus.from_prefix(dut, f"s_axis_{name}"), dut.clk, dut.rst)
            for name in inward
        }
        self.sinks = {
            name: AxiStreamSink(AxiStreamBus.from_prefix(dut, f"m_axis_{name}"), dut.clk, dut.rst)
            for name in outward
        }
        for name, port in {**self.sources, **self.sinks}.items():
            port.log.setLevel(logging.WARNING)
            if seed is not None:
                rng = random.Random(f"{name} {seed}")
                port.set_pause_generator(rng.random() < 0.4 for _ in itertools.count())
        self.watches = {name: Watch(dut, f"m_axis_{name}") for name in self.sinks}

    async def clocks(self, number: int) -> None:
        if number:
            await ClockCycles(self.dut.clk, number)

    async def reset(self) -> None:
        self.dut.rst.value = 1
        await self.clocks(4)
        self.dut.rst.value = 0
        await self.edge

    # Registers.

    async def get(self, name: str, field: str = "") -> int:
        value = await self.axi.read(self.map.address(name))
        low, mask = FIELDS[name][field] if field else (0, 0xFFFFFFFF)
        return value >> low & mask

    async def put(self, name: str, value: int) -> None:
        await self.axi.write(self.map.address(name), value)

    async def errors(self) -> set[str]:
        """Those that are set; they are cleared."""
        value = await self.get("ERRORS")
        await self.put("ERRORS", value)
        return {name for name, (low, _) in FIELDS["ERRORS"].items() if value >> low & 1}

    async def words(self, words: Sequence[int], at: int = 0) -> None:
        for k, word in enumerate(words):
            await self.axi.write(PROGRAMME_BASE + 4 * (at + k), word)

    async def programme(self, jobs: Sequence[Mapping[str, Any]], at: int = 0) -> None:
        """Writes jobs, of which the last one ends the programme."""
        ended = [*jobs[:-1], {**jobs[-1], "last": 1}]
        await self.words([word for job in ended for word in encode(self.build, job)], at)

    async def go(self, at: int = 0) -> None:
        await self.put("START", at)
        await self.put("CONTROL", 1)

    async def done(self) -> None:
        """Until the programme has ended."""
        for _ in range(PATIENCE // 8):
            if await self.get("STATUS", "done"):
                await self.put("ACK", 0)
                return
        raise AssertionError("the programme does not end")

    async def stop(self) -> None:
        """The array idle, sources at the end of a packet, sinks too, nothing left of what was under way."""
        await self.put("CONTROL", 2)
        silent = 0
        for _ in range(PATIENCE):
            moves = not all(source.idle() for source in self.sources.values())
            silent = 0 if moves or any(w.busy for w in self.watches.values()) else silent + 1
            if silent == 8:
                break
            await self.edge
        else:
            raise AssertionError("a stop does not end every packet")
        await self.put("CONTROL", 0)
        for sink in self.sinks.values():
            sink.clear()

    # Streams.

    async def load(self, memory: Memory, matrix: Matrix, values: np.ndarray, **fields: int) -> None:
        await self.sources["load"].send(packet(self.build, memory.value, matrix, values, **fields))

    async def loaded(self) -> None:
        """All packets are in memory, if none waits for results."""
        await self.sources["load"].wait()
        await self.clocks(16)

    async def fill(self, rows: np.ndarray) -> None:
        await self.sources["filled"].send(packed(rows, self.build.total))

    async def _frame(self, name: str) -> bytes:
        sink = self.sinks[name]
        await sink.wait(PATIENCE * PERIOD, "ns")
        assert not sink.empty(), f"no packet at {name}"
        return bytes(sink.recv_nowait().tdata)

    async def stored(self, matrix: Matrix) -> np.ndarray:
        """A packet, as the matrix that was to be stored."""
        rows = unpacked(await self._frame("stored"), self.build.array.operand, self.build.lanes)
        return rows.reshape(matrix.rows, -1)[:, : matrix.columns]

    async def emitted(self) -> np.ndarray:
        """A packet, as rows of partial sums."""
        return unpacked(await self._frame("emitted"), self.build.total, self.build.array.columns)
