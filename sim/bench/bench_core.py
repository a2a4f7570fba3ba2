"""Runs inside the simulator: streams the jobs of ``PULLBACK_JOB`` through a core. See ``core.py``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, with_timeout

from pullback.sim.beats import CONTAINER_BITS, pack_frames, unpack_frames
from pullback.sim.bench.axi_lite import AXILite
from pullback.sim.bench.axi_stream import Sink, Source, StabilityMonitor
from pullback.sim.stalls import NONE, Stall

INPUTS, OUTPUTS = ("raw", "target", "cotangent"), ("picture", "gradient")
STATUS, ERRORS, CONTROL, ACK = 0x00C, 0x010, 0x008, 0x02C
PARAMETERS, RESULTS = 0x1000, 0x4000
PERIOD = 10  # ns


def _same(name: str, found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape, f"{name} has shape {found.shape}, expected {expected.shape}"
    wrong = np.argwhere(found != expected)
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"{name}{list(at)} is {found[at]}, expected {expected[at]}; {len(wrong)} of {found.size} differ"
        )


class _Bench:
    """One job."""

    def __init__(self, dut: Any, job: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.dut, self.job, self.arrays = dut, job, arrays
        seed = job["seed"]
        self.bits = {**CONTAINER_BITS, **job["containers"]}
        stalls = {name: Stall(**pattern) for name, pattern in job["stalls"].items()}
        self.bus = AXILite(dut, seed=seed)
        self.sources = {
            name: Source(dut, f"s_axis_{name}", stall=stalls.get(name, NONE), seed=16 * seed + k)
            for k, name in enumerate(INPUTS)
            if hasattr(dut, f"s_axis_{name}_tdata")
        }
        outputs = [name for name in OUTPUTS if hasattr(dut, f"m_axis_{name}_tdata")]
        self.monitors = [StabilityMonitor(dut, f"m_axis_{name}") for name in outputs]
        self.sinks = {
            name: Sink(dut, f"m_axis_{name}", stall=stalls.get(name, NONE), seed=16 * seed + 8 + k)
            for k, name in enumerate(outputs)
        }

    async def load(self) -> None:
        await self._committed()
        for k, word in enumerate(self.job["words"]):
            await self.bus.write(PARAMETERS + 4 * k, word)
        await self.bus.write(CONTROL, 1)
        await self._committed()

    async def _committed(self) -> None:
        while await self.bus.read(STATUS) & 1:
            pass

    async def run(self) -> None:
        lanes, words = self.job["lanes"], self.job["words"]
        width, height, frames = words[0], words[1], words[4]
        await self.load()
        rng = np.random.default_rng(self.job["seed"])
        tasks = []
        for name, source in self.sources.items():
            if name in self.arrays:
                beats = pack_frames(self.arrays[name], lanes=lanes, bits=self.bits[name], rng=rng)
                tasks.append(cocotb.start_soon(source.send(beats)))
        count = len(self.arrays["raw"])
        per_frame = height * -(-width // lanes)
        if "results" in self.arrays:
            tasks.append(cocotb.start_soon(self._fetch(per_frame * frames, count // frames)))
        for task in tasks:
            await task
        for sink in self.sinks.values():
            await sink.wait_for(count * per_frame)
        await ClockCycles(self.dut.clk, 50)  # a beat too many would come now
        for name, sink in self.sinks.items():
            frames_out = unpack_frames(
                sink.beats(), width=width, height=height, lanes=lanes, bits=self.bits[name]
            )
            if name in self.arrays:
                expected = self.arrays[name]
                _same(name, frames_out, expected.astype(frames_out.dtype))
        errors = await self.bus.read(ERRORS)
        if "results" not in self.arrays:
            errors &= ~(1 << 10)
        assert errors == 0, f"the core flags errors {errors:#x}"
        self.dut._log.info("cycles in which an output waited: %s", [m.waits for m in self.monitors])

    async def _fetch(self, beats: int, groups: int) -> None:
        """Results of each group. The last beat of a group waits until the group before it has been fetched."""
        expected = self.arrays["results"]
        watched = self.sinks[max(self.sinks, key=OUTPUTS.index)]
        found = np.zeros_like(expected)
        assert expected.shape[0] == groups, (
            f"results has {expected.shape[0]} groups, the frames make {groups}"
        )
        for group in range(groups):
            self.sources["raw"].limit = beats * (group + 2) - 1 if group + 1 < groups else None
            await watched.wait_for(beats * (group + 1))
            while not await self.bus.read(STATUS) & 4:
                pass
            for k in range(expected.shape[1]):
                found[group, k] = await self.bus.read64(RESULTS + 8 * k)
            await self.bus.write(ACK, 1)
        _same("results", found, expected)

    def stop(self) -> None:
        for part in (*self.sinks.values(), *self.monitors):
            part.stop()


@cocotb.test()
async def frames(dut: Any) -> None:
    """Every job: outputs, results, framing, stability."""
    folder = Path(os.environ["PULLBACK_JOB"])
    jobs = json.loads((folder / "job.json").read_text())
    data = dict(np.load(folder / "job.npz"))
    cocotb.start_soon(Clock(dut.clk, PERIOD, unit="ns").start())
    for position, job in enumerate(jobs):
        arrays = {
            key.rpartition("_")[0]: array for key, array in data.items() if key.endswith(f"_{position}")
        }
        for name in INPUTS:  # before the reset: nothing is X when it ends
            if hasattr(dut, f"s_axis_{name}_tdata"):
                for wire in ("tdata", "tvalid", "tuser", "tlast"):
                    getattr(dut, f"s_axis_{name}_{wire}").value = 0
        for name in (
            "awaddr",
            "awvalid",
            "wdata",
            "wstrb",
            "wvalid",
            "bready",
            "araddr",
            "arvalid",
            "rready",
        ):
            getattr(dut, f"s_axil_{name}").value = 0
        dut.rst.value = 1
        for name in OUTPUTS:
            if hasattr(dut, f"m_axis_{name}_tdata"):
                getattr(dut, f"m_axis_{name}_tready").value = 0
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 1)
        bench = _Bench(dut, job, arrays)
        try:
            await with_timeout(cocotb.start_soon(bench.run()), job["timeout"] * PERIOD, "ns")
        finally:
            bench.stop()
