"""Building models: the cache, several builders, what is missing, what is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pullback.sim import toolchain
from pullback.sim.model import Model
from pullback.sim.toolchain import ToolMissing, cache_directory
from pullback.sim.verilated import BuildFailed

_BUILD = """
import sys
from pathlib import Path
from pullback.sim.model import Model
said = []
try:
    model = Model.build({"core.sv": Path(sys.argv[1]).read_text()}, optimise="quick",
                        progress=lambda fraction, message: (said.append(message), print(message, flush=True)))
except KeyboardInterrupt:
    sys.exit(3)
print("id", hex(model.read(0)))
"""


@pytest.fixture
def cache(tmp_path: Path, toy_model: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it but Verilator's runtime."""
    toy_model()
    for folder in cache_directory().glob("runtime-*"):
        if folder.is_dir():
            shutil.copytree(folder, tmp_path / "cache" / folder.name)
    monkeypatch.setenv("PULLBACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(cache: Path) -> list[str]:
    return sorted(p.name.partition("-")[0] for p in cache.iterdir() if p.is_dir() and "runtime" not in p.name)


def test_second_build_is_quick(cache: Path, toy: Any) -> None:
    sources = {"core.sv": toy.toy_core()}
    messages: list[str] = []
    fractions: list[float] = []

    def progress(fraction: float, message: str) -> None:
        fractions.append(fraction)
        messages.append(message)

    Model.build(sources, optimise="quick", progress=progress)
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and "verilating" in messages
    messages.clear()
    started = time.perf_counter()
    Model.build(sources, optimise="quick", progress=lambda f, m: messages.append(m))
    assert time.perf_counter() - started < 1
    assert messages == ["model ready"]
    assert made(cache) == ["model"]


def test_two_processes_build_once(cache: Path, toy: Any, tmp_path: Path) -> None:
    (tmp_path / "core.sv").write_text(toy.toy_core())
    command = [sys.executable, "-c", _BUILD, str(tmp_path / "core.sv")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("id 0x4b4c4250" in text for text in said)
    assert sum("verilating" in text for text in said) == 1
    assert made(cache) == ["model"]


def test_interrupt_leaves_nothing(cache: Path, toy: Any, tmp_path: Path) -> None:
    (tmp_path / "core.sv").write_text(toy.toy_core())
    process = subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(tmp_path / "core.sv")],
        stdout=subprocess.PIPE,
        # A test run in the background ignores SIGINT, and what it starts would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    while b"compiling 2 files" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 3
    assert made(cache) == []


def test_killed_build_is_swept_up(cache: Path, toy: Any, tmp_path: Path) -> None:
    (tmp_path / "core.sv").write_text(toy.toy_core())
    process = subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(tmp_path / "core.sv")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    while b"verilating" not in process.stdout.readline():
        assert process.poll() is None
    process.kill()
    process.wait()
    assert made(cache) == ["building"]
    Model.build({"core.sv": toy.toy_core()}, optimise="quick")
    assert made(cache) == ["model"]


def test_bad_verilog_leaves_nothing(cache: Path) -> None:
    with pytest.raises(BuildFailed, match=r"verilator failed:\n.*core.sv:1"):
        Model.build({"core.sv": "module core(input clk; endmodule"})
    with pytest.raises(BuildFailed, match="has no port rst"):
        Model.build({"core.sv": "module core(input clk, output q); assign q = clk; endmodule"})
    assert made(cache) == []


def test_ports_are_checked(toy: Any) -> None:
    sources = {"core.sv": toy.toy_core()}
    Model.build(sources, optimise="quick", ports={"s_axis_raw_tdata": ("in", 16)})
    with pytest.raises(BuildFailed, match=r"s_axis_raw_tdata is described as \('in', 32\).*\('in', 16\)"):
        Model.build(sources, optimise="quick", ports={"s_axis_raw_tdata": ("in", 32)})


def test_bad_arguments(toy: Any) -> None:
    with pytest.raises(ValueError, match="optimise is 'slow'; it is one of quick, fast"):
        Model.build({"core.sv": toy.toy_core()}, optimise="slow")
    with pytest.raises(ValueError, match="not a plain file name"):
        Model.build({"../core.sv": toy.toy_core()})
    with pytest.raises(ValueError, match="sources is empty"):
        Model.build({})


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy: Any) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=r"g\+\+ is not on PATH: install it with"):
        Model.build({"core.sv": toy.toy_core()})
    with pytest.raises(ToolMissing, match=r"iverilog and vvp are not on PATH: install them with"):
        toolchain.icarus()
    with (
        pytest.raises(ToolMissing, match="make is not on PATH"),
        toolchain.simulator_environment("verilator"),
    ):
        pass
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ToolMissing, match="CXX is 'no-such-compiler'"):
        toolchain.compiler()
    assert "not on PATH" in toolchain.versions()["icarus"]


def test_environment_is_restored() -> None:
    before = dict(os.environ)
    with toolchain.simulator_environment("verilator"):
        assert "CFG_CXXFLAGS_PCH_I=-include" in os.environ["MAKEFLAGS"]
    assert dict(os.environ) == before
