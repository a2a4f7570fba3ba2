"""The control plane on Icarus, under traffic from cocotbext-axi."""

from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

from pullback.gen.verilog import simulation_verilog
from pullback.rtl.bus.control import Control
from pullback.rtl.bus.registers import ParameterWords, RegisterMap, ResultWords
from pullback.rtl.numeric.format import SQ, UQ


def test_control_on_icarus(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the runner hands its path on
    core = RegisterMap(
        name="core",
        version=(0, 1, 0),
        stages=("gain", "tone"),
        parameters=[
            ParameterWords("gain", "offset", 4, SQ(2, 14), 0, "offsets"),
            ParameterWords("tone", "knot", 9, UQ(1, 15), 0, "knots"),
        ],
        results=[
            ResultWords("tone", "knot", 9, 26, "knots"),
            ResultWords("gain", "offset", 4, 13, "offsets"),
        ],
        lanes=2,
        max_width=640,
        max_height=480,
        vjp=True,
    )
    source = tmp_path / "control.sv"
    source.write_text(simulation_verilog(Control(core, counts=(2, 9, 8)), "control"))
    runner = get_runner("icarus")
    timescale = ("1ns", "1ps")
    runner.build(sources=[source], hdl_toplevel="control", build_dir=tmp_path, timescale=timescale)
    results = runner.test(
        test_module="control_bench",
        hdl_toplevel="control",
        build_dir=tmp_path,
        test_dir=tmp_path,
        timescale=timescale,
        extra_env={"COCOTB_RANDOM_SEED": "1"},
    )
    number, failed = get_results(results)
    assert number == 5 and failed == 0
