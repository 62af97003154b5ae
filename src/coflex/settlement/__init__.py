"""Settlement: what delivered energy is worth, who pays whom, and books that balance to the cent."""
