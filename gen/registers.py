"""Documents of a register map: JSON, SystemRDL, a C header and a Markdown page.

All four are written from the same :class:`~pullback.rtl.bus.registers.RegisterMap`, or
:class:`~pullback.rtl.systolic.registers.ArrayMap`, and hold the same addresses. Same map, same text, to the byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from pullback.rtl.bus.registers import (
    FRAME_WORDS,
    PARAMETER_BASE,
    RESULT_BASE,
    RegisterMap,
    Word,
)
from pullback.rtl.systolic.registers import PROGRAMME_BASE, ArrayMap

__all__ = ["FORMS", "c_header", "json_text", "markdown", "render", "systemrdl"]


def json_text(registers: RegisterMap | ArrayMap) -> str:
    """The map as JSON: ``registers``, ``parameters`` (frame words among them) and ``results``, by address.

    Formats are ``{"signed", "i", "f"}``; ``lo``, ``hi`` and ``default`` are codes. Of an array: ``registers`` and where
    its programme lies.
    """

    def run(word: Word) -> dict:
        entry = {
            "name": word.name,
            "kind": word.kind,
            "address": word.address(),
            "index": word.index,
            "entries": word.entries,
            "format": {"signed": word.format.signed, "i": word.format.i, "f": word.format.f},
            "doc": word.doc,
        }
        if word.kind != "result":
            entry |= {"lo": word.lo, "hi": word.hi, "default": list(word.default)}
        return entry

    described = [
        {
            "name": register.name,
            "address": register.address,
            "access": register.access,
            "value": registers.constants.get(register.name),
            "fields": [
                {"name": f.name, "low": f.low, "width": f.width, "doc": f.doc} for f in register.fields
            ],
            "doc": register.doc,
        }
        for register in registers.registers
    ]
    tree: dict = {"name": registers.name, "version": list(registers.version)}
    if isinstance(registers, ArrayMap):
        tree |= {
            "programme_base": PROGRAMME_BASE,
            "programme_words": registers.build.programme,
            "registers": described,
        }
        return json.dumps(tree, indent=2) + "\n"
    tree |= {
        "stages": list(registers.stages),
        "lanes": registers.lanes,
        "max_width": registers.max_width,
        "max_height": registers.max_height,
        "vjp": registers.vjp,
        "parameter_base": PARAMETER_BASE,
        "parameter_words": registers.parameter_words,
        "result_base": RESULT_BASE,
        "result_words": registers.result_words,
        "registers": described,
        "parameters": [run(word) for word in registers.words],
        "results": [run(word) for word in registers.result_runs],
    }
    return json.dumps(tree, indent=2) + "\n"


def systemrdl(registers: RegisterMap | ArrayMap) -> str:
    """The map as SystemRDL 2.0: one ``addrmap``, an array of registers for each run of words.

    Words are called ``parameter_<name>`` and ``result_<name>`` with underscores for dots; a result is a
    64-bit register accessed in 32-bit halves. Of an array's programme words are ``programme``.
    """
    lines = [f"addrmap {registers.name} {{"]

    def put(depth: int, text: str) -> None:
        lines.append("    " * depth + text)

    put(1, f"name = {_quoted(f'{registers.name}: registers')};")
    put(1, "default regwidth = 32;")
    put(1, "default accesswidth = 32;")
    put(1, "littleendian;")
    access = {
        "r": "sw = r; hw = w;",
        "w": "sw = w; hw = r;",
        "rw": "sw = rw; hw = r;",
        "rw1c": "sw = rw; hw = w; onwrite = woclr;",
    }
    for register in registers.registers:
        put(1, "reg {")
        put(2, f"desc = {_quoted(register.doc)};")
        for field in register.fields:
            put(2, "field {")
            put(3, f"desc = {_quoted(field.doc)};")
            put(3, access[register.access])
            reset = ""
            if register.name in registers.constants:
                value = registers.constants[register.name] >> field.low & ((1 << field.width) - 1)
                reset = f" = 0x{value:x}"
            put(2, f"}} {field.name}[{field.low + field.width - 1}:{field.low}]{reset};")
        put(1, f"}} {register.name} @ 0x{register.address:04x};")
    if isinstance(registers, ArrayMap):
        put(1, "reg {")
        put(2, f"desc = {_quoted(_PROGRAMME)};")
        put(2, "field { sw = w; hw = r; } code[31:0];")
        put(1, f"}} programme[{registers.build.programme}] @ 0x{PROGRAMME_BASE:04x} += 4;")
        lines.append("};")
        return "\n".join(lines) + "\n"
    for word in registers.words:
        put(1, "reg {")
        put(2, f"desc = {_quoted(_described(word))};")
        # Entries whose defaults differ have no common reset value to state.
        reset = f" = 0x{word.default[0] & 0xFFFFFFFF:x}" if len(set(word.default)) == 1 else ""
        put(2, f"field {{ sw = rw; hw = r; }} code[31:0]{reset};")
        put(1, f"}} parameter_{_flat(word)}[{word.entries}] @ 0x{word.address():04x} += 4;")
    for word in registers.result_runs:
        put(1, "reg {")
        put(2, f"desc = {_quoted(_described(word))};")
        put(2, "regwidth = 64;")
        put(2, "field { sw = r; hw = w; } value[63:0];")
        put(1, f"}} result_{_flat(word)}[{word.entries}] @ 0x{word.address():04x} += 8;")
    lines.append("};")
    return "\n".join(lines) + "\n"


def c_header(registers: RegisterMap | ArrayMap) -> str:
    """The map as a C99 header of ``#define`` s, nothing else.

    Prefix ``<NAME>_``. Registers: the name and ``_ADDRESS``, masks and shifts per field. Words:
    ``_ADDRESS``, ``_INDEX``, ``_ENTRIES``, ``_FRACTION_BITS``, and for parameters ``_MIN``, ``_MAX``
    (codes) and ``_DEFAULT`` where one code stands for all entries. Results start with ``RESULT_``. Of an array:
    ``PROGRAMME_BASE`` and ``PROGRAMME_WORDS``.
    """
    prefix = registers.name.upper()
    guard = f"{prefix}_REGISTERS_H"
    major, minor, patch = registers.version
    lines = [
        f"/* {registers.name} {major}.{minor}.{patch}: byte addresses of the AXI4-Lite port. */",
        f"#ifndef {guard}",
        f"#define {guard}",
    ]

    def define(name: str, value: str) -> None:
        lines.append(f"#define {prefix}_{name} {value}")

    lines.append("")
    words: tuple[Word, ...] = ()
    if isinstance(registers, ArrayMap):
        define("PROGRAMME_BASE", f"0x{PROGRAMME_BASE:04x}u")
        define("PROGRAMME_WORDS", f"{registers.build.programme}u")
    else:
        define("PARAMETER_BASE", f"0x{PARAMETER_BASE:04x}u")
        define("PARAMETER_WORDS", f"{registers.parameter_words}u")
        define("RESULT_BASE", f"0x{RESULT_BASE:04x}u")
        define("RESULT_COUNT", f"{registers.result_words}u")
        words = (*registers.words, *registers.result_runs)
    for register in registers.registers:
        lines.append(f"\n/* {_comment(register.doc)} */")
        define(f"REG_{register.name}_ADDRESS", f"0x{register.address:04x}u")
        if register.name in registers.constants:
            define(f"REG_{register.name}_VALUE", f"0x{registers.constants[register.name]:08x}u")
        for field in register.fields:
            name = f"REG_{register.name}_{field.name.upper()}"
            define(f"{name}_SHIFT", f"{field.low}u")
            define(f"{name}_MASK", f"0x{((1 << field.width) - 1) << field.low:08x}u")
    for word in words:
        lines.append(f"\n/* {_comment(_described(word))} */")
        name = _flat(word).upper()
        name = f"RESULT_{name}" if word.kind == "result" else f"PARAMETER_{name}"
        define(f"{name}_ADDRESS", f"0x{word.address():04x}u")
        define(f"{name}_INDEX", f"{word.index}u")
        define(f"{name}_ENTRIES", f"{word.entries}u")
        define(f"{name}_FRACTION_BITS", f"({word.format.f})")
        if word.kind != "result":
            define(f"{name}_MIN", f"({word.lo})")
            define(f"{name}_MAX", f"({word.hi})")
            if len(set(word.default)) == 1:
                define(f"{name}_DEFAULT", f"({word.default[0]})")
    lines.append(f"\n#endif /* {guard} */")
    return "\n".join(lines) + "\n"


def markdown(registers: RegisterMap | ArrayMap) -> str:
    """The map as a page: its tables and how to use them."""
    major, minor, patch = registers.version
    if isinstance(registers, ArrayMap):
        build, array = registers.build, registers.build.array
        what = (
            f"{array.rows} x {array.columns} elements, three memories of {build.elements} operands of "
            f"{array.operand} bits, {build.sums} rows of partial sums of {build.total} bits. "
        )
    else:
        what = (
            f"{registers.lanes} pixels per clock, frames up to {registers.max_width} x {registers.max_height}, "
            f"stages {', '.join(registers.stages)}, {'with' if registers.vjp else 'without'} pullback. "
        )
    lines = [
        f"# Registers of {registers.name} {major}.{minor}.{patch}",
        "",
        f"{what}Addresses are of bytes; accesses are of whole 32-bit words. An unmapped address, a write to a "
        "read-only word and a write with partial strobes are answered SLVERR and do nothing.",
        "",
        "## Control registers",
        "",
        "| address | register | access | bits | field | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for register in registers.registers:
        for field in register.fields:
            bits = f"{field.low + field.width - 1}:{field.low}" if field.width > 1 else f"{field.low}"
            doc = _cell(f"{register.doc} {field.doc}" if field.name == "value" else field.doc)
            if register.name in registers.constants:
                value = registers.constants[register.name] >> field.low & ((1 << field.width) - 1)
                doc += f" (reads {f'0x{value:08x}' if register.name == 'ID' else value})"
            lines.append(
                f"| 0x{register.address:04x} | {register.name} | {register.access} | {bits} "
                f"| {field.name} | {doc} |"
            )
    if isinstance(registers, ArrayMap):
        lines += [
            "",
            "## Programme",
            "",
            f"{_PROGRAMME}: word k at 0x{PROGRAMME_BASE:04x} + 4 k, k from 0 to {registers.build.programme - 1}. "
            f"A descriptor is {registers.descriptor} words.",
        ]
        return "\n".join(lines) + "\n"
    first_reserved = max(word.index for word in registers.words if word.kind == "frame") + 1
    lines += [
        "",
        "## Parameters",
        "",
        "A word holds the code of its format, sign-extended to 32 bits. Writing changes a shadow; "
        "CONTROL.commit makes all words active together at the next frame boundary. Write no parameter while "
        f"STATUS.pending is set. Words {first_reserved} to {FRAME_WORDS - 1} are reserved and read as 0.",
        "",
        "| address | word | name | entries | format | codes | default | meaning |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for word in registers.words:
        same = len(set(word.default)) == 1
        lines.append(
            f"| 0x{word.address():04x} | {word.index} | {word.name} | {word.entries} | {word.format} "
            f"| {word.lo} to {word.hi} | {word.default[0] if same else 'table'} | {_cell(word.doc)} |"
        )
    lines += [
        "",
        "## Results",
        "",
        "64-bit signed integers, low half at the address, high half 4 bytes above. Read the low half first: "
        "it latches the high half. Read RESULTS before and after: if it changed, another group replaced the "
        "one being read. Write ACK when done.",
        "",
        "| address | word | name | entries | fraction bits | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for word in registers.result_runs:
        lines.append(
            f"| 0x{word.address():04x} | {word.index} | {word.name} | {word.entries} | {word.format.f} "
            f"| {_cell(word.doc)} |"
        )
    return "\n".join(lines) + "\n"


FORMS: dict[str, tuple[str, Callable[[RegisterMap | ArrayMap], str]]] = {
    "json": (".json", json_text),
    "systemrdl": (".rdl", systemrdl),
    "c": (".h", c_header),
    "markdown": (".md", markdown),
}
"""Form -> file suffix and writer."""


def render(registers: RegisterMap | ArrayMap) -> dict[str, str]:
    """All documents: file name ``<name>_registers<suffix>`` -> text."""
    return {f"{registers.name}_registers{suffix}": write(registers) for suffix, write in FORMS.values()}


_PROGRAMME = "Words of descriptors, written only"


def _flat(word: Word) -> str:
    return word.name.replace(".", "_")


def _described(word: Word) -> str:
    return f"{word.name}, {word.format}: {word.doc}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _comment(text: str) -> str:
    return text.replace("*/", "* /")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
