# amaranth: UnusedElaboratable=no
"""AXI4-Lite proved by induction: every access is answered once, with its own answer, whatever both sides do."""

from __future__ import annotations

import pytest
from amaranth.hdl import Assert, Assume, Cat, Const, Module, Mux, ResetSignal, Signal

from pullback.rtl.bus.axi4lite import SLVERR, AXI4Lite

from ..stream.formal import QueueProof, prove, signal_of, with_fault

pytestmark = pytest.mark.formal


class AXI4LiteProof(QueueProof):
    """A write is answered once AW and W have come, a read once AR has; each by the request that it made.

    Masters keep what they offer; requests are answered at any time. Addresses and data are noted where they are taken,
    and compared with the request and the answer.
    """

    def __init__(self, dut: AXI4Lite | None = None) -> None:
        super().__init__(capacity=2, patience=2)
        self._dut = dut or AXI4Lite()

    def build(self) -> Module:
        m = Module()
        dut = self._dut
        m.submodules.dut = inside = dut.elaborate(None)
        request = dut.request
        m.d.comb += Assume(~ResetSignal("sync"))
        names = ("awaddr", "awvalid", "wdata", "wstrb", "wvalid", "bready", "araddr", "arvalid", "rready")
        port = {name: getattr(dut, f"s_axil_{name}") for name in names}
        for name, signal in port.items():
            m.d.comb += signal.eq(self.free(name, len(signal)))
        m.d.comb += [
            request.done.eq(self.free("done") & request.valid),
            request.error.eq(self.free("error")),
            request.rdata.eq(self.free("rdata", 32)),
        ]
        aw, w, ar = (getattr(dut, f"s_axil_{channel}ready") for channel in ("aw", "w", "ar"))
        b, r = dut.s_axil_bvalid, dut.s_axil_rvalid
        self.stays(m, port["awvalid"], aw, port["awaddr"], "aw", Assume)
        self.stays(m, port["wvalid"], w, Cat(port["wdata"], port["wstrb"]), "w", Assume)
        self.stays(m, port["arvalid"], ar, port["araddr"], "ar", Assume)
        self.stays(m, b, port["bready"], dut.s_axil_bresp, "b", Assert)
        self.stays(m, r, port["rready"], Cat(dut.s_axil_rresp, dut.s_axil_rdata), "r", Assert)
        asked = Cat(request.write, request.address, request.wdata)
        self.stays(m, request.valid, request.done, asked, "request", Assert)
        was_done = Signal()
        m.d.sync += was_done.eq(request.done)
        with m.If(was_done):
            m.d.comb += Assert(~request.valid, "a request after its answer")

        # Accesses that were taken and not answered.
        open_ = {}
        for name, up, down in (
            ("aw", port["awvalid"] & aw, b & port["bready"]),
            ("w", port["wvalid"] & w, b & port["bready"]),
            ("ar", port["arvalid"] & ar, r & port["rready"]),
        ):
            open_[name] = count = Signal(2, name=f"{name}_open")
            m.d.sync += count.eq(count + up - down)
            m.d.comb += Assert(count <= 2, "more accesses than are kept")
        with m.If(b):
            m.d.comb += Assert((open_["aw"] != 0) & (open_["w"] != 0), "an answer to no write")
        with m.If(r):
            m.d.comb += Assert(open_["ar"] != 0, "an answer to no read")

        # What was taken last is what is asked for; what came is what is answered.
        address, data, strobes, read_address = Signal(14), Signal(32), Signal(4), Signal(14)
        with m.If(port["awvalid"] & aw):
            m.d.sync += address.eq(port["awaddr"][2:])
        with m.If(port["wvalid"] & w):
            m.d.sync += [data.eq(port["wdata"]), strobes.eq(port["wstrb"])]
        with m.If(port["arvalid"] & ar):
            m.d.sync += read_address.eq(port["araddr"][2:])
        write = request.valid & request.write
        with m.If(write):
            m.d.comb += Assert(strobes.all(), "a write of some bytes")
            m.d.comb += Assert((request.address == address) & (request.wdata == data), "another write")
        with m.If(request.valid & ~request.write):
            m.d.comb += Assert(request.address == read_address, "another read")
        answer, failed, read_failed = Signal(32), Signal(), Signal()
        with m.If(request.done & request.write):
            m.d.sync += failed.eq(request.error)
        with m.If(request.done & ~request.write):
            m.d.sync += [answer.eq(request.rdata), read_failed.eq(request.error)]
        wrote, had_b, before, error = Signal(), Signal(), Signal(), Signal()
        m.d.comb += error.eq(Mux(had_b, before, ~wrote | failed))
        m.d.sync += [
            wrote.eq(request.done & request.write),
            had_b.eq(b & ~port["bready"]),
            before.eq(error),
        ]
        with m.If(b):
            m.d.comb += Assert(dut.s_axil_bresp == Mux(error, SLVERR, 0), "another answer to a write")
            with m.If(~had_b & ~wrote):
                m.d.comb += Assert(~strobes.all(), "a whole write refused")
        with m.If(r):
            m.d.comb += Assert(dut.s_axil_rdata == answer, "another answer to a read")
            m.d.comb += Assert(dut.s_axil_rresp == Mux(read_failed, SLVERR, 0), "another answer to a read")

        # Whoever waits is served at once, or after one access of the other direction.
        state = signal_of(inside, "fsm_state")
        up = state != 0
        waits = {
            "write": (open_["aw"] > b) & (open_["w"] > b) & ~b,
            "read": (open_["ar"] > r) & ~r,
        }
        idle, others = Signal(2), {name: Signal(2, name=f"{name}_others") for name in waits}
        m.d.sync += idle.eq(Mux((waits["write"] | waits["read"]) & ~request.valid, idle + 1, 0))
        m.d.comb += Assert(idle <= self._patience, "an access waits, and nothing is asked for")
        for name, count in others.items():
            other = request.done & (request.write == (name == "read"))
            m.d.sync += count.eq(Mux(waits[name], count + other, 0))
            m.d.comb += Assert(count <= 1, "the other direction twice in turn")

        # The induction.
        served = {"write": request.write, "read": ~request.write}
        goes_first = {"write": Const(1), "read": ~waits["write"]}
        for name, count in others.items():
            next_ = Mux(state == 2, served[name], goes_first[name])
            self.lemma(m, ~(waits[name] & (count == 1)) | next_)
        waiting = {"aw": up & ~aw, "w": up & ~w, "ar": up & ~ar}
        self.lemma(m, state <= 2)
        self.lemma(m, up | ~Cat(aw, w, ar, b, r).any())
        self.lemma(m, (state == 2) == request.valid)
        self.lemma(m, open_["aw"] == waiting["aw"] + b)
        self.lemma(m, open_["w"] == waiting["w"] + b)
        self.lemma(m, open_["ar"] == waiting["ar"] + r)
        self.lemma(m, ~write | (waiting["aw"] & waiting["w"] & ~b))
        self.lemma(m, ~request.valid | request.write | (waiting["ar"] & ~r))
        kept = {
            name: signal_of(inside, name) for name in ("write_address", "write_data", "whole", "read_address")
        }
        self.lemma(m, ~waiting["aw"] | (kept["write_address"] == address))
        self.lemma(m, ~waiting["w"] | ((kept["write_data"] == data) & (kept["whole"] == strobes.all())))
        self.lemma(m, ~waiting["ar"] | (kept["read_address"] == read_address))
        return m


def test_proved(tmp_path):
    verdict = prove(AXI4LiteProof(), tmp_path, depth=4)
    assert verdict.proved, verdict.log


FAULTS = {
    "an answer that nobody waits for": ("s_axil_bvalid", lambda dut: dut.s_axil_awvalid & dut.s_axil_awready),
    "a write of some bytes": ("whole", lambda dut: 1),
    "an answer that is gone after a clock": (
        "s_axil_rvalid",
        lambda dut: dut.request.done & ~dut.request.write,
    ),
    "an error that is forgotten": ("s_axil_rresp", lambda dut: 0),
    "the address of a read": ("write_address", lambda dut: dut.s_axil_araddr[2:]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_refuted(name, tmp_path):
    faulty = with_fault(AXI4Lite, "sync", *FAULTS[name])
    verdict = prove(AXI4LiteProof(faulty()), tmp_path, depth=8, faulty=True)
    print(name, "->", verdict.violated)
    assert not verdict.proved
    assert verdict.violated, verdict.log
