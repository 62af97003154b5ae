"""The platform as one machine that many companies use at once: commands in, records and events out."""
