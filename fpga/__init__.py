"""What puts the hardware on a chip: boards, bitstreams, timing and area, flashing, the host's driver."""
