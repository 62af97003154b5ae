"""Studies of a grid by itself, without a market: what the commands `coflex grid ...` answer."""
