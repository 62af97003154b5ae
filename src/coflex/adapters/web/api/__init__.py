"""The REST door of the platform: HTTP and JSON in, commands and reads to the machine, problem documents out."""
