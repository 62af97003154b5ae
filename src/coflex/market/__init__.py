"""The market: which session now, whose offers, who holds what, and what clears."""
