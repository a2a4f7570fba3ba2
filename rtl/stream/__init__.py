"""What pixels stream through: feeders, windows, their transposes, FIFOs, tapes and exact sums."""
