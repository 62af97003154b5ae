"""Records by something they name, kept from one command to the next: who is at a point, in which groups a unit is.

A state says only that a kind was written, not what. So an index compares the records with those that it saw last, by
identity, and moves what differs: a write among 100,000 records costs milliseconds, not the making of all entries anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from coflex.register.records import KIND_OF, Record
from coflex.service.state import State

R = TypeVar("R", bound=Record)


@dataclass(eq=False)
class Index(Generic[R]):
    """Records of one kind by each of their keys; `keys` is a pure function of the record."""

    kind: type[R]
    keys: Callable[[R], Iterable[str]]
    _stamp: object = None
    _seen: dict[int, R] = field(default_factory=dict)
    _table: dict[str, dict[str, R]] = field(default_factory=dict)

    def at(self, key: str) -> tuple[R, ...]:
        """The records with a key, by id."""
        found = self._table.get(key, {})
        return tuple(found[id] for id in sorted(found))

    def renew(self, state: State) -> None:
        """Take in what was written since the last time."""
        stamp = state.stamp((self.kind,))
        if stamp == self._stamp:
            return
        now = {id(one): one for one in state.all(self.kind)}
        for gone in self._seen.keys() - now.keys():
            self._drop(self._seen[gone])
        for new in now.keys() - self._seen.keys():
            self._add(now[new])
        self._stamp, self._seen = stamp, now

    def _add(self, one: Any) -> None:
        for key in self.keys(one):
            self._table.setdefault(key, {})[one.id] = one

    def _drop(self, one: Any) -> None:
        for key in self.keys(one):
            there = self._table[key]
            there.pop(one.id, None)
            if not there:
                del self._table[key]


def index(state: State, kind: type[R], name: str, keys: Callable[[R], Iterable[str]]) -> Index[R]:
    """The index of a kind under a name, as the state is now; one name has one `keys`."""
    found: Index[R] = state.attached(f"index of {KIND_OF[kind]} by {name}", lambda: Index(kind, keys))
    found.renew(state)
    return found
