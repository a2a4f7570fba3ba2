"""A design's Verilog as a shared library: Verilator's model and a clock loop around it, compiled together."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pullback.sim import toolchain
from pullback.sim.cache import digest, once

__all__ = ["BuildFailed", "Loop", "Ports", "Progress", "shared_object"]

Progress = Callable[[float, str], None]
Ports = Mapping[str, Any]

_CACHE_FORMAT = "3"  # of what _Builder leaves in the cache


class BuildFailed(RuntimeError):  # noqa: N818 - reads as what happened
    """Verilator or the C++ compiler refused the sources; the message carries their words."""


@dataclass(frozen=True)
class Loop:
    """A clock loop.

    Attributes
    ----------
    source : Path
        C++ that is compiled with the model; it includes ``ports.h``.
    check : callable
        Refuses ports, name -> (direction, width), that the loop cannot serve, with :class:`BuildFailed`.
    header : callable
        ``ports.h``, of ports.
    """

    source: Path
    check: Callable[[dict[str, tuple[str, int]]], None]
    header: Callable[[dict[str, tuple[str, int]]], str] = lambda ports: ""


def shared_object(
    loop: Loop,
    sources: Mapping[str, str],
    *,
    top: str,
    ports: Ports | None = None,
    optimise: str = "fast",
    progress: Progress | None = None,
    jobs: int | None = None,
) -> Path:
    """Compiles a design, or finds it in the cache. Beside it lies ``ports.json``.

    Parameters
    ----------
    loop : Loop
    sources : dict
        File name -> Verilog or SystemVerilog text.
    top : str
        Name of the top module.
    ports : dict, optional
        Name -> (direction, width, ...), as ``pullback.gen.verilog.ports`` gives it: checked against the Verilog.
    optimise : str
        ``"quick"`` for tests that run few clocks, ``"fast"`` for everything that iterates.
    progress : callable, optional
        Gets (fraction, message).
    jobs : int, optional
        Compilers at a time; default: one per processor.

    Raises
    ------
    ToolMissing
        If Verilator or the C++ compiler is not there.
    BuildFailed
        If one of them refuses the sources, or the ports are others.
    """
    return _Builder(
        loop, sources, top, ports, optimise, progress or _silent, jobs or os.cpu_count() or 1
    ).shared_object()


# Of the C++ compiler, chosen by measurement; see "optimise" in Model.build.
_LEVELS = {"quick": "-O0", "fast": "-O2"}
# A clock is one long function unless it is split, and g++ takes far longer than twice for one of twice the length.
_VERILATOR_FLAGS = (
    "--cc", "--prefix", "Vmodel", "--no-timing", "--x-assign", "fast", "--x-initial", "fast",
    "-O3", "--output-split", "20000", "--output-split-cfuncs", "1000",
    "-Wno-lint", "-Wno-style", "-Wno-UNOPTFLAT", "--quiet",
)  # fmt: skip
# Several models live in one process: nothing but the C interface may be visible, and no symbol shared.
_CXX_FLAGS = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-w", "-DVL_TIME_CONTEXT")
_LINUX_FLAGS = ("-fno-gnu-unique",) if sys.platform == "linux" else ()
_FEATURES = ("COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF")
_PORT = re.compile(r"VL_(IN|OUT)(?:8|16|64|W)?\(&(\w+),(\d+),(\d+)(?:,\d+)?\);")


def _silent(fraction: float, message: str) -> None:
    pass


def _run_all(
    commands: Sequence[tuple[str, Sequence[str]]],
    cwd: Path,
    *,
    jobs: int = 1,
    done: Callable[[str], None] = lambda name: None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs named commands, ``jobs`` at a time. If one fails or Ctrl-C comes, none is left running."""
    waiting = list(commands)
    running: dict[str, tuple[subprocess.Popen[str], Path]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name, command = waiting.pop(0)
                log = cwd / f"{name}.log"
                with open(log, "w") as handle:
                    process = subprocess.Popen(
                        command, cwd=cwd, stdout=handle, stderr=subprocess.STDOUT, text=True, env=environment
                    )
                running[name] = (process, log)
            time.sleep(0.005)
            for name, (process, log) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode:
                    words = "\n".join(log.read_text(errors="replace").splitlines()[:40])
                    raise BuildFailed(f"{name} failed:\n{words}")
                done(name)
    finally:
        for process, _ in running.values():
            process.kill()
            process.wait()


def _read_ports(header: str) -> dict[str, tuple[str, int]]:
    """Ports of the verilated class: name -> (direction, width)."""
    found = {}
    for kind, name, high, low in _PORT.findall(header):
        found[name.replace("___05F", "__")] = ("in" if kind == "IN" else "out", int(high) - int(low) + 1)
    return found


def _check_described(found: dict[str, tuple[str, int]], expected: Ports) -> None:
    for name, description in expected.items():
        direction, width, *_ = description
        if width and found.get(name) != (direction, width):
            raise BuildFailed(
                f"port {name} is described as {(direction, width)}; the Verilog has {found.get(name)}"
            )


class _Builder:
    """Makes one shared object, or finds it in the cache."""

    def __init__(
        self,
        loop: Loop,
        sources: Mapping[str, str],
        top: str,
        ports: Ports | None,
        optimise: str,
        progress: Progress,
        jobs: int,
    ) -> None:
        if optimise not in _LEVELS:
            raise ValueError(f"optimise is {optimise!r}; it is one of {', '.join(_LEVELS)}")
        if not sources:
            raise ValueError("sources is empty: give at least one Verilog text")
        for name in sources:
            if Path(name).name != name or name.startswith((".", "-")):
                raise ValueError(f"source name {name!r} is not a plain file name")
        self.loop, self.sources, self.top, self.ports = loop, sources, top, ports
        self.progress, self.jobs = progress, jobs
        self.level = _LEVELS[optimise]
        self.verilator, self.cxx = toolchain.model_tools()
        assert self.verilator.root is not None
        include = self.verilator.root / "include"
        self.flags = [
            *_CXX_FLAGS, *_LINUX_FLAGS, f"-I{include}", f"-I{include / 'vltstd'}", "-I.",
            *(f"-DVM_{feature}=0" for feature in _FEATURES), "-DVERILATOR=1",
        ]  # fmt: skip
        tools = (
            self.verilator.version,
            str(self.verilator.path),
            self.cxx.version,
            sys.platform,
            platform.machine(),
        )
        self.runtime_key = digest("runtime", *tools, *self.flags)
        self.key = digest(
            "model", _CACHE_FORMAT, self.runtime_key, top, *_VERILATOR_FLAGS, self.level,
            loop.source.read_text(), *(part for name in sorted(sources) for part in (name, sources[name])),
        )  # fmt: skip

    def shared_object(self) -> Path:
        waiting = "another process builds the same model: waiting for it"
        folder = once(self.key, self._build, waits=lambda: self.progress(0.0, waiting))
        found = json.loads((folder / "ports.json").read_text())
        self._check({name: tuple(port) for name, port in found.items()})
        self.progress(1.0, "model ready")
        return folder / "model.so"

    def _check(self, found: dict[str, tuple[str, int]]) -> None:
        self.loop.check(found)
        _check_described(found, self.ports or {})

    def _runtime(self) -> Path:
        """Verilator's run-time library as objects; the same for all models."""

        def fill(work: Path) -> None:
            self.progress(0.0, "compiling Verilator's runtime, once")
            assert self.verilator.root is not None
            include = self.verilator.root / "include"
            names = ("verilated", "verilated_threads")
            commands = [
                (name, self._compile(include / f"{name}.cpp", f"{name}.o", ["-O2"])) for name in names
            ]
            _run_all(commands, work, jobs=self.jobs)

        return once(self.runtime_key, fill, waits=lambda: self.progress(0.0, "waiting for the runtime"))

    def _units(self, work: Path) -> dict[str, list[str]]:
        """Name of a translation unit -> generated files in it. Verilator's headers cost more than a small file."""
        once = sorted(path.name for path in work.glob("Vmodel*Slow*.cpp"))
        often = sorted(path.name for path in work.glob("Vmodel_*.cpp") if path.name not in once)
        units = {"once": once, "loop": ["Vmodel.cpp", self.loop.source.name]}
        if sum((work / name).stat().st_size for name in often) < 300_000:
            units["loop"] += often
        else:
            units.update({f"evaluate_{k}": [name] for k, name in enumerate(often)})
        return units

    def _compile(self, source: str | Path, target: str, flags: Sequence[str]) -> list[str]:
        cache = toolchain.ccache()
        launcher = [str(cache)] if cache else []
        return [*launcher, str(self.cxx.path), *self.flags, *flags, "-c", str(source), "-o", target]

    def _build(self, work: Path) -> None:
        runtime = self._runtime()
        for name, text in self.sources.items():
            (work / name).write_text(text)
        self.progress(0.02, "verilating")
        verilate = [
            str(self.verilator.path), *_VERILATOR_FLAGS, "--top-module", self.top, "--Mdir", ".", *self.sources,
        ]  # fmt: skip
        environment = {**os.environ, "VERILATOR_ROOT": str(self.verilator.root)}
        _run_all([("verilator", verilate)], work, environment=environment)
        ports = _read_ports((work / "Vmodel.h").read_text())
        self._check(ports)
        (work / "ports.h").write_text(self.loop.header(ports))
        (work / "ports.json").write_text(json.dumps(ports, indent=1))
        (work / self.loop.source.name).write_text(self.loop.source.read_text())
        units = self._units(work)
        sizes = {
            name: 20000 + sum((work / part).stat().st_size for part in parts) for name, parts in units.items()
        }
        total, finished = sum(sizes.values()), 0

        def done(name: str) -> None:
            nonlocal finished
            finished += sizes[name]
            self.progress(0.1 + 0.85 * finished / total, f"compiled {name}")

        commands = []
        for name in sorted(units, key=lambda name: -sizes[name]):
            (work / f"{name}.cc").write_text("".join(f'#include "{part}"\n' for part in units[name]))
            # Constructors and initial blocks run once: optimising them buys nothing.
            level = "-O0" if name == "once" else self.level
            commands.append((name, self._compile(f"{name}.cc", f"{name}.o", [level])))
        self.progress(0.1, f"compiling {len(units)} files")
        _run_all(commands, work, jobs=self.jobs, done=done)
        objects = [f"{name}.o" for name in units] + [str(path) for path in sorted(runtime.glob("*.o"))]
        linker = ["-Wl,-Bsymbolic", "-Wl,-z,defs"] if sys.platform == "linux" else []
        link = [str(self.cxx.path), "-shared", *linker, "-o", "model.so", *objects, "-pthread"]
        _run_all([("link", link)], work)
        for path in work.iterdir():
            if path.name not in ("model.so", "ports.json"):
                path.unlink() if path.is_file() else shutil.rmtree(path)
