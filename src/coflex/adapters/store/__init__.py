"""The store: where verbs meet. In one SQLite file, in PostgreSQL, or in memory; the same port, the same answers."""

from coflex.adapters.store.memory import MemoryStore
from coflex.adapters.store.sql import SqlStore

__all__ = ["MemoryStore", "SqlStore"]
