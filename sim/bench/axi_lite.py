"""AXI4-Lite driver: one access at a time."""

from __future__ import annotations

import random

import cocotb
from cocotb.triggers import RisingEdge

__all__ = ["AXILite", "BusError"]


class BusError(AssertionError):
    """An access was not answered OKAY, or not at all."""


class AXILite:
    """Reads and writes registers over ``<prefix>_*``.

    With a seed, address and data of a write come in random order, and responses are taken late.

    Parameters
    ----------
    dut : handle
    prefix : str
    seed : int, optional
        Of the delays; None: no delays.
    patience : int
        Cycles after which a missing answer is an error.
    """

    def __init__(
        self, dut: object, prefix: str = "s_axil", *, seed: int | None = None, patience: int = 10000
    ) -> None:
        self._rng = random.Random(seed) if seed is not None else None
        self._patience = patience
        self._edge = RisingEdge(dut.clk)
        self._signals = {
            name: getattr(dut, f"{prefix}_{name}")
            for name in (
                "awaddr", "awvalid", "awready", "wdata", "wstrb", "wvalid", "wready", "bresp", "bvalid", "bready",
                "araddr", "arvalid", "arready", "rdata", "rresp", "rvalid", "rready",
            )
        }  # fmt: skip
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            self._signals[name].value = 0
        self._signals["wstrb"].value = 15

    async def _delay(self) -> None:
        for _ in range(self._rng.choice((0, 0, 1, 3)) if self._rng else 0):
            await self._edge

    async def _offer(self, channel: str, **payload: int) -> None:
        await self._delay()
        for name, value in payload.items():
            self._signals[name].value = value
        self._signals[f"{channel}valid"].value = 1
        await self._until(f"{channel}ready")
        self._signals[f"{channel}valid"].value = 0

    async def _until(self, name: str) -> None:
        signal = self._signals[name]
        for _ in range(self._patience):
            await self._edge
            if int(signal.value):
                return
        raise BusError(f"{name} did not come within {self._patience} cycles")

    async def _answer(self, channel: str, what: str) -> int:
        await self._delay()
        self._signals[f"{channel}ready"].value = 1
        await self._until(f"{channel}valid")
        data = int(self._signals["rdata"].value) if channel == "r" else 0
        response = int(self._signals[f"{channel}resp"].value)
        self._signals[f"{channel}ready"].value = 0
        if response:
            raise BusError(f"{what} was answered {response}, not OKAY")
        return data

    async def write(self, address: int, value: int) -> None:
        """Writes a word; a negative value as two's complement."""
        offered = cocotb.start_soon(self._offer("aw", awaddr=address))
        await self._offer("w", wdata=value & 0xFFFFFFFF)
        await offered
        await self._answer("b", f"write to {address:#06x}")

    async def read(self, address: int) -> int:
        """Reads a word."""
        await self._offer("ar", araddr=address)
        return await self._answer("r", f"read of {address:#06x}")

    async def read64(self, address: int) -> int:
        """Reads a signed 64-bit value, low half first."""
        low = await self.read(address)
        value = low | await self.read(address + 4) << 32
        return value - (1 << 64) if value >> 63 else value
