"""Queries over many points, written once, on the engine that is chosen here."""
