"""The command line: one command a verb, tables for people, JSON for machines."""
