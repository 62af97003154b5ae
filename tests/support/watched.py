"""The law of the table of fields, held against every command that a machine takes (REG-11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from typing import Any

from coflex.domain.party import Role
from coflex.register.fields import Relation, differences, rights, value
from coflex.register.records import KIND_OF, KINDS, Record
from coflex.service.machine import Machine, Taken
from coflex.service.ports import Command
from coflex.service.relations import relations
from coflex.service.state import State
from coflex.service.verbs import VERBS

MOST_RECORDS = 300  # larger states are not copied for every command


@dataclass(frozen=True)
class Asks:
    """A caller, as far as reads know it."""

    party: str
    roles: frozenset[Role]
    actor: str = "user"
    tenant: str = "t"


Apply = Callable[[Machine, Command, int, datetime], Taken]


def watched(apply: Apply) -> Apply:
    """The same machine, which fails when a command writes a field that the table does not give to whoever sent it."""

    def of(machine: Machine, command: Command, number: int, at: datetime) -> Taken:
        before = _copied(machine.tenants.get(command.tenant), command.tenant)
        taken = apply(machine, command, number, at)
        if before is not None and machine.verbs[command.verb] is VERBS.get(command.verb):
            who = Asks(command.party, machine.roles(command.tenant, command.party), command.actor)
            for change in taken.changes:
                watch(before, machine.state(command.tenant), who, command.verb, KINDS[change.kind], change.id)
        return taken

    return of


def _copied(state: State | None, tenant: str) -> State | None:
    """A second state of the same records; None where there are too many."""
    copy = State(tenant)
    if state is not None:
        if sum(state.count(kind) for kind in KINDS.values()) > MOST_RECORDS:
            return None
        for kind, id, one, number in state.kinds():
            copy.put(kind, id, one, number)
    return copy


def watch(before: State, after: State, who: Asks, verb: str, kind: type[Record], id: str) -> None:
    """Fails unless each field that changed may be written by the caller, or follows from another write.

    A field that begins with its default is not written.
    """
    was, now = before.find(kind, id), after.find(kind, id)
    them = {Relation.CONSEQUENCE}
    them |= relations(before, who, was) if was is not None else set()
    them |= relations(after, who, now) if now is not None else set()
    begins = defaults(kind) if was is None else {}
    for path in differences(was, now):
        if path in begins and now is not None and value(now, path) == begins[path]:
            continue
        assert rights(KIND_OF[kind], path).write & them, f"{verb}: {who.party} wrote {path} of {kind.__name__} {id}"


def defaults(kind: Any) -> dict[str, Any]:
    """Fields with a default, and what it is."""
    found = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
    made = {one.name: one.default_factory() for one in fields(kind) if one.default_factory is not MISSING}
    return found | made
