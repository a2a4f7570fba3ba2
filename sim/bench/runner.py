"""The only module that knows cocotb's runner, which is marked experimental (cocotb 2.1)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pullback.sim.cache import digest, once
from pullback.sim.toolchain import icarus, simulator_environment, verilator

__all__ = ["SIMULATORS", "BenchError", "run_bench"]

SIMULATORS = ("icarus", "verilator")
_TIMESCALE = ("1ns", "1ps")  # always: without it Icarus rounds half a clock period to nothing
_PORT = re.compile(r"\b(?:input|output)\b(?:\s+(?:wire|reg|logic|signed)\b)*\s*(?:\[[^\]]*\])?\s*(\w+)")


class BenchError(AssertionError):
    """A bench failed, or did not run at all. The message ends with what the simulator printed."""


def _top_ports(sources: Mapping[str, str], top: str) -> list[str]:
    for text in sources.values():
        if (
            found := re.search(rf"^\s*module\s+{re.escape(top)}\b(.*?)^\s*endmodule", text, re.S | re.M)
        ) is not None:
            return sorted(set(_PORT.findall(found.group(1))))
    raise ValueError(f"no source has a module {top!r}: name the top module with top=")


def _build(folder: Path, sources: Mapping[str, str], top: str, simulator: str) -> None:
    from cocotb_tools.runner import get_runner

    files = []
    arguments: list[str] = []
    if simulator == "verilator":
        # The runner makes every signal public, which costs half the speed; only the ports are needed.
        # The control file must not be the last source: the runner takes the language from that one.
        control = "`verilator_config\n" + "".join(
            f'public_flat_rw -module "{top}" -var "{name}"\n' for name in _top_ports(sources, top)
        )
        files.append(folder / "ports.vlt")
        files[0].write_text(control)
        arguments = ["--no-public-flat-rw", "--no-timing", "-Wno-lint", "-Wno-style", "-Wno-UNOPTFLAT",
                     "-Wno-SYMRSVDWORD", "--output-split", "5000", "-MAKEFLAGS", "OPT_FAST=-O1"]  # fmt: skip
    for name, text in sources.items():
        files.append(folder / name)
        files[-1].write_text(text)
    log = folder / "build.log"
    try:
        get_runner(simulator).build(
            sources=files, hdl_toplevel=top, build_dir=folder, build_args=arguments, timescale=_TIMESCALE,
            always=True, log_file=log,
        )  # fmt: skip
    except (SystemExit, RuntimeError, OSError) as error:
        words = log.read_text() if log.exists() else ""
        raise BenchError(f"{simulator} does not build {top}: {error}\n{words[-3000:]}") from error


def run_bench(
    sources: Mapping[str, str],
    module: str,
    *,
    simulator: str,
    top: str = "core",
    environment: Mapping[str, str] | None = None,
    seed: int = 0,
) -> int:
    """Runs all cocotb tests of a Python module on a design, and returns how many passed.

    Builds are kept in the cache by content.

    Parameters
    ----------
    sources : dict
        File name -> text (of :func:`pullback.gen.verilog.simulation_verilog`, not plain Verilog).
    module : str
        Import path of the module with the ``@cocotb.test`` functions.
    simulator : str
        ``"icarus"`` or ``"verilator"``.
    environment : dict, optional
        Variables for the bench.

    Raises
    ------
    BenchError
        If the design does not build, no test ran, or one failed.
    ToolMissing
        If the simulator is not installed.
    """
    if simulator not in SIMULATORS:
        raise ValueError(f"simulator is {simulator!r}; it is one of {', '.join(SIMULATORS)}")
    from cocotb_tools.check_results import get_results
    from cocotb_tools.config import libs_dir
    from cocotb_tools.runner import get_runner

    tool = icarus() if simulator == "icarus" else verilator()
    texts = [part for name, text in sources.items() for part in (name, text)]
    with simulator_environment(simulator), tempfile.TemporaryDirectory(prefix="pullback-bench-") as scratch:
        # A Verilator bench is linked with the libraries of the environment it was built in, by their path.
        name = digest("bench", "1", simulator, tool.version, str(libs_dir), top, *texts)
        folder = once(name, lambda work: _build(work, sources, top, simulator))
        log, results = Path(scratch) / "test.log", Path(scratch) / "results.xml"
        with suppress(
            SystemExit, RuntimeError
        ):  # the runner raises under pytest only: the results file decides
            get_runner(simulator).test(
                test_module=module, hdl_toplevel=top, hdl_toplevel_lang="verilog", build_dir=folder,
                test_dir=scratch, results_xml=str(results), seed=seed,
                extra_env=dict(environment or {}), timescale=_TIMESCALE, log_file=log,
            )  # fmt: skip
        words = log.read_text()[-8000:] if log.exists() else ""
        if "No tests were discovered" in words:
            raise BenchError(f"{module} has no test")
        if not results.exists():
            raise BenchError(f"{simulator} broke off\n{words}")
        count, failed = get_results(results)
        if count == 0:
            raise BenchError(f"{module} ran no test on {simulator}\n{words}")
        if failed:
            raise BenchError(f"{failed} of {count} tests of {module} failed on {simulator}\n{words}")
        return count
