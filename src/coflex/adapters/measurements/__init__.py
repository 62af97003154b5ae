"""Measurements on disk: the log of signed messages, and the tables read from them."""
