"""Reads: what a caller may know of the records, by the table of fields (REG-11).

The relation of a caller to a record comes from its roles and from what the record names it as. A record that it may
not know is answered exactly like one that is not there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias, TypeVar, cast

import msgspec

from coflex.domain.errors import Forbidden, NotFound
from coflex.register.fields import Relation, readable, rights, writable
from coflex.register.parties import PartyEntry
from coflex.register.records import KIND_OF, KINDS, Record
from coflex.service.machine import decode
from coflex.service.ports import Version
from coflex.service.relations import EVERYBODY, Asker, candidates, kin_of, relations, standing
from coflex.service.state import State

R = TypeVar("R", bound=Record)
# Lists that are kept from read to read: for the callers who read now, not for all there ever were.
MOST_LISTS = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of a record as a caller may read it: number and instant of the entry that wrote it; None: it ended."""

    id: str
    number: int
    at: datetime
    record: Mapping[str, Any] | None


_Row: TypeAlias = tuple[R, int, frozenset[str]]  # a record, its number, and fields of it that the caller may read


def records(state: State, who: Asker, kind: type[R]) -> list[tuple[R, int]]:
    """The records of a kind that the caller may know, by id, each with the number of the entry that wrote it."""
    return [(one, number) for one, number, _ in _rows(state, who, kind)]


def where(state: State, who: Asker, kind: type[R], paths: Collection[str], meets: Callable[[R], bool]) -> list[R]:
    """The records that meet something said of some of their fields, by id, as far as the caller may read these there:
    what it may not read it does not learn by asking for it either."""
    return [
        one
        for one, _, known in _rows(state, who, kind)
        if meets(one) and (known.issuperset(paths) or readable(kind, relations(state, who, one)).issuperset(paths))
    ]


def _rows(state: State, who: Asker, kind: type[R]) -> list[_Row[R]]:
    known = standing(who)
    whole = readable(kind, known)
    whom = "everybody" if whole else who.party
    lists: _Lists = state.attached("lists", _Lists)
    name = f"{KIND_OF[kind]} for {whom} as {', '.join(sorted(known))}"
    own, leaned = state.stamp((kind,)), state.stamp(kin_of(kind).leans_on)
    kept = lists.get(name)
    if kept is None or (kept.own, kept.leaned) != (own, leaned):
        if whole:
            rows = [(one, state.number(kind, cast("Any", one).id), whole) for one in state.all(kind)]
        else:
            # what a record is to the caller changes with the record, or with those that it leans on
            rows = _mine(state, who, kind, kept.rows if kept is not None and kept.leaned == leaned else ())
        kept = lists.keep(name, _List(own, leaned, rows))
    return kept.rows


def _mine(state: State, who: Asker, kind: type[R], before: Iterable[_Row[R]]) -> list[_Row[R]]:
    """What the caller may know because of what the records name it, by id; `before`: rows that hold where the record is
    the same."""
    known = {id(one): (one, paths) for one, _, paths in before}
    found = dict(candidates(state, kind, who.party))
    if who.roles:
        found |= candidates(state, kind, EVERYBODY)
    rows = []
    for name in sorted(found):
        one = found[name]
        paths = known[id(one)][1] if id(one) in known else readable(kind, relations(state, who, one))
        if paths:
            rows.append((one, state.number(kind, name), paths))
    return rows


@dataclass(frozen=True, slots=True)
class _List:
    """A list as it was read: stamps of its kind and of those on which it leans, and the rows."""

    own: tuple[int, ...]
    leaned: tuple[int, ...]
    rows: list[Any]


@dataclass(eq=False)
class _Lists:
    """The lists that were read last."""

    _kept: OrderedDict[str, _List] = field(default_factory=OrderedDict)

    def get(self, name: str) -> _List | None:
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def keep(self, name: str, one: _List) -> _List:
        self._kept[name] = one
        self._kept.move_to_end(name)
        if len(self._kept) > MOST_LISTS:
            self._kept.popitem(last=False)
        return one


def record(state: State, who: Asker, kind: type[R], id: str) -> R:
    """A record. Raises NotFound where there is none that the caller may know."""
    found = state.find(kind, id)
    if found is None or not readable(kind, relations(state, who, found)):
        raise NotFound(f"There is no {KIND_OF[kind].replace('_', ' ')} '{id}'.", "Check the id.")
    return found


def shown(state: State, who: Asker, record: Record) -> dict[str, Any]:
    """The fields of a record that the caller may read, as JSON carries them; empty where it may not know of it."""
    return _masked(record, readable(type(record), relations(state, who, record)))


def history(state: State, who: Asker, versions: Sequence[Version]) -> list[Seen]:
    """The versions of one record, oldest first, that the caller may know, each by its own relation to that version.

    Raises NotFound where there is none.
    """
    seen = [one for one in (_seen(state, who, version) for version in versions) if one is not None]
    if not seen or all(one.record is None for one in seen):
        what = KIND_OF[KINDS[versions[0].kind]].replace("_", " ") if versions else "record"
        raise NotFound(f"There is no {what} of that id.", "Check the id.")
    first = next(place for place, one in enumerate(seen) if one.record is not None)
    return seen[first:]


def as_of(state: State, who: Asker, versions: Iterable[Version]) -> list[Seen]:
    """Records as they were at an instant, those that the caller may know, by id. `state`: the tenant's at that instant,
    or now, for what the records lean on."""
    found = [_seen(state, who, version) for version in versions if version.body is not None]
    return sorted((one for one in found if one is not None), key=lambda one: one.id)


def _seen(state: State, who: Asker, version: Version) -> Seen | None:
    if version.body is None:
        return Seen(version.id, version.number, version.at, None)
    fields = shown(state, who, decode(version.body, KINDS[version.kind]))
    return Seen(version.id, version.number, version.at, fields) if fields else None


def _masked(record: Record, paths: frozenset[str]) -> dict[str, Any]:
    """The fields at some paths; order as in the record."""
    whole: dict[str, Any] = msgspec.to_builtins(record)
    inner: dict[str, set[str]] = {}
    for path in paths:
        head, _, rest = path.partition(".")
        inner.setdefault(head, set()).add(rest)
    return {
        name: part if "" in inner[name] else {one: part[one] for one in part if one in inner[name]}
        for name, part in whole.items()
        if name in inner
    }


# ---------------------------------------------------------------- what a caller may write


def require(state: State, who: Asker, record: Record, paths: Iterable[str]) -> None:
    """Raises NotFound where the caller may not know of a record, Forbidden where it may not write one of its fields."""
    kind, them = type(record), relations(state, who, record)
    name = KIND_OF[kind].replace("_", " ")
    if not readable(kind, them):
        raise NotFound(f"There is no {name} '{cast('Any', record).id}'.", "Check the id.")
    _permit(f"the {name} '{cast('Any', record).id}'", who, kind, them, paths)


def require_new(state: State, who: Asker, record: Record, paths: Iterable[str]) -> None:
    """The same for a record that is to be made. Raises Forbidden."""
    kind = type(record)
    _permit(f"a new {KIND_OF[kind].replace('_', ' ')}", who, kind, relations(state, who, record), paths)


def _permit(what: str, who: Asker, kind: type[Record], them: frozenset[Relation], paths: Iterable[str]) -> None:
    barred = sorted(set(paths) - writable(kind, them))
    if barred:
        needed = sorted({one.value for one in rights(KIND_OF[kind], barred[0]).write} - {Relation.CONSEQUENCE.value})
        raise Forbidden(
            f"{who.party} may not write {', '.join(barred)} of {what}.",
            f"Ask {' or '.join(needed)}." if needed else "Nobody may; it follows from something else.",
        )


def may_read_personal(state: State, who: Asker, party: str) -> bool:
    """Whether the caller may read the personal data of a party, which are kept apart from its record."""
    entry = state.find(PartyEntry, party)
    return entry is not None and bool(rights("personal", "data").read & relations(state, who, entry))
