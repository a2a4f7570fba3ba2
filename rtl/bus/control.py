"""The core's control plane: registers, parameter memory, commit engine and result memory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from pullback.rtl.bus.axi4lite import AXI4Lite, axi4lite_members
from pullback.rtl.bus.registers import (
    CONTROL_REGISTERS,
    ERROR_BAD_FRAME,
    ERROR_RESULTS_OVERRUN,
    FRAME_WORDS,
    PARAMETER_BASE,
    RESULT_BASE,
    RegisterMap,
)
from pullback.rtl.bus.through import through

__all__ = ["LOAD", "RESULT_CLOCKS", "Control"]

LOAD = wiring.Signature({"valid": Out(1), "address": Out(12), "data": Out(32)})
"""The load bus: in a clock with ``valid`` the active copy of parameter word ``address`` becomes ``data``."""

RESULT_CLOCKS = 4
"""Clocks in which the collector takes a word of results."""

NEIGHBOURS = 5
"""Ports of results that are gathered in one register."""

# The address enters the memory's own register, its data a flop: two clocks from address to use.
_RAM_LATENCY = 2


class Control(wiring.Component):
    """Everything between AXI4-Lite and the static inputs of a core.

    **Parameters.** The host reads and writes a shadow memory. Writing 1 to CONTROL.commit

    1. checks the frame words; if one is outside its limits, ERRORS bit 9 is set, the active values stay
       and the commit is over;
    2. raises ``hold``, so that the core starts no further frame, and waits for ``drained``, which counts
       ``settle`` clocks after ``hold`` rose at the earliest;
    3. sends all words over ``load`` in rising order, one per clock;
    4. waits ``settle`` clocks (the load bus may be pipelined up to that depth), then drops ``hold`` and
       STATUS.pending together.

    So the active values are those of the moment of the commit: while it waits for step 3, a write to a
    parameter word is answered SLVERR and does nothing. During the check and the load the bus waits (at most
    ``parameter_words + 10`` clocks). A commit written during a commit is carried out after it. After reset
    the defaults go into the shadow memory and over ``load`` by themselves, with ``hold`` and STATUS.pending
    up from the first clock. Reserved frame words read as 0 and ignore writes.

    **Results.** The ports of ``results`` are drained in order, ``counts[k]`` words from port k, into the bank
    of the result memory that the host does not see, a word in :data:`RESULT_CLOCKS` clocks. When all have come,
    banks are swapped, RESULTS counts up and STATUS.ready is set; if it was still set, ERRORS bit 10 is set too. A read
    takes all 64 bits of a word from one bank in one clock: reading the low half returns it and latches the
    high half, and reading a high half, of whatever word, returns the latch. A host that reads slower than
    groups finish sees that from RESULTS, read before and after, or from ERRORS bit 10.

    **Errors.** Writing a read-only register or a result word, and any access to an unmapped address, is
    answered SLVERR, reads as 0 and does nothing. CONTROL and ACK read as 0. A sticky error that arrives in
    the clock of its clearing stays.

    Latency without stalls, from the clock edge that takes AR to the one that takes R: 6 clocks for a control register,
    8 for a parameter or a result.

    Parameters
    ----------
    map : RegisterMap
        Addresses, defaults and limits.
    counts : sequence of int
        Words taken from each port of ``results`` per group. Default: one port for each entry of
        ``map.result_runs``.
    settle : int
        At least 1.

    Members
    -------
    ``s_axil_*`` : see :func:`pullback.rtl.bus.axi4lite.axi4lite_members`
    ``load`` : ``Out(LOAD)``
    ``hold`` : ``Out(1)``
        1: start no frame.
    ``drained`` : ``In(1)``
        1: no frame is half accepted and no pixel is in flight; with ``hold`` up it must stay 1.
    ``width``, ``height`` : ``Out(16)``
    ``cfa`` : ``Out(2)``
    ``depth`` : ``Out(5)``
    ``frames`` : ``Out(16)``
    ``bypass`` : ``Out(stages)``
    ``loss_kind`` : ``Out(2)``
    ``loss_delta`` : ``Out(12)``
    ``loss_scale`` : ``Out(16)``
        The active frame words, registers; they change during a load only.
    ``results`` : ``In(stream.Signature(signed(64))).array(len(counts))``
    ``collected`` : ``Out(1)``
        1 for one clock when banks were swapped.
    ``errors`` : ``In(9)``
        Bits 0 to 8 of ERRORS, one clock each.
    ``pixels`` : ``In(range(lanes + 1))``
        Pixels accepted at the raw input in this clock.
    ``frame_done`` : ``In(1)``
        One clock per frame.
    ``busy`` : ``In(1)``
    ``overrun`` : ``In(1)``
        One clock if a group's sums were lost inside the core: sets ERRORS bit 10, like results that were not
        acknowledged.

    Raises
    ------
    ValueError
        If the counts do not add up to the map's result words, or ``settle`` is below 1.
    """

    def __init__(self, map: RegisterMap, *, counts: Sequence[int] | None = None, settle: int = 8) -> None:
        counts = tuple(word.entries for word in map.result_runs) if counts is None else tuple(counts)
        if sum(counts) != map.result_words or min(counts) < 1:
            raise ValueError(
                f"counts {counts} add up to {sum(counts)}; the map has {map.result_words} result words, "
                "and every port must give at least one"
            )
        if settle < 1:
            raise ValueError(f"settle is {settle}; it must be at least 1")
        self.map = map
        self.counts = counts
        self._settle = settle
        self._frame_ports = {word.name.replace(".", "_"): word for word in map.words if word.kind == "frame"}
        super().__init__(
            {
                **axi4lite_members(),
                "load": Out(LOAD),
                "hold": Out(1),
                "drained": In(1),
                **{name: Out(word.format.shape) for name, word in self._frame_ports.items()},
                "results": In(stream.Signature(signed(64))).array(len(counts)),
                "collected": Out(1),
                "errors": In(ERROR_BAD_FRAME),
                "pixels": In(Shape.cast(range(map.lanes + 1))),
                "frame_done": In(1),
                "busy": In(1),
                "overrun": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.axi4lite = axi = AXI4Lite()
        through(m, self, axi, axi4lite_members())
        m.submodules.commit = commit = _Commit(self.map, settle=self._settle)
        m.submodules.collect = collect = _Collect(self.map, counts=self.counts)
        request = axi.request

        m.d.comb += commit.drained.eq(self.drained)
        wiring.connect(m, wiring.flipped(self.load), commit.load)
        m.d.comb += self.hold.eq(commit.hold)
        for inner, outer in zip(collect.results, self.results, strict=True):
            wiring.connect(m, wiring.flipped(outer), inner)
        m.d.comb += self.collected.eq(collect.collected)

        for name, word in self._frame_ports.items():
            with m.If(commit.load.valid & (commit.load.address == word.index)):
                m.d.sync += getattr(self, name).eq(commit.load.data)

        # Counters. What comes from the core is registered once: it may have travelled far.
        pixels, frame_done, errors, busy, lost = (
            Signal.like(port, name=f"{port.name}_now")
            for port in (self.pixels, self.frame_done, self.errors, self.busy, self.overrun)
        )
        m.d.sync += [
            pixels.eq(self.pixels),
            frame_done.eq(self.frame_done),
            errors.eq(self.errors),
            busy.eq(self.busy),
            lost.eq(self.overrun),
        ]
        frame_count = Signal(32)
        pixel_count = Signal(64)
        cycle_count = Signal(64)
        result_count = Signal(32)
        sticky = Signal(ERROR_RESULTS_OVERRUN + 1)
        ready = Signal()
        acknowledge = Signal()
        clear = Signal.like(sticky)
        overrun = Signal()
        m.d.comb += overrun.eq(collect.collected & ready & ~acknowledge)
        m.d.sync += [
            frame_count.eq(frame_count + frame_done),
            pixel_count.eq(pixel_count + pixels),
            cycle_count.eq(cycle_count + 1),
            result_count.eq(result_count + collect.collected),
            ready.eq((ready & ~acknowledge) | collect.collected),
            sticky.eq((sticky & ~clear) | Cat(errors, commit.refused, overrun | lost)),
        ]

        # The read multiplexer of the control registers works in every clock; only its register is used.
        pixel_high = Signal(32)
        cycle_high = Signal(32)
        values = {
            "STATUS": Cat(commit.pending, busy, ready),
            "ERRORS": sticky,
            "FRAMES": frame_count,
            "PIXELS_LO": pixel_count[:32],
            "PIXELS_HI": pixel_high,
            "CYCLES_LO": cycle_count[:32],
            "CYCLES_HI": cycle_high,
            "RESULTS": result_count,
            "CONTROL": 0,
            "ACK": 0,
        }
        address = {register.name: register.address // 4 for register in CONTROL_REGISTERS}
        control_value = Signal(32)
        selected = Signal(4)  # beside the multiplexer: the bus may be far away
        m.d.sync += selected.eq(request.address)
        with m.Switch(selected):
            for register in CONTROL_REGISTERS:
                with m.Case(address[register.name]):
                    value = values.get(register.name)
                    m.d.sync += control_value.eq(self.map.constant(register.name) if value is None else value)

        # Decode, registered.
        parameter_base, result_base = PARAMETER_BASE // 4, RESULT_BASE // 4
        parameter_end = parameter_base + self.map.parameter_words
        result_end = result_base + 2 * self.map.result_words
        in_control = Signal()
        in_parameters = Signal()
        in_results = Signal()
        reserved = Signal()
        m.d.sync += [
            in_control.eq(request.address < len(CONTROL_REGISTERS)),
            in_parameters.eq((request.address >= parameter_base) & (request.address < parameter_end)),
            in_results.eq((request.address >= result_base) & (request.address < result_end)),
            reserved.eq(
                (request.address >= parameter_base + len(self._frame_ports))
                & (request.address < parameter_base + FRAME_WORDS)
            ),
            commit.address.eq(request.address - parameter_base),
        ]
        # The result base is a multiple of the memory's size, so that the address needs no subtraction.
        m.d.comb += [
            collect.address.eq(request.address[1:]),
            commit.write_data.eq(request.wdata),
        ]

        register_is = {name: request.address[:4] == index for name, index in address.items()}
        result_high = Signal(32)
        done = Signal()
        error = Signal()
        rdata = Signal(32)
        m.d.comb += [request.done.eq(done), request.error.eq(error), request.rdata.eq(rdata)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [done.eq(0), error.eq(0)]
                with m.If(request.valid):
                    m.next = "SELECT"
            with m.State("SELECT"):
                # The same clock in which control_value takes the low half.
                with m.If(in_control & ~request.write & (selected == address["PIXELS_LO"])):
                    m.d.sync += pixel_high.eq(pixel_count[32:])
                with m.If(in_control & ~request.write & (selected == address["CYCLES_LO"])):
                    m.d.sync += cycle_high.eq(cycle_count[32:])
                m.next = "ACT"
            with m.State("ACT"):
                m.d.sync += rdata.eq(control_value)
                with m.If(in_control):
                    m.d.sync += done.eq(1)
                    m.next = "DONE"
                    with m.If(request.write):
                        writable = [r.name for r in CONTROL_REGISTERS if r.access != "r"]
                        m.d.sync += error.eq(~Cat(register_is[name] for name in writable).any())
                        m.d.comb += [
                            commit.request.eq(register_is["CONTROL"] & request.wdata[0]),
                            acknowledge.eq(register_is["ACK"]),
                            clear.eq(Mux(register_is["ERRORS"], request.wdata, 0)),
                        ]
                with m.Elif(in_parameters), m.If(commit.free):
                    with m.If(request.write):
                        m.d.comb += commit.write.eq(~reserved & ~commit.frozen)
                        m.d.sync += [done.eq(1), error.eq(commit.frozen)]
                        m.next = "DONE"
                    with m.Else():
                        m.next = "READ"
                with m.Elif(in_results & ~request.write):
                    m.next = "READ"
                with m.Else():
                    m.d.sync += [done.eq(1), error.eq(1), rdata.eq(0)]
                    m.next = "DONE"
            with m.State("READ"):
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.sync += done.eq(1)
                with m.If(in_parameters):
                    m.d.sync += rdata.eq(Mux(reserved, 0, commit.read_data))
                with m.Elif(request.address[0]):
                    m.d.sync += rdata.eq(result_high)
                with m.Else():
                    m.d.sync += [rdata.eq(collect.data[:32]), result_high.eq(collect.data[32:])]
                m.next = "DONE"
            with m.State("DONE"):
                m.d.sync += [done.eq(0), error.eq(0)]
                m.next = "IDLE"
        return m


class _Commit(wiring.Component):
    """Shadow memory, its defaults, and the engine which checks and loads (see :class:`Control`).

    While ``free`` is 1 the host owns the memory: ``read_data`` is the word at ``address`` two clocks before,
    ``write`` writes it. ``frozen`` means that the content waits to be loaded and must not change.
    ``request`` and ``refused`` are pulses.
    """

    def __init__(self, map: RegisterMap, *, settle: int) -> None:
        self._map = map
        self._settle = settle
        super().__init__(
            {
                "address": In(range(map.parameter_words)),
                "read_data": Out(32),
                "write": In(1),
                "write_data": In(32),
                "free": Out(1),
                "frozen": Out(1),
                "request": In(1),
                "pending": Out(1),
                "refused": Out(1),
                "hold": Out(1),
                "drained": In(1),
                "load": Out(LOAD),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        words = self._map.parameter_words
        frame_words = [word for word in self._map.words if word.kind == "frame"]
        # Reset must bring the defaults back although the host wrote the memory: they have their own.
        m.submodules.shadow = shadow = Memory(shape=unsigned(32), depth=words, init=[])
        m.submodules.defaults = defaults = Memory(
            shape=unsigned(32), depth=words, init=[code & 0xFFFFFFFF for code in self._map.defaults]
        )
        shadow_read, shadow_write = shadow.read_port(), shadow.write_port()
        defaults_read = defaults.read_port()

        # A sweep reads words 0 to `last`, one per clock; they come out `_RAM_LATENCY` clocks later.
        sweeping = Signal(init=1)
        position = Signal(range(words))
        last = Signal(range(words), init=words - 1)
        at = [position, *(Signal.like(position, name=f"position_{k + 1}") for k in range(_RAM_LATENCY))]
        valid = [sweeping, *(Signal(name=f"swept_{k + 1}") for k in range(_RAM_LATENCY))]
        for k in range(_RAM_LATENCY):
            m.d.sync += [at[k + 1].eq(at[k]), valid[k + 1].eq(valid[k])]
        with m.If(sweeping):
            m.d.sync += position.eq(position + 1)
            with m.If(position == last):
                m.d.sync += [sweeping.eq(0), position.eq(0)]

        word = Signal(32, reset_less=True)
        default = Signal(32, reset_less=True)
        restoring = Signal(init=1)
        host = Signal()
        m.d.comb += [
            shadow_read.en.eq(1),
            defaults_read.en.eq(1),
            shadow_read.addr.eq(Mux(host, self.address, position)),
            defaults_read.addr.eq(position),
            shadow_write.addr.eq(Mux(restoring, at[-1], self.address)),
            shadow_write.data.eq(Mux(restoring, default, self.write_data)),
            shadow_write.en.eq(Mux(restoring, valid[-1], self.write)),
            self.read_data.eq(word),
            self.free.eq(host),
        ]
        m.d.sync += [word.eq(shadow_read.data), default.eq(defaults_read.data)]

        # Limits of the word that is in `word`, one comparison a clock, of 16 bits: no limit is larger.
        assert all(limited.lo >= 0 and limited.hi < 1 << 16 for limited in frame_words)
        lo = Signal(16)
        hi = Signal(16)
        with m.Switch(at[-2]):
            for limited in frame_words:
                with m.Case(limited.index):
                    m.d.sync += [lo.eq(limited.lo), hi.eq(limited.hi)]
            with m.Default():
                m.d.sync += [lo.eq(0), hi.eq(0xFFFF)]
        checking = Signal()
        below = Signal()
        above = Signal()
        bad = Signal()
        m.d.sync += [
            below.eq(checking & valid[-1] & (word[:16] < lo)),
            above.eq(checking & valid[-1] & ((word[:16] > hi) | word[16:].any())),
            bad.eq(checking & (bad | below | above)),
        ]

        loading = Signal()
        m.d.sync += [
            self.load.valid.eq(loading & valid[-1]),
            self.load.address.eq(at[-1]),
            self.load.data.eq(word),
        ]

        requested = Signal()
        with m.If(self.request):
            m.d.sync += requested.eq(1)
        # Long enough for the last word to pass the memory, both comparison registers and the load bus.
        flush = _RAM_LATENCY + 3
        timer = Signal(range(max(self._settle, flush) + 1), init=flush)
        with m.If(~sweeping & (timer != 0)):
            m.d.sync += timer.eq(timer - 1)
        elapsed = Signal()
        m.d.comb += elapsed.eq(~sweeping & (timer == 0))

        active = Signal(init=1)
        hold = Signal(init=1)
        m.d.comb += self.hold.eq(hold)
        waiting = Signal()
        m.d.comb += [self.pending.eq(active | requested), self.frozen.eq(requested | waiting)]
        load_all = [
            sweeping.eq(1),
            last.eq(words - 1),
            timer.eq(flush),
            restoring.eq(0),
            waiting.eq(0),
            loading.eq(1),
            host.eq(0),
        ]
        with m.FSM():
            with m.State("RESTORE"), m.If(elapsed):
                m.d.sync += load_all
                m.next = "LOAD"
            with m.State("LOAD"), m.If(elapsed):
                m.d.sync += [loading.eq(0), host.eq(1), timer.eq(self._settle)]
                m.next = "SETTLE"
            with m.State("SETTLE"), m.If(elapsed):
                m.d.sync += [hold.eq(0), active.eq(0)]
                m.next = "IDLE"
            with m.State("IDLE"), m.If(requested):
                m.d.sync += [
                    requested.eq(self.request),
                    active.eq(1),
                    checking.eq(1),
                    sweeping.eq(1),
                    last.eq(len(frame_words) - 1),
                    timer.eq(flush),
                    host.eq(0),
                ]
                m.next = "CHECK"
            with m.State("CHECK"), m.If(elapsed):
                m.d.sync += [checking.eq(0), host.eq(1)]
                with m.If(bad):
                    m.d.comb += self.refused.eq(1)
                    m.d.sync += active.eq(0)
                    m.next = "IDLE"
                with m.Else():
                    m.d.sync += [hold.eq(1), waiting.eq(1), timer.eq(self._settle)]
                    m.next = "DRAIN"
            with m.State("DRAIN"), m.If(elapsed & self.drained):
                m.d.sync += load_all
                m.next = "LOAD"
        return m


class _Collect(wiring.Component):
    """Result memory of two banks and the collector which fills the hidden one (see :class:`Control`).

    ``data`` is the word at ``address`` of the visible bank two clocks before.
    """

    def __init__(self, map: RegisterMap, *, counts: Sequence[int]) -> None:
        self._words = map.result_words
        self._counts = counts
        super().__init__(
            {
                "results": In(stream.Signature(signed(64))).array(len(counts)),
                "collected": Out(1),
                "address": In(range(max(2, self._words))),
                "data": Out(64),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.banks = banks = Memory(shape=unsigned(64), depth=2 << len(self.address), init=[])
        read, write = banks.read_port(), banks.write_port()
        visible = Signal()
        m.d.comb += [read.addr.eq(Cat(self.address, visible)), read.en.eq(1)]
        m.d.sync += self.data.eq(read.data)

        # RESULT_CLOCKS a word, because its port may be far away: it is gathered among its neighbours, then among all,
        # it is written and acknowledged, and what follows it is gathered.
        seen = Signal()
        acknowledge = Signal()
        follows = Signal()
        ready = Signal(len(self._counts))
        # One-hot: whose turn it is. Between groups nobody's.
        turn = Signal(len(self._counts), init=1)
        position = Signal.like(self.address, name="position")
        last_of_port = Signal()
        ends = [end - 1 for end in accumulate(self._counts)]
        offered, payloads = [], []
        ports = list(zip(turn, self.results, strict=True))
        for first in range(0, len(ports), NEIGHBOURS):
            some = ports[first : first + NEIGHBOURS]
            offered.append(Signal(name=f"offered_{first}"))
            payloads.append(Signal(64, name=f"payload_{first}", reset_less=True))
            m.d.sync += [
                offered[-1].eq(reduce(or_, (its & port.valid for its, port in some))),
                payloads[-1].eq(reduce(or_, (Mux(its, port.payload, 0) for its, port in some))),
            ]
        payload = Signal(64, reset_less=True)
        m.d.sync += [
            seen.eq(reduce(or_, offered) & ~(seen | acknowledge | follows)),
            payload.eq(reduce(or_, payloads)),
            acknowledge.eq(seen),
            follows.eq(acknowledge),
            ready.eq(turn & seen.replicate(len(turn))),
        ]
        m.d.comb += [port.ready.eq(ready[k]) for k, port in enumerate(self.results)]
        m.d.sync += last_of_port.eq(reduce(or_, (position == end for end in ends)))
        m.d.comb += [write.en.eq(seen), write.data.eq(payload), write.addr.eq(Cat(position, ~visible))]
        with m.If(acknowledge):
            m.d.sync += position.eq(position + 1)
            with m.If(last_of_port):
                m.d.sync += turn.eq(turn << 1)

        complete = Signal()  # it is nobody's turn, said by a register: the turns lie near their ports
        m.d.sync += [complete.eq(acknowledge & last_of_port & turn[-1]), self.collected.eq(0)]
        # In the first clock without a turn the last word is being written; the swap comes after it.
        with m.If(complete):
            m.d.sync += [visible.eq(~visible), self.collected.eq(1), turn[0].eq(1), position.eq(0)]
        return m
