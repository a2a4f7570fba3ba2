# amaranth: UnusedElaboratable=no
"""Matrices to and from the external memory by induction: every row asked for once, no beat or byte beside them."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Fragment, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import data

from pullback.rtl.bus.axi4_master import MemoryPort
from pullback.rtl.systolic import transfers
from pullback.rtl.systolic.build import ArrayBuild, UnitBuild
from pullback.rtl.systolic.packets import HEADER
from pullback.rtl.systolic.transfers import Deliver, Fetch, _Columns, _Rows, memory_port, transfer

from ..stream.formal import QueueProof, check_proved, check_refuted, signal_of, with_fault

pytestmark = pytest.mark.formal

BUILD = UnitBuild(array=ArrayBuild(rows=2, columns=2), memory=4, sums=2, masks=2, count=4, programme=40)
PORT: MemoryPort = memory_port(BUILD, address=12)


class TransferProof(QueueProof):
    """A matrix is taken or refused, its rows are asked for in order, and its beats counted.

    The specification counts rows and columns, and beats of a row by a division, where the hardware looks a beat ahead.
    Memory and array do what they like, but no beat goes before its row is asked for.
    """

    depth = 2

    def __init__(self, part: type) -> None:
        super().__init__()
        self.dut: Any = part(BUILD, PORT)

    def common(self, m: Module) -> Fragment:
        """The part, what it takes, and the rows that it asks for."""
        dut, lanes = self.dut, BUILD.lanes
        m.submodules.dut = inside = Fragment.get(dut.elaborate(None), None)
        m.d.comb += Assume(~ResetSignal("sync"))
        m.d.comb += [
            dut.i.valid.eq(self.free("i_valid")),
            dut.i.payload.as_value().eq(self.free("i_payload", transfer(PORT).size)),
            dut.run.ready.eq(self.free("run_ready")),
            dut.rows.valid.eq(self.free("rows_valid")),
            dut.rows.payload.as_value().eq(self.free("rows_payload", PORT.width + 1)),
            dut.o.ready.eq(self.free("o_ready")),
        ]
        self.matrix = data.View(transfer(PORT), Signal(transfer(PORT).size, name="matrix"))
        self.busy, self.begins = Signal(name="busy"), Signal(name="begins")
        self.row, self.column = Signal(17, name="row"), Signal(25, name="column")
        self.row_ends, self.final = Signal(name="ends"), Signal(name="final")
        self.asked, self.place = Signal(17, name="asked"), Signal(PORT.address, name="place")
        columns = dut.i.payload.header.columns
        takes = dut.i.valid & dut.i.ready
        good = (columns != 0) & (columns <= BUILD.elements)
        m.d.comb += [
            self.begins.eq(takes & good),
            Assert(dut.i.ready == ~self.busy, "a matrix waits, or is taken within another"),
            Assert(dut.idle == ~self.busy, "idle"),
            Assert(dut.refused == (takes & ~good), "refused"),
            self.row_ends.eq(self.column + lanes >= self.matrix.header.columns),
            self.final.eq(self.row_ends & (self.row == self.matrix.rows)),
        ]
        with m.If(self.begins):
            m.d.sync += [
                self.busy.eq(1),
                self.matrix.eq(dut.i.payload),
                self.row.eq(0),
                self.column.eq(0),
                self.asked.eq(0),
                self.place.eq(dut.i.payload.address),
            ]
        # Rows are asked for.
        run = dut.run.payload
        with m.If(dut.run.valid):
            m.d.comb += [
                Assert(self.asked <= self.matrix.rows, "more rows than there are"),
                Assert(run.address == self.place, "row"),
                Assert(run.beats == (self.matrix.header.columns + lanes - 1) // lanes, "beats"),
            ]
            with m.If(dut.run.ready):
                m.d.sync += [self.asked.eq(self.asked + 1), self.place.eq(self.place + self.matrix.pitch)]
        self.stays(m, dut.run.valid, dut.run.ready, Value.cast(run), "run", Assert)
        return inside

    def counts(self, m: Module, moves: Value) -> None:
        """A beat of a row goes."""
        with m.If(moves):
            m.d.sync += [
                self.column.eq(Mux(self.row_ends, 0, self.column + BUILD.lanes)),
                self.row.eq(self.row + self.row_ends),
            ]
            with m.If(self.final):
                m.d.sync += self.busy.eq(0)

    def parts(self, m: Module, inside: Fragment, asks: str, counts: str, running: Value) -> None:
        """Of what asks for rows and of what counts beats; ``running``: rows have begun to be asked for."""
        matrix, lanes = self.matrix, BUILD.lanes
        self.lemma(m, ~self.busy | (signal_of(inside, "held") == matrix.as_value()))
        columns = matrix.header.columns
        self.lemma(m, ~self.busy | ((columns != 0) & (columns <= BUILD.elements)))
        self.lemma(m, ~self.busy | ((self.row <= matrix.rows) & (self.column < columns) & ~self.column[0]))
        less_one = (columns - 1)[:24]
        part = inside.find_subfragment(counts)
        its = {
            name: signal_of(part, name)
            for name in ("runs", "run", "row", "tail", "last_row", "ends", "beats")
        }
        at, of = self.column >> (lanes.bit_length() - 1), less_one >> (lanes.bit_length() - 1)
        busy = self.busy
        self.lemma(m, ~busy | ((its["runs"] == of) & (its["run"] == (of - at)[: len(its["run"])])))
        self.lemma(m, ~busy | (its["ends"] == self.row_ends))
        self.lemma(m, ~busy | (its["row"] == (matrix.rows - self.row)[:16]))
        self.lemma(m, ~busy | (its["last_row"] == (self.row == matrix.rows)))
        self.lemma(m, ~busy | (its["beats"] == of + 1))
        self.lemma(
            m,
            ~busy | (its["tail"] == Cat((columns - 1)[: lanes.bit_length() - 1] >= k for k in range(lanes))),
        )
        part = inside.find_subfragment(asks)
        its = {name: signal_of(part, name) for name in ("address", "pitch", "left")}
        valid = self.dut.run.valid
        self.lemma(m, ~valid | running)
        self.lemma(m, ~running | (valid == (self.asked <= matrix.rows)))
        self.lemma(m, running | ~busy | (self.asked == 0))
        self.lemma(m, ~busy | (self.asked <= matrix.rows + 1))
        self.lemma(m, ~valid | (its["pitch"] == matrix.pitch))
        self.lemma(m, ~valid | (its["address"] == self.place))
        self.lemma(m, ~valid | (its["left"] == (matrix.rows - self.asked)[:16]))


class FetchProof(TransferProof):
    """A packet is its header and all beats of its rows as they come, the last one marked."""

    def build(self) -> Module:
        m = Module()
        dut = self.dut
        inside = self.common(m)
        o, rows = dut.o, dut.rows
        m.d.comb += Assume(~rows.valid | ~self.busy | (self.row < self.asked))
        self.stays(m, rows.valid, rows.ready, rows.payload.as_value(), "rows", Assume)
        self.stays(m, o.valid, o.ready, o.payload.as_value(), "o", Assert)
        beats = -(-HEADER.size // PORT.width)
        words = Array(
            [
                Cat(self.matrix.header, Signal(PORT.width))[k * PORT.width :][: PORT.width]
                for k in range(beats)
            ]
        )
        sent = Signal(range(beats + 1))
        heads = self.busy & (sent != beats)
        with m.If(self.begins):
            m.d.sync += sent.eq(0)
        with m.Elif(heads & o.valid & o.ready):
            m.d.sync += sent.eq(sent + 1)
        with m.If(heads):
            m.d.comb += Assert(~rows.ready, "a beat of a row is lost")
            with m.If(o.valid):
                m.d.comb += Assert(o.payload.as_value() == Cat(words[sent], 0), "the header")
        with m.Elif(self.busy):
            m.d.comb += [
                Assert(o.valid == rows.valid, "a beat that nobody sent, or none"),
                Assert(rows.ready == o.ready, "a beat lost or doubled"),
            ]
            with m.If(o.valid):
                m.d.comb += Assert(o.payload.data == rows.payload.data, "another beat")
                m.d.comb += Assert(o.payload.last == self.final, "the end of a packet")
        with m.Else():
            m.d.comb += Assert(~o.valid & ~rows.ready, "a beat of no packet")
        fresh = Signal()
        m.d.sync += fresh.eq(self.begins)
        m.d.comb += Assert(~heads | (o.valid == ~fresh), "a standstill")
        self.counts(m, self.busy & ~heads & o.valid & o.ready)

        state, left, header = (signal_of(inside, name) for name in ("fsm_state", "left", "header"))
        self.lemma(m, state == Mux(~self.busy, 0, Mux(heads, Mux(fresh, 1, 2), 3)))
        self.lemma(m, ~heads | (left == beats - 1 - sent))
        for k in range(beats):
            rest = Cat(self.matrix.header)[k * PORT.width :]
            self.lemma(m, ~heads | (sent != k) | (header[: len(rest)] == rest))
        self.lemma(m, ~fresh | (sent == 0))
        self.lemma(m, ~heads | ((self.row == 0) & (self.column == 0)))
        self.parts(m, inside, "asks", "comes", self.busy & ~fresh)
        return m


class DeliverProof(TransferProof):
    """All beats of a transfer go, whole rows of them, with strobes for its columns alone; none after its packet ends.

    What is left of a transfer then, and in a halt, are beats without a strobe.
    """

    def build(self) -> Module:
        m = Module()
        dut, lanes = self.dut, BUILD.lanes
        inside = self.common(m)
        o, rows, halt = dut.o, dut.rows, dut.halt
        m.d.comb += halt.eq(self.free("halt"))
        m.d.comb += Assume(~o.ready | (self.row < self.asked))
        rest, fresh, short = Signal(), Signal(), Signal()
        m.d.sync += fresh.eq(self.begins)
        moves = self.busy & o.valid & o.ready
        on = Cat(
            (self.column + k < self.matrix.header.columns).replicate(PORT.bytes // lanes)
            for k in range(lanes)
        )
        with m.If(~self.busy | fresh):
            m.d.comb += Assert(~o.valid, "a beat of no transfer")
            m.d.comb += Assert(~rows.ready | halt, "a row is lost")
        with m.Elif(rest):
            m.d.comb += [
                Assert(o.valid & (o.payload.strobe == 0), "a transfer is left open"),
                Assert(~rows.ready | halt, "a row is lost"),
            ]
        with m.Else():
            m.d.comb += [
                Assert(o.valid == rows.valid, "a beat that nobody sent, or none"),
                Assert(rows.ready == o.ready, "a row lost or doubled"),
                short.eq(moves & rows.payload.last & ~self.final & ~halt),
            ]
            with m.If(o.valid):
                m.d.comb += Assert(o.payload.data == rows.payload.data, "another row")
                m.d.comb += Assert(o.payload.strobe == on, "a byte beside the matrix, or none")
            with m.If(moves & rows.payload.last & ~self.final):
                m.d.sync += rest.eq(1)
            with m.If(halt & (moves | ~o.valid)):
                m.d.sync += rest.eq(1)
        with m.If(moves & self.final):
            m.d.sync += rest.eq(0)
        m.d.comb += Assert(dut.short == short, "short")
        self.counts(m, moves)

        state = signal_of(inside, "fsm_state")
        self.lemma(m, state == Mux(~self.busy, 0, Mux(fresh, 1, Mux(rest, 3, 2))))
        self.lemma(m, ~fresh | (self.busy & ~rest & (self.row == 0) & (self.column == 0)))
        self.lemma(m, ~rest | self.busy)
        self.parts(m, inside, "asks", "goes", self.busy & ~fresh)
        return m


PROOFS: dict[str, tuple[type[TransferProof], type]] = {
    "fetch": (FetchProof, Fetch),
    "deliver": (DeliverProof, Deliver),
}


@pytest.mark.parametrize("name", PROOFS)
def test_proved(name, tmp_path):
    proof, part = PROOFS[name]
    check_proved(proof(part), tmp_path, depth=proof.depth)


FAULTS = {
    "all rows are the first": (FetchProof, Fetch, _Rows, ("sync", "address", lambda dut: dut.matrix.address), "row"),
    "a packet ends with its first row": (
        FetchProof, Fetch, _Columns, ("comb", "final", lambda dut: dut.ends), "the end of a packet"),
    "a matrix wider than a memory is taken": (
        FetchProof, Fetch, _Columns, ("comb", "fits", lambda dut: dut.columns.any()), "refused"),
    "whole beats are written": (
        DeliverProof, Deliver, _Columns, ("comb", "on", lambda dut: ~0), "a byte beside the matrix, or none"),
    "the last row is not seen": (
        DeliverProof, Deliver, _Columns, ("sync", "last_row", lambda dut: 0), "short"),
    "a packet that is too short is not told": (
        DeliverProof, Deliver, Deliver, ("comb", "short", lambda dut: 0), "short"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_refuted(name, tmp_path, monkeypatch):
    """By a counterexample from reset to the property that it breaks."""
    proof, part, wrong, fault, broken = FAULTS[name]
    faulty = with_fault(wrong, *fault)
    monkeypatch.setattr(transfers, wrong.__name__, faulty)
    check_refuted(proof(getattr(transfers, part.__name__)), tmp_path, depth=12, broken=broken)
