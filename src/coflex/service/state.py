"""The state of a tenant in memory: the newest version of every record, by kind and id.

Records are frozen dataclasses of `coflex.register.records`; a write replaces one by another and can be taken back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from coflex.domain.errors import NotFound
from coflex.register.records import KIND_OF, Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Undo:
    """What a write replaced: the record (None: there was none) and the number of the entry that wrote it."""

    kind: str
    id: str
    record: Record | None
    number: int


@dataclass(eq=False, slots=True)
class _Ordered:
    """The records of a kind in the order of their ids. A write moves pointers; nothing is sorted anew."""

    ids: list[str]
    records: list[Record]

    @classmethod
    def of(cls, records: dict[str, Record]) -> _Ordered:
        ids = sorted(records)
        return cls(ids, [records[id] for id in ids])

    def set(self, id: str, record: Record | None) -> None:
        place = bisect_left(self.ids, id)
        there = place < len(self.ids) and self.ids[place] == id
        if record is None and there:
            del self.ids[place], self.records[place]
        elif record is not None and there:
            self.records[place] = record
        elif record is not None:
            self.ids.insert(place, id)
            self.records.insert(place, record)


@dataclass(eq=False)
class State:
    """All records of one tenant. Only `put` and `take_back` change it; verbs read."""

    tenant: str
    _records: dict[str, dict[str, Record]] = field(default_factory=dict)
    _ordered: dict[str, _Ordered] = field(default_factory=dict)
    _watchers: dict[str, list[Callable[[Any, Any], None]]] = field(default_factory=dict)
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    _written: dict[str, int] = field(default_factory=dict)
    _derived: dict[str, tuple[tuple[int, ...], Any]] = field(default_factory=dict)
    _attached: dict[str, Any] = field(default_factory=dict)

    # ---------------------------------------------------------------- reading

    def find(self, kind: type[R], id: str) -> R | None:
        """The record, or None."""
        return cast("R | None", self._records.get(KIND_OF[kind], {}).get(id))

    def get(self, kind: type[R], id: str) -> R:
        """The record. Raises NotFound."""
        found = self.find(kind, id)
        if found is None:
            raise NotFound(f"There is no {KIND_OF[kind].replace('_', ' ')} '{id}'.", "Check the id.")
        return found

    def all(self, kind: type[R]) -> tuple[R, ...]:
        """Every record of a kind, by id."""
        name = KIND_OF[kind]

        def make() -> tuple[R, ...]:
            # ordered once, when somebody first asks: a state that is being loaded has nobody who does
            if name not in self._ordered:
                self._ordered[name] = _Ordered.of(self._of(kind))
            return cast("tuple[R, ...]", tuple(self._ordered[name].records))

        return self.derived(f"all {name}", (kind,), make)

    def count(self, kind: type[Record]) -> int:
        return len(self._of(kind))

    def number(self, kind: type[Record], id: str) -> int:
        """Number of the entry that last wrote the record, 0 where there is none: what an ETag shows."""
        return self._numbers.get((KIND_OF[kind], id), 0)

    def derived(self, name: str, kinds: tuple[type[Record], ...], make: Callable[[], T]) -> T:
        """Something computed from whole kinds of records, kept until one of them is written."""
        stamp = self.stamp(kinds)
        kept = self._derived.get(name)
        if kept is None or kept[0] != stamp:
            kept = (stamp, make())
            self._derived[name] = kept
        return cast("T", kept[1])

    def stamp(self, kinds: tuple[type[Record], ...]) -> tuple[int, ...]:
        """Another value once a record of one of the kinds is written."""
        return tuple([self._written.get(KIND_OF[kind], 0) for kind in kinds])

    def watch(self, kind: type[R], told: Callable[[R | None, R | None], None]) -> None:
        """From now on tell every write of a kind, one that is taken back too: the record before, the record after."""
        self._watchers.setdefault(KIND_OF[kind], []).append(told)

    def attached(self, name: str, make: Callable[[], T]) -> T:
        """What a part of the machine keeps beside the records, made when it is first asked for."""
        if name not in self._attached:
            self._attached[name] = make()
        return cast("T", self._attached[name])

    def grouped(self, kind: type[R], name: str, key: Callable[[R], str]) -> dict[str, tuple[R, ...]]:
        """Records of a kind by a key, each group by id; `name` names the key."""

        def make() -> dict[str, tuple[R, ...]]:
            groups: dict[str, list[R]] = {}
            for record in self.all(kind):
                groups.setdefault(key(record), []).append(record)
            return {one: tuple(of) for one, of in groups.items()}

        return self.derived(f"{KIND_OF[kind]} by {name}", (kind,), make)

    def kinds(self) -> Iterator[tuple[str, str, Record, int]]:
        """(kind, id, record, number) of everything, sorted."""
        for kind in sorted(self._records):
            for id in sorted(self._records[kind]):
                yield kind, id, self._records[kind][id], self._numbers[kind, id]

    def _of(self, kind: type[Record]) -> dict[str, Record]:
        return self._records.get(KIND_OF[kind], {})

    # ---------------------------------------------------------------- writing

    def put(self, kind: str, id: str, record: Record | None, number: int) -> Undo:
        """Write (or end, with None) a record; what it returns takes it back."""
        of_kind = self._records.setdefault(kind, {})
        undo = Undo(kind, id, of_kind.get(id), self._numbers.get((kind, id), 0))
        self._set(kind, id, record, number)
        return undo

    def take_back(self, undo: Undo) -> None:
        self._set(undo.kind, undo.id, undo.record, undo.number)

    def _set(self, kind: str, id: str, record: Record | None, number: int) -> None:
        of_kind = self._records.setdefault(kind, {})
        before = of_kind.get(id)
        if record is None:
            of_kind.pop(id, None)
            self._numbers.pop((kind, id), None)
        else:
            of_kind[id] = record
            self._numbers[kind, id] = number
        self._written[kind] = self._written.get(kind, 0) + 1
        if kind in self._ordered:
            self._ordered[kind].set(id, record)
        for told in self._watchers.get(kind, ()):
            told(before, record)
