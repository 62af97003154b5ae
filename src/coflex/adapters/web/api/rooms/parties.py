"""Parties: registration, what the operators decide, and personal data apart from everything else.

A party that registers has no credentials yet. It gets the first API key with the answer, and for some minutes again
when it asks again with the same idempotency key; so that key is as secret as the API key, and long.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from functools import partial

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.endpoints import command_of, tagged, version_known, written
from coflex.adapters.web.api.incoming import caller, idempotency_key, json_body, only_parameters, version_read
from coflex.adapters.web.api.operations import History, Read, Room, Special, Write
from coflex.adapters.web.api.problems import KeyMissing, NotSignedIn
from coflex.adapters.web.identity import Accounts
from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.party import Role
from coflex.register.access import ClientScope
from coflex.register.fields import rights
from coflex.register.parties import PartyEntry, PartyStatus, Person, commitment
from coflex.service import reading
from coflex.service.machine import decode, encode
from coflex.service.ports import Personal
from coflex.service.relations import relations
from coflex.service.state import State
from coflex.service.verbs.parties import OPERATING, DutyForm, PartyChange, Registration
from coflex.service.who import Who

LEAST_KEY = 32
MOST_LINE = 200
# Parties of a tenant that wait for a decision; an operator may register more.
MOST_REQUESTED = 1_000
SALT_BYTES = 16
# Who registers without being known, in the journal.
APPLICANT = "applicant"


class PersonForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Personal data of a natural person: kept apart from the register, and erased when that is asked for."""

    name: str
    email: str
    address: str = ""


class PartyPatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What changes; a field that is left out stays. Roles are given by an operator alone."""

    name: str | UnsetType = UNSET
    roles: tuple[Role, ...] | UnsetType = UNSET
    code: str | UnsetType = UNSET
    tso_contract: str | UnsetType | None = UNSET
    duties: tuple[DutyForm, ...] | UnsetType = UNSET


class Application(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A party that asks to take part. `id`: how the platform is to call it. A company gives its `name`; a natural
    person gives `person` instead, which is kept apart and can be erased.

    `code`: its EIC or national code. A balancing provider gives the reference of its `tso_contract` or, without one,
    confirms every duty, itself or by proxy.
    """

    id: str
    roles: tuple[Role, ...]
    name: str = ""
    code: str = ""
    tso_contract: str | None = None
    duties: tuple[DutyForm, ...] = ()
    person: PersonForm | None = None


class Applied(msgspec.Struct, frozen=True):
    """What an applicant is told: its id and status, and the key of its first client, with which it comes in. `api_key`
    is null where the applicant was signed in already."""

    id: str
    status: str
    api_key: str | None


# ---------------------------------------------------------------- registration


async def _register(accounts: Accounts, desk: Desk, request: Request) -> Response:
    tenant = request.path_params["tenant"]
    only_parameters(request, ())
    who = await _known(desk, request)
    operates = who is not None and bool(OPERATING & who.roles)
    if not operates:
        accounts.may_register(request.client.host if request.client is not None else "")
    key = idempotency_key(request)
    if who is None and len(key) < LEAST_KEY:
        raise KeyMissing(
            f"A registration needs an Idempotency-Key of at least {LEAST_KEY} characters.",
            "Send a random one and keep it secret: who has it can ask for the API key again.",
        )
    application = decode(await json_body(request), Application)
    form, private = await _sealed(desk, tenant, application)
    if not operates:
        _not_crowded(desk.state(tenant), form.id)
    asker = who or Who(tenant, form.id, form.id, APPLICANT, frozenset(), frozenset())
    receipt = await desk.submit(command_of(asker, "party.register", "", encode(form), key, private=private))
    issued = await accounts.first_key(desk, tenant, form.id, "first", key) if who is None else None
    entry = decode(receipt.reply, PartyEntry)
    told = Applied(entry.id, entry.status.value, None if issued is None else issued.api_key)
    return written(receipt, tenant, "/parties/{id}", encode(told))


async def _known(desk: Desk, request: Request) -> Who | None:
    """Who registers a party; None for somebody without credentials. Raises NotSignedIn for such as do not hold."""
    try:
        return await caller(desk, request, ClientScope.WRITE)
    except NotSignedIn:
        if "authorization" in request.headers or "x-api-key" in request.headers:
            raise
        desk.state(request.path_params["tenant"])
        return None


def _not_crowded(state: State, party: str) -> None:
    """Raises Conflict while too many parties wait for a decision. One that is there may ask again for its answer."""

    def count() -> int:
        return sum(one.status is PartyStatus.REQUESTED for one in state.all(PartyEntry))

    waiting = state.derived("parties that wait", (PartyEntry,), count)
    if waiting >= MOST_REQUESTED and state.find(PartyEntry, party) is None:
        raise Conflict(
            f"{MOST_REQUESTED} parties wait for the operator's decision, the most there may be.",
            "Register when some of them are decided on, or ask the market operator to register you.",
        )


async def _sealed(desk: Desk, tenant: str, form: Application) -> tuple[Registration, tuple[Personal, ...]]:
    """The form as the journal keeps it, and the personal data beside it."""
    private: tuple[Personal, ...] = ()
    seal = ""
    if form.person is not None:
        refuse("The registration", _person_faults(form.person, "person."))
        private, seal = await _private(desk, tenant, form.id, form.person)
    registration = Registration(form.id, form.roles, form.name, form.code, form.tso_contract, form.duties, seal)
    return registration, private


async def _private(desk: Desk, tenant: str, party: str, person: PersonForm) -> tuple[tuple[Personal, ...], str]:
    """Personal data with its salt, and the commitment to it: the same again for the same data, so that a request that
    is asked again is the same command."""
    body = encode(person)
    there = await asyncio.to_thread(desk.journal.personal, tenant, party)
    salt = there.salt if there is not None and there.body == body else secrets.token_bytes(SALT_BYTES)
    return (Personal(party, salt, body),), commitment(salt, body)


def _person_faults(person: PersonForm, place: str) -> Iterator[Finding]:
    for name in ("name", "email", "address"):
        text = getattr(person, name)
        if len(text) > MOST_LINE or not text.isprintable() or (not text.strip() and name != "address"):
            yield Finding(f"{place}{name}", name, f"It has 1 to {MOST_LINE} characters on one line; correct it.")
    if "@" not in person.email.strip("@"):
        yield Finding(f"{place}email", "email", "It is no address of mail; correct it.")


# ---------------------------------------------------------------- personal data


async def _itself(desk: Desk, request: Request, scope: ClientScope) -> Who:
    """Who asks, in its own name: personal data is the person's and the register operator's, nobody becomes either by
    acting on behalf. Raises Forbidden."""
    who = await caller(desk, request, scope)
    if who.on_behalf:
        raise Forbidden("Personal data is not read or changed on behalf of a party.", "Leave out On-Behalf-Of.")
    return who


async def _person(desk: Desk, request: Request) -> Response:
    """The personal data of a party, to itself and the register operator."""
    who = await _itself(desk, request, ClientScope.READ)
    only_parameters(request, ())
    party = request.path_params["party"]
    state = desk.state(who.tenant)
    reading.record(state, who, PartyEntry, party)
    kept = None
    if reading.may_read_personal(state, who, party):
        await desk.settled()
        kept = await asyncio.to_thread(desk.journal.personal, who.tenant, party)
    if kept is None or kept.body is None:
        raise NotFound(f"There is no personal data of '{party}'.", "It was never given, or it was erased.")
    return tagged(request, kept.body)


async def _change_person(desk: Desk, request: Request) -> Response:
    who, party, key, expects = await _writer(desk, request)
    state = desk.state(who.tenant)
    entry = reading.record(state, who, PartyEntry, party)
    if not rights("personal", "data").write & relations(state, who, entry):
        raise Forbidden("Personal data is changed by the person and the register operator.", "Ask one of them.")
    person = decode(await json_body(request), PersonForm)
    refuse("The personal data", _person_faults(person, ""))
    private, seal = await _private(desk, who.tenant, party, person)
    form = PartyChange(personal_commitment=seal)
    receipt = await desk.submit(command_of(who, "party.change", party, encode(form), key, expects, private=private))
    return written(receipt, who.tenant)


async def _erase_person(desk: Desk, request: Request) -> Response:
    who, party, key, expects = await _writer(desk, request)
    gone = (Personal(party, b"", None),)
    receipt = await desk.submit(command_of(who, "party.erase_personal", party, b"{}", key, expects, private=gone))
    return written(receipt, who.tenant)


async def _writer(desk: Desk, request: Request) -> tuple[Who, str, str, int | None]:
    who = await _itself(desk, request, ClientScope.WRITE)
    only_parameters(request, ())
    party, key = request.path_params["party"], idempotency_key(request)
    return who, party, key, version_known(desk, who, PartyEntry, party, version_read(request, False))


# ---------------------------------------------------------------- the room

_REASON = {"reason": "The contract has ended."}


def room(accounts: Accounts) -> Room:
    """The operations; `accounts` makes the first API key of a party."""
    return Room(
        "parties",
        "Parties: who takes part, in which roles, and what the operators decide on them.",
        (
            Read("/parties", PartyEntry, "Parties, as far as the caller may know them.", {"status": "status"}),
            Read("/parties/{party}", PartyEntry, "A party."),
            History("/parties/{party}/history", PartyEntry, "Every version of a party."),
            Special(
                "POST", "/parties", partial(_register, accounts),
                "Register a party; without credentials the answer holds its first API key.", "party_register",
                {201: Applied}, body=Application, write=True, public=True, scope=ClientScope.WRITE,
            ),
            Write(
                "PATCH", "/parties/{party}", "party.change", "Change what a party says of itself.", PartyEntry,
                example={"name": "Sun and Sons"}, form=PartyPatch,
            ),
            Write("POST", "/parties/{party}/approve", "party.approve", "Let a party take part.", PartyEntry,
                  example={}),
            Write(
                "POST", "/parties/{party}/reject", "party.reject", "Turn a party down.", PartyEntry,
                example={"reason": "The code is another company's."},
            ),
            Write(
                "POST", "/parties/{party}/suspend", "party.suspend", "Let its roles not count for a while.", PartyEntry,
                example=_REASON,
            ),
            Write("POST", "/parties/{party}/resume", "party.resume", "Let them count again.", PartyEntry, example={}),
            Write("POST", "/parties/{party}/end", "party.end", "Let a party go.", PartyEntry, example=_REASON),
            Special(
                "GET", "/parties/{party}/person", _person,
                "The personal data of a natural person, to itself and the register operator.", "get_person",
                {200: Person, 304: None},
            ),
            Special(
                "PUT", "/parties/{party}/person", _change_person,
                "Change the personal data; the register keeps a digest.", "person_change",
                {200: PartyEntry}, body=PersonForm, write=True, scope=ClientScope.WRITE,
            ),
            Special(
                "DELETE", "/parties/{party}/person", _erase_person,
                "Erase the personal data for good; the history of the register stays whole.", "person_erase",
                {200: PartyEntry}, write=True, scope=ClientScope.WRITE,
            ),
        ),
    )  # fmt: skip
