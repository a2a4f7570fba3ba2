"""The transpose of `Window`: from cotangents of taps to the cotangents of the pixels that the taps read."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from pullback.rtl.numeric.format import SQ
from pullback.rtl.stream.enable import enables
from pullback.rtl.stream.pixel import Flow, Pixel, Raster, check_lanes
from pullback.rtl.stream.ram import BlockRam
from pullback.rtl.stream.window import edges_layout, selections

__all__ = ["Scatter"]


class Scatter(wiring.Component):
    """Adds each tap's cotangent to the pixel it read: ``o[q] = sum of the taps[n][j][k] that read q``.

    With `Window` as the linear map ``taps = S x`` this is ``o = S^T taps``, exactly, borders included:
    ``<S x, c> == <x, S^T c>`` in integers. Sums are as wide as they can become; nothing is ever cut.

    A transposed-form filter: (1) cotangents of taps beyond the left and right edge are folded onto the taps
    they were selected from; (2) one chain of partial sums per row collects what neighbouring centres add to
    the same column; (3) rows beyond the top and bottom edge are folded; (4) the partial sums of 2r lines,
    side by side in one word of a synchronous-read memory, move up one line each time their column comes by.
    Every register stage is one addition of two gated values.

    Latency: `latency` cycles from a tick on ``tick`` to the beat that it completes, whose own centre was
    `Feeder.scatter_lag` ticks earlier. One tick per clock as long as ticks of one column are at least
    `MIN_LINE` cycles apart (`Feeder` sees to it).

    Parameters
    ----------
    pixel : Pixel
        Format of one tap's cotangent, per channel; signed. The caller has already added what the lanes give
        to the same tap.
    lanes, radius, border, max_width, family
        As of the `Window` that is transposed.

    Members
    -------
    i : In(Flow(StructLayout({"taps": ..., "edges": edges_layout(radius, lanes)})))
        Cotangents ``[2r+1][2r+P]`` of a real centre's taps, and the ``edges`` that `Window` (or `Edges`) gave
        for that centre. What a lane outside the picture would contribute must not be in the sums. Valid only
        together with ``tick``; a tick without it contributes nothing.
    tick : In(Flow(StructLayout({"out": 1})))
        Every tick of the unit, in the same cycle as its centre on ``i``; ``out`` from `Feeder`.
    width, height : In(16)
        Size of the picture; static while ticks are on their way.
    o : Out(Flow(StructLayout))
        One for every beat of every picture in raster order: ``lane`` (`output` pixels; lanes outside the
        picture are 0), ``first``, ``eol``, ``last``, and ``lanes``: which lanes lie inside.

    Raises
    ------
    ValueError
        If a channel is unsigned, the radius or the width is below 1, or border or lanes are unknown.
    """

    def __init__(
        self,
        pixel: Pixel,
        *,
        lanes: int = 1,
        radius: int,
        border: str = "mirror",
        max_width: int,
        family: str = "generic",
    ) -> None:
        check_lanes(lanes)
        if radius < 1:
            raise ValueError(f"radius={radius}; a scatter needs at least 1, a pointwise unit needs none")
        if max_width < 1:
            raise ValueError(f"max_width={max_width}; give the widest picture in pixels, at least 1")
        for name, form in pixel.channels:
            if not form.signed:
                raise ValueError(f"channel {name!r} is {form}; cotangents are signed, give an SQ format")
        self._pixel = pixel
        self._lanes = lanes
        self._radius = radius
        self._max_width = max_width
        self._family = family
        self._columns = selections(border, radius, lanes)
        self._rows = selections(border, radius, 1)
        # The largest number of taps that meet in one sum bounds its growth.
        self._across = _partial_reads(self._columns, radius, lanes)[0]
        self._down = _partial_reads(self._rows, radius, 1)
        taps = data.ArrayLayout(data.ArrayLayout(pixel.layout(), 2 * radius + lanes), 2 * radius + 1)
        beat = {"lane": data.ArrayLayout(self.output.layout(), lanes), "first": 1, "eol": 1, "last": 1}
        super().__init__(
            {
                "i": In(Flow(data.StructLayout({"taps": taps, "edges": edges_layout(radius, lanes)}))),
                "tick": In(Flow(data.StructLayout({"out": 1}))),
                "width": In(16),
                "height": In(16),
                "o": Out(Flow(data.StructLayout(beat | {"lanes": lanes}))),
            }
        )

    @property
    def growth(self) -> int:
        """Bits by which a sum is wider than a tap's cotangent: ``ceil(log2(most reads of a pixel))``."""
        return self._growth(self._across * self._down[0])

    @property
    def output(self) -> Pixel:
        """The exact sums' formats: as many fractional bits as the taps, ``growth`` more integer bits."""
        return Pixel(tuple((name, SQ(f.i + self.growth, f.f)) for name, f in self._pixel.channels))

    def output_width(self, name: str) -> int:
        """Bits of the exact sum of a channel."""
        return self.output.format(name).width

    @property
    def latency(self) -> int:
        """Cycles from a tick to the beat it completes."""
        return 3 + _depth(_contributors(self._columns)) + _depth(_contributors(self._rows))

    @property
    def memory_bits(self) -> int:
        """Bits of the line memory: 2r lines of partial sums of the widest picture."""
        return -(-self._max_width // self._lanes) * self._word().size

    @staticmethod
    def _growth(count: int) -> int:
        return (count - 1).bit_length()

    def _sums(self, count: int) -> data.StructLayout:
        """Layout of sums of at most `count` taps' cotangents."""
        growth = self._growth(count)
        return data.StructLayout({name: signed(f.width + growth) for name, f in self._pixel.channels})

    def _partial(self, j: int) -> data.ArrayLayout:
        """Layout of the sums of line ``y + j - r`` once the centres up to line y are in."""
        return data.ArrayLayout(self._sums(self._across * self._down[j]), self._lanes)

    def _word(self) -> data.StructLayout:
        """What the memory keeps for a column: the sums of the 2r lines that are not complete yet."""
        return data.StructLayout({f"line_{j}": self._partial(j + 1) for j in range(2 * self._radius)})

    def elaborate(self, platform) -> Module:
        m = Module()
        r, lanes = self._radius, self._lanes
        reach = -(-r // lanes)
        names = self._pixel.names
        across, down = _contributors(self._columns), _contributors(self._rows)
        depth_across, depth_down = _depth(across), _depth(down)
        chained = 1 + depth_across  # cycle in which a centre's folded cotangents enter the chain
        summed = chained + 1 + depth_down  # cycle in which its folded rows enter the lines

        tick, out = [self.tick.valid], [self.tick.payload.out]
        for k in range(summed + 1):
            tick.append(Signal(name=f"tick_{k + 1}"))
            out.append(Signal(name=f"out_{k + 1}"))
            m.d.sync += [tick[k + 1].eq(tick[k]), out[k + 1].eq(out[k])]

        # Cycle 1: input register and select signals; then the fold onto columns inside the picture.
        taps = [[Signal.like(tap, name=f"tap_{j}_{k}", reset_less=True) for k, tap in enumerate(row)]
                for j, row in enumerate(self.i.payload.taps)]  # fmt: skip
        for registers, row in zip(taps, self.i.payload.taps, strict=True):
            m.d.sync += [register.eq(tap) for register, tap in zip(registers, row, strict=True)]
        edges = self.i.payload.edges
        selects = _Selects(
            m, "column", across, self._columns, edges.left, edges.right, self.i.valid, copies=2 * r + 1
        )
        folded = [
            [
                {
                    name: _gated_sum(m, [taps[j][k][name] for k in across[t]], selects.of[t][j], depth_across)
                    for name in names
                }
                for t in range(2 * r + lanes)
            ]
            for j in range(2 * r + 1)
        ]

        # The chain: `partial[b][lane]` is what the centres so far give to the column b beats from the newest
        # one. It takes one step per tick; the column `reach` beats back is complete.
        step = tick[chained]
        top, bottom, real = edges.top, edges.bottom, self.i.valid
        for k in range(chained + reach):
            top_before, top = top, Signal.like(top, name=f"top_{k + 1}")
            bottom_before, bottom = bottom, Signal.like(bottom, name=f"bottom_{k + 1}")
            real_before, real = real, Signal(name=f"real_{k + 1}")
            with m.If(step if k >= chained else 1):  # cycle by cycle up to the chain, then tick by tick
                m.d.sync += [top.eq(top_before), bottom.eq(bottom_before), real.eq(real_before)]
        # A picture that reset cut off gives nothing to the next. A clock late, after the last step before reset, and by
        # a register of its own: the sums lie far from all else that is reset.
        clear = Signal(init=1)
        m.d.sync += clear.eq(0)
        sums = self._sums(self._across)
        rows = []
        for j, step_of_row in enumerate(enables(m, "step", tick[chained - 1], 2 * r + 1)):
            partial: dict = {}
            for b in range(reach, -reach - 1, -1):
                for lane in range(lanes):
                    offset = b * lanes + lane
                    terms = [partial[b + 1, lane]] if (b + 1, lane) in partial else []
                    for name in names:
                        value = [x[name] for x in terms]
                        if -r <= offset < r + lanes:
                            value.append(folded[j][offset + r][name])
                        if not value:
                            continue
                        if (b, lane) not in partial:
                            partial[b, lane] = Signal(
                                sums, name=f"row_{j}_beat_{b + reach}_lane_{lane}", reset_less=True
                            )
                        with m.If(clear):
                            m.d.sync += partial[b, lane][name].eq(0)
                        with m.Elif(step_of_row):
                            m.d.sync += partial[b, lane][name].eq(sum(value))
            rows.append([partial[-reach, lane] for lane in range(lanes)])
        row_selects = _Selects(m, "row", down, self._rows, top, bottom, step)

        # Fold onto lines inside the picture.
        lines = [
            [
                {
                    name: _gated_sum(
                        m, [rows[j][lane][name] for j in down[t]], row_selects.of[t][0], depth_down
                    )
                    for name in names
                }
                for lane in range(lanes)
            ]
            for t in range(2 * r + 1)
        ]

        # The lines: read two cycles ahead, add, write back one line up.
        depth = -(-self._max_width // lanes)
        m.submodules.memory = memory = BlockRam(self._word().size, depth, family=self._family)
        column = Signal(range(depth))
        last_column = Signal(16)
        m.d.sync += last_column.eq((self.width - 1)[:16] >> (lanes.bit_length() - 1))
        with m.If(tick[summed - 2]):
            # Any period of B ticks will do, so the counter need not know where lines begin; `>=` lets it find
            # back after a wider picture.
            m.d.sync += column.eq(Mux(column >= last_column, 0, column + 1))
        address = column
        for k in range(3):
            address_before, address = address, Signal.like(column, name=f"address_{k}")
            m.d.sync += address.eq(address_before)
        # To the lines of its own picture a first line finds nothing given yet, unless by one that reset cut off.
        first_line = Signal(1 + depth_down)
        m.d.sync += first_line.eq(Cat(real & (top == 0), first_line[:-1]))
        earlier = Signal(self._word())
        m.d.comb += [memory.read_row.eq(column), Value.cast(earlier).eq(memory.read_data)]
        sums_of = [Signal(self._partial(j), name=f"line_{j}", reset_less=True) for j in range(2 * r + 1)]
        for j in range(2 * r + 1):
            for lane in range(lanes):
                for name in names:
                    value = lines[j][lane][name]
                    if j < 2 * r:
                        given = earlier[f"line_{j}"][lane][name]
                        value = value + (given if j < r else Mux(first_line[-1], 0, given))
                    m.d.sync += sums_of[j][lane][name].eq(value)
        m.d.comb += [memory.write_row.eq(address), memory.write.eq(tick[summed + 1])]
        m.d.comb += memory.write_data.eq(Cat(sums_of[1:]))

        # Where the completed beat stands.
        m.submodules.raster = raster = Raster(lanes=lanes)
        m.d.comb += [raster.width.eq(self.width), raster.height.eq(self.height)]
        m.d.comb += raster.step.eq(tick[summed] & out[summed])
        o = self.o.payload
        m.d.comb += o.lane.eq(sums_of[0])
        m.d.sync += self.o.valid.eq(raster.step)
        for flag in ("first", "eol", "last", "lanes"):
            m.d.sync += o[flag].eq(raster.site[flag])
        return m


def _contributors(table: dict) -> list[list[int]]:
    """For each neighbour, which neighbours' cotangents may have to be added to it; itself first."""
    found: list[set[int]] = [set() for _ in next(iter(table.values()))]
    for row in table.values():
        for k, target in enumerate(row):
            if target is not None:
                found[target].add(k)
    return [[t, *sorted(ks - {t})] for t, ks in enumerate(found)]


def _depth(contributors: list[list[int]]) -> int:
    """Register stages of the deepest sum of contributors, one addition each; at least one, for the gates."""
    return max(1, *((len(c) - 1).bit_length() for c in contributors))


def _partial_reads(table: dict, radius: int, lanes: int) -> list[int]:
    """Entry j: the largest number of reads that a sum can hold which lies at offset ``j - r`` from beat x,
    once the beats up to x have given theirs; entry 0 so is the largest number of reads of a pixel at all.

    Taken over every length at which the two edges can still see each other; beyond that nothing changes.
    """
    span = 2 * radius + lanes
    most = [0] * span
    for n in range(1, 3 * (radius + lanes) + 2):
        reads = [0] * n
        for x in range(0, n, lanes):
            for source in table[min(x, radius), min(n - 1 - x, radius + lanes - 1)]:
                if source is not None:
                    reads[x + source - radius] += 1
            for j in range(span):
                if 0 <= x + j - radius < n:
                    most[j] = max(most[j], reads[x + j - radius])
    # A sum whose picture has ended still moves through the offsets below, past the next picture's beats.
    return [max(most[j:]) for j in range(span)]


def _gated_sum(m: Module, values: list[Value], select: Sequence[Value], depth: int) -> Value:
    """Sum of the selected values, `depth` cycles later: a tree of additions, a register after each level."""
    terms: list[Value] = [Mux(select[k], value, 0) for k, value in enumerate(values)]
    for _ in range(depth):
        sums = [sum(terms[k : k + 2][1:], terms[k]) for k in range(0, len(terms), 2)]
        terms = [Signal.like(s, name="fold", reset_less=True) for s in sums]
        m.d.sync += [register.eq(s) for register, s in zip(terms, sums, strict=True)]
    return terms[0]


class _Selects:
    """Registered gates: ``of[t][copy][n]`` says that the n-th contributor of neighbour t is to be added now.

    Sums that lie far apart take copies (`enables`).
    """

    def __init__(
        self,
        m: Module,
        name: str,
        contributors: list[list[int]],
        table: dict,
        before: Value,
        after: Value,
        enable: Value,
        *,
        copies: int = 1,
    ) -> None:
        now = [Signal(len(c), name=f"{name}_select_{t}_now") for t, c in enumerate(contributors)]
        with m.If(enable), m.Switch(before | after << len(before)):
            for (b, a), row in table.items():
                with m.Case(b | a << len(before)):
                    for t, sources in enumerate(contributors):
                        m.d.comb += now[t].eq(sum((row[k] == t) << n for n, k in enumerate(sources)))
        self.of = []
        for t, bits in enumerate(now):
            gates = [enables(m, f"{name}_select_{t}_{n}", bit, copies) for n, bit in enumerate(bits)]
            self.of.append(list(zip(*gates, strict=True)))
