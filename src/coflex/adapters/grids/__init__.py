"""Readers of foreign grids. Their heavy imports stay inside the functions that need them."""
