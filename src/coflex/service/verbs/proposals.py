"""Proposals: what needs two persons waits until a second person confirms it, or somebody of the party refuses it.

These verbs need the table of all others: `verbs(table)` makes them for it, and the table may hold them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from coflex.domain.errors import Conflict, Forbidden, NotFound
from coflex.domain.party import Role
from coflex.register.access import User, persons
from coflex.register.market import Proposal, ProposalStatus
from coflex.service.machine import Context, Machine, Outcome, Verb, as_read, confirmed, encode
from coflex.service.ports import Note
from coflex.service.state import State

EVERY_ROLE = frozenset(Role)


class Confirm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second person's yes."""


class Refuse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A no, with the reason. Whoever proposed may refuse too: that takes the proposal back."""

    reason: str


def verbs(table: Mapping[str, Verb]) -> tuple[Verb, ...]:
    """proposal.confirm and proposal.refuse for what the verbs of a table propose."""

    def confirm(state: State, context: Context, form: Confirm) -> Outcome:
        return _confirm(Machine(table), state, context)

    return (
        Verb("proposal.confirm", Confirm, confirm, EVERY_ROLE, kind=Proposal),
        Verb("proposal.refuse", Refuse, _refuse, EVERY_ROLE, kind=Proposal),
    )


def _confirm(machine: Machine, state: State, context: Context) -> Outcome:
    """Do what was proposed, now, as the second person asks for it. Raises what the proposed verb raises, and then the
    proposal goes on waiting; Forbidden to all but a second person of the party and to a party without the role any
    more; Outdated where its subject has changed since it was proposed."""
    proposal = _waiting(state, context)
    _second_person(state, proposal, context)
    verb, form, inside = confirmed(machine, proposal, context)
    if not verb.roles & context.roles:
        raise Forbidden(f"{context.party} has not got the role for '{verb.name}' now.", "Ask the market operator.")
    outcome = verb.act(state, inside, form)
    as_read(state, verb, proposal.subject, proposal.version, "Refuse the proposal, read it again, and propose anew.")
    decided = _decided(proposal, ProposalStatus.CONFIRMED, context)
    note = Note("proposal.confirmed", proposal.id, (proposal.party,), encode({"verb": proposal.verb}))
    return replace(outcome, records=(*outcome.records, (Proposal, proposal.id, decided)), notes=(*outcome.notes, note))


def _second_person(state: State, proposal: Proposal, context: Context) -> None:
    """Raises Forbidden unless two users of the party itself propose and confirm, and no one person may be behind
    both: see `coflex.register.access.persons`."""
    first, second = (_person(state, proposal.party, one) for one in (proposal.proposed_by, context.actor))
    if second is None or context.by != context.party:
        raise Forbidden(
            "A proposal is confirmed by a person: no client confirms it, and nobody on behalf of the party.",
            "Sign in as a user of the party.",
        )
    if first is None:
        raise Forbidden(
            "It was proposed by nobody who is a user of the party now.", "Refuse it, and let a user propose."
        )
    both = persons(first) & persons(second)
    if both:
        raise Forbidden(
            f"A proposal is confirmed by a second person; {min(both)} may be behind both accounts.",
            "Let a user of the party confirm it whom another person made.",
        )


def _person(state: State, party: str, actor: str) -> User | None:
    """The user of a party behind an actor."""
    user = state.find(User, actor)
    return user if user is not None and user.party == party and user.locked is None else None


def _refuse(state: State, context: Context, form: Refuse) -> Outcome:
    """Let a proposal come to nothing."""
    proposal = _waiting(state, context)
    decided = _decided(proposal, ProposalStatus.REFUSED, context)
    body = encode({"verb": proposal.verb, "reason": form.reason})
    note = Note("proposal.refused", proposal.id, (proposal.party,), body)
    return Outcome(decided, ((Proposal, proposal.id, decided),), (note,))


def _waiting(state: State, context: Context) -> Proposal:
    """The party's own proposal. Raises NotFound, also where it is another party's; Conflict once it is decided."""
    proposal = state.find(Proposal, context.subject)
    if proposal is None or proposal.party != context.party:
        raise NotFound(f"There is no proposal '{context.subject}'.", "Check the id.")
    if proposal.status is not ProposalStatus.WAITING:
        raise Conflict(f"The proposal {proposal.id} was {proposal.status.value} already.", "Propose anew.")
    return proposal


def _decided(proposal: Proposal, status: ProposalStatus, context: Context) -> Proposal:
    return replace(proposal, status=status, decided_by=context.actor, decided_at=context.now)
