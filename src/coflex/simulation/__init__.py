"""Cases to play with and the counterparts that play them. All chance comes from a case's seed."""
