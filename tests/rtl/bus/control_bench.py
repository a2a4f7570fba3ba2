"""cocotb bench of the control plane: traffic by cocotbext-axi. Run by ``test_control_cocotb.py``."""

import itertools
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

PARAMETER_BASE, RESULT_BASE = 0x1000, 0x4000


def pauses(seed):
    rng = random.Random(seed)
    return (rng.random() < 0.4 for _ in itertools.count())


async def start(dut, *, seed=None):
    """The clock, a reset, and a master with random pauses on all five channels."""
    for name in ("drained", "errors", "pixels", "frame_done", "busy", "overrun"):
        getattr(dut, name).value = 0
    for k in range(3):
        getattr(dut, f"results__{k}__valid").value = 0
        getattr(dut, f"results__{k}__payload").value = 0
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
    axi = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    if seed is not None:
        write, read = axi.write_if, axi.read_if
        assert write is not None and read is not None
        channels = (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        for k, channel in enumerate(channels):
            channel.set_pause_generator(pauses(f"{seed} {k}"))
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    while (await axi.read_dword(0x00C)) & 1:
        pass
    return axi


@cocotb.test()
async def accesses_overlap(dut):
    """Many reads and writes queued at once, each direction in order, all with random pauses."""
    axi = await start(dut, seed=1)
    rng = random.Random(1)
    shadow = {}
    for _ in range(6):
        writes = {16 + rng.randrange(13): rng.getrandbits(32) for _ in range(8)}
        reads = [k for k in range(16, 29) if k not in writes]
        pending_writes = [
            cocotb.start_soon(axi.write(PARAMETER_BASE + 4 * k, v.to_bytes(4, "little")))
            for k, v in writes.items()
        ]
        pending_reads = [(k, cocotb.start_soon(axi.read(PARAMETER_BASE + 4 * k, 4))) for k in reads]
        for task in pending_writes:
            assert (await task).resp == AxiResp.OKAY
        for k, task in pending_reads:
            answer = await task
            assert answer.resp == AxiResp.OKAY
            if k in shadow:
                assert int.from_bytes(answer.data, "little") == shadow[k]
        shadow |= writes
    assert len(shadow) == 13
    for k, value in shadow.items():
        assert await axi.read_dword(PARAMETER_BASE + 4 * k) == value


@cocotb.test()
async def refusals(dut):
    """Unmapped addresses, read-only registers and single bytes are answered SLVERR."""
    axi = await start(dut, seed=2)
    before = await axi.read_dword(PARAMETER_BASE)
    assert (await axi.read(0x040, 4)).resp == AxiResp.SLVERR
    assert (await axi.write(0x000, bytes(4))).resp == AxiResp.SLVERR
    assert (await axi.write(PARAMETER_BASE, b"\1")).resp == AxiResp.SLVERR
    assert (await axi.write(PARAMETER_BASE + 2, b"\1\2")).resp == AxiResp.SLVERR
    assert await axi.read_dword(PARAMETER_BASE) == before
    assert await axi.read_dword(0x000) == 0x4B4C4250


@cocotb.test()
async def commit(dut):
    axi = await start(dut, seed=3)
    assert dut.hold.value == 0
    await axi.write_dword(PARAMETER_BASE, 321)
    await axi.write_dword(0x008, 1)
    while not dut.hold.value:
        await RisingEdge(dut.clk)
    for _ in range(50):
        await RisingEdge(dut.clk)
    assert await axi.read_dword(0x00C) == 1
    assert dut.width.value == 640
    assert (await axi.write(PARAMETER_BASE, bytes(4))).resp == AxiResp.SLVERR
    dut.drained.value = 1
    while (await axi.read_dword(0x00C)) & 1:
        pass
    assert dut.width.value == 321 and dut.hold.value == 0


@cocotb.test()
async def results(dut):
    axi = await start(dut, seed=4)
    rng = random.Random(4)
    counts = (2, 9, 8)
    for number in range(2):
        words = [rng.getrandbits(64) for _ in range(19)]

        async def port(k, words=words):
            for word in words[sum(counts[:k]) : sum(counts[: k + 1])]:
                getattr(dut, f"results__{k}__payload").value = (word ^ 1 << 63) - (1 << 63)
                getattr(dut, f"results__{k}__valid").value = 1
                await RisingEdge(dut.clk)
                while not getattr(dut, f"results__{k}__ready").value:
                    await RisingEdge(dut.clk)
                getattr(dut, f"results__{k}__valid").value = 0
                while rng.random() < 0.5:
                    await RisingEdge(dut.clk)

        tasks = [cocotb.start_soon(port(k)) for k in range(3)]
        for task in tasks:
            await task
        while not (await axi.read_dword(0x00C)) & 4:
            pass
        assert await axi.read_dword(0x028) == number + 1
        data = (await axi.read(RESULT_BASE, 8 * 19)).data
        assert [int.from_bytes(data[8 * k : 8 * k + 8], "little") for k in range(19)] == words
        await axi.write_dword(0x02C, 0)
    assert await axi.read_dword(0x010) == 0


@cocotb.test()
async def halves_of_a_counter_belong_together(dut):
    """Counters are put just below a carry into the high half; both halves must come from one clock."""
    axi = await start(dut)
    dut.pixels.value = 1
    for counter, low in ((dut.cycle_count, 0x020), (dut.pixel_count, 0x018)):
        carried = set()
        for below in range(24):
            begin = (7 << 32) - below
            counter.value = begin
            first = await axi.read_dword(low)
            for _ in range(25):
                await RisingEdge(dut.clk)
            second = await axi.read_dword(low + 4)
            assert begin <= (second << 32 | first) < begin + 24
            carried.add(second)
        assert carried == {6, 7}
