"""Reporting: indicators, tables and the contents of the page, from what the day left behind. Records in, values out."""
