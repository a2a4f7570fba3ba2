"""The register map of a core: one declaration from which decode, load order and every document follow.

Three regions of 32-bit words on AXI4-Lite, byte addresses::

    0x0000   control registers        the same in every core
    0x1000   parameter memory         word k at 0x1000 + 4 k: 16 frame words, then the stages' parameters
    0x4000   result memory            word k at 0x4000 + 8 k: 64 bits, low half first, high half at + 4

A parameter word holds the two's complement code of its format, sign-extended to 32 bits; a result word
holds a 64-bit signed integer. Nothing here is random or depends on the order of a dictionary or set:
the same declarations give the same map.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pullback.rtl.numeric.format import SQ, UQ, Format

__all__ = [
    "CONTROL_REGISTERS",
    "ERROR_BAD_FRAME",
    "ERROR_RESULTS_OVERRUN",
    "FRAME_WORDS",
    "ID",
    "LOSS_FRACTION_BITS",
    "PARAMETER_BASE",
    "RESULT_BASE",
    "VERSION_REGISTER",
    "Field",
    "ParameterWords",
    "Place",
    "Register",
    "RegisterMap",
    "ResultWords",
    "Word",
    "find",
    "whole",
]

ID = 0x4B4C4250
"""What the ID register reads: "PBLK" as little-endian ASCII."""

PARAMETER_BASE = 0x1000
"""Byte address of parameter word 0."""

RESULT_BASE = 0x4000
"""Byte address of the low half of result word 0."""

FRAME_WORDS = 16
"""Words at the start of the parameter memory which describe the frame; the last seven are reserved."""

LOSS_FRACTION_BITS = 25
"""The loss is an integer in units of 2**-25, whatever its kind."""

ERROR_BAD_FRAME = 9
"""Bit of ERRORS: a commit was refused because a frame word was out of range."""

ERROR_RESULTS_OVERRUN = 10
"""Bit of ERRORS: a finished group replaced one that was not acknowledged."""

# Half of what the address space would hold: the base is then a multiple of the region's size, so that a
# word's index is the low part of its address.
_RESULT_ROOM = RESULT_BASE // 8
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Field:
    """Bits ``low .. low + width - 1`` of a control register."""

    name: str
    low: int
    width: int
    doc: str


@dataclass(frozen=True)
class Register:
    """A 32-bit control register.

    Parameters
    ----------
    name : str
        In capitals, unique.
    address : int
        Byte address, a multiple of 4.
    access : str
        ``"r"`` read only (a write is answered SLVERR), ``"w"`` write only (reads as 0), ``"rw"`` readable and
        writable, ``"rw1c"`` readable, writing a 1 to a bit clears it.
    fields : tuple of Field
        From bit 0 up.
    doc : str
        One line.
    """

    name: str
    address: int
    access: str
    fields: tuple[Field, ...]
    doc: str


def whole(doc: str) -> tuple[Field, ...]:
    """The fields of a register that is one value of 32 bits."""
    return (Field("value", 0, 32, doc),)


VERSION_REGISTER = Register(
    "VERSION",
    0x004,
    "r",
    (Field("patch", 0, 8, "patch"), Field("minor", 8, 8, "minor"), Field("major", 16, 16, "major")),
    "Version of the core.",
)
"""The same in every core."""


def find(registers: Iterable[Register], name: str) -> Register:
    """The register of that name.

    Raises
    ------
    ValueError
        If there is none.
    """
    by_name = {register.name: register for register in registers}
    if name not in by_name:
        raise ValueError(f"no register is called {name!r}; there are {', '.join(by_name)}")
    return by_name[name]


_LATCH = "read the low half first: that latches the high half"

CONTROL_REGISTERS: tuple[Register, ...] = (
    Register("ID", 0x000, "r", whole("0x4B4C4250, PBLK in ASCII"), "Identifies a Pullback core."),
    VERSION_REGISTER,
    Register(
        "CONTROL",
        0x008,
        "w",
        (Field("commit", 0, 1, "write 1: make all parameter words active at the next frame boundary"),),
        "Commands.",
    ),
    Register(
        "STATUS",
        0x00C,
        "r",
        (
            Field("pending", 0, 1, "a commit, or the load after reset, has not finished"),
            Field("busy", 1, 1, "pixels are in flight"),
            Field("ready", 2, 1, "results of a finished group wait for ACK"),
        ),
        "State.",
    ),
    Register(
        "ERRORS",
        0x010,
        "rw1c",
        (
            Field("raw_long", 0, 1, "a line of the raw input was too long"),
            Field("raw_short", 1, 1, "a line of the raw input was too short"),
            Field("raw_step", 2, 1, "the raw input was out of step: tuser inside a frame, or missing"),
            Field("target_long", 3, 1, "a line of the target input was too long"),
            Field("target_short", 4, 1, "a line of the target input was too short"),
            Field("target_step", 5, 1, "the target input was out of step"),
            Field("cotangent_long", 6, 1, "a line of the cotangent input was too long"),
            Field("cotangent_short", 7, 1, "a line of the cotangent input was too short"),
            Field("cotangent_step", 8, 1, "the cotangent input was out of step"),
            Field("bad_frame", ERROR_BAD_FRAME, 1, "a commit was refused: a frame word was out of range"),
            Field(
                "results_overrun",
                ERROR_RESULTS_OVERRUN,
                1,
                "a group finished before the one before it was acknowledged",
            ),
        ),
        "Sticky errors; write 1 to clear.",
    ),
    Register("FRAMES", 0x014, "r", whole("frames, modulo 2**32"), "Frames completed since reset."),
    Register("PIXELS_LO", 0x018, "r", whole(_LATCH), "Pixels accepted at the raw input, low half."),
    Register("PIXELS_HI", 0x01C, "r", whole("as latched"), "Pixels accepted at the raw input, high half."),
    Register("CYCLES_LO", 0x020, "r", whole(_LATCH), "Clocks since reset, low half."),
    Register("CYCLES_HI", 0x024, "r", whole("as latched"), "Clocks since reset, high half."),
    Register("RESULTS", 0x028, "r", whole("groups, modulo 2**32"), "Groups finished since reset."),
    Register("ACK", 0x02C, "w", whole("any value"), "Write: the results were read; clears STATUS.ready."),
    Register(
        "MAX_SIZE",
        0x030,
        "r",
        (Field("width", 0, 16, "largest width"), Field("height", 16, 16, "largest height")),
        "Largest frame of this build.",
    ),
    Register(
        "BUILD",
        0x034,
        "r",
        (
            Field("lanes", 0, 8, "pixels per clock"),
            Field("vjp", 8, 1, "1: the core has a pullback"),
            Field("stages", 16, 16, "number of stages"),
        ),
        "What was built.",
    ),
    Register("PARAMETERS", 0x038, "r", whole("words"), "Words of the parameter memory."),
    Register("RESULT_WORDS", 0x03C, "r", whole("64-bit words"), "Words of the result memory."),
)
"""The control registers, the same in every core, by rising address without gaps."""


class Place(NamedTuple):
    """Where words lie: index of the first, how many, and the format of each."""

    index: int
    entries: int
    format: Format


@dataclass(frozen=True)
class ParameterWords:
    """Declares a parameter of a stage: ``entries`` codes of ``format``, one word each.

    ``default`` holds one code per entry; a single code stands for all of them.
    """

    stage: str
    name: str
    entries: int
    format: Format
    default: Sequence[int] | int
    doc: str


@dataclass(frozen=True)
class ResultWords:
    """Declares a parameter cotangent: ``entries`` integers in units of ``2**-fraction_bits``."""

    stage: str
    name: str
    entries: int
    fraction_bits: int
    doc: str


@dataclass(frozen=True)
class Word:
    """A placed run of words.

    Parameters
    ----------
    name : str
        ``"width"``, ``"loss.kind"``, ``"white_balance.gain"``, ...
    kind : str
        ``"frame"``, ``"parameter"`` or ``"result"``.
    index : int
        First word within its memory.
    entries : int
        Words in the run.
    format : Format
        Of each entry. A result has ``SQ(64 - f, f)``.
    lo, hi : int
        Smallest and largest legal code.
    default : tuple of int
        One code per entry; zeros for results.
    doc : str
        One line.
    """

    name: str
    kind: str
    index: int
    entries: int
    format: Format
    lo: int
    hi: int
    default: tuple[int, ...]
    doc: str

    def address(self, entry: int = 0) -> int:
        """Byte address of an entry (of its low half, for a result).

        Raises
        ------
        ValueError
            If there is no such entry.
        """
        if not 0 <= entry < self.entries:
            raise ValueError(f"{self.name} has no entry {entry}; give 0 to {self.entries - 1}")
        if self.kind == "result":
            return RESULT_BASE + 8 * (self.index + entry)
        return PARAMETER_BASE + 4 * (self.index + entry)


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} {name!r} is not a lower-case identifier; write it like 'white_balance'")


def _check_range(what: str, value: int, lo: int, hi: int) -> None:
    if not lo <= value <= hi:
        raise ValueError(f"{what} is {value}; it must be {lo} to {hi}")


class RegisterMap:
    """Addresses of everything a host can reach in one core.

    The parameter memory starts with the frame words (``width``, ``height``, ``cfa``, ``depth``,
    ``frames``, ``bypass``, ``loss.kind``, ``loss.delta``, ``loss.scale``, seven reserved), then come the
    stages in pipeline order, each with its parameters in the order of declaration.

    The result memory of a core with a pullback: ``loss``, ``loss.cotangent_saturated``, then for each stage
    from the last to the first its parameter cotangents in the order of declaration,
    ``<stage>.saturated`` and ``<stage>.cotangent_saturated``. Without a pullback: ``<stage>.saturated``
    from the last stage to the first. The map adds ``loss`` and the counters by itself.

    Parameters
    ----------
    name : str
        Of the core; used for file names and in C as a prefix.
    version : tuple of int
        Major (16 bits), minor, patch (8 bits each).
    stages : sequence of str
        Stage names in pipeline order.
    parameters : iterable of ParameterWords
        The order among stages does not matter, the order within a stage does.
    results : iterable of ResultWords
        Parameter cotangents only. Must be empty without ``vjp``.
    lanes : int
        Pixels per clock.
    max_width, max_height : int
        Largest frame, 1 to 65535; also the default frame.
    vjp : bool
        The core has a pullback.

    Members
    -------
    words : tuple of Word
        Frame words and parameters, by rising index.
    result_runs : tuple of Word
        Results, by rising index.
    parameter_words, result_words : int
        Sizes of the two memories.
    defaults : tuple of int
        One code for every word of the parameter memory, reserved words 0.

    Raises
    ------
    ValueError
        On a name that is unknown, doubled or no identifier, a default outside its format, a format wider
        than a word, or a memory that outgrows its region.
    """

    def __init__(
        self,
        *,
        name: str,
        version: tuple[int, int, int],
        stages: Sequence[str],
        parameters: Iterable[ParameterWords] = (),
        results: Iterable[ResultWords] = (),
        lanes: int,
        max_width: int,
        max_height: int,
        vjp: bool,
    ) -> None:
        _check_name("core name", name)
        for what, value, hi in zip(("major", "minor", "patch"), version, (0xFFFF, 0xFF, 0xFF), strict=True):
            _check_range(f"{what} of version {version}", value, 0, hi)
        _check_range("lanes", lanes, 1, 255)
        _check_range("max_width", max_width, 1, 0xFFFF)
        _check_range("max_height", max_height, 1, 0xFFFF)
        _check_range("the number of stages", len(stages), 1, 32)
        for stage in stages:
            _check_name("stage", stage)
            if stage == "loss":
                raise ValueError("stage name 'loss' belongs to the frame words; choose another name")
            if list(stages).count(stage) > 1:
                raise ValueError(f"stage {stage!r} appears twice; give each stage its own name")
        self.name = name
        self.version = tuple(version)
        self.stages = tuple(stages)
        self.lanes = lanes
        self.max_width = max_width
        self.max_height = max_height
        self.vjp = vjp

        parameters, results = list(parameters), list(results)
        if results and not vjp:
            raise ValueError(f"results {[r.name for r in results]} need vjp=True; a forward core has none")
        for declared in (*parameters, *results):
            _check_name("word", declared.name)
            if declared.stage not in self.stages:
                raise ValueError(
                    f"{declared.stage}.{declared.name} names no stage; there are {', '.join(self.stages)}"
                )
            if declared.entries < 1:
                raise ValueError(
                    f"{declared.stage}.{declared.name} has {declared.entries} entries; give at least 1"
                )
        self.words = (*self._frame_words(), *self._parameter_words(parameters))
        self.result_runs = self._result_runs(results)
        self.parameter_words = max(FRAME_WORDS, self.words[-1].index + self.words[-1].entries)
        self.result_words = self.result_runs[-1].index + self.result_runs[-1].entries
        room = (RESULT_BASE - PARAMETER_BASE) // 4
        if self.parameter_words > room:
            raise ValueError(f"{self.parameter_words} parameter words do not fit; there is room for {room}")
        room = _RESULT_ROOM
        if self.result_words > room:
            raise ValueError(f"{self.result_words} result words do not fit; there is room for {room}")
        codes = [0] * self.parameter_words
        for word in self.words:
            codes[word.index : word.index + word.entries] = word.default
        self.defaults = tuple(codes)

        self._parameters = {word.name: word for word in self.words}
        self._results = {word.name: word for word in self.result_runs}
        for runs in (self.words, self.result_runs):
            # Documents write underscores for dots, so that a.b_c and a_b.c would be one name there.
            names = [word.name.replace(".", "_") for word in runs]
            for word, flat in zip(runs, names, strict=True):
                if names.count(flat) > 1:
                    raise ValueError(f"word {word.name!r} is declared twice, or differs by a dot; rename it")

    def _frame_words(self) -> list[Word]:
        stages = len(self.stages)
        rows = (
            ("width", UQ(16, 0), 1, self.max_width, self.max_width, "pixels in a line"),
            ("height", UQ(16, 0), 1, self.max_height, self.max_height, "lines in a frame"),
            ("cfa", UQ(2, 0), 0, 3, 0, "CFA phase: 0 RGGB, 1 GRBG, 2 GBRG, 3 BGGR"),
            ("depth", UQ(5, 0), 8, 16, 16, "bits of a raw code"),
            ("frames", UQ(16, 0), 1, 0xFFFF, 1, "frames per gradient group"),
            ("bypass", UQ(stages, 0), 0, (1 << stages) - 1, 0, "bit k bypasses stage k"),
            ("loss.kind", UQ(2, 0), 0, 3, 0, "0 squared, 1 L1, 2 Huber, 3 external cotangent"),
            ("loss.delta", UQ(0, 12), 0, 0xFFF, 0xFFF, "threshold of the Huber loss"),
            ("loss.scale", UQ(8, 8), 0, 0xFFFF, 0x100, "scale of the cotangent at the output"),
        )
        return [
            Word(name, "frame", index, 1, fmt, lo, hi, (default,), doc)
            for index, (name, fmt, lo, hi, default, doc) in enumerate(rows)
        ]

    def _parameter_words(self, declared: list[ParameterWords]) -> list[Word]:
        words, index = [], FRAME_WORDS
        for stage in self.stages:
            for p in (p for p in declared if p.stage == stage):
                name, fmt = f"{stage}.{p.name}", p.format
                if fmt.width > (32 if fmt.signed else 31):
                    raise ValueError(f"{name} has format {fmt}; it must fit a signed 32-bit word")
                default = (p.default,) * p.entries if isinstance(p.default, int) else tuple(p.default)
                if len(default) != p.entries:
                    raise ValueError(f"{name} has {len(default)} defaults; give {p.entries}, or one for all")
                for code in default:
                    _check_range(f"default of {name}, a code of {fmt},", code, fmt.lo, fmt.hi)
                words.append(Word(name, "parameter", index, p.entries, fmt, fmt.lo, fmt.hi, default, p.doc))
                index += p.entries
        return words

    def _result_runs(self, declared: list[ResultWords]) -> tuple[Word, ...]:
        rows: list[tuple[str, int, int, str]] = []
        clipped = "clipped codes of the cotangent where it leaves"
        if self.vjp:
            rows.append(("loss", 1, LOSS_FRACTION_BITS, "sum of the loss over the group, unscaled"))
            rows.append(("loss.cotangent_saturated", 1, 0, f"{clipped} the loss"))
        for stage in reversed(self.stages):
            rows += [
                (f"{stage}.{r.name}", r.entries, r.fraction_bits, r.doc) for r in declared if r.stage == stage
            ]
            rows.append((f"{stage}.saturated", 1, 0, f"clipped output codes of {stage}"))
            if self.vjp:
                rows.append((f"{stage}.cotangent_saturated", 1, 0, f"{clipped} {stage}"))
        runs, index = [], 0
        for name, entries, fraction_bits, doc in rows:
            _check_range(f"fraction bits of result {name}", fraction_bits, 0, 63)
            fmt = SQ(64 - fraction_bits, fraction_bits)
            runs.append(Word(name, "result", index, entries, fmt, fmt.lo, fmt.hi, (0,) * entries, doc))
            index += entries
        return tuple(runs)

    def parameter(self, name: str) -> Place:
        """Index, entries and format of a frame word or parameter: ``map.parameter("white_balance.gain")``.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        return self._place("parameter", self._parameters, name)

    def result(self, name: str) -> Place:
        """Index, entries and format of a result: ``map.result("loss")``.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        return self._place("result", self._results, name)

    @staticmethod
    def _place(what: str, index: dict[str, Word], name: str) -> Place:
        if name not in index:
            raise ValueError(f"no {what} is called {name!r}; there are {', '.join(index)}")
        word = index[name]
        return Place(word.index, word.entries, word.format)

    def register(self, name: str) -> Register:
        """The control register of that name.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        return find(CONTROL_REGISTERS, name)

    @property
    def registers(self) -> tuple[Register, ...]:
        """The control registers."""
        return CONTROL_REGISTERS

    @property
    def constants(self) -> dict[str, int]:
        """What the registers read that never change: ID, VERSION, MAX_SIZE, BUILD, PARAMETERS, RESULT_WORDS."""
        major, minor, patch = self.version
        return {
            "ID": ID,
            "VERSION": major << 16 | minor << 8 | patch,
            "MAX_SIZE": self.max_width | self.max_height << 16,
            "BUILD": self.lanes | int(self.vjp) << 8 | len(self.stages) << 16,
            "PARAMETERS": self.parameter_words,
            "RESULT_WORDS": self.result_words,
        }

    def constant(self, name: str) -> int:
        """One of `constants`.

        Raises
        ------
        ValueError
            If the register is not one of those.
        """
        values = self.constants
        if name not in values:
            raise ValueError(f"register {name!r} is not constant; those are {', '.join(values)}")
        return values[name]

    def check_parameters(self, words: Sequence[int]) -> None:
        """Checks the codes of a whole parameter memory against formats and limits.

        Parameters
        ----------
        words : sequence of int
            One code (signed where the format is) for every word, reserved words 0.

        Raises
        ------
        ValueError
            Naming the word, its value and the legal range.
        """
        if len(words) != self.parameter_words:
            raise ValueError(f"{len(words)} parameter words given; {self.name} has {self.parameter_words}")
        for word in self.words:
            for entry in range(word.entries):
                code = int(words[word.index + entry])
                if not word.lo <= code <= word.hi:
                    label = word.name if word.entries == 1 else f"{word.name}[{entry}]"
                    raise ValueError(
                        f"{label} (word {word.index + entry}) is {code}; "
                        f"a code of {word.format} here must be {word.lo} to {word.hi}"
                    )
        used = {word.index + entry for word in self.words for entry in range(word.entries)}
        for index, code in enumerate(words):
            if index not in used and int(code) != 0:
                raise ValueError(f"reserved word {index} is {int(code)}; it must be 0")
