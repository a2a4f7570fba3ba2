"""What leaves the generator: Verilog, register maps, reports, synthesis figures; presets and their validation."""
