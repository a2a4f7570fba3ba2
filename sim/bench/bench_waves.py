"""Runs inside the simulator: plays the waves of ``PULLBACK_WAVES``. See ``waves.py``."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, Timer

PERIOD = 10  # ns
SILENCE = 64  # clocks without a beat after which no more come


def _read(handle: Any) -> int | None:
    value = handle.value
    return int(value) if value.is_resolvable else None  # a port of one bit is no array


class _Stream:
    """A stream whose other end gives beats, or takes them, and stalls two clocks of five."""

    def __init__(
        self, dut: Any, name: str, beats: list[int | None] | None, stalls: random.Random | None
    ) -> None:
        self.valid, self.ready, self.payload = (
            getattr(dut, f"{name}__{what}") for what in ("valid", "ready", "payload")
        )
        self.gives, self.beats, self.stalls = beats is not None, beats or [], stalls
        self.at, self.offered = 0, False
        self.offer()

    def offer(self) -> None:
        """This end's say for the next clock. A beat that was offered and not taken stays."""
        goes = self.offered or self.stalls is None or self.stalls.random() < 0.6
        if not self.gives:
            self.ready.value = int(goes)
            return
        self.offered = goes and self.at < len(self.beats)
        self.valid.value = int(self.offered)
        if self.offered:
            self.payload.value = self.beats[self.at]

    def passes(self) -> bool:
        """Takes note of a beat that goes over in this clock, if one does."""
        if not (self.valid.value == 1 and self.ready.value == 1):
            return False
        if self.gives:
            self.at, self.offered = self.at + 1, False
        else:
            self.beats.append(_read(self.payload))
        return True


@cocotb.test()
async def plays(dut: Any) -> None:
    folder = Path(os.environ["PULLBACK_WAVES"])
    job = json.loads((folder / "job.json").read_text())
    inputs = [(getattr(dut, name), values) for name, values in job["inputs"].items()]
    outputs = [(getattr(dut, name), []) for name in job["outputs"]]
    for handle, values in inputs:
        handle.value = values[0]
    seed = job["seed"]
    streams = {
        name: _Stream(dut, name, beats, None if seed is None else random.Random(f"{name} {seed}"))
        for name, beats in [*job["gives"].items(), *((name, None) for name in job["takes"])]
    }
    dut.rst.value = 1
    Clock(dut.clk, PERIOD, "ns").start()
    await ClockCycles(dut.clk, 2)
    falling = FallingEdge(dut.clk)
    await falling
    dut.rst.value = 0
    # Inputs change at the falling edge; outputs are read before the rising one that takes them.
    settled = Timer(PERIOD // 5, "ns")
    until = getattr(dut, job["until"]) if job["until"] else None
    was_high, silent = False, 0
    for k in range(len(inputs[0][1])):
        for handle, values in inputs:
            if k > 0 and values[k] != values[k - 1]:
                handle.value = values[k]
        await settled
        for handle, values in outputs:
            values.append(_read(handle))
        passed = [stream.passes() for stream in streams.values()]
        await falling
        for stream in streams.values():
            stream.offer()
        if until is not None:
            high = until.value == 1
            was_high = was_high or high
            silent = 0 if high or any(passed) else silent + 1
            if was_high and silent == SILENCE:
                break
    (folder / "outputs.json").write_text(
        json.dumps(
            {name: values for name, (_, values) in zip(job["outputs"], outputs, strict=True)}
            | {name: streams[name].beats for name in job["takes"]}
        )
    )
