# amaranth: UnusedElaboratable=no
"""Registers from declarations: answers and writes by induction, for any requests; what cannot be declared."""

from __future__ import annotations

from unittest import mock

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Const, Module, Mux, ResetSignal, Signal, Value

from pullback.rtl.bus import register_file
from pullback.rtl.bus.axi4lite import AXI4Lite
from pullback.rtl.bus.register_file import RegisterFile
from pullback.rtl.bus.registers import Field, Register

from ..stream.formal import QueueProof, prove, signal_of, with_fault


def register(name: str, address: int, access: str) -> Register:
    return Register(name, address, access, (Field("value", 0, 32, ""),), "")


REGISTERS = [register("A", 0, "r"), register("B", 4, "rw"), register("C", 8, "w"), register("D", 12, "rw1c")]
WORDS, WINDOW = 3, 0x8000


class RegisterFileProof(QueueProof):
    """Each access is told at most once, to whom it belongs, and answered OKAY if it was; reads give the value of then.

    The front is any that keeps what `AXI4Lite` is proved to keep: a request stays until it is answered, and none
    follows at once.
    """

    def __init__(self, make: type[RegisterFile] = RegisterFile) -> None:
        super().__init__(capacity=0, patience=0)
        self._dut = make(REGISTERS, window=WINDOW, words=WORDS)

    def build(self) -> Module:
        m = Module()
        dut = self._dut
        widths = {"valid": 1, "write": 1, "address": 14, "wdata": 32}
        asked = {name: self.free(name, width) for name, width in widths.items()}

        hosts: list[AXI4Lite] = []

        class AnyHost(AXI4Lite):
            def __init__(self) -> None:
                super().__init__()
                hosts.append(self)

            def elaborate(self, platform) -> Module:
                m = Module()
                m.d.comb += [getattr(self.request, name).eq(value) for name, value in asked.items()]
                return m

        with mock.patch.object(register_file, "AXI4Lite", AnyHost):
            m.submodules.dut = inside = dut.elaborate(None)
        request = hosts[0].request
        m.d.comb += Assume(~ResetSignal("sync"))
        m.d.comb += dut.values.as_value().eq(self.free("values", dut.values.shape().size))
        waits, held, answered = Signal(), Signal(47), Signal()
        m.d.sync += [
            waits.eq(request.valid & ~request.done),
            held.eq(Cat(request.write, request.address, request.wdata)),
            answered.eq(request.valid & request.done),
        ]
        with m.If(waits):
            m.d.comb += Assume(request.valid & (Cat(request.write, request.address, request.wdata) == held))
        m.d.comb += [
            Assume(~answered | ~request.valid),
            Assert(request.valid | ~request.done, "an answer to nothing"),
        ]
        late = Signal(3)
        m.d.sync += late.eq(Mux(request.valid & ~request.done, late + 1, 0))
        m.d.comb += Assert(late <= 3, "no answer")

        base = WINDOW // 4
        told = Signal()
        writes = Value.cast(dut.writes)
        names = list(dut.writes.shape().members)
        m.d.comb += told.eq(writes.any() | dut.write)
        mapped = Cat(
            *(request.address == next(k for k, r in enumerate(REGISTERS) if r.name == n) for n in names),
            (request.address >= base) & (request.address < base + WORDS),
        )
        pulses = Cat(writes, dut.write)
        since, once = Signal(2, init=3), Signal()
        m.d.sync += since.eq(Mux(told, 0, Mux(since == 3, 3, since + 1)))
        m.d.sync += once.eq(request.valid & ~request.done & (once | told))
        with m.If(told):
            m.d.comb += [
                Assert(request.valid & request.write & ~once, "a write that was not, or twice"),
                Assert(pulses == mapped, "another register"),
                Assert(dut.data == request.wdata, "other data"),
                Assert(since >= 2, "two writes too close"),
            ]
        with m.If(dut.write):
            m.d.comb += Assert(
                (dut.row < WORDS) & (dut.row == (request.address - base)[: len(dut.row)]), "another word"
            )
        readable = Array(
            [Value.cast(dut.values[r.name]) if r.access != "w" else Const(0, 32) for r in REGISTERS]
        )
        before = [Signal(32), Signal(32)]
        m.d.sync += [before[0].eq(readable[request.address[:2]]), before[1].eq(before[0])]
        inside_them = request.address < len(REGISTERS)
        with m.If(request.done & request.write):
            m.d.comb += Assert(request.error == ~mapped.any(), "the answer to a write")
            m.d.comb += Assert(once == mapped.any(), "a write that is not told")
        with m.If(request.done & ~request.write):
            m.d.comb += Assert(request.error == ~inside_them, "the answer to a read")
            m.d.comb += Assert(request.rdata == Mux(inside_them, before[1], 0), "what is read")
        its = {
            name: signal_of(inside, name)
            for name in (
                "fsm_state",
                "selected",
                "value",
                "in_registers",
                "in_window",
                "answered",
                "error",
                "rdata",
            )
        }
        state = its["fsm_state"]
        self.lemma(m, (state == 0) | request.valid)
        self.lemma(m, its["answered"] == (state == 3))
        self.lemma(m, (state == 3) | ~its["error"])
        self.lemma(m, (state == 0) | (its["selected"] == request.address[:2]))
        self.lemma(m, (state == 0) | (its["in_registers"] == inside_them))
        self.lemma(m, (state == 0) | (its["in_window"] == mapped[-1]))
        self.lemma(m, (state != 2) | (its["value"] == before[0]))
        self.lemma(m, (state == 3) | ~once)
        self.lemma(m, (state == 0) | (state == 3) | (since >= state))
        self.lemma(m, (state == 3) | (since != 0))
        self.lemma(m, late == state)
        return m


@pytest.mark.formal
def test_proved(tmp_path):
    verdict = prove(RegisterFileProof(), tmp_path, depth=3)
    assert verdict.proved, verdict.log


FAULTS = {
    "a window without an end": ("in_window", lambda dut: 1),
    "always the same register": ("selected", lambda dut: 1),
    "a value of another": ("value", lambda dut: dut.values.A),
}


@pytest.mark.formal
@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_refuted(name, tmp_path):
    faulty = with_fault(RegisterFile, "sync", *FAULTS[name])
    verdict = prove(RegisterFileProof(faulty), tmp_path, depth=10, faulty=True)
    print(name, "->", verdict.violated)
    assert not verdict.proved
    assert verdict.violated, verdict.log


def test_gaps_are_named():
    with pytest.raises(ValueError, match="B is at 0x0008; register 1 belongs to 0x0004"):
        RegisterFile([register("A", 0, "r"), register("B", 8, "r")])


@pytest.mark.parametrize(("window", "words"), [(0x8004, 2), (0xC000, 8192), (0, 1)])
def test_a_window_that_does_not_fit_is_named(window, words):
    with pytest.raises(ValueError, match=rf"a window of {words} words at 0x{window:04x}; give a multiple of"):
        RegisterFile(REGISTERS, window=window, words=words)
