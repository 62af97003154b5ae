"""Records by something they name, kept from one command to the next: who is at a point, in which groups a unit is.

An index is filled once and then told every write of its kind, so that nothing is made anew for one write among 100,000
records.
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

    def write(self, before: R | None, after: R | None) -> None:
        """Take in a write: what was there, and what is there now; None: nothing."""
        if before is not None:
            self._drop(before)
        if after is not None:
            self.add(after)

    def add(self, one: Any) -> None:
        for key in self.keys(one):
            self._table.setdefault(key, {})[one.id] = one

    def _drop(self, one: Any) -> None:
        for key in set(self.keys(one)):
            there = self._table[key]
            del there[one.id]
            if not there:
                del self._table[key]


def index(state: State, kind: type[R], name: str, keys: Keys[R]) -> Index[R]:
    """The index of a kind under a name, as the state is now; one name has one `keys`."""

    def make() -> Index[R]:
        made = Index(keys)
        for one in state.all(kind):
            made.add(one)
        state.watch(kind, made.write)
        return made

    return state.attached(f"{KIND_OF[kind]} by {name}", make)
