"""Checkpoints and terms of settlement in a contract of an EVM chain."""
