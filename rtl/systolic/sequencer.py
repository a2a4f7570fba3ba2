"""Which operands enter the array in which clock: descriptors to addresses and slots."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..stream.delay import delayed
from ..stream.enable import enables
from .build import UnitBuild
from .descriptor import INNER, ROWS, Kind, Memory, layout
from .skew import SLOT
from .walk import Affine, Loops

__all__ = ["Sequencer"]

_LEVELS = ROWS + INNER + 1
_SEGMENT, _OUTER = ROWS, ROWS + INNER


def _product(kind: Value) -> Value:
    return (kind == Kind.Y) | (kind == Kind.DX) | (kind == Kind.DW)


def _pools(kind: Value) -> Value:
    return (kind == Kind.MAX) | (kind == Kind.ARGMAX) | (kind == Kind.ROUTE)


class _Walk(wiring.Component):
    """One descriptor after another: taken when it is offered and the one before has ended; begun a clock later.

    Members
    -------
    descriptor, offered : In
    release : In(1)
        The descriptor that was taken is gone.
    took : Out(1)
        It is taken, and not gone.
    go : In(1)
        A row in this clock. ``at`` is its address `Affine.latency` clocks later.
    done : In(1)
        The descriptor ends with this clock.
    ready, moves : Out(1)
        Rows may come; those of a product.
    turn : Out(1)
        Changes with every descriptor.
    kind, fence, source, tile : Out
        Of the descriptor.
    dx, dw : Out(1)
        It is of this kind.
    tile_begins, tile_ends, all_ends : Out(1)
        The present row is the first or last one of its tile, the last of the descriptor.
    on : Out(build.lanes)
        Operands of the present row that count.
    tap : Out(build.array.operand)
        Comes with ``at``; 0 of the walk that leads.
    """

    def __init__(self, build: UnitBuild, *, leads: bool) -> None:
        self._build, self._leads = build, leads
        super().__init__(
            {
                "descriptor": In(layout(build)),
                "offered": In(1),
                "release": In(1),
                "took": Out(1),
                "go": In(1),
                "done": In(1),
                "empty": Out(1, init=1),  # pyright: ignore[reportCallIssue]
                "ready": Out(1),
                "moves": Out(1),
                "turn": Out(1),
                "kind": Out(Kind),
                "dx": Out(1),
                "dw": Out(1),
                "fence": Out(1),
                "source": Out(Memory),
                "tile": Out(build.count),
                "tile_begins": Out(1),
                "tile_ends": Out(1),
                "all_ends": Out(1),
                "on": Out(build.lanes),
                "at": Out(range(build.elements)),
                "tap": Out(build.array.operand),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        build, array = self._build, self._build.array
        part = self.descriptor.v if self._leads else self.descriptor.h
        nest = Signal(part.shape(), name="nest", reset_less=True)
        takes, empties = Signal(), Signal()
        m.d.comb += [
            takes.eq(self.empty & self.offered & ~self.took),
            empties.eq(self.done | (self.empty & ~takes)),
        ]
        m.d.sync += self.empty.eq(empties)
        # One alone would have to reach the registers of all fields.
        follows_nest, follows_tap = enables(m, "empty", empties, 2)
        with m.If(self.release):
            m.d.sync += self.took.eq(0)
        with m.Elif(takes):
            m.d.sync += self.took.eq(1)
        # What so many registers take hangs on one of them: until a descriptor is taken they follow whatever is there.
        with m.If(follows_nest):
            m.d.sync += nest.eq(part)
        with m.If(self.empty):
            m.d.sync += [
                self.kind.eq(self.descriptor.kind),
                self.dx.eq(self.descriptor.kind == Kind.DX),
                self.dw.eq(self.descriptor.kind == Kind.DW),
                self.fence.eq(self.descriptor.fence),
            ]
        with m.If(takes):
            m.d.sync += self.turn.eq(~self.turn)
        m.submodules.loops = loops = Loops(_LEVELS, build.count, family=build.ram)
        m.d.comb += [
            loops.rest.as_value().eq(Cat(part.rest.as_value(), self.descriptor.inner.as_value())),
            loops.idles.eq(empties),
            loops.start.eq(takes),
            loops.step.eq(self.go),
            self.tile_begins.eq(loops.first[:ROWS].all()),
            self.tile_ends.eq(loops.ends[ROWS - 1]),
            self.all_ends.eq(loops.ends[-1]),
        ]
        with m.If(loops.begin):
            m.d.sync += [self.ready.eq(1), self.moves.eq(_product(self.kind))]
        with m.If(self.done):
            m.d.sync += [self.ready.eq(0), self.moves.eq(0)]

        def address(name: str, of: Any, o: Value) -> None:
            m.submodules[name] = affine = Affine(_LEVELS, len(o), family=build.ram)
            m.d.comb += [
                affine.start.eq(of.start),
                affine.delta.eq(of.delta),
                affine.begin.eq(loops.begin),
                affine.step.eq(self.go),
                affine.level.eq(loops.level),
                o.eq(affine.o),
            ]

        address("address", nest, self.at)
        tail = Signal(build.lanes, reset_less=True)
        m.d.sync += tail.eq(Cat(k < nest.tail for k in range(build.lanes)))
        if self._leads:
            whole = Mux(self.dx, (1 << array.rows) - 1, (1 << array.columns) - 1)
            m.d.comb += [self.on.eq(Mux(loops.last[_OUTER], tail, whole)), self.tile.eq(nest.tile)]
        else:
            whole = Mux(_product(self.kind), (1 << array.rows) - 1, (1 << build.lanes) - 1)
            m.d.comb += [self.on.eq(Mux(loops.last[_SEGMENT], tail, whole)), self.source.eq(nest.source)]
            tap: Any = Signal(self.descriptor.tap.shape(), name="tap_nest", reset_less=True)
            with m.If(follows_tap):
                m.d.sync += tap.eq(self.descriptor.tap)
            address("tap_walk", tap, self.tap)
        return m


class Sequencer(wiring.Component):
    """Tiles of one descriptor after another, as closely as :class:`~pullback.rtl.systolic.array.SystolicArray` allows.

    Two walks, each an address a clock: **v** reads what is stationary (rows of W, the last one first) or dY of dW,
    **h** the rows that move. v leads: it begins a tile when h will have ended the one before, and h follows
    ``build.lead`` clocks later. So the operands of the next tile are read while the present one is computed, and
    between tiles of a descriptor no clock is lost but the one in which the sums of dW leave.

    Between two descriptors two clocks of h are lost; after dW four and those the mesh needs, R and before dX R - 2
    more. A descriptor with a ``fence`` waits until all rows have ``landed``. EMIT, FILL, MAX, ARGMAX, ROUTE wait until
    it is ``quiet``: their rows do not pass through the array and would overtake others. So does ADD, which reads what
    they may still write and waits until all has ``landed``.

    What leaves in one clock belongs together: addresses, operands that count, the slot.

    Parameters
    ----------
    build : UnitBuild

    Members
    -------
    descriptor : In(layout(build))
    offered : In(1)
        There is a descriptor.
    taken : Out(1)
        Both walks have taken it.
    release : In(1)
        All that needed it have taken it: it is gone a clock later.
    quiet, landed : In(1)
        No row is in the array or behind it; no row at all is on its way to a memory.
    stores, emits, fills : In(1)
        A row of such a job may go in the next clock.
    kind, v_kind : Out(Kind)
        Of h and of v.
    h_at, v_at : Out(range(build.elements))
    h_on, v_on : Out(build.lanes)
    slot : Out(SLOT)
    row : Out(1)
        h is a row that gives a row of results.
    drain : Out(1)
        R rows of results come of this slot.
    other, ends : Out(1)
        A row of a job that is no product; it is the last one of its job.
    window, gives : Out(1)
        A row of MAX, ARGMAX or ROUTE begins a window; it ends one, and there is a row of results.
    tap : Out(build.array.operand)
        Of such a row.
    h_from : Out(Memory)
        What h reads; not the weights but for rows that are stored.
    from_cotangents, from_weights : Out(1)
        It is that one.
    active : Out(1)
        A descriptor has not ended.
    moves : Out(1)
        h is a row of a product, and no padding.
    weights, blocked : Out(1)
        h waits for what is stationary; for the outside.
    """

    def __init__(self, build: UnitBuild) -> None:
        self._build = build
        at = range(build.elements)
        super().__init__(
            {
                "descriptor": In(layout(build)),
                "offered": In(1),
                "taken": Out(1),
                "release": In(1),
                "quiet": In(1),
                "landed": In(1),
                "stores": In(1),
                "emits": In(1),
                "fills": In(1),
                "kind": Out(Kind),
                "v_kind": Out(Kind),
                "h_at": Out(at),
                "v_at": Out(at),
                "h_on": Out(build.lanes),
                "v_on": Out(build.lanes),
                "slot": Out(SLOT),
                "row": Out(1),
                "drain": Out(1),
                "other": Out(1),
                "ends": Out(1),
                "window": Out(1),
                "gives": Out(1),
                "tap": Out(self._build.array.operand),
                "h_from": Out(Memory),
                "from_cotangents": Out(1),
                "from_weights": Out(1),
                "active": Out(1),
                "moves": Out(1),
                "weights": Out(1),
                "blocked": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.v = v = _Walk(self._build, leads=True)
        m.submodules.h = h = _Walk(self._build, leads=False)
        for walk in (v, h):
            m.d.comb += [
                walk.descriptor.eq(self.descriptor),
                walk.offered.eq(self.offered),
                walk.release.eq(self.release),
            ]
        m.d.comb += [self.taken.eq(v.took & h.took), self.active.eq(~v.empty | ~h.empty)]
        dx, dw = v.dx, v.dw

        # The tile of h: its rows come without a gap, and those after the nest's last one are empty.
        begins = Signal()  # its first row comes in the next clock
        # Rows left after the present one, less one: below zero with the last. It flows until the nest's last row.
        running, left, flows = Signal(), Signal(signed(self._build.count + 1)), Signal()
        ends = Signal()
        m.d.comb += ends.eq(running & left[-1])
        with m.If(begins):
            m.d.sync += [running.eq(1), flows.eq(1), left.eq(v.tile - 1)]
        with m.Else():
            m.d.sync += [running.eq(running & ~ends), flows.eq(flows & ~ends & ~h.tile_ends)]
            with m.If(running):
                m.d.sync += left.eq(left - 1)
        over = Signal()
        with m.If(h.done):
            m.d.sync += over.eq(0)
        with m.Elif(h.go & h.all_ends):
            m.d.sync += over.eq(1)
        # Rows of other jobs: `clear` once the job may begin, which nothing but its own rows can change, and `opens`
        # where the outside lets a row come. Both are looked at a clock before.
        clear, opens, other = Signal(), Signal(), Signal()
        m.d.comb += other.eq(clear & opens)
        ordered, settled = Signal(), Signal()
        m.d.comb += ordered.eq(~h.fence | self.landed)
        m.d.sync += opens.eq(1)
        with m.Switch(h.kind):
            with m.Case(Kind.STORE):
                m.d.comb += settled.eq(ordered)
                m.d.sync += opens.eq(self.stores)
            with m.Case(Kind.EMIT):
                m.d.comb += settled.eq(self.quiet)
                m.d.sync += opens.eq(self.emits)
            with m.Case(Kind.FILL):
                m.d.comb += settled.eq(self.quiet)
                m.d.sync += opens.eq(self.fills)
            with m.Case(Kind.MAX, Kind.ARGMAX, Kind.ROUTE):
                m.d.comb += settled.eq(self.quiet & ordered)
            with m.Case(Kind.ADD):
                m.d.comb += settled.eq(self.landed)
                # A row is read in one clock, and one written in the next.
                m.d.sync += opens.eq(~other)
        with m.If(h.done):
            m.d.sync += clear.eq(0)
        with m.Elif(h.ready & settled):
            m.d.sync += clear.eq(1)
        single = h.kind == Kind.ROUTE  # each row is a window by itself
        m.d.comb += [
            h.go.eq(flows | other),
            # Not the last row that waits behind rows of padding.
            h.done.eq((ends & over) | (((ends & flows) | other) & h.all_ends)),
        ]

        # v may begin when what h has left takes no longer than v leads by, so that h goes on without a gap.
        leads = Signal(range(max(self._build.lead.values()) + 1))
        m.d.sync += leads.eq(Mux(dx, self._build.lead["dx"], self._build.lead["y"]))
        within, fresh, after_stationary = Signal(), Signal(init=1), Signal()
        starts, begun = Signal(), Signal()
        m.d.comb += begun.eq(within & v.tile_ends)

        def left_below(name: str, rows: Value) -> Value:
            """``~running | (left < rows)``, compared a clock before, and what concerns a new tile long before."""
            tile, near = Signal(name=f"tile_{name}"), Signal(name=name)
            m.d.sync += [tile.eq(v.tile <= rows), near.eq(Mux(begun, tile, left <= rows))]
            return ~running | near

        again, anew = left_below("again", leads), left_below("anew", leads - 2)
        short = Signal()
        m.d.sync += short.eq(v.tile < leads)
        # While the last sums of dW leave, v of the mesh cannot come from the west.
        array = self._build.array
        wait = max(array.rows - 2, array.rows - array.columns, 0)
        drains, settling = Signal(), Signal(range(wait + 1))
        m.d.sync += drains.eq(ends & h.dw)
        with m.If(drains):
            m.d.sync += settling.eq(max(wait - 1, 0))
        with m.Elif(settling != 0):
            m.d.sync += settling.eq(settling - 1)
        settles = (drains | (settling != 0)) if wait else Const(0)
        # Looked at a clock before a tile starts: whoever waits for h to be alone loses it, and between others none is
        # lost.
        alone, chains, may = Signal(), Signal(), Signal()
        m.d.comb += [
            alone.eq((v.turn == h.turn) & h.ready & ~running & (~v.fence | self.landed) & ~(dx & settles)),
            chains.eq(after_stationary & ~dw & ~v.fence),
        ]
        with m.If(fresh):
            m.d.sync += may.eq(Mux(chains, anew, alone))
        with m.Elif(dw):
            m.d.sync += may.eq(~running | ends)
        with m.Else():
            m.d.sync += may.eq(Mux(begun, short, again))
        with m.If(starts):
            m.d.sync += may.eq(0)
        skips = Signal()
        m.d.comb += [
            skips.eq(v.ready & ~v.moves),
            starts.eq(v.moves & ~within & may),
            v.go.eq(starts | within),
            v.done.eq((v.go & v.all_ends) | skips),
            begins.eq(Mux(dw, starts, v.go & v.tile_ends)),
        ]
        with m.If(v.go):
            m.d.sync += within.eq(~v.tile_ends)
        with m.If(v.done):
            m.d.sync += [fresh.eq(1), after_stationary.eq(~dw & ~skips)]
        with m.Elif(starts):
            m.d.sync += fresh.eq(0)

        # Later, beside the addresses.
        first_row = Signal()
        m.d.sync += first_row.eq(begins)
        slot = {
            "load": running & (first_row | h.dw),
            "keep": running & h.dw,
            "drain": drains | (starts & dw),
            "west": v.go & dx,
        }
        h_from = Mux(h.moves, Mux(h.dx, Memory.COTANGENTS, Memory.ACTIVATIONS), Mux(other, h.source, 0))
        beside: dict[str, ValueLike] = {
            "kind": h.kind,
            "v_kind": v.kind,
            "v_on": v.on,
            "slot": Cat(slot[name] for name, _ in SLOT),
            "row": running & ~h.dw,
            "drain": drains,
            "other": other,
            "ends": h.all_ends,
            "window": h.tile_begins | single,
            "gives": other & _pools(h.kind) & (h.tile_ends | single),
            "moves": flows,
            "weights": ~running & v.go & ~dw,
            "blocked": h.ready & ~h.moves & ~other,
            "h_from": h_from,
        }
        for name, value in beside.items():
            later = delayed(m, name, Value.cast(value), Affine.latency, reset=True)
            m.d.comb += Value.cast(getattr(self, name)).eq(later)
        reads = delayed(m, "h_reads", Value.cast(h_from), Affine.latency - 1)
        m.d.sync += [
            self.from_cotangents.eq(reads == Memory.COTANGENTS),
            self.from_weights.eq(reads == Memory.WEIGHTS),
        ]
        h_on = delayed(m, "h_on", h.on, Affine.latency - 1)
        m.d.sync += self.h_on.eq(Mux(delayed(m, "h_goes", h.go, Affine.latency - 1, reset=True), h_on, 0))
        m.d.comb += [self.h_at.eq(h.at), self.v_at.eq(v.at), self.tap.eq(h.tap)]
        return m
