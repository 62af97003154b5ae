"""Records by something they name, kept from one command to the next: who is at a point, in which groups a unit is.

A state says only that a kind was written, not what. So the indexes of a kind compare its records with those that they
saw last, by identity, and move what differs: nothing is made anew for one write among 100,000 records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from coflex.register.records import KIND_OF, Record
from coflex.service.state import State

R = TypeVar("R", bound=Record)
Keys = Callable[[R], Iterable[str]]


@dataclass(eq=False)
class Index(Generic[R]):
    """Records of one kind by each of their keys; `keys` is a pure function of the record."""

    keys: Keys[R]
    _table: dict[str, dict[str, R]] = field(default_factory=dict)

    def at(self, key: str) -> tuple[R, ...]:
        """The records with a key, by id."""
        found = self._table.get(key)
        return tuple([found[id] for id in sorted(found)]) if found else ()

    def add(self, one: Any) -> None:
        for key in self.keys(one):
            self._table.setdefault(key, {})[one.id] = one

    def drop(self, one: Any) -> None:
        for key in self.keys(one):
            there = self._table[key]
            there.pop(one.id, None)
            if not there:
                del self._table[key]


@dataclass(eq=False)
class _Indexes(Generic[R]):
    """All indexes of a kind, and the records that they hold, by identity."""

    kind: type[R]
    stamp: object = None
    seen: dict[int, R] = field(default_factory=dict)
    by_name: dict[str, Index[R]] = field(default_factory=dict)

    def renew(self, state: State) -> None:
        """Take in what was written since the last time."""
        stamp = state.stamp((self.kind,))
        if stamp == self.stamp:
            return
        now = {id(one): one for one in state.all(self.kind)}
        gone = [self.seen[one] for one in self.seen.keys() - now.keys()]
        new = [now[one] for one in now.keys() - self.seen.keys()]
        for each in self.by_name.values():
            for one in gone:
                each.drop(one)
            for one in new:
                each.add(one)
        self.stamp, self.seen = stamp, now

    def named(self, name: str, keys: Keys[R]) -> Index[R]:
        found = self.by_name.get(name)
        if found is None:
            found = self.by_name[name] = Index(keys)
            for one in self.seen.values():
                found.add(one)
        return found


def index(state: State, kind: type[R], name: str, keys: Keys[R]) -> Index[R]:
    """The index of a kind under a name, as the state is now; one name has one `keys`."""
    indexes: _Indexes[R] = state.attached(f"indexes of {KIND_OF[kind]}", lambda: _Indexes(kind))
    indexes.renew(state)
    return indexes.named(name, keys)
