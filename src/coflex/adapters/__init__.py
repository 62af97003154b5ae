"""Doors: the only places that know a format, a wire, a table or a screen. No door opens into another."""
