"""Programs in, solutions out; the only room that knows a solver's name."""
