"""What runs the hardware without a chip: golden models, simulators, benches, RTL as a fast callable."""
