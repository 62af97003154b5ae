"""Activation: from an order to set points, and what is done when the grid or a unit cannot follow."""
