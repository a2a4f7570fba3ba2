"""Runs inside the simulator: plays the waves of ``PULLBACK_WAVES``. See ``waves.py``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, Timer

PERIOD = 10  # ns


def _read(handle: Any) -> int | None:
    value = handle.value
    return int(value) if value.is_resolvable else None  # a port of one bit is no array


@cocotb.test()
async def plays(dut: Any) -> None:
    folder = Path(os.environ["PULLBACK_WAVES"])
    job = json.loads((folder / "job.json").read_text())
    inputs = [(getattr(dut, name), values) for name, values in job["inputs"].items()]
    outputs = [(getattr(dut, name), []) for name in job["outputs"]]
    for handle, values in inputs:
        handle.value = values[0]
    dut.rst.value = 1
    Clock(dut.clk, PERIOD, "ns").start()
    await ClockCycles(dut.clk, 2)
    falling = FallingEdge(dut.clk)
    await falling
    dut.rst.value = 0
    # Inputs change at the falling edge; outputs are read before the rising one that takes them.
    settled = Timer(PERIOD // 5, "ns")
    for k in range(len(inputs[0][1])):
        for handle, values in inputs:
            handle.value = values[k]
        await settled
        for handle, values in outputs:
            values.append(_read(handle))
        await falling
    (folder / "outputs.json").write_text(
        json.dumps({name: values for name, (_, values) in zip(job["outputs"], outputs, strict=True)})
    )
