"""The machine: a command and the state in, an outcome or a refusal out. No clock, no chance, no disk.

The same commands with the same numbers and instants give the same state, reply, changes and notes, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from coflex.domain.errors import Finding, Forbidden, NotFound, Outdated, Refused
from coflex.domain.party import Role
from coflex.register.access import User
from coflex.register.market import Market, Proposal, ProposalStatus
from coflex.register.parties import PartyEntry
from coflex.register.records import KIND_OF, KINDS, Record
from coflex.service.ports import Change, Command, Note, Version
from coflex.service.state import State, Undo

CREATED, DONE, ACCEPTED = 201, 200, 202
EVERYBODY = ("*",)


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, for whom, when. `at`: the server's instant. `now`: the tenant's time. `number`: of this entry, from
    which ids of new records are made."""

    number: int
    at: datetime
    now: datetime
    party: str
    by: str
    actor: str
    roles: frozenset[Role]
    subject: str

    def new_id(self, prefix: str) -> str:
        """An id that no other record of the platform has: of the entry that makes it."""
        return f"{prefix}-{self.number:08d}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb decided. `reply`: a value that JSON carries. `records`: (kind, id, record), None ends it. `undo`:
    takes back what the verb did outside the records (the book of an open session)."""

    reply: Any
    records: tuple[tuple[type[Record], str, Record | None], ...] = ()
    notes: tuple[Note, ...] = ()
    status: int = DONE
    undo: Callable[[], None] | None = None


Act = Callable[[State, Context, Any], Outcome]


@dataclass(frozen=True, slots=True)
class Verb:
    """Something that can be asked. `form`: type of the body, anything that msgspec reads. `roles`: who may, any of
    them; empty: only the platform itself ("clock", "engine", "field", "operator"). `public`: also a party that is not
    approved, or nobody known. `kind`: of the record the subject names, for `expects`. `two_persons`: nothing happens
    before a second user confirms it.
    """

    name: str
    form: Any
    act: Act
    roles: frozenset[Role] = frozenset()
    kind: type[Record] | None = None
    two_persons: bool = False
    public: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """A command that was taken, as the journal will keep it, and what takes it back."""

    status: int
    reply: bytes
    changes: tuple[Change, ...]
    notes: tuple[Note, ...]
    undo: tuple[Undo, ...]
    also: Callable[[], None] | None = None


@dataclass(eq=False)
class Machine:
    """The tenants' states and the verbs that change them. Used from one thread."""

    verbs: Mapping[str, Verb]
    tenants: dict[str, State] = field(default_factory=dict)
    writes: int = 0  # grows with every record that is written or taken back

    def state(self, tenant: str) -> State:
        """Raises NotFound."""
        if tenant not in self.tenants:
            raise NotFound(f"There is no tenant '{tenant}'.", "Check the address.")
        return self.tenants[tenant]

    def load(self, version: Version) -> None:
        """Take a record from the store, as it was written."""
        state = self.tenants.setdefault(version.tenant, State(version.tenant))
        record = None if version.body is None else decode(version.body, KINDS[version.kind])
        state.put(version.kind, version.id, record, version.number)
        self.writes += 1

    def roles(self, tenant: str, party: str) -> frozenset[Role]:
        """Roles of a party that count now."""
        return roles_in(self.state(tenant), party)

    def apply(self, command: Command, number: int, at: datetime) -> Taken:
        """Take a command, or raise a CoflexError and leave the state as it was."""
        verb = self.verbs.get(command.verb)
        if verb is None:
            raise NotFound(f"There is no verb '{command.verb}'.", "Check the address.")
        state = self._state_for(command, verb)
        roles = roles_in(state, command.party)
        allow(verb, command, roles)
        form = command.form if command.form is not None else decode(command.body, verb.form)
        context = Context(number, at, now(state, at), command.party, command.by, command.actor, roles, command.subject)
        outcome = verb.act(state, context, form)
        try:
            # Only now: whoever may not know of a record is told so first, by the verb.
            as_read(state, verb, command.subject, command.expects)
            if verb.two_persons and command.actor not in PLATFORM:
                may_propose(state, command)
                outcome = _propose(state, verb, command, context)
            taken = self._write(state, outcome, number)
        except BaseException:
            if outcome.undo is not None:
                outcome.undo()
            raise
        self.tenants.setdefault(command.tenant, state)
        return taken

    def take_back(self, tenant: str, taken: Taken) -> None:
        """Undo a command; the last one taken goes first."""
        if taken.also is not None:
            taken.also()
        state = self.tenants[tenant]
        for undo in reversed(taken.undo):
            state.take_back(undo)
            self.writes += 1

    def _state_for(self, command: Command, verb: Verb) -> State:
        if verb.name == "tenant.open":
            return self.tenants.get(command.tenant) or State(command.tenant)
        return self.state(command.tenant)

    def _write(self, state: State, outcome: Outcome, number: int) -> Taken:
        written = [(kind, id) for kind, id, _ in outcome.records]
        if len(set(written)) < len(written):
            raise ValueError("a verb writes a record twice")
        # Before anything is written: what has no bytes is a fault, and leaves the state as it was.
        reply = encode(outcome.reply)
        changes, undo = [], []
        for kind, id, record in outcome.records:
            changes.append(Change(KIND_OF[kind], id, None if record is None else encode(record)))
        for kind, id, record in outcome.records:
            undo.append(state.put(KIND_OF[kind], id, record, number))
            self.writes += 1
        return Taken(outcome.status, reply, tuple(changes), outcome.notes, tuple(undo), outcome.undo)


END_OF_TIME = datetime.max.replace(tzinfo=UTC)
PLATFORM = frozenset({"clock", "engine", "field", "operator"})


def roles_in(state: State, party: str) -> frozenset[Role]:
    """Roles of a party that count now."""
    entry = state.find(PartyEntry, party)
    return frozenset(entry.roles) if entry is not None else frozenset()


def allow(verb: Verb, command: Command, roles: frozenset[Role]) -> None:
    """Default deny. Raises Forbidden unless the platform itself, a role of the party, or everybody may."""
    if command.actor in PLATFORM or verb.public:
        return
    if not verb.roles & roles:
        needed = ", ".join(sorted(role.value.replace("_", " ") for role in verb.roles)) or "the platform itself"
        raise Forbidden(f"This is for the role {needed}; {command.party} has not got it.", "Ask the market operator.")


def as_read(
    state: State, verb: Verb, subject: str, expects: int | None, remedy: str = "Read it again, then change."
) -> None:
    """Raises Outdated unless the subject is of the version that is expected, if one is."""
    if expects is not None and verb.kind is not None and state.number(verb.kind, subject) != expects:
        raise Outdated(f"'{subject}' was changed since it was read.", remedy)


def may_propose(state: State, command: Command) -> None:
    """What two persons decide is proposed by one: a user of the party itself. Raises Forbidden."""
    user = state.find(User, command.actor)
    if user is None or user.locked is not None or not user.party == command.party == command.by:
        raise Forbidden(
            "This takes two persons: a client, or somebody on behalf of the party, cannot propose it.",
            "Sign in as a user of the party.",
        )


def now(state: State, at: datetime) -> datetime:
    """The tenant's time at an instant of the server."""
    market = state.find(Market, "market")
    if market is None:
        return at
    try:
        return market.starts + market.speed * (at - market.since)
    except OverflowError:  # a fast clock stands at the end of the calendar
        return END_OF_TIME


def encode(value: Any) -> bytes:
    """JSON, the same bytes for equal values."""
    return msgspec.json.encode(value, order="deterministic")


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Made once a type: for a union or a container that takes several times as long as to decode an order."""
    return msgspec.json.Decoder(kind)


def decode(body: bytes, kind: Any) -> Any:
    """A value of a type. Raises Refused, naming the place in the document."""
    try:
        return _decoder(kind).decode(body)
    except msgspec.MsgspecError as fault:
        text = str(fault)
        what, _, place = text.partition(" - at `")
        where = place.rstrip("`").removeprefix("$.") if place else "body"
        raise Refused("The request", [Finding(where, "malformed", f"{what}; correct it.")]) from None
    except UnicodeDecodeError:
        raise Refused("The request", [Finding("body", "malformed", "It is no UTF-8 text; send UTF-8.")]) from None


def _propose(state: State, verb: Verb, command: Command, context: Context) -> Outcome:
    proposal = Proposal(
        id=context.new_id("proposal"),
        verb=verb.name,
        subject=command.subject,
        party=command.party,
        body=command.body.decode(),
        proposed_by=command.actor,
        proposed_at=context.now,
        status=ProposalStatus.WAITING,
        version=None if verb.kind is None else state.number(verb.kind, command.subject),
    )
    note = Note("proposal.waiting", proposal.id, (command.party,), encode({"verb": verb.name}))
    return Outcome(proposal, ((Proposal, proposal.id, proposal),), (note,), ACCEPTED)


def confirmed(machine: Machine, proposal: Proposal, context: Context) -> tuple[Verb, Any, Context]:
    """The verb, form and context of a proposal that a second person confirms."""
    verb = machine.verbs[proposal.verb]
    return verb, decode(proposal.body.encode(), verb.form), replace(context, subject=proposal.subject)
