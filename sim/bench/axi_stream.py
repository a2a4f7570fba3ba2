"""AXI4-Stream drivers. Everything is sampled right after the rising edge, so it is what the edge saw."""

from __future__ import annotations

from collections.abc import Iterator

import cocotb
from cocotb.triggers import Event, RisingEdge

from pullback.sim.beats import Beats
from pullback.sim.stalls import NONE, Stall

__all__ = ["Sink", "Source", "StabilityMonitor"]


class _Port:
    """The five signals ``<prefix>_t*`` of a stream."""

    def __init__(self, dut: object, prefix: str) -> None:
        self.prefix = prefix
        for name in ("tdata", "tvalid", "tready", "tuser", "tlast"):
            setattr(self, name, getattr(dut, f"{prefix}_{name}"))
        self.edge = RisingEdge(dut.clk)  # one object, reused: making triggers is most of a bench's time

    def read(self, wire: str) -> int:
        """What a wire carries; X fails the test."""
        value = getattr(self, wire).value
        try:
            return int(value)
        except ValueError:
            raise AssertionError(f"{self.prefix}_{wire} is {value}: X in a simulation is a fault") from None


class Source(_Port):
    """Sends beats. Between beats the wires carry the complement of the last one, so that nothing relies on them.

    Attributes
    ----------
    sent : int
        Beats that were taken.
    limit : int or None
        Beats that may be offered so far; may be changed while running.
    """

    def __init__(self, dut: object, prefix: str, *, stall: Stall = NONE, seed: int = 0) -> None:
        super().__init__(dut, prefix)
        self.sent = 0
        self.limit: int | None = None
        self._pattern: Iterator[bool] = stall.cycles(seed)
        self.tvalid.value = 0

    async def send(self, beats: Beats) -> None:
        """Sends all beats; returns after the edge that took the last one."""
        words, user, last = beats.integers(), beats.user.tolist(), beats.last.tolist()
        mask = (1 << len(self.tdata)) - 1
        position, valid = 0, False
        while True:
            if not valid:
                may = self.limit is None or self.sent < self.limit
                if position < len(words) and next(self._pattern) and may:
                    self.tdata.value = words[position]
                    self.tuser.value = user[position]
                    self.tlast.value = last[position]
                    self.tvalid.value = 1
                    valid = True
                else:
                    self.tvalid.value = 0
                    if position:
                        self.tdata.value = words[position - 1] ^ mask
                        self.tuser.value = 1 - user[position - 1]
                        self.tlast.value = 1 - last[position - 1]
                    if position == len(words):
                        return
            await self.edge
            if valid and self.read("tready"):
                position += 1
                self.sent += 1
                valid = False


class Sink(_Port):
    """Takes beats, from its construction on.

    Attributes
    ----------
    received : int
    """

    def __init__(self, dut: object, prefix: str, *, stall: Stall = NONE, seed: int = 0) -> None:
        super().__init__(dut, prefix)
        self._words: list[int] = []
        self._user: list[int] = []
        self._last: list[int] = []
        self._arrived = Event()
        self._pattern = stall.cycles(seed)
        self.tready.value = 0
        self._task = cocotb.start_soon(self._run())

    @property
    def received(self) -> int:
        return len(self._words)

    async def _run(self) -> None:
        ready = False
        while True:
            await self.edge
            if ready and self.read("tvalid"):
                self._words.append(self.read("tdata"))
                self._user.append(self.read("tuser"))
                self._last.append(self.read("tlast"))
                self._arrived.set()
            before, ready = ready, next(self._pattern)
            if ready != before:
                self.tready.value = int(ready)

    async def wait_for(self, count: int) -> None:
        """Returns when ``count`` beats have come, in all."""
        while self.received < count:
            self._arrived.clear()
            await self._arrived.wait()

    def beats(self) -> Beats:
        """What has come so far."""
        return Beats.from_integers(self._words, self._user, self._last, size=len(self.tdata) // 8)

    def stop(self) -> None:
        """Takes no more."""
        self._task.cancel()
        self.tready.value = 0


class StabilityMonitor(_Port):
    """Fails the test when an offered beat vanishes or changes before it was taken, or valid or ready is X.

    Attributes
    ----------
    waits : int
        Cycles in which a beat waited: zero means that the rule was never put to the test.
    """

    def __init__(self, dut: object, prefix: str) -> None:
        super().__init__(dut, prefix)
        self.waits = 0
        self._task = cocotb.start_soon(self._run())

    async def _run(self) -> None:
        waiting: tuple[int, int, int] | None = None
        while True:
            await self.edge
            valid, ready = self.read("tvalid"), self.read("tready")
            if waiting is not None and not valid:
                raise AssertionError(f"{self.prefix}: valid dropped before the beat was taken")
            if not valid:
                continue
            beat = (self.read("tdata"), self.read("tuser"), self.read("tlast"))
            if waiting is not None and beat != waiting:
                raise AssertionError(
                    f"{self.prefix}: the payload changed from {waiting} to {beat} while it waited"
                )
            waiting = None if ready else beat
            self.waits += not ready

    def stop(self) -> None:
        """Watches no more."""
        self._task.cancel()
