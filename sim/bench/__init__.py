"""Benches on cocotb: the same bodies on Icarus Verilog and on Verilator.

``runner`` builds and runs, ``core`` is called by tests; the other modules run inside the simulator.
"""
