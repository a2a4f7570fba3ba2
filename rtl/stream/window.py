"""Line buffers and borders: from a flow of ticks to the taps around every site.

Borders are *selections*: the tap (dy, dx) of the site (y, x) reads the pixel ``(b_H(y + dy), b_W(x + dx))``
with ``b_n`` the border's index map (`border_index`). A selection's adjoint is an addition, which is how
`Scatter` transposes this module exactly.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.stream.enable import enables
from pullback.rtl.stream.feeder import tick_layout
from pullback.rtl.stream.pixel import Flow, Pixel, check_lanes, site_layout
from pullback.rtl.stream.ram import BlockRam

__all__ = ["BORDERS", "Edges", "Window", "border_index", "edges_layout", "selections"]

BORDERS = ("mirror", "replicate", "zero")


def border_index(border: str, n: int, i: int) -> int | None:
    """The index in ``0 .. n-1`` that a border reads in place of ``i``; None for the value zero.

    ``mirror`` reflects without repeating the edge (period ``2(n-1)``; n = 1 always reads 0), ``replicate``
    repeats the edge, ``zero`` reads nothing outside.

    Raises
    ------
    ValueError
        If there is no border of that name.
    """
    if border == "mirror":
        if n == 1:
            return 0
        i %= 2 * (n - 1)
        return min(i, 2 * (n - 1) - i)
    if border == "replicate":
        return min(max(i, 0), n - 1)
    if border == "zero":
        return i if 0 <= i < n else None
    raise ValueError(f"border={border!r}; choose one of {', '.join(BORDERS)}")


def selections(border: str, radius: int, lanes: int) -> dict[tuple[int, int], tuple[int | None, ...]]:
    """How ``2r + P`` neighbours are read near an edge, for every situation that a site can be in.

    The key is ``(before, after)``: ``before = min(x, r)`` pixels lie before lane 0 and ``after = min(n - 1 -
    x, r + P - 1)`` behind it. Entry k of the value is the neighbour read in place of neighbour k (which lies
    at ``x + k - r``); None reads zero, or is a neighbour that no lane inside the picture looks at. It depends
    on nothing but the key, because ``b_n`` never stretches a distance.
    """
    table: dict[tuple[int, int], tuple[int | None, ...]] = {}
    for n in range(1, 3 * (radius + lanes) + 2):
        for x in range(0, n, lanes):
            row = []
            for k in range(2 * radius + lanes):
                seen = any(x + p < n and 0 <= k - p <= 2 * radius for p in range(lanes))
                index = border_index(border, n, x + k - radius) if seen else None
                row.append(None if index is None else index - x + radius)
            key = (min(x, radius), min(n - 1 - x, radius + lanes - 1))
            assert table.setdefault(key, tuple(row)) == tuple(row)
    return table


def edges_layout(radius: int, lanes: int) -> data.StructLayout:
    """How near a beat is to the four edges, each saturated where it stops to matter.

    ``left = min(x, r)``, ``right = min(W-1-x, r+P-1)`` with x of lane 0; ``top = min(y, r)``,
    ``bottom = min(H-1-y, r)``.
    """
    return data.StructLayout(
        {
            "left": range(radius + 1),
            "right": range(radius + lanes),
            "top": range(radius + 1),
            "bottom": range(radius + 1),
        }
    )


class Edges(wiring.Component):
    """Distances of a beat to the picture's edges, see `edges_layout`. Latency one cycle, one beat per clock.

    Parameters
    ----------
    radius, lanes : int
        As in `Window`.

    Members
    -------
    x, y : In(16)
        Site of lane 0.
    width, height : In(16)
        Size of the picture; static.
    o : Out(edges_layout(radius, lanes))
    """

    def __init__(self, *, radius: int, lanes: int = 1) -> None:
        check_lanes(lanes)
        self._radius = radius
        self._lanes = lanes
        super().__init__(
            {
                "x": In(16),
                "y": In(16),
                "width": In(16),
                "height": In(16),
                "o": Out(edges_layout(radius, lanes)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a site to its edges."""
        return 1

    def elaborate(self, platform) -> Module:
        m = Module()

        def first_match(name: str, value: Value, bounds: list) -> Value:
            """The index of the first bound that equals value, else their number; bounds are registered."""
            result = Value.cast(len(bounds))
            for k, bound in reversed(list(enumerate(bounds))):
                static = Signal(16, name=f"{name}_{k}", reset_less=True)
                m.d.sync += static.eq(bound)
                result = Mux(value == static, k, result)
            return result

        r, after = self._radius, self._radius + self._lanes - 1
        m.d.sync += [
            self.o.left.eq(first_match("left", self.x, list(range(r)))),
            self.o.top.eq(first_match("top", self.y, list(range(r)))),
            self.o.right.eq(first_match("right", self.x, [self.width - 1 - k for k in range(after)])),
            self.o.bottom.eq(first_match("bottom", self.y, [self.height - 1 - k for k in range(r)])),
        ]
        return m


class Window(wiring.Component):
    """Taps around each site: ``taps[r+dy][r+p+dx] = i[b_H(y+dy)][b_W(x+p+dx)]`` for lane p, |dy|, |dx| <= r.

    The 2r earlier lines lie side by side in one word of a synchronous-read memory at the column's address and
    move down one place each time the column comes by. Vertical borders are selections among the rows of a
    column where it enters the shift registers, horizontal ones among the taps at the output; every select
    signal is a register. The shift registers advance on their own local valid; nothing ever stalls.

    Latency: `latency` cycles from a tick to its centre, whose beat came `Feeder.lag` ticks before. One tick
    per clock as long as ticks of one column are at least three cycles apart (`Feeder` sees to it).

    Parameters
    ----------
    pixel : Pixel
        Pixel of the lead stream.
    lanes : int
        Pixels per beat P.
    radius : int
        r, at least 1.
    border : str
        ``"mirror"``, ``"replicate"`` or ``"zero"``, see `border_index`.
    max_width : int
        Widest picture in pixels; sizes the line memory.
    trailing : Pixel or None
        Pixel that travels with the centre, if the `Feeder` has a trailing stream.
    family : str
        Whose block RAM.

    Members
    -------
    i : In(Flow(tick_layout(pixel, lanes, trailing)))
    width, height : In(16)
        Size of the picture, at least 1; static while ticks are on their way. ``width <= max_width``.
    o : Out(Flow(StructLayout))
        One for every real centre: ``taps`` (``[2r+1][2r+P]`` pixels; all zero bits where a zero border is
        read), ``trailing`` (lanes, if given), ``site`` and ``edges`` of the centre. A tap that only lanes
        outside the picture would look at is garbage.
    tick : Out(Flow(StructLayout({"out": 1})))
        Every tick, aligned with ``o``: what `Scatter` steps by.

    Raises
    ------
    ValueError
        If the radius or the width is below 1, the border is unknown or the lanes are not a power of two.
    """

    def __init__(
        self,
        pixel: Pixel,
        *,
        lanes: int = 1,
        radius: int,
        border: str = "mirror",
        max_width: int,
        trailing: Pixel | None = None,
        family: str = "generic",
    ) -> None:
        check_lanes(lanes)
        if radius < 1:
            raise ValueError(f"radius={radius}; a window needs at least 1, a pointwise unit needs no window")
        if max_width < 1:
            raise ValueError(f"max_width={max_width}; give the widest picture in pixels, at least 1")
        self._pixel = pixel
        self._lanes = lanes
        self._radius = radius
        self._max_width = max_width
        self._family = family
        self._trailing = trailing
        self._zero = border == "zero"
        self._rows = selections(border, radius, 1)
        self._columns = selections(border, radius, lanes)
        fields: dict = {
            "taps": data.ArrayLayout(data.ArrayLayout(pixel.layout(), 2 * radius + lanes), 2 * radius + 1)
        }
        if trailing is not None:
            fields["trailing"] = data.ArrayLayout(trailing.layout(), lanes)
        fields |= {"site": site_layout(lanes), "edges": edges_layout(radius, lanes)}
        super().__init__(
            {
                "i": In(Flow(tick_layout(pixel, lanes, trailing))),
                "width": In(16),
                "height": In(16),
                "o": Out(Flow(data.StructLayout(fields))),
                "tick": Out(Flow(data.StructLayout({"out": 1}))),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a tick on ``i`` to the centre of that tick on ``o``."""
        return 4

    @property
    def memory_bits(self) -> int:
        """Bits of the line memory: 2r lines of the widest picture."""
        return self._depth * 2 * self._radius * self._lanes * self._pixel.width

    @property
    def _depth(self) -> int:
        return -(-self._max_width // self._lanes)

    def elaborate(self, platform) -> Module:
        m = Module()
        r, lanes = self._radius, self._lanes
        lane_bits = lanes.bit_length() - 1
        reach = -(-r // lanes)  # beats between the newest column and the centre
        column = data.ArrayLayout(self._pixel.layout(), lanes)
        lines = data.ArrayLayout(column, 2 * r)

        # Cycles 1 to 3 of everything that only waits for the column.
        i = self.i
        valid, lead, site, out = [i.valid], [i.payload.lead], [i.payload.site], [i.payload.out]
        real = [i.valid & i.payload.real]
        trailing = [i.payload.trailing] if self._trailing is not None else []
        for chain, name, depth in (
            (valid, "valid", 3), (lead, "lead", 2), (site, "site", 2), (out, "out", 3), (real, "real", 3),
            (trailing, "trailing", 3),
        ):  # fmt: skip
            if not chain:
                continue
            for k in range(1, depth + 1):
                data_only = name not in ("valid", "real")
                chain.append(Signal.like(chain[-1], name=f"{name}_{k}", reset_less=data_only))
                m.d.sync += chain[k].eq(chain[k - 1])

        # Cycle 0: address; 1: memory; 2: its output register, and the column is complete and goes back
        # shifted. The column comes by again three cycles after that at the earliest (MIN_LINE).
        depth = self._depth
        address = Signal(range(depth))
        m.submodules.memory = memory = BlockRam(lines.size, depth, family=self._family)
        earlier = Signal(lines)
        later = Signal(lines)
        m.d.comb += [
            address.eq(site[0].x[lane_bits:]),
            memory.read_row.eq(address),
            Value.cast(earlier).eq(memory.read_data),
            memory.write.eq(valid[2]),
            memory.write_row.eq(site[2].x[lane_bits:]),
            memory.write_data.eq(later),
            later[0].eq(lead[2]),
            *(later[k].eq(earlier[k - 1]) for k in range(1, 2 * r)),
        ]
        rows = [earlier[k] for k in reversed(range(2 * r))] + [lead[2]]

        # Cycle 1: how near the column is to the edges; 2: select signals.
        m.submodules.edges = edges = Edges(radius=r, lanes=lanes)
        m.d.comb += [edges.x.eq(site[0].x), edges.y.eq(site[0].y)]
        m.d.comb += [edges.width.eq(self.width), edges.height.eq(self.height)]
        edges_2 = Signal(edges_layout(r, lanes), reset_less=True)
        m.d.sync += edges_2.eq(edges.o)
        row_choice = _Choice(m, "row", self._rows, self._zero, edges.o.top, edges.o.bottom)
        column_choice = _Choice(m, "column", self._columns, self._zero, edges.o.left, edges.o.right)

        # Cycle 3: columns, newest first, and what belongs to each; the centre lies `reach` columns back.
        tall = data.ArrayLayout(column, 2 * r + 1)
        columns = [Signal(tall, name=f"column_{k}", reset_less=True) for k in range(2 * reach + 1)]
        sites = [Signal(site_layout(lanes), name=f"site_of_{k}", reset_less=True) for k in range(reach + 1)]
        edges_of = [
            Signal(edges_layout(r, lanes), name=f"edges_of_{k}", reset_less=True) for k in range(reach + 1)
        ]
        choices = [
            Signal.like(column_choice.select, name=f"choice_of_{k}", reset_less=True)
            for k in range(reach + 1)
        ]
        for j, step in enumerate(enables(m, "step", valid[1], 2 * r + 1)):
            with m.If(step):
                row_choice.register(m, j, columns[0][j].as_value(), row_choice.select, rows)
                m.d.sync += [
                    older[j].eq(newer[j]) for older, newer in zip(columns[1:], columns, strict=False)
                ]
        with m.If(valid[2]):
            m.d.sync += [sites[0].eq(site[2]), edges_of[0].eq(edges_2), choices[0].eq(column_choice.select)]
            for chain in (sites, edges_of, choices):
                for older, newer in zip(chain[1:], chain, strict=False):
                    m.d.sync += older.eq(newer)

        # Cycle 4: taps.
        o = self.o.payload
        for k in range(2 * r + lanes):
            sources = []
            for neighbour in range(2 * r + lanes):
                beat, lane = divmod(neighbour - r, lanes)
                sources.append(Cat(columns[reach - beat][j][lane] for j in range(2 * r + 1)))
            taps = Signal(self._pixel.width * (2 * r + 1), name=f"taps_{k}", reset_less=True)
            column_choice.register(m, k, taps, choices[reach], sources)
            m.d.comb += Cat(o.taps[j][k] for j in range(2 * r + 1)).eq(taps)
        beside = {"site": sites[reach], "edges": edges_of[reach]}
        if trailing:
            beside["trailing"] = trailing[3]
        for name, value in beside.items():
            register = Signal.like(value, name=f"{name}_o", reset_less=True)
            m.d.sync += register.eq(value)
            m.d.comb += o[name].eq(register)
        m.d.sync += [self.o.valid.eq(real[3]), self.tick.valid.eq(valid[3]), self.tick.payload.out.eq(out[3])]
        return m


class _Choice:
    """The registered select signals of a `selections` table: for each neighbour, which candidate it reads.

    ``select`` packs one narrow number per neighbour that has more than one candidate; candidates are numbered
    with the neighbour itself first. None counts as a candidate (zero) only under a zero border; elsewhere
    nobody looks at that neighbour, and it reads itself.
    """

    def __init__(self, m: Module, name: str, table: dict, zero: bool, before: Value, after: Value) -> None:
        def sources(k: int) -> set:
            return {row[k] for row in table.values() if zero or row[k] is not None}

        self._candidates = [
            [k, *sorted(sources(k) - {k}, key=lambda c: -1 if c is None else c)]
            for k in range(len(table[0, 0]))
        ]
        self.select = Signal(
            data.StructLayout({f"of_{k}": range(len(c)) for k, c in self._open()}),
            name=f"{name}_select",
            reset_less=True,
        )
        m.d.sync += self.select.eq(0)
        with m.Switch(Cat(before, after)):
            for (b, a), row in table.items():
                with m.Case(b | a << len(before)):
                    for k, candidates in self._open():
                        index = candidates.index(row[k]) if row[k] in candidates else 0
                        m.d.sync += self.select[f"of_{k}"].eq(index)

    def _open(self) -> list[tuple[int, list]]:
        """The neighbours that have a choice."""
        return [(k, c) for k, c in enumerate(self._candidates) if len(c) > 1]

    def register(self, m: Module, k: int, target: Value, select: data.View, sources: list) -> None:
        """At the clock edge ``target`` takes the one of ``sources`` that ``select`` names for neighbour k."""
        candidates = self._candidates[k]
        if len(candidates) == 1:
            m.d.sync += target.eq(sources[k])
            return
        with m.Switch(select[f"of_{k}"]):
            for index, source in enumerate(candidates):
                with m.Case(index) if index < len(candidates) - 1 else m.Default():
                    m.d.sync += target.eq(0 if source is None else sources[source])
