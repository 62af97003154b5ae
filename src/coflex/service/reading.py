"""Reads: what a caller may know of the records, by the table of fields (REG-11).

The relation of a caller to a record comes from its roles and from what the record names it as. A record that it may
not know is answered exactly like one that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar, cast

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


@dataclass(frozen=True, slots=True)
class Seen:
    """A version of a record as a caller may read it: number and instant of the entry that wrote it; None: it ended."""

    id: str
    number: int
    at: datetime
    record: Mapping[str, Any] | None


def records(state: State, who: Asker, kind: type[R]) -> list[tuple[R, int]]:
    """The records of a kind that the caller may know, by id, each with the number of the entry that wrote it."""
    known = standing(who)
    whole = bool(readable(kind, known))

    def make() -> list[tuple[R, int]]:
        found: Iterable[R] = state.all(kind) if whole else _mine(state, who, kind)
        return [(one, state.number(kind, cast("Any", one).id)) for one in found]

    whom = "everybody" if whole else f"{who.party} as {', '.join(sorted(known))}"
    name = f"{KIND_OF[kind]} for {whom}"
    return list(state.derived(name, (kind, *kin_of(kind).leans_on), make))


def _mine(state: State, who: Asker, kind: type[R]) -> list[R]:
    """What the caller may know because of what the records name it, by id."""
    found = dict(candidates(state, kind, who.party))
    if who.roles:
        found |= candidates(state, kind, EVERYBODY)
    return [found[id] for id in sorted(found) if readable(kind, relations(state, who, found[id]))]


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
