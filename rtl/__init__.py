"""What becomes hardware: formats, kernels, streams, units, buses. Imports Amaranth and does no input or output."""
