"""What leaves the generator: Verilog, register maps, area and clock; presets and their validation."""
