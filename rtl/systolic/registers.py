"""The registers of the array's core: one declaration from which decode and every document follow.

Two regions of 32-bit words on AXI4-Lite, byte addresses::

    0x0000   registers            by rising address without gaps
    0x8000   programme            word k at 0x8000 + 4 k, written only
"""

from __future__ import annotations

from dataclasses import dataclass

from ..bus.registers import VERSION_REGISTER, Field, Register, find, whole
from .build import UnitBuild
from .descriptor import WORD, layout

__all__ = ["ARRAY_ID", "ARRAY_REGISTERS", "COUNTERS", "PROGRAMME_BASE", "VERSION", "ArrayMap"]

VERSION = (0, 1, 0)
"""Major, minor, patch."""

ARRAY_ID = 0x52414250
"""What the ID register of an array reads: "PBAR" as little-endian ASCII."""

PROGRAMME_BASE = 0x8000
"""Byte address of word 0 of the programme; a multiple of the region's size."""

_PROGRAMME_ROOM = (0x10000 - PROGRAMME_BASE) // 4


def _counter(name: str, address: int, doc: str) -> Register:
    return Register(name, address, "r", whole("clocks"), f"{doc}, since go.")


COUNTERS = ("ROWS", "RESULTS", "WEIGHTS", "STARVED", "BLOCKED", "BUSY", "SPAN")
"""Registers of the unit's counters, in the unit's order."""

ARRAY_REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x000, "r", whole("0x52414250, PBAR in ASCII"), "Identifies an array."),
    VERSION_REGISTER,
    Register(
        "CONTROL",
        0x008,
        "rw",
        (
            Field("go", 0, 1, "write 1: run the programme from word START on; reads as 0"),
            Field(
                "stop",
                1,
                1,
                "while 1 the array stands still, its programme is gone, and what comes is discarded",
            ),
        ),
        "Commands.",
    ),
    Register(
        "STATUS",
        0x00C,
        "r",
        (
            Field("busy", 0, 1, "a programme runs"),
            Field("done", 1, 1, "a programme has ended since go or ACK"),
            Field("overflow", 2, 1, "a partial sum has wrapped since go"),
            Field("clipped", 3, 1, "a code has saturated since go"),
        ),
        "State; a stop clears it, but for done.",
    ),
    Register(
        "ERRORS",
        0x010,
        "rw1c",
        (
            Field("refused", 0, 1, "go while busy or stopped: nothing was begun"),
            Field("bad_start", 1, 1, "go where no descriptor fits behind START: nothing was begun"),
            Field(
                "bad_kind", 2, 1, "a descriptor of a kind that does not exist: the programme ended before it"
            ),
            Field(
                "bad_end", 3, 1, "a descriptor beyond the end of the memory: the programme ended before it"
            ),
            Field(
                "load_header",
                4,
                1,
                "a packet for no memory, or of rows that are empty or too long: discarded",
            ),
            Field("load_torn", 5, 1, "a packet ended within its header or a row: what came of it was loaded"),
        ),
        "Sticky errors; write 1 to clear.",
    ),
    Register(
        "INTERRUPTS",
        0x014,
        "rw",
        (
            Field("done", 0, 1, "the interrupt is high while STATUS.done is set"),
            Field("error", 1, 1, "the interrupt is high while one of ERRORS is set"),
        ),
        "What interrupts.",
    ),
    Register("START", 0x018, "rw", whole("word"), "Word of the programme at which go begins."),
    Register("ACK", 0x01C, "w", whole("any value"), "Write: clears STATUS.done."),
    _counter("ROWS", 0x020, "Rows of operands read for products"),
    _counter("RESULTS", 0x024, "Rows of codes, or of sums of dW, written"),
    _counter("WEIGHTS", 0x028, "Clocks in which rows waited for what is stationary"),
    _counter("STARVED", 0x02C, "Clocks without a descriptor"),
    _counter("BLOCKED", 0x030, "Clocks in which rows waited for a stream"),
    _counter("BUSY", 0x034, "Clocks of STATUS.busy"),
    _counter("SPAN", 0x038, "Clocks from the first row to the last result, both counted"),
    Register(
        "ARRAY",
        0x03C,
        "r",
        (
            Field("rows", 0, 8, "R"),
            Field("columns", 8, 8, "C"),
            Field("lanes", 16, 8, "operands in a row of memory"),
            Field("count", 24, 8, "bits of a loop count"),
        ),
        "What was built.",
    ),
    Register(
        "WIDTHS",
        0x040,
        "r",
        (
            Field("operand", 0, 8, "bits of an operand"),
            Field("accumulator", 8, 8, "bits of a sum inside the mesh"),
            Field("total", 16, 8, "bits of a partial sum"),
            Field("descriptor", 24, 8, "words of a descriptor"),
        ),
        "What was built.",
    ),
    Register("MEMORY", 0x044, "r", whole("rows"), "Rows of each operand memory."),
    Register("SUMS", 0x048, "r", whole("rows"), "Rows of partial sums."),
    Register("MASKS", 0x04C, "r", whole("rows"), "Rows of branches."),
    Register("PROGRAMME", 0x050, "r", whole("words"), "Words of the programme's memory."),
)
"""The registers, the same in every array."""


@dataclass(frozen=True)
class ArrayMap:
    """Addresses of everything that a host can reach in an array's core.

    Parameters
    ----------
    build : UnitBuild
    name : str
        Of the core; used for file names and in C as a prefix.

    Raises
    ------
    ValueError
        If the programme's memory outgrows its region, or is too short for a descriptor.
    """

    build: UnitBuild
    name: str = "array"
    version: tuple[int, int, int] = VERSION

    def __post_init__(self) -> None:
        if not self.descriptor <= self.build.programme <= _PROGRAMME_ROOM:
            raise ValueError(
                f"programme={self.build.programme} words; give {self.descriptor} (a descriptor) to {_PROGRAMME_ROOM}"
            )

    @property
    def descriptor(self) -> int:
        """Words of a descriptor."""
        return -(-layout(self.build).size // WORD)

    @property
    def registers(self) -> tuple[Register, ...]:
        """The registers."""
        return ARRAY_REGISTERS

    @property
    def constants(self) -> dict[str, int]:
        """What the registers read that never change."""
        build, array = self.build, self.build.array
        major, minor, patch = self.version
        return {
            "ID": ARRAY_ID,
            "VERSION": major << 16 | minor << 8 | patch,
            "ARRAY": array.rows | array.columns << 8 | build.lanes << 16 | build.count << 24,
            "WIDTHS": array.operand | array.accumulator << 8 | build.total << 16 | self.descriptor << 24,
            "MEMORY": build.memory,
            "SUMS": build.sums,
            "MASKS": build.masks,
            "PROGRAMME": build.programme,
        }

    def address(self, name: str) -> int:
        """Byte address of a register.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        return find(ARRAY_REGISTERS, name).address
