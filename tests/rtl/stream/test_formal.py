# amaranth: UnusedElaboratable=no
"""Handshakes proved by induction, for all time and all inputs; and planted faults, which must be refuted."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module

from pullback.rtl.stream.feeder import Feeder
from pullback.rtl.stream.fifo import Count, Fifo, FlowFifo, _Pointer
from pullback.rtl.stream.scatter import Scatter
from pullback.rtl.stream.skid import SkidBuffer
from pullback.rtl.stream.tape import Tape

from .formal import (
    FifoProof,
    FlowFifoProof,
    PictureProof,
    QueueProof,
    SkidProof,
    UnitProof,
    WindowProof,
    prove,
)


class SmallTape(Tape):
    """A tape in block RAM that is small enough to reason about, and deeper than its prefetch."""

    _distributed = 0
    _ahead = 3


PROOFS = {
    "skid": (lambda: SkidProof(2), 3),
    "fifo": (lambda: FifoProof(2, Fifo(2, 5)), 4),
    "fifo of one": (lambda: FifoProof(2, Fifo(2, 1)), 4),
    "fifo without a register": (lambda: FifoProof(2, Fifo(2, 5, registered=False)), 4),
    "fifo without payload": (lambda: FifoProof(0, Fifo(0, 5)), 3),
    "tape": (lambda: FifoProof(1, SmallTape(1, 6)), 6),
    "flow": (lambda: FlowFifoProof(2, FlowFifo(2, 7, in_flight=3)), 4),
    "flow of one": (lambda: FlowFifoProof(2, FlowFifo(2, 1, in_flight=0)), 4),
    "unit": (lambda: UnitProof(clocks=3, depth=7, trailing=False), 8),
    "joining unit": (lambda: UnitProof(clocks=3, depth=7, trailing=True), 8),
    "window": (WindowProof, None),
    "window and scatter": (PictureProof, None),
    "scatter": (lambda: PictureProof(window=False), None),
}


@pytest.mark.parametrize("name", PROOFS)
def test_proved(name, tmp_path):
    make, depth = PROOFS[name]
    proof = make()
    verdict = prove(proof, tmp_path, depth=depth or proof.depth)
    assert verdict.proved, verdict.log


class AlwaysReady(Fifo):
    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.i.ready.eq(1)
        return m


class LoadsWhileStalled(Fifo):
    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.sync += self._payload.eq(self._ram.read_data)
        return m


class TakesTwice(Fifo):
    """Leaves the read pointer where it is when a stall ends."""

    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self._read.step.eq(~self._stored.empty & ~self.o.valid)
        return m


class AlwaysReadySkid(SkidBuffer):
    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.i.ready.eq(1)
        return m


class NeverParks(SkidBuffer):
    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.sync += self._ready.eq(1)
        return m


def wraps_late() -> Fifo:
    dut = Fifo(2, 5)
    dut._write = _Pointer(6)
    return dut


class SkipsARegister(SmallTape):
    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self._prefetch.i.valid.eq(self._reading[0])
        return m


def too_much_credit() -> Fifo:
    dut = SmallTape(1, 6)
    dut._credit = Count(5)
    return dut


class LazyRoom(FlowFifo):
    """Room falls when the FIFO is full."""

    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.sync += self.room.eq(~self._fifo._count.full)
        return m


class TakesTheTrailingBeatEarly(Feeder):
    """With its own pixel, where a window asks for the centre's."""

    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.comb += self.c.ready.eq(self.i.ready & self.i.valid)
        return m


class CountsAWiderPicture(Scatter):
    def elaborate(self, platform) -> Module:
        m = super().elaborate(platform)
        m.d.comb += m.submodules.raster.width.eq(self.width + 1)
        return m


FAULTS = {
    "full is ignored": (lambda: FifoProof(2, AlwaysReady(2, 5)), 9),
    "payload changes in a stall": (lambda: FifoProof(2, LoadsWhileStalled(2, 5)), 6),
    "a beat comes twice": (lambda: FifoProof(2, TakesTwice(2, 5)), 8),
    "the write row wraps late": (lambda: FifoProof(2, wraps_late()), 12),
    "the RAM's second register is skipped": (lambda: FifoProof(1, SkipsARegister(1, 6)), 9),
    "the prefetch overflows": (lambda: FifoProof(1, too_much_credit()), 11),
    "the skid buffer accepts while it has parked": (lambda: SkidProof(2, AlwaysReadySkid(2)), 6),
    "the skid buffer forgets": (lambda: SkidProof(2, NeverParks(2)), 6),
    "one beat too late": (lambda: FlowFifoProof(2, FlowFifo(2, 7, in_flight=3), promised=4), 12),
    "room falls when full": (lambda: FlowFifoProof(2, LazyRoom(2, 7, in_flight=3)), 12),
    "the unit forgets the feeder's margin": (
        lambda: UnitProof(clocks=3, depth=7, trailing=True, in_flight=4),
        14,
    ),
    "the unit forgets the window's latency": (lambda: WindowProof(in_flight=2), 16),
    "trailing beats leave with the wrong centre": (
        lambda: WindowProof(feeder=TakesTheTrailingBeatEarly),
        14,
    ),
    "the scatter's flags are those of a wider picture": (
        lambda: PictureProof(window=False, scatter=CountsAWiderPicture, size=(1, 2)),
        26,
    ),
    "the scatter completes a beat in every tick": (
        lambda: PictureProof(window=False, every_tick_completes=True, size=(2, 2)),
        22,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_refuted(name, tmp_path):
    """By a counterexample from reset to a broken property of the specification, not of a lemma."""
    make, depth = FAULTS[name]
    proof: QueueProof = make()
    verdict = prove(proof, tmp_path, depth=depth, faulty=True)
    assert not verdict.proved
    assert verdict.violated, verdict.log
