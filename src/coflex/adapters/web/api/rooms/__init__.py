"""The operations of the API, one module a topic, each with its `ROOM`."""
