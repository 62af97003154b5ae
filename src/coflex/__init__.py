"""coflex: flexibility registered, proved, sold once, delivered, measured and paid."""

__version__ = "0.1.0"
