"""Outside issuers of identities: the market operator names one, and it speaks for a party once that party accepted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from msgspec import structs

from coflex.domain.errors import Conflict, Finding, NotFound, refuse
from coflex.domain.party import Role
from coflex.register.access import ClientScope, Issuer, Naming, shown, url_fault
from coflex.register.parties import PartyEntry
from coflex.service.machine import CREATED, DONE, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.state import State
from coflex.service.verbs.managing import MOST_NAME, Form, Nothing, may_manage, note_of, sandbox, scope_faults


class IssuerForm(Form, frozen=True):
    """An outside issuer; see `Issuer`."""

    url: str
    audience: str
    claim: str
    names: Naming
    parties: tuple[str, ...]
    scopes: tuple[ClientScope, ...] = (ClientScope.READ,)


class Acceptance(Form, frozen=True):
    """Which issuer a party lets speak for it, as it read it."""

    url: str
    audience: str


def _issuer_faults(state: State, form: IssuerForm) -> Iterator[Finding]:
    # The market operator names it, and a company's issuer may well be inside its network: only http is refused.
    fault = url_fault(form.url, private=True)
    if fault or (not sandbox(state) and not form.url.startswith("https://")):
        yield Finding("url", "bad_address", fault or "Only https is called; use an https address.")
    if "?" in form.url:
        yield Finding("url", "bad_address", "The identifier of an issuer has no query; leave it out.")
    for name, value in (("audience", form.audience), ("claim", form.claim)):
        if not 1 <= len(value) <= MOST_NAME:
            yield Finding(name, "bad_name", f"It has 1 to {MOST_NAME} characters; correct it.")
    yield from scope_faults(form.scopes)
    if not form.parties:
        yield Finding("parties", "missing", "Name the parties for which the issuer may speak.")
    for position, party in enumerate(form.parties):
        if state.find(PartyEntry, party) is None:
            yield Finding(f"parties[{position}]", "unknown_party", f"There is no party '{party}'; correct the id.")


def _set_issuer(state: State, context: Context, form: IssuerForm) -> Outcome:
    may_manage(state, context)
    findings = list(_issuer_faults(state, form))
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", context.subject):
        findings.append(Finding("id", "bad_id", "An id has 1 to 64 letters, digits, dots, hyphens or underscores."))
    if any(one.url == form.url and one.id != context.subject for one in state.all(Issuer)):
        findings.append(Finding("url", "url_taken", "Another entry has this issuer; change that one."))
    refuse("The issuer", findings)
    issuer, old = Issuer(context.subject, **structs.asdict(form)), state.find(Issuer, context.subject)
    kept = old.accepted if old is not None and _agreed(old) == _agreed(issuer) else ()
    accepted = {*kept, context.party}.intersection(issuer.parties)
    issuer = replace(issuer, accepted=tuple(sorted(accepted)))
    return _written("issuer.set", issuer, context.party, CREATED if old is None else DONE)


def _agreed(issuer: Issuer) -> object:
    """What a party agrees to."""
    return issuer.url, issuer.audience, issuer.claim, issuer.names, issuer.scopes


def _written(kind: str, issuer: Issuer, party: str, status: int = DONE) -> Outcome:
    """Told to who wrote it and to all that it names: they are to accept it."""
    note = Note(kind, issuer.id, tuple(dict.fromkeys((party, *issuer.parties))), encode({"by": party}))
    return Outcome(shown(issuer), ((Issuer, issuer.id, issuer),), (note,), status)


def _named(state: State, context: Context) -> Issuer:
    """The subject, for a party that it names. Raises NotFound, Forbidden unless the party's own manager asks."""
    may_manage(state, context)
    issuer = state.find(Issuer, context.subject)
    if issuer is None or context.party not in issuer.parties:
        raise NotFound(f"There is no issuer '{context.subject}' that names your party.", "Check the id.")
    return issuer


def _accept(state: State, context: Context, form: Acceptance) -> Outcome:
    """From now on it speaks for the party. Raises Conflict when it is not the one that was read."""
    issuer = _named(state, context)
    if (form.url, form.audience) != (issuer.url, issuer.audience):
        raise Conflict("The issuer is another one than you name.", "Read it again, and accept it if you agree.")
    accepted = tuple(sorted({*issuer.accepted, context.party}))
    return _written("issuer.accepted", replace(issuer, accepted=accepted), context.party)


def _decline(state: State, context: Context, form: Nothing) -> Outcome:
    """It speaks for the party no more; what came from it is worth nothing from now on."""
    issuer = _named(state, context)
    left = tuple(one for one in issuer.accepted if one != context.party)
    return _written("issuer.declined", replace(issuer, accepted=left), context.party)


def _remove_issuer(state: State, context: Context, form: Nothing) -> Outcome:
    may_manage(state, context)
    issuer = state.get(Issuer, context.subject)
    return Outcome(
        {"id": issuer.id}, ((Issuer, issuer.id, None),), (note_of("issuer.removed", issuer.id, context.party),)
    )


_OPERATOR = frozenset({Role.MARKET_OPERATOR})
VERBS = (
    Verb("issuer.set", IssuerForm, _set_issuer, _OPERATOR, kind=Issuer),
    # `public`: the record says which parties may.
    Verb("issuer.accept", Acceptance, _accept, kind=Issuer, public=True),
    Verb("issuer.decline", Nothing, _decline, kind=Issuer, public=True),
    Verb("issuer.remove", Nothing, _remove_issuer, _OPERATOR, kind=Issuer),
)
