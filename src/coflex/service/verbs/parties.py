"""Parties: one asks once, the operator approves it, and its roles count from then on (REG-01, REG-10).

Personal data of natural persons never stands in a form: the door keeps it apart and sends its commitment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec
from msgspec import UNSET, UnsetType

from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.party import Party, Role
from coflex.register.parties import Confirmed, Duty, PartyEntry, PartyStatus, eic_check
from coflex.service import rules
from coflex.service.index import index
from coflex.service.machine import CREATED, PLATFORM, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.reading import require, shown
from coflex.service.relations import operators
from coflex.service.state import State

OPERATING = frozenset({Role.MARKET_OPERATOR, Role.REGISTER_OPERATOR})
ACCOUNTS = frozenset({"rounding", "platform"})  # of the settlement, and of no party
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME_LENGTH, REASON_LENGTH = 200, 1000
_COMMITMENT = re.compile(r"[0-9a-f]{64}")
_EIC = re.compile(r"[0-9]{2}[A-Z][0-9A-Z-]{13}")


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every form: what it does not know it refuses."""


class DutyForm(_Form, frozen=True):
    """A duty that is confirmed; `proxy`: who fulfils it, the party itself if left out."""

    duty: Duty
    proxy: str = ""


class Registration(_Form, frozen=True):
    """A party that asks to take part. `id`: how the platform is to call it.

    A company gives its `name`; a natural person none, but `personal_commitment` (see `register.parties.commitment`).
    `code`: its EIC or national code. A balancing provider gives the reference of its `tso_contract` or, without one,
    confirms every duty, itself or by proxy.
    """

    id: str
    roles: tuple[Role, ...]
    name: str = ""
    code: str = ""
    tso_contract: str | None = None
    duties: tuple[DutyForm, ...] = ()
    personal_commitment: str = ""


class PartyChange(_Form, frozen=True):
    """What changes; a field that is left out stays. Roles are given by an operator alone."""

    name: str | UnsetType = UNSET
    roles: tuple[Role, ...] | UnsetType = UNSET
    code: str | UnsetType = UNSET
    tso_contract: str | UnsetType | None = UNSET
    duties: tuple[DutyForm, ...] | UnsetType = UNSET
    personal_commitment: str | UnsetType = UNSET


class Approval(_Form, frozen=True):
    """The roles that are granted, where they are others than those asked for."""

    roles: tuple[Role, ...] | None = None


class Reason(_Form, frozen=True):
    """Why, in words that the party is told."""

    reason: str


class Nothing(_Form, frozen=True):
    """The subject says it all."""


# ---------------------------------------------------------------- asking


def _register(state: State, context: Context, form: Registration) -> Outcome:
    """Ask to take part. Raises Conflict for a party that already did, Refused with every fault of the form."""
    entry = PartyEntry(
        form.id,
        Party(form.id, form.name.strip(), form.roles),
        PartyStatus.REQUESTED,
        context.now,
        code=form.code.strip(),
        tso_contract=form.tso_contract,
        duties=_confirmed(form.duties),
        personal_commitment=form.personal_commitment,
    )
    refuse("The registration", [*_named(form.id), *_sound(entry)])
    if state.find(PartyEntry, form.id) is not None:
        raise Conflict(f"There is a party '{form.id}' already; a party registers once.", "Choose another id.")
    _code_free(state, entry)
    note = Note("party.requested", entry.id, _audience(state, entry))
    return Outcome(entry, ((PartyEntry, entry.id, entry),), (note,), CREATED)


def _confirmed(duties: Iterable[DutyForm]) -> tuple[Confirmed, ...]:
    return tuple(Confirmed(one.duty, one.proxy.strip()) for one in duties)


def _named(id: str) -> Iterator[Finding]:
    if not ID.fullmatch(id):
        message = "An id has 1 to 64 letters, digits, points, hyphens or underscores and begins with a letter or digit."
        yield Finding("id", "id", f"{message} Choose such a one.")
    if id in ACCOUNTS:
        yield Finding("id", "id", f"'{id}' is an account of the settlement; choose another.")


def _sound(entry: PartyEntry) -> Iterator[Finding]:
    """Faults of what a party says of itself."""
    yield from _roles_sound(entry.party.roles)
    name, sealed = entry.party.name, entry.personal_commitment
    if bool(name) == bool(sealed):
        message = "A company gives its name, a natural person the commitment to its data; give one of the two."
        yield Finding("name", "name_or_person", message)
    if len(name) > NAME_LENGTH or not name.isprintable():
        yield Finding("name", "name", f"A name has at most {NAME_LENGTH} characters on one line; shorten it.")
    if sealed and not _COMMITMENT.fullmatch(sealed):
        yield Finding("personal_commitment", "commitment", "It is no SHA-256 in 64 hexadecimal digits; correct it.")
    if sealed and set(entry.party.roles) != {Role.ASSET_OWNER}:
        yield Finding("roles", "person", "A natural person is an asset owner; register the company for other roles.")
    yield from _code_sound(entry.code, bool(sealed))
    yield from _balancing(entry)


def _same_kind(before: PartyEntry, after: PartyEntry) -> Iterator[Finding]:
    """A natural person stays one: its name would stand in the register for good."""
    if before.personal_commitment and not after.personal_commitment:
        message = "A natural person does not become a company; register the company as a party of its own."
        yield Finding("personal_commitment", "person", message)


def _roles_sound(roles: tuple[Role, ...]) -> Iterator[Finding]:
    if not roles:
        yield Finding("roles", "no_role", "A party has one or more roles; name them.")
    if len(set(roles)) != len(roles):
        yield Finding("roles", "role_repeated", "A role stands twice; name each once.")


def _code_sound(code: str, person: bool) -> Iterator[Finding]:
    if code and person:
        yield Finding("code", "person", "A natural person has no code here; leave it out.")
    elif len(code) > 64 or not code.isprintable():
        yield Finding("code", "code", "A code has at most 64 characters on one line; correct it.")
    elif _EIC.fullmatch(code) and eic_check(code) != code[-1]:
        yield Finding("code", "eic", f"The last character of the EIC '{code}' does not fit the others; correct it.")


def _balancing(entry: PartyEntry) -> Iterator[Finding]:
    """A contract, all duties, or (where it does not balance) neither."""
    given = [one.duty for one in entry.duties]
    balances = entry.tso_contract is not None or bool(given)
    if balances and Role.SERVICE_PROVIDER not in entry.party.roles:
        yield Finding(
            "roles", "not_a_provider", "Contracts and duties of balancing are a service provider's; add the role."
        )
    if entry.tso_contract is not None and not 0 < len(entry.tso_contract.strip()) <= NAME_LENGTH:
        yield Finding("tso_contract", "contract", "Name the contract by its reference, or leave it out.")
    if len(set(given)) != len(given):
        yield Finding("duties", "duty_repeated", "A duty stands twice; confirm each once.")
    for duty in Duty if given and entry.tso_contract is None else ():
        if duty not in given:
            message = f"Without a contract with the TSO the {duty.value} duty is to be confirmed too; add it."
            yield Finding("duties", "duty_missing", message)
    for place, one in enumerate(entry.duties):
        if len(one.proxy) > NAME_LENGTH or not one.proxy.isprintable():
            yield Finding(f"duties[{place}].proxy", "proxy", f"A proxy is named in at most {NAME_LENGTH} characters.")


def _code_free(state: State, entry: PartyEntry) -> None:
    """A party registers once, so a code is one party's."""
    over = (PartyStatus.REJECTED, PartyStatus.ENDED)
    others = index(state, PartyEntry, "code", lambda one: (one.code,) if one.code else ())
    for other in others.at(entry.code):
        if other.id != entry.id and other.status not in over:
            raise Conflict(
                f"The code '{entry.code}' is another party's; a party registers once.", "Sign in as that party."
            )


# ---------------------------------------------------------------- what the operators decide


def _approve(state: State, context: Context, form: Approval) -> Outcome:
    """Let a party take part. Raises NotFound, Conflict, Refused."""
    entry = _found(state, context)
    _from(entry, "approve", PartyStatus.REQUESTED)
    if form.roles is not None:
        entry = replace(entry, party=replace(entry.party, roles=form.roles))
    refuse("The approval", _sound(entry))
    _may_grant(context, entry.party.roles)
    return _into(state, context, entry, PartyStatus.APPROVED, "party.approved")


def _reject(state: State, context: Context, form: Reason) -> Outcome:
    """Turn a party down. Raises NotFound, Conflict, Refused."""
    entry = _found(state, context)
    _from(entry, "reject", PartyStatus.REQUESTED)
    return _into(state, context, entry, PartyStatus.REJECTED, "party.rejected", _why(form))


def _suspend(state: State, context: Context, form: Reason) -> Outcome:
    """Let a party's roles not count for a while. Raises NotFound, Conflict, Refused."""
    entry = _found(state, context)
    _from(entry, "suspend", PartyStatus.APPROVED)
    _not_the_last(state, entry, ())
    return _into(state, context, entry, PartyStatus.SUSPENDED, "party.suspended", _why(form))


def _resume(state: State, context: Context, form: Nothing) -> Outcome:
    """Let them count again. Raises NotFound, Conflict."""
    entry = _found(state, context)
    _from(entry, "resume", PartyStatus.SUSPENDED)
    _may_grant(context, entry.party.roles)
    return _into(state, context, entry, PartyStatus.APPROVED, "party.resumed")


def _end(state: State, context: Context, form: Reason) -> Outcome:
    """Let a party go, on its own wish or an operator's. Raises NotFound, Conflict while the register names it."""
    entry = _found(state, context)
    require(state, context, entry, ("status",))
    _from(entry, "end", PartyStatus.APPROVED, PartyStatus.SUSPENDED)
    _not_the_last(state, entry, ())
    _unnamed(state, entry, ())
    return _into(state, context, entry, PartyStatus.ENDED, "party.ended", _why(form))


def _into(
    state: State, context: Context, entry: PartyEntry, status: PartyStatus, kind: str, reason: str = ""
) -> Outcome:
    entry = replace(entry, status=status, status_since=context.now, reason=reason)
    note = Note(kind, entry.id, _audience(state, entry), encode({"status": status.value}))
    return Outcome(shown(state, context, entry), ((PartyEntry, entry.id, entry),), (note,))


def _found(state: State, context: Context) -> PartyEntry:
    """The party a command is about. Raises NotFound also where the caller may not know of it."""
    entry = state.find(PartyEntry, context.subject)
    if entry is None:
        raise NotFound(f"There is no party '{context.subject}'.", "Check the id.")
    require(state, context, entry, ())
    return entry


def _from(entry: PartyEntry, what: str, *states: PartyStatus) -> None:
    if entry.status not in states:
        wanted = " or ".join(one.value for one in states)
        raise Conflict(f"'{entry.id}' is {entry.status.value}; only what is {wanted} can be {_done(what)}.",
                       "Read it again.")  # fmt: skip


def _done(what: str) -> str:
    return {"approve": "approved", "reject": "rejected", "suspend": "suspended", "resume": "resumed"}.get(what, "ended")


def _why(form: Reason) -> str:
    reason = form.reason.strip()
    if not 0 < len(reason) <= REASON_LENGTH:
        refuse("The reason", [Finding("reason", "reason", f"Say why in 1 to {REASON_LENGTH} characters.")])
    return reason


def _may_grant(context: Context, roles: Iterable[Role]) -> None:
    """Only the market operator makes operators. Raises Forbidden."""
    may = Role.MARKET_OPERATOR in context.roles or context.actor in PLATFORM
    if OPERATING & set(roles) and not may:
        raise Forbidden("An operator's role is given by the market operator.", "Ask it.")


def _not_the_last(state: State, entry: PartyEntry, keeps: tuple[Role, ...]) -> None:
    """Somebody must be there who can approve. Raises Conflict."""
    if Role.MARKET_OPERATOR in set(entry.roles) - set(keeps) and operators(state, Role.MARKET_OPERATOR) == (entry.id,):
        raise Conflict(f"'{entry.id}' is the last market operator.", "Approve another one first.")


def _unnamed(state: State, entry: PartyEntry, keeps: tuple[Role, ...]) -> None:
    """Raises Conflict while something of the register names the party in a role that it is to lose."""
    faults = rules.findings(state, rules.Draft(parties={entry.id: keeps or None}))
    if faults:
        places = sorted({fault.place for fault in faults})
        named = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        raise Conflict(f"'{entry.id}' is named by {named}.", "Terminate these or move them to another party first.")


# ---------------------------------------------------------------- changes


def _change(state: State, context: Context, form: PartyChange) -> Outcome:
    """Change what a party says of itself. Raises NotFound, Forbidden, Conflict, Refused with every fault."""
    entry = _found(state, context)
    given = {name: getattr(form, name) for name in form.__struct_fields__ if getattr(form, name) is not UNSET}
    require(state, context, entry, (f"party.{name}" if name in ("name", "roles") else name for name in given))
    _from(entry, "change", PartyStatus.REQUESTED, PartyStatus.APPROVED, PartyStatus.SUSPENDED)
    if "duties" in given:
        given["duties"] = _confirmed(given["duties"])
    if given.get("personal_commitment"):
        given["personal_erased"] = None  # there is data again, to be erased again
    party = replace(entry.party, **{name: given.pop(name) for name in ("name", "roles") if name in given})
    changed = replace(entry, party=party, **given)
    refuse("The change", [*_sound(changed), *_same_kind(entry, changed)])
    _code_free(state, changed)
    if set(party.roles) != set(entry.party.roles):
        _may_grant(context, set(party.roles) - set(entry.party.roles))
        _not_the_last(state, entry, party.roles)
        if entry.stands:
            _unnamed(state, entry, party.roles)
    note = Note("party.changed", entry.id, _audience(state, changed))
    return Outcome(shown(state, context, changed), ((PartyEntry, entry.id, changed),), (note,))


def _erase(state: State, context: Context, form: Nothing) -> Outcome:
    """Note that the personal data of a natural person is gone; the door erases it with the same command.

    The record, its history and the journal's chain stay: they hold a commitment that nobody can open any more.
    """
    entry = _found(state, context)
    require(state, context, entry, ("personal_erased",))
    if not entry.personal_commitment:
        raise Conflict(f"There is no personal data of '{entry.id}'.", "Nothing needs to be done.")
    if entry.personal_erased is not None:
        raise Conflict(f"The personal data of '{entry.id}' was erased already.", "Nothing needs to be done.")
    erased = replace(entry, personal_erased=context.now)
    note = Note("party.personal_erased", entry.id, _audience(state, erased))
    return Outcome(shown(state, context, erased), ((PartyEntry, entry.id, erased),), (note,))


def _audience(state: State, entry: PartyEntry) -> tuple[str, ...]:
    """The party itself and the operators."""
    return tuple(sorted({entry.id, *operators(state), *operators(state, Role.MARKET_OPERATOR)}))


VERBS = (
    Verb("party.register", Registration, _register, public=True),
    Verb("party.approve", Approval, _approve, OPERATING, PartyEntry),
    Verb("party.reject", Reason, _reject, OPERATING, PartyEntry),
    Verb("party.suspend", Reason, _suspend, OPERATING, PartyEntry),
    Verb("party.resume", Nothing, _resume, OPERATING, PartyEntry),
    Verb("party.end", Reason, _end, frozenset(Role), PartyEntry),
    Verb("party.change", PartyChange, _change, kind=PartyEntry, public=True),
    Verb("party.erase_personal", Nothing, _erase, kind=PartyEntry, public=True),
)
