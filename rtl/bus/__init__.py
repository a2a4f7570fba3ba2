"""A core's face to its host: AXI4-Lite registers, parameter and result memories, AXI4-Stream edges."""
