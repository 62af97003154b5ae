"""Documents that leave and enter: one folder a standard."""
