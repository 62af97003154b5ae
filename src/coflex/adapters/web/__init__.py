"""Web: what people open in a browser."""
