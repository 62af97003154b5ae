"""Who manages the access of a party, and what the verbs of access, webhooks and issuers share.

Who manages a party's access is a client or user of it with the scope `manage`. On behalf of a party the market operator
only ends: revokes, locks, removes, turns off. It makes and sets nothing, or it could become that party. All of it is
asked here, of the records, and not only at the door. Another party's record is answered like none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound
from coflex.domain.party import Role
from coflex.register.access import Client, ClientScope, User, Webhook, persons, shown
from coflex.register.market import Market
from coflex.register.parties import PartyEntry
from coflex.register.records import KIND_OF, Record
from coflex.service.machine import PLATFORM, Context, Outcome, encode
from coflex.service.ports import Note
from coflex.service.state import State

R = TypeVar("R", Client, User, Webhook)
Write = tuple[type[Record], str, Record | None]
MOST_NAME = 200


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every form: what it does not know it refuses."""


class Nothing(Form, frozen=True):
    """The subject says it all."""


def holder(state: State, actor: str) -> Client | User | None:
    """The client or user behind an actor."""
    return state.find(Client, actor) or state.find(User, actor)


def behind(state: State, actor: str, *others: Client | User) -> tuple[str, ...]:
    """Who knows a secret that an actor sets, beside those who are behind others already; see `persons`."""
    return tuple(sorted(persons(holder(state, actor)).union(*map(persons, others))))


def is_operator(state: State, party: str) -> bool:
    """Whether a party is an approved market operator."""
    entry = state.find(PartyEntry, party)
    return entry is not None and Role.MARKET_OPERATOR in entry.roles


def may_manage(state: State, context: Context, on_behalf: bool = False) -> None:
    """Raises Forbidden unless the actor manages the access of `context.party`, its own one or also `on_behalf`."""
    if context.actor in PLATFORM:
        return
    if context.party != context.by and not on_behalf:
        raise Forbidden("On behalf of a party access is ended, never made or set.", "Let the party do it itself.")
    found = holder(state, context.actor)
    may = found is not None and found.party == context.by and found.live(context.at)
    if not may or found is None or ClientScope.MANAGE not in found.scopes:
        raise Forbidden("This needs the scope 'manage'.", "Ask whoever manages the access of your party.")
    if context.party != context.by and not is_operator(state, context.by):
        raise Forbidden("Only the market operator acts on behalf of a party.", "Leave out On-Behalf-Of.")


def own(state: State, context: Context, kind: type[R]) -> R:
    """The subject, of the party. Raises NotFound, also for another party's."""
    found = state.find(kind, context.subject)
    if found is None or (found.party != context.party and context.actor not in PLATFORM):
        raise NotFound(f"There is no {KIND_OF[kind]} '{context.subject}'.", "Check the id.")
    return found


def managed(kind: type[R], change: Callable[[State, Context, R, Any], Outcome], on_behalf: bool = False) -> Any:
    """An act on one record of the party by who manages it; `on_behalf`: also by the market operator for it."""

    def act(state: State, context: Context, form: Any) -> Outcome:
        may_manage(state, context, on_behalf)
        return change(state, context, own(state, context, kind), form)

    return act


def note_of(kind: str, subject: str, party: str, **body: Any) -> Note:
    return Note(kind, subject, (party,), encode(body))


def written(
    kind: str, record: Client | User | Webhook, others: Iterable[Write] = (), status: int = 200, **body: Any
) -> Outcome:
    """A record written, told to its party, and answered without what is hidden."""
    writes: tuple[Write, ...] = ((type(record), record.id, record), *others)
    return Outcome(shown(record), writes, (note_of(kind, record.id, record.party, **body),), status)


def room_for(state: State, kind: type[Client] | type[User] | type[Webhook], party: str, most: int) -> None:
    """Raises Conflict when a party has as many of a kind as it may."""
    if state.find(PartyEntry, party) is None:
        raise NotFound(f"There is no party '{party}'.", "Check the id.")
    name = KIND_OF[kind]
    if len(state.grouped(kind, "party", lambda one: one.party).get(party, ())) >= most:
        raise Conflict(f"The party has {most} {name}s, the most there may be.", f"Remove a {name} first.")


def name_faults(name: str) -> Iterator[Finding]:
    if not name.strip() or len(name) > MOST_NAME or not name.isprintable():
        yield Finding("name", "bad_name", f"A name has 1 to {MOST_NAME} printable characters; choose another.")


def scope_faults(scopes: tuple[ClientScope, ...]) -> Iterator[Finding]:
    if not scopes or len(set(scopes)) != len(scopes):
        yield Finding("scopes", "bad_scopes", "Name each scope once, and at least one.")


def sandbox(state: State) -> bool:
    """Whether the tenant is one to try things in."""
    market = state.find(Market, "market")
    return market is not None and market.sandbox
