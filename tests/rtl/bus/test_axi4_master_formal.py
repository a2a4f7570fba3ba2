# amaranth: UnusedElaboratable=no
"""Reader and writer of a memory proved by induction: bursts, beats and answers in their order, none lost or doubled.

Their FIFOs and what cuts runs into bursts have proofs of their own; whatever those allow stands in for them here.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Fragment, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.bus import axi4_master
from pullback.rtl.bus.axi4_master import AXI4Reader, AXI4Writer, MemoryPort

from ..stream.formal import AnyQueue, Queue, QueueProof, check_proved, check_refuted, signal_of, with_fault

pytestmark = pytest.mark.formal

PORT = MemoryPort(width=8, address=12, longest=4, beats=4)
OUTSTANDING = 2


class AnyBursts(wiring.Component):
    """Whatever `BurstsProof` says of `Bursts`: a run is taken, its bursts are offered, the last of them is final."""

    def __init__(self, proof: QueueProof, port: MemoryPort) -> None:
        self._port = port
        self._takes, self._offers = proof.free("bursts_take"), proof.free("bursts_offer")
        self._burst = proof.free("burst", port.burst.size)
        self.open = Signal(name="run_open")
        super().__init__(
            {"i": In(stream.Signature(port.run)), "o": Out(stream.Signature(port.burst)), "idle": Out(1)}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        stalls, held = Signal(), Signal(self._port.burst.size)
        m.d.comb += [
            self.i.ready.eq(~self.open & self._takes),
            self.idle.eq(~self.open),
            self.o.valid.eq(self.open & (self._offers | stalls)),
            self.o.payload.eq(Mux(stalls, held, self._burst)),
            Assume(self.o.payload.length < self._port.longest),
        ]
        m.d.sync += [stalls.eq(self.o.valid & ~self.o.ready), held.eq(Value.cast(self.o.payload))]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += self.open.eq(1)
        with m.If(self.o.valid & self.o.ready & self.o.payload.final):
            m.d.sync += self.open.eq(0)
        return m


class MasterProof(QueueProof):
    """What the proofs of both directions share: the address channel, the errors, ``idle``."""

    depth = 5
    channel: str

    def __init__(self, part: type[Elaboratable]) -> None:
        super().__init__()
        self.dut: Any = part(PORT, outstanding=OUTSTANDING)  # pyright: ignore[reportCallIssue]
        self.queues: list[AnyQueue] = []
        # Bursts that are under way, oldest first, from the clock in which they are taken to their answer.
        self.under_way = Queue("under_way", PORT.burst, OUTSTANDING)

    def port(self, name: str) -> Signal:
        """A port of the master."""
        return getattr(self.dut, f"m_axi_{name}")

    def inside(self, m: Module) -> Fragment:
        """The master, with stand-ins for its parts."""

        def queue(shape: Any, depth: int = 2) -> AnyQueue:
            self.queues.append(AnyQueue(self, f"queue_{len(self.queues)}", shape, depth))
            return self.queues[-1]

        self.bursts = AnyBursts(self, PORT)
        with (
            mock.patch.object(axi4_master, "Bursts", lambda port: self.bursts),
            mock.patch.object(axi4_master, "Fifo", queue),
            mock.patch.object(axi4_master, "SkidBuffer", queue),
        ):
            inside = Fragment.get(self.dut.elaborate(None), None)
        m.submodules.dut = inside
        m.d.comb += Assume(~ResetSignal("sync"))
        m.d.comb += [
            self.dut.run.valid.eq(self.free("run_valid")),
            self.dut.clear.eq(self.free("clear")),
        ]
        return inside

    def addresses(self, m: Module, *, answered: Value) -> Value:
        """Every burst is offered once, as it was cut; returns how many the memory has taken of those under way."""
        burst, under_way, name = self.bursts.o, self.under_way, self.channel
        takes = burst.valid & burst.ready
        valid, ready = self.port(f"{name}valid"), self.port(f"{name}ready")
        m.d.comb += ready.eq(self.free(f"{name}ready"))
        under_way.steps(m, push=takes, put=Value.cast(burst.payload), pop=answered)
        offered = Signal(name="offered")
        with m.If(takes):
            m.d.sync += offered.eq(1)
        with m.Elif(ready):
            m.d.sync += offered.eq(0)
        newest = under_way.rows[(under_way.count - 1)[: len(under_way.count) - 1]]
        m.d.comb += Assert(valid == offered, "a burst that is not offered, or twice")
        with m.If(valid):
            m.d.comb += [
                Assert(under_way.count != 0, "a burst of nobody"),
                Assert(self.port(f"{name}addr") == newest.address, "another address"),
                Assert(self.port(f"{name}len") == newest.length, "another length"),
                Assert(self.port(f"{name}burst") == 0b01, "not INCR"),
                Assert(self.port(f"{name}size") == 0, "not a beat of the bus"),
                Assert(self.port(f"{name}id") == 0, "another identifier"),
            ]
        idle = ~self.bursts.open & (under_way.count == 0)
        waits = burst.valid & ~burst.ready & (~valid | ready)
        m.d.comb += [
            Assert(~waits | (under_way.count == OUTSTANDING), "a burst waits for nothing"),
            Assert(self.dut.idle == idle, "idle with work, or not without"),
        ]
        for row in under_way.rows:
            self.lemma(m, row.length < PORT.longest)
        return under_way.count - valid

    def errors(self, m: Module, *, answer: Value, response: Value) -> None:
        """The first answer that is an error since it was cleared, with the address of its burst."""
        error, first, where = Signal(), Signal(2), Signal(PORT.address)
        with m.If(answer & response[1] & (~error | self.dut.clear)):
            m.d.sync += [error.eq(1), first.eq(response), where.eq(self.under_way.rows[0].address)]
        with m.Elif(self.dut.clear):
            m.d.sync += error.eq(0)
        m.d.comb += Assert(self.dut.error == error, "an error forgotten, or none")
        with m.If(error):
            m.d.comb += [
                Assert(self.dut.error_response == first, "not the first error"),
                Assert(self.dut.error_address == where, "the address of another burst"),
            ]


class ReaderProof(MasterProof):
    """Beats leave as the memory gives them, the last one of each run marked, and no more bursts are open than may be.

    The memory answers bursts in their order, each with its number of beats, whenever it likes.
    """

    channel = "ar"

    def build(self) -> Module:
        m = Module()
        dut, under_way = self.dut, self.under_way
        self.inside(m)
        asked, edge = self.queues
        o, valid, ready = dut.o, self.port("rvalid"), self.port("rready")
        answer = data.StructLayout({"data": PORT.width, "response": 2, "last": 1})
        r = data.View(answer, Cat(self.port("rdata"), self.port("rresp"), self.port("rlast")))
        m.d.comb += [
            valid.eq(self.free("rvalid")),
            r.as_value().eq(self.free("r", answer.size)),
            o.ready.eq(self.free("o_ready")),
        ]
        came = Queue("came", answer, 2)
        pop = o.valid & o.ready
        came.steps(m, push=valid & ready, put=r.as_value(), pop=pop)
        oldest = came.rows[0]
        taken = self.addresses(m, answered=pop & oldest.last)

        # The memory: it is at beat ``beat`` of the burst that ``whole`` older ones lie before.
        whole, beat = Signal(range(OUTSTANDING + 1)), Signal(range(PORT.longest))
        ends = beat == under_way.rows[whole[:1]].length
        m.d.comb += Assume(~valid | ((whole < taken) & (r.last == ends)))
        self.stays(m, valid, ready, r.as_value(), "r", Assume)
        with m.If(valid & ready):
            m.d.sync += beat.eq(Mux(ends, 0, beat + 1))
        m.d.sync += whole.eq(whole + (valid & ready & ends) - (pop & oldest.last))

        with m.If(o.valid):
            m.d.comb += [
                Assert(came.count != 0, "a beat that nobody sent"),
                Assert(o.payload.data == oldest.data, "another beat"),
                Assert(o.payload.last == (oldest.last & under_way.rows[0].final), "the end of a run"),
            ]
        self.stays(m, o.valid, o.ready, o.payload.as_value(), "o", Assert)
        self.ends(m, (came.count != 0) & ~o.valid, "o", AnyQueue.patience)
        m.d.comb += Assert(ready | (came.count == 2), "the memory waits for nothing")
        self.errors(m, answer=pop, response=oldest.response)

        # The induction.
        self.lemma(m, (asked.held.count == under_way.count) & (edge.held.count == came.count))
        for k, (kept, burst) in enumerate(zip(asked.held.rows, under_way.rows, strict=True)):
            same = (kept.address == burst.address) & (kept.final == burst.final)
            self.lemma(m, (k >= under_way.count) | same)
        for k, (kept, beat_) in enumerate(zip(edge.held.rows, came.rows, strict=True)):
            self.lemma(m, (k >= came.count) | (Value.cast(kept) == Value.cast(beat_)))
        lasts = sum(came.rows[k].last & (came.count > k) for k in range(2))
        self.lemma(m, (whole == lasts) & (whole <= taken) & (under_way.count >= dut.m_axi_arvalid))
        self.lemma(m, (beat == 0) | ((whole < taken) & (beat <= under_way.rows[whole[:1]].length)))
        open_ = Mux(came.count == 0, 0, ~came.rows[(came.count - 1)[:1]].last)
        self.lemma(m, ~open_ | (beat != 0))
        return m


class WriterProof(MasterProof):
    """Beats go to the memory as they come, each burst with as many as its length says, and none before it is asked for.

    The memory answers bursts in their order, once it has the address and the last beat.
    """

    channel = "aw"

    def build(self) -> Module:
        m = Module()
        dut, under_way = self.dut, self.under_way
        inside = self.inside(m)
        lengths, asked, edge = self.queues
        i, w_valid, w_ready = dut.i, self.port("wvalid"), self.port("wready")
        b_valid, b_ready = self.port("bvalid"), self.port("bready")
        beat_shape = data.StructLayout({"data": PORT.width, "strobe": PORT.bytes})
        m.d.comb += [
            i.valid.eq(self.free("i_valid")),
            i.payload.as_value().eq(self.free("i", beat_shape.size)),
            w_ready.eq(self.free("wready")),
            b_valid.eq(self.free("bvalid")),
            self.port("bresp").eq(self.free("bresp", 2)),
        ]
        self.stays(m, i.valid, i.ready, i.payload.as_value(), "i", Assume)
        self.stays(m, b_valid, b_ready, self.port("bresp"), "b", Assume)
        answered = b_valid & b_ready
        taken = self.addresses(m, answered=answered)

        # Where data come in and go out: at a beat of the burst that as many older ones lie before.
        came = Queue("came", beat_shape, 2)
        puts, gets = i.valid & i.ready, w_valid & w_ready
        came.steps(m, push=puts, put=i.payload.as_value(), pop=gets)
        numbers = range(OUTSTANDING + 1)
        into, out = Signal(numbers), Signal(numbers)
        put, got = Signal(range(PORT.longest)), Signal(range(PORT.longest))
        for name, number, at, step in (("put", into, put, puts), ("got", out, got, gets)):
            ends = Signal(name=f"{name}_ends")
            m.d.comb += ends.eq(at == under_way.rows[number[:1]].length)
            m.d.sync += number.eq(number + (step & ends) - answered)
            with m.If(step):
                m.d.sync += at.eq(Mux(ends, 0, at + 1))
        m.d.comb += Assume(~b_valid | ((out != 0) & (taken != 0)))
        with m.If(puts):
            m.d.comb += Assert(into < under_way.count, "a beat of no burst")
        beat = Cat(self.port("wdata"), self.port("wstrb"))
        with m.If(w_valid):
            m.d.comb += [
                Assert(came.count != 0, "a beat that nobody sent"),
                Assert(beat == came.rows[0].as_value(), "another beat"),
                Assert(out < under_way.count, "a beat of no burst"),
                Assert(self.port("wlast") == (got == under_way.rows[out[:1]].length), "the end of a burst"),
            ]
        self.stays(m, w_valid, w_ready, Cat(beat, self.port("wlast")), "w", Assert)
        self.ends(m, (came.count != 0) & ~w_valid, "w", AnyQueue.patience)
        self.ends(m, b_valid & ~b_ready, "b", AnyQueue.patience)
        waits = i.valid & ~i.ready & (came.count != 2) & (into < under_way.count)
        self.ends(m, waits, "i", AnyQueue.patience)
        self.errors(m, answer=answered, response=self.port("bresp"))

        # The induction.
        self.lemma(m, (asked.held.count == under_way.count) & (edge.held.count == came.count))
        self.lemma(
            m, (lengths.held.count + into == under_way.count) & (out <= into) & (taken <= under_way.count)
        )
        for k in range(OUTSTANDING):
            burst = under_way.rows[k]
            self.lemma(m, (k >= under_way.count) | (Value.cast(asked.held.rows[k]) == burst.address))
            place = (k - into)[:1]
            self.lemma(
                m,
                (k >= under_way.count) | (k < into) | (Value.cast(lengths.held.rows[place]) == burst.length),
            )
        at, beat = out, got
        for k in range(2):
            row, there = edge.held.rows[k], came.count > k
            length = under_way.rows[at[:1]].length
            self.lemma(m, ~there | (Value.cast(row)[: beat_shape.size] == came.rows[k].as_value()))
            self.lemma(m, ~there | ((row.last == (beat == length)) & (at < under_way.count)))
            at, beat = at + (there & row.last), Mux(there, Mux(row.last, 0, beat + 1), beat)
        self.lemma(m, (at == into) & (beat == put) & (signal_of(inside, "sent") == put))
        for number, place in ((into, put), (out, got)):
            fits = (number < under_way.count) & (place <= under_way.rows[number[:1]].length)
            self.lemma(m, (place == 0) | fits)
        return m


PROOFS: dict[str, tuple[type[MasterProof], type[Elaboratable]]] = {
    "reader": (ReaderProof, AXI4Reader),
    "writer": (WriterProof, AXI4Writer),
}


@pytest.mark.parametrize("name", PROOFS)
def test_proved(name, tmp_path):
    proof, part = PROOFS[name]
    check_proved(proof(part), tmp_path, depth=proof.depth)


FAULTS = {
    "a beat is taken without room": (
        ReaderProof, with_fault(AXI4Reader, "comb", "m_axi_rready", lambda dut: 1), "more inside than fits"),
    "bursts begin where the run does": (
        ReaderProof,
        with_fault(AXI4Reader, "sync", "m_axi_araddr", lambda dut: dut.run.payload.address),
        "another address",
    ),
    "an address is withdrawn": (
        ReaderProof,
        with_fault(AXI4Reader, "sync", "m_axi_arvalid", lambda dut: 0),
        "a burst that is not offered, or twice",
    ),
    "an error is told with the newest burst": (
        ReaderProof,
        with_fault(AXI4Reader, "comb", "error_address", lambda dut: dut.m_axi_araddr),
        "the address of another burst",
    ),
    "beats of a burst are not counted": (
        WriterProof, with_fault(AXI4Writer, "sync", "sent", lambda dut: 0), "the end of a burst"),
    "answers are taken before they are expected": (
        WriterProof,
        with_fault(AXI4Writer, "comb", "m_axi_bready", lambda dut: 1),
        "an error forgotten, or none",
    ),
    "strobes are ignored": (
        WriterProof, with_fault(AXI4Writer, "comb", "m_axi_wstrb", lambda dut: ~0), "another beat"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_refuted(name, tmp_path):
    """By a counterexample from reset to the property that it breaks."""
    proof, part, broken = FAULTS[name]
    check_refuted(proof(part), tmp_path, depth=12, broken=broken)
