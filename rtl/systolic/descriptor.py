"""What a unit is told to do: one descriptor a job, a few words of a programme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from amaranth.hdl import Shape, unsigned
from amaranth.lib import data, enum

from .build import UnitBuild
from .requantise import settings

__all__ = [
    "INNER",
    "RESULT_LEVELS",
    "ROWS",
    "WORD",
    "Beginning",
    "Branches",
    "Kind",
    "Memory",
    "encode",
    "fields",
    "layout",
]

ROWS = 3
"""Levels of the loops over the rows of a tile; of a picture: x, y and the picture's number."""

INNER = 3
"""Levels over the tiles that add to one sum; of a convolution: segments of channels, kernel column, kernel row."""

RESULT_LEVELS = ROWS + 2
"""Levels of the results: the rows of a tile, the tiles of a sum, and the sums side by side."""

WORD = 32
"""Bits of a word of a programme."""


class Kind(enum.Enum, shape=unsigned(4)):
    """Jobs."""

    Y = 0
    """``Y = X W``."""
    DX = 1
    """``dX = dY W^T``."""
    DW = 2
    """``dW += X^T dY``."""
    STORE = 3
    """Rows of a memory leave."""
    EMIT = 4
    """Rows of partial sums leave, or become codes; or rows of branches leave."""
    FILL = 5
    """Rows that come from outside become partial sums: biases, or sums to go on with."""
    MAX = 6
    """The largest codes of windows."""
    ARGMAX = 7
    """The numbers of the taps where these stood."""
    ROUTE = 8
    """The adjoint of MAX: cotangents go where it had its code from."""
    ADD = 9
    """Rows of partial sums are scaled by a power of two and added to others, or taken off: a step of an optimiser."""

    @property
    def product(self) -> bool:
        """Whether it needs the array."""
        return self in (Kind.Y, Kind.DX, Kind.DW)


class Memory(enum.Enum, shape=unsigned(2)):
    """Operand memories, and the place of results that go nowhere."""

    ACTIVATIONS = 0
    COTANGENTS = 1
    WEIGHTS = 2
    NONE = 3


class Beginning(enum.Enum, shape=unsigned(2)):
    """What a sum begins with: ``SUMS``: the row of partial sums that it writes; ``BIAS``: one row for all rows."""

    ZERO = 0
    BIAS = 1
    SUMS = 2


class Branches(enum.Enum, shape=unsigned(2)):
    """What becomes of the branches of the activation: noted by the forward, taken by its adjoint."""

    NONE = 0
    NOTE = 1
    TAKE = 2


def layout(build: UnitBuild) -> data.StructLayout:
    """Fields of a descriptor.

    A nest of loops is counts less one (``rest``) and what is added to an address when a level advances
    (:meth:`~pullback.rtl.systolic.walk.Affine.deltas`), level 0 the innermost.

    ``kind``, ``fence``: wait until all that was computed before stands in memory; ``last``: of the programme.

    ``inner``: rests of the levels over tiles: `INNER` of them, and the sums side by side.

    ``v``: rows that are stationary, or dY of dW. ``rest``: of the levels of rows; ``tail``: operands that count in
    the last of the sums side by side; ``tile``: rows of h in a tile, less one; of dW R - 2 at
    least, and those that h has not are zero.

    ``h``: rows that move. ``tail``: operands that count in the last segment; ``source``: of a STORE, MAX, ARGMAX.

    ``tap``: number of the tap that a row of a window is, an address like that of h.

    ``result``: ``rest`` of the levels of results; ``codes``: where rows of codes go, and how many lanes of them count:
    ``tail`` in the last of the sums side by side, ``whole`` in the others; ``branches``: rows that are noted or taken;
    ``sums``: first row of partial sums, and of biases, or of what is added: ``minus`` takes it off; ``keep``: sums stay
    partial, and no codes come of them; ``how``: see `Requantise`; ``upper`` is also the shift of what is added.
    """
    array = build.array
    count, at = unsigned(build.count), Shape.cast(range(build.elements))
    lanes = Shape.cast(range(build.lanes + 1))
    mask, total = Shape.cast(range(build.masks)), Shape.cast(range(build.sums))

    def nest(levels: int, address: Shape, **more: Any) -> data.StructLayout:
        return data.StructLayout({"start": address, "delta": data.ArrayLayout(address, levels), **more})

    levels = ROWS + INNER + 1
    rows = data.ArrayLayout(count, ROWS)
    return data.StructLayout(
        {
            "kind": Kind,
            "fence": 1,
            "last": 1,
            "inner": data.ArrayLayout(count, INNER + 1),
            "v": nest(levels, at, rest=rows, tail=lanes, tile=count),
            "h": nest(levels, at, rest=rows, tail=lanes, source=Memory),
            "tap": nest(levels, unsigned(array.operand)),
            "result": data.StructLayout(
                {
                    "rest": data.ArrayLayout(count, RESULT_LEVELS),
                    "codes": nest(RESULT_LEVELS, at, whole=lanes, tail=lanes, to=Memory),
                    "branches": nest(RESULT_LEVELS, mask, use=Branches),
                    "sums": data.StructLayout(
                        {"start": total, "bias": total, "begin": Beginning, "minus": 1}
                    ),
                    "keep": 1,
                    "how": settings(build.total, array.operand),
                }
            ),
        }
    )


def fields(build: UnitBuild) -> dict[str, tuple[int, int]]:
    """Where a descriptor's fields lie: ``inner.0`` and so on -> (lowest bit, bits); bit 0 is that of its first word."""

    def walk(shape: Any, at: int, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
        if isinstance(shape, data.StructLayout | data.ArrayLayout):
            for key, field in shape:
                yield from walk(field.shape, at + field.offset, f"{path}.{key}" if path else str(key))
        else:
            yield path, (at, Shape.cast(shape).width)

    return dict(walk(layout(build), 0, ""))


def _filled(shape: Any, given: Any, path: str) -> Any:
    """Every field of a layout, zero where nothing is given, and no value that its field cannot hold."""
    if isinstance(shape, data.StructLayout):
        given = dict(given or {})
        fields = {name: field.shape for name, field in shape}
        for name in given.keys() - fields.keys():
            raise ValueError(f"{path}{name} is no field; give {', '.join(fields)}")
        return {name: _filled(inner, given.get(name), f"{path}{name}.") for name, inner in fields.items()}
    if isinstance(shape, data.ArrayLayout):
        values = list(given or []) + [None] * (shape.length - len(given or []))
        if len(values) > shape.length:
            raise ValueError(f"{path[:-1]} has {len(values)} levels; give {shape.length} at most")
        return [_filled(shape.elem_shape, value, f"{path}{k}.") for k, value in enumerate(values)]
    if isinstance(shape, type) and issubclass(shape, enum.Enum):
        return shape(0) if given is None else given
    plain = Shape.cast(shape)
    value = int(given or 0)
    lo, hi = (
        (-(1 << (plain.width - 1)), (1 << (plain.width - 1)) - 1)
        if plain.signed
        else (0, (1 << plain.width) - 1)
    )
    if not lo <= value <= hi:
        raise ValueError(f"{path[:-1]}={value}; this unit has {plain.width} bits for it, {lo} to {hi}")
    return value


def encode(build: UnitBuild, fields: Mapping[str, Any]) -> list[int]:
    """Words of a descriptor, lowest bits first. Fields that are not given are 0; deltas are taken modulo the address.

    Raises
    ------
    ValueError
        If a field is unknown or its value does not fit.
    """
    shape = layout(build)
    bits = shape.const(_filled(shape, fields, "")).as_value().value
    return [(bits >> low) & ((1 << WORD) - 1) for low in range(0, shape.size, WORD)]
