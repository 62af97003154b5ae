"""Metering: baselines, delivered energy, and what is done about readings that are missing or impossible."""
