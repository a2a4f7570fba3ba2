"""What yosys is told of a core, and its parts, each mapped to the cells of an ECP5 by a yosys of its own.

A submodule of the core is a *unit*: its boundary stays through synthesis, since what crosses it comes from registers
anyway.

Behind ABC yosys 0.70 puts a module together again by names, where bit 2 of a wire ``w`` is ``w[2]``, as is the whole of
a wire ``w[2]``, such as Amaranth makes for an element of an array. It takes one for the other: at best it stops at an
assertion of its own, or two cells come to drive one net, and at worst a look-up table reads the other signal, without
a word. So no wire keeps such a name (`unambiguous`).
"""

from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .flow import run_tool, tool_versions

__all__ = ["Units", "run_yosys", "unambiguous"]

_FOLDER = "units"

_MODULE = re.compile(r"^(?:\(\*.*\*\)\n)*module (\S+?) ?\(.*?^endmodule$", re.MULTILINE | re.DOTALL)

# A unit forgets that it was the top: what is around it is.
_SCRIPT = """\
read_verilog {stamp}.v
%s
setattr -mod -unset top *
write_rtlil {stamp}.part
"""
_WHOLE = "synth_ecp5 -top {name}"

# Registers that `synth_ecp5` of yosys 0.70 makes, in its own step that follows.
_REGISTERS = (
    "$_DFF_?_ 01", "$_DFF_?P?_ r", "$_SDFF_?P?_ r", "$_DFFE_??_ 01", "$_DFFE_?P??_ r", "$_SDFFE_?P??_ r",
    "$_DLATCH_?_ x",
)  # fmt: skip


def _unit_script(controls: int) -> str:
    """What yosys is told of a unit, ``{stamp}`` and ``{name}`` still to be filled in."""
    if controls <= 1:
        return _SCRIPT % _WHOLE
    made = " ".join(f"-cell {each}" for each in _REGISTERS)
    steps = [
        f"{_WHOLE} -run :map_ffs",
        "opt_clean",
        f"dfflegalize {made} -mince {controls} -minsrst {controls}",
        f"{_WHOLE} -run map_ffs:",
    ]
    return _SCRIPT % "\n".join(steps)


_DECLARED = re.compile(r"^  (input|output|wire|reg) (?:\[\d+:0\] )?(\S+?) ?(?:;| =)", re.MULTILINE)
_ELEMENT = re.compile(r"\\(?P<array>\S+)\[(?P<index>\d+)\](?= )")


def unambiguous(core: str) -> str:
    """Plain Verilog in which no wire is named like a bit of another one: ``w(2)`` for a wire ``w[2]`` beside ``w``.

    Ports keep their names.
    """

    def module(found: re.Match[str]) -> str:
        names = {(kind, name.removeprefix("\\")) for kind, name in _DECLARED.findall(found[0])}
        every = {name for _, name in names}
        ports = {name for kind, name in names if kind in ("input", "output")}

        def element(name: re.Match[str]) -> str:
            if name["array"] not in every or name[0].removeprefix("\\") in ports:
                return name[0]
            return f"\\{name['array']}({name['index']})"

        return _ELEMENT.sub(element, found[0])

    return _MODULE.sub(module, core)


@dataclass(frozen=True, kw_only=True)
class Units:
    """What yosys is told of each unit of a core.

    Attributes
    ----------
    texts : dict of str to str
        Name of the module -> Verilog of the unit; units inside it are black boxes.
    stamps : dict of str to str
        Name of the module -> hash of its text, the script and the tools' versions.
    script : str
        What yosys is told of each, ``{stamp}`` and ``{name}`` to be filled in.
    """

    texts: dict[str, str]
    stamps: dict[str, str]
    script: str

    @classmethod
    def of(cls, core: str, apart: str = "", controls: int = 1) -> Units:
        """Units of a core in plain Verilog: its submodules, and whatever below them has a name that matches ``apart``
        (with * and ?). Clears and enables of fewer than ``controls`` registers become logic in front of these.

        Raises
        ------
        SynthesisError
            If yosys or nextpnr is not installed.
        """
        tools = tool_versions()
        texts, script = _texts(core, apart), _unit_script(controls)
        stamps = {
            name: hashlib.sha256(f"{text}{script}{tools}".encode()).hexdigest()
            for name, text in texts.items()
        }
        return cls(texts=texts, stamps=stamps, script=script)

    def map(self, directory: Path, workers: int = 1) -> None:
        """Leaves every unit as ``units/STAMP.il`` in a directory, ``workers`` at a time; one that is there is kept.

        Raises
        ------
        SynthesisError
            If yosys fails.
        """

        def one(name: str) -> None:
            _map(name, self.texts[name], directory / _FOLDER, self.stamps[name], self.script)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, self.texts))

    @property
    def out(self) -> list[str]:
        """Lines of a script of yosys that make units black boxes, before all around them is mapped."""
        return [f"blackbox {name}" for name in self.texts]

    @property
    def back(self) -> list[str]:
        """Lines that bring back units as they were mapped."""
        return [
            *(f"delete {name}" for name in self.texts),
            *(f"read_rtlil {_FOLDER}/{stamp}.il" for stamp in self.stamps.values()),
        ]


def _texts(core: str, apart: str) -> dict[str, str]:
    """The parts of a core with all that belongs to each: module name -> Verilog. Units inside one are black boxes."""
    found: dict[str, list[str]] = {}
    texts = {module[1]: module[0] for module in _MODULE.finditer(core)}
    for name, text in texts.items():
        path = name.split(".")
        ends = [k + 1 for k, part in enumerate(path) if k > 1 and fnmatchcase(part, apart)]
        if len(path) > 1:
            found.setdefault(".".join(path[: ends[0] if ends else 2]), []).append(text)
    for name, parts in list(found.items()):
        inside = [each for each in found if each.startswith(f"{name}.")]
        if inside and not any("always @" in part for part in parts):
            # Wires between units are no unit.
            del found[name]
        parts += [_black_box(texts[each]) for each in inside]
    return {name: "\n".join(parts) + "\n" for name, parts in found.items()}


def _black_box(module: str) -> str:
    """A module's name and ports alone."""
    header = module[module.index("module ") : module.index(");") + 2]
    directions = re.findall(r"^  (?:input|output) .*;$", module, re.MULTILINE)
    return "\n".join(["(* blackbox *)", header, *directions, "endmodule"])


def _map(name: str, text: str, directory: Path, stamp: str, script: str) -> None:
    if (directory / f"{stamp}.il").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{stamp}.v").write_text(text)
    run_yosys(script.format(stamp=stamp, name=name), directory, stem=stamp, log=f"{stamp}.log")
    # Under its own name only once it is whole.
    (directory / f"{stamp}.part").rename(directory / f"{stamp}.il")


def run_yosys(script: str, directory: Path, *, stem: str, log: str) -> None:
    """Runs a script of yosys, kept as ``STEM.ys`` in the directory."""
    (directory / f"{stem}.ys").write_text(script)
    run_tool("yosys", "-s", f"{stem}.ys", directory=directory, log=log)
