"""The parts of the two-stage clearing: what is offered and expected, the program, the passes."""
