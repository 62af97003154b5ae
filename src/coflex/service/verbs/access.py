"""Access: clients, users, grants, tokens, webhooks and outside issuers (PLAT-01, PLAT-07).

Who manages a party's access is a client or user of it with the scope `manage`. On behalf of a party the market operator
only ends: revokes, locks, removes, turns off. It makes and sets nothing, or it could become that party. All of it is
asked here, of the records, and not only at the door. Another party's record is answered like none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.party import Role
from coflex.register.access import (
    Client,
    ClientScope,
    Grant,
    Grants,
    Issuer,
    Naming,
    Rates,
    RevokedToken,
    User,
    Webhook,
    WebhookProgress,
    shown,
    url_fault,
)
from coflex.register.market import Market
from coflex.register.parties import PartyEntry
from coflex.register.records import KIND_OF, Record
from coflex.service.machine import CREATED, PLATFORM, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.state import State

R = TypeVar("R", Client, User, Webhook)
Write = tuple[type[Record], str, Record | None]

MOST_CLIENTS, MOST_USERS, MOST_WEBHOOKS, MOST_GRANTS, MOST_REVOKED = 1_000, 10_000, 20, 50, 10_000
MOST_NAME, MOST_REDIRECTS, MOST_KINDS, MOST_RATE = 200, 20, 100, 1_000_000
LONGEST_OVERLAP_S = 30 * 86_400
GRANTED_FOR = timedelta(days=30)
LONGEST_TOKEN = timedelta(hours=12)  # a sign-in; a revocation is kept until its token would have ended
EVERY_SCOPE = tuple(ClientScope)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARGON2ID = re.compile(r"\$argon2id\$v=19\$m=\d{4,7},t=\d{1,2},p=\d{1,2}\$[A-Za-z0-9+/]{16,}\$[A-Za-z0-9+/]{27,}")
_KIND = re.compile(r"\*|[a-z_]+(\.[a-z_]+)*(\.\*)?")


# ---------------------------------------------------------------- forms


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every form: what it does not know it refuses."""


class Nothing(_Form, frozen=True):
    """The subject says it all."""


class ClientForm(_Form, frozen=True):
    """A new client. `secret_hash`: SHA-256 of its secret, hexadecimal; empty for an application that keeps none."""

    name: str
    scopes: tuple[ClientScope, ...]
    secret_hash: str
    expires: datetime | None = None
    redirects: tuple[str, ...] = ()


class FirstClientForm(_Form, frozen=True):
    """The first client of a party, with every scope."""

    name: str
    secret_hash: str


class ClientChange(_Form, frozen=True):
    """What a client is from now on."""

    name: str
    scopes: tuple[ClientScope, ...]
    expires: datetime | None = None
    redirects: tuple[str, ...] = ()


class Rotation(_Form, frozen=True):
    """A new secret; the old one is taken for `overlap_s` seconds more."""

    secret_hash: str
    overlap_s: int = 86_400


class RatesForm(_Form, frozen=True):
    """What a client may send; see `Rates`."""

    requests_per_s: int
    requests_burst: int
    items_per_s: int
    items_burst: int


class UserForm(_Form, frozen=True):
    """A new user. `login`: see `login_digest`. `password`: argon2id, or empty for one that signs in elsewhere."""

    login: str
    password: str
    scopes: tuple[ClientScope, ...]


class UserChange(_Form, frozen=True):
    """What a user may from now on."""

    scopes: tuple[ClientScope, ...]


class PasswordForm(_Form, frozen=True):
    """A new password as argon2id."""

    password: str


class GrantForm(_Form, frozen=True):
    """A user lets a client act for it. `session`: SHA-256 of the id of the sign-in."""

    client: str
    scopes: tuple[ClientScope, ...]
    session: str
    signed_in: datetime
    openid: bool = False


class Refresh(_Form, frozen=True):
    """A refresh token of a grant was shown, of this generation."""

    grant: str
    generation: int


class GrantEnd(_Form, frozen=True):
    """A grant is needed no more."""

    grant: str


class SignOut(_Form, frozen=True):
    """A sign-in ends: SHA-256 of its id, and when it would have ended by itself."""

    session: str
    expires: datetime


class Revocation(_Form, frozen=True):
    """One token (SHA-256 of its id) that would hold until `expires`, or with neither all of the holder's until now."""

    token: str = ""
    expires: datetime | None = None


class WebhookForm(_Form, frozen=True):
    """Where notes of which kinds go."""

    url: str
    kinds: tuple[str, ...] = ("*",)


class Enabling(_Form, frozen=True):
    """A webhook is used again, from where it was or from now on."""

    from_now: bool = False


class Progress(_Form, frozen=True):
    """How far one webhook is."""

    webhook: str
    number: int
    position: int
    failing_since: datetime | None = None


class Delivered(_Form, frozen=True):
    """How far webhooks are."""

    webhooks: tuple[Progress, ...]


class Disabling(_Form, frozen=True):
    """Why a webhook is used no more."""

    reason: str


class IssuerForm(_Form, frozen=True):
    """An outside issuer; see `Issuer`."""

    url: str
    audience: str
    claim: str
    names: Naming
    parties: tuple[str, ...]
    scopes: tuple[ClientScope, ...] = (ClientScope.READ,)


# ---------------------------------------------------------------- who may


def holder(state: State, actor: str) -> Client | User | None:
    """The client or user behind an actor."""
    return state.find(Client, actor) or state.find(User, actor)


def is_operator(state: State, party: str) -> bool:
    """Whether a party is an approved market operator."""
    entry = state.find(PartyEntry, party)
    return entry is not None and Role.MARKET_OPERATOR in entry.roles


def _manager(state: State, context: Context, on_behalf: bool = False) -> None:
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


def _own(state: State, context: Context, kind: type[R]) -> R:
    """The subject, of the party. Raises NotFound, also for another party's."""
    found = state.find(kind, context.subject)
    if found is None or (found.party != context.party and context.actor not in PLATFORM):
        raise NotFound(f"There is no {KIND_OF[kind]} '{context.subject}'.", "Check the id.")
    return found


def _managed(kind: type[R], change: Callable[[State, Context, R, Any], Outcome], on_behalf: bool = False) -> Any:
    """An act on one record of the party by who manages it; `on_behalf`: also by the market operator for it."""

    def act(state: State, context: Context, form: Any) -> Outcome:
        _manager(state, context, on_behalf)
        return change(state, context, _own(state, context, kind), form)

    return act


def _note(kind: str, subject: str, party: str, **body: Any) -> Note:
    return Note(kind, subject, (party,), encode(body))


def _outcome(
    kind: str, record: Client | User | Webhook, others: Iterable[Write] = (), status: int = 200, **body: Any
) -> Outcome:
    """A record written, told to its party, and answered without what is hidden."""
    writes: tuple[Write, ...] = ((type(record), record.id, record), *others)
    return Outcome(shown(record), writes, (_note(kind, record.id, record.party, **body),), status)


def _room(state: State, kind: type[Client] | type[User] | type[Webhook], party: str, most: int) -> None:
    """Raises Conflict when a party has as many of a kind as it may."""
    if state.find(PartyEntry, party) is None:
        raise NotFound(f"There is no party '{party}'.", "Check the id.")
    name = KIND_OF[kind]
    if len(state.grouped(kind, "party", lambda one: one.party).get(party, ())) >= most:
        raise Conflict(f"The party has {most} {name}s, the most there may be.", f"Remove a {name} first.")


# ---------------------------------------------------------------- clients


def _client_faults(form: ClientForm | ClientChange, secret_hash: str, at: datetime) -> Iterator[Finding]:
    yield from _name_faults(form.name)
    yield from _scope_faults(form.scopes)
    if secret_hash:
        yield from _digest_faults("secret_hash", secret_hash)
    elif not form.redirects:
        yield Finding("redirects", "missing", "A client without a secret only signs users in; say where they return.")
    elif ClientScope.MANAGE in form.scopes:
        yield Finding("scopes", "public", "A client without a secret cannot manage; leave out 'manage'.")
    if form.expires is not None:
        yield from _instant_faults("expires", form.expires)
        if form.expires.tzinfo is not None and form.expires <= at:
            yield Finding("expires", "past", "The client would have expired already; name a later instant.")
    if len(form.redirects) > MOST_REDIRECTS:
        yield Finding("redirects", "too_many", f"A client has at most {MOST_REDIRECTS} redirects; leave some out.")
    for position, url in enumerate(form.redirects):
        # Only browsers go there, so an address of a private network is no danger; http is, off this machine.
        fault = url_fault(url, private=True)
        if fault:
            yield Finding(f"redirects[{position}]", "bad_address", fault)


def _name_faults(name: str) -> Iterator[Finding]:
    if not name.strip() or len(name) > MOST_NAME or not name.isprintable():
        yield Finding("name", "bad_name", f"A name has 1 to {MOST_NAME} printable characters; choose another.")


def _scope_faults(scopes: tuple[ClientScope, ...]) -> Iterator[Finding]:
    if not scopes or len(set(scopes)) != len(scopes):
        yield Finding("scopes", "bad_scopes", "Name each scope once, and at least one.")


def _digest_faults(place: str, digest: str) -> Iterator[Finding]:
    if not _DIGEST.fullmatch(digest):
        yield Finding(place, "bad_digest", "This is no SHA-256 in 64 hexadecimal digits; send one.")


def _instant_faults(place: str, at: datetime) -> Iterator[Finding]:
    if at.tzinfo is None:
        yield Finding(place, "no_zone", "The instant has no offset from UTC; add one, as 'Z'.")


def _create_client(state: State, context: Context, form: ClientForm) -> Outcome:
    _manager(state, context)
    return _new_client(state, context, form)


def _first_client(state: State, context: Context, form: FirstClientForm) -> Outcome:
    """Of a party that was just registered. Raises Conflict when it has one."""
    if context.party in state.grouped(Client, "party", lambda one: one.party):
        raise Conflict(f"The party '{context.party}' has a client already.", "Let that one make others.")
    return _new_client(state, context, ClientForm(form.name, EVERY_SCOPE, form.secret_hash))


def _new_client(state: State, context: Context, form: ClientForm) -> Outcome:
    _room(state, Client, context.party, MOST_CLIENTS)
    refuse("The client", _client_faults(form, form.secret_hash, context.at))
    client = Client(
        id=context.new_id("client"),
        party=context.party,
        name=form.name,
        scopes=form.scopes,
        secret_hash=form.secret_hash,
        created=context.at,
        expires=form.expires,
        redirects=form.redirects,
    )
    return _outcome("client.created", client, status=CREATED)


def _change_client(state: State, context: Context, client: Client, form: ClientChange) -> Outcome:
    refuse("The client", _client_faults(form, client.secret_hash, context.at))
    changed = replace(client, name=form.name, scopes=form.scopes, expires=form.expires, redirects=form.redirects)
    return _outcome("client.changed", changed)


def _rotate_client(state: State, context: Context, client: Client, form: Rotation) -> Outcome:
    """A new secret beside the old one, which goes on for the overlap. Raises Conflict for a revoked client."""
    if not client.live(context.at) or not client.secret_hash:
        raise Conflict("A client that is revoked, expired or keeps no secret gets no new one.", "Create a client.")
    findings = list(_digest_faults("secret_hash", form.secret_hash))
    if not 0 <= form.overlap_s <= LONGEST_OVERLAP_S:
        findings.append(
            Finding("overlap_s", "out_of_range", f"The overlap has 0 to {LONGEST_OVERLAP_S} seconds; choose one.")
        )
    refuse("The rotation", findings)
    until = context.at + timedelta(seconds=form.overlap_s)
    rotated = replace(client, secret_hash=form.secret_hash, previous_hash=client.secret_hash, previous_until=until)
    return _outcome("client.rotated", rotated, previous_until=until)


def _revoke_client(state: State, context: Context, client: Client, form: Nothing) -> Outcome:
    if client.revoked is not None:
        raise Conflict("The client is revoked already.", "Create another one.")
    return _outcome("client.revoked", replace(client, revoked=context.at, tokens=client.tokens + 1))


def _limit_client(state: State, context: Context, form: RatesForm) -> Outcome:
    """The market operator sets what any client may send."""
    _manager(state, context)
    client = state.get(Client, context.subject)
    values = msgspec.structs.asdict(form)
    refuse(
        "The rates",
        [
            Finding(name, "out_of_range", f"A rate is from 1 to {MOST_RATE}; choose one.")
            for name, value in values.items()
            if not 1 <= value <= MOST_RATE
        ],
    )
    return _outcome("client.limited", replace(client, rates=Rates(**values)))


# ---------------------------------------------------------------- users


def _password_faults(password: str) -> Iterator[Finding]:
    if not _ARGON2ID.fullmatch(password):
        yield Finding("password", "bad_hash", "This is no argon2id hash in its text form; send one.")


def _create_user(state: State, context: Context, form: UserForm) -> Outcome:
    _manager(state, context)
    _room(state, User, context.party, MOST_USERS)
    findings = [*_digest_faults("login", form.login), *_scope_faults(form.scopes)]
    refuse("The user", [*findings, *(_password_faults(form.password) if form.password else ())])
    if user_by_login(state, form.login) is not None:
        raise Conflict("The sign-in name is taken.", "Choose another one.")
    user = User(
        id=context.new_id("user"),
        party=context.party,
        scopes=form.scopes,
        login=form.login,
        password=form.password,
        created=context.at,
        password_since=context.at,
        created_by=context.actor,
    )
    return _outcome("user.created", user, status=CREATED)


def user_by_login(state: State, login: str) -> User | None:
    """The user with a sign-in name, by its digest."""
    found = state.grouped(User, "login", lambda one: one.login).get(login)
    return found[0] if found else None


def _change_user(state: State, context: Context, user: User, form: UserChange) -> Outcome:
    refuse("The user", _scope_faults(form.scopes))
    return _outcome("user.changed", replace(user, scopes=form.scopes))


def _change_password(state: State, context: Context, form: PasswordForm) -> Outcome:
    """By the user itself (the door has seen the old one) or who manages; every token and grant of before ends."""
    user = _own(state, context, User)
    if context.actor != user.id:
        _manager(state, context)
    refuse("The password", _password_faults(form.password))
    changed = replace(user, password=form.password, password_since=context.at, tokens=user.tokens + 1)
    return _outcome("user.password_changed", changed, _ungranted(state, user.id))


def _lock_user(state: State, context: Context, user: User, form: Nothing) -> Outcome:
    if user.locked is not None:
        raise Conflict("The user is locked already.", "Unlock it, or leave it.")
    locked = replace(user, locked=context.at, tokens=user.tokens + 1)
    return _outcome("user.locked", locked, _ungranted(state, user.id))


def _unlock_user(state: State, context: Context, user: User, form: Nothing) -> Outcome:
    if user.locked is None:
        raise Conflict("The user is not locked.", "Nothing is to be done.")
    return _outcome("user.unlocked", replace(user, locked=None))


def _remove_user(state: State, context: Context, user: User, form: Nothing) -> Outcome:
    writes = ((User, user.id, None), *_ungranted(state, user.id))
    return Outcome({"id": user.id}, writes, (_note("user.removed", user.id, user.party),))


# ---------------------------------------------------------------- grants and tokens


def _ungranted(state: State, user: str) -> tuple[Write, ...]:
    """The end of every grant of a user."""
    return ((Grants, user, None),) if state.find(Grants, user) is not None else ()


def _kept(state: State, user: User, keep: Callable[[Grant], bool], *more: Grant) -> tuple[Write, ...]:
    """The grants of a user that are meant, and more."""
    had = state.find(Grants, user.id)
    now = (*(grant for grant in (had.grants if had is not None else ()) if keep(grant)), *more)
    if now:
        return ((Grants, user.id, Grants(user.id, user.party, now)),)
    return _ungranted(state, user.id)


def _revoked(state: State, at: datetime, gone: RevokedToken) -> tuple[Write, ...]:
    """A token that holds no more, and the end of every other one that has expired by itself."""
    stale = [one.id for one in state.all(RevokedToken) if one.expires <= at and one.id != gone.id]
    return (*((RevokedToken, id, None) for id in stale), (RevokedToken, gone.id, gone))


def _end_faults(expires: datetime, at: datetime) -> Iterator[Finding]:
    """Soon, so that nobody fills the records with what is kept for ever."""
    yield from _instant_faults("expires", expires)
    if expires.tzinfo is not None and expires > at + LONGEST_TOKEN:
        yield Finding("expires", "out_of_range", "No token holds longer than 12 hours; give its own end.")


def _open_grant(state: State, context: Context, form: GrantForm) -> Outcome:
    """A user, signed in, lets an application act for it. Grants of the user that have run out end along the way."""
    user, client = state.find(User, context.actor), state.find(Client, form.client)
    if user is None or not user.live(context.at) or user.party != context.party:
        raise Forbidden("Only a user grants something.", "Sign in.")
    if client is None or not client.live(context.at):
        raise NotFound(f"There is no client '{form.client}'.", "Check the id.")
    refuse("The grant", [*_digest_faults("session", form.session), *_instant_faults("signed_in", form.signed_in)])
    grant = Grant(
        id=context.new_id("grant"),
        client=client.id,
        scopes=form.scopes,
        session=form.session,
        signed_in=form.signed_in,
        expires=context.at + GRANTED_FOR,
        openid=form.openid,
    )
    running = [one for one in _granted(state, user.id) if one.expires > context.at][1 - MOST_GRANTS :]
    return Outcome({"id": grant.id}, _kept(state, user, lambda one: one in running, grant), status=CREATED)


def _granted(state: State, user: str) -> tuple[Grant, ...]:
    found = state.find(Grants, user)
    return found.grants if found is not None else ()


def _of_client(state: State, context: Context, id: str) -> tuple[User, Grant]:
    """The user who is the subject, and its running grant, for its client or itself. Raises NotFound."""
    user, found = state.find(User, context.subject), state.find(Grants, context.subject)
    grant = found.of(id) if found is not None else None
    if user is None or grant is None or grant.expires <= context.at or context.actor not in (grant.client, user.id):
        raise NotFound(f"There is no grant '{id}'.", "Sign in again.")
    return user, grant


def _refresh_grant(state: State, context: Context, form: Refresh) -> Outcome:
    """The next generation. A token of an earlier one was shown twice, so one of the two who have it is a thief: the
    grant ends, and the reply says so (`live` false)."""
    user, grant = _of_client(state, context, form.grant)
    if form.generation == grant.generation:
        following = replace(grant, generation=grant.generation + 1)
        writes = _kept(state, user, lambda one: one.id != grant.id, following)
        return Outcome({"live": True, "generation": following.generation}, writes)
    note = _note("grant.reused", grant.id, user.party, user=user.id, client=grant.client)
    return Outcome({"live": False, "generation": 0}, _kept(state, user, lambda one: one.id != grant.id), (note,))


def _end_grant(state: State, context: Context, form: GrantEnd) -> Outcome:
    """By its client or its user."""
    user, grant = _of_client(state, context, form.grant)
    return Outcome({"id": grant.id}, _kept(state, user, lambda one: one.id != grant.id))


def _sign_out(state: State, context: Context, form: SignOut) -> Outcome:
    """A sign-in ends, with every grant that came from it."""
    user = state.find(User, context.subject)
    if user is None or context.actor != user.id:
        raise NotFound(f"There is no user '{context.subject}'.", "Check the id.")
    refuse("The sign-out", [*_digest_faults("session", form.session), *_end_faults(form.expires, context.at)])
    gone = RevokedToken(form.session, user.party, form.expires)
    left = _kept(state, user, lambda grant: grant.session != form.session)
    return Outcome({"id": user.id}, (*_revoked(state, context.at, gone), *left))


def _revoke_token(state: State, context: Context, form: Revocation) -> Outcome:
    """By its holder or who manages the holder. The subject is the holder, a client or user."""
    is_client = state.find(Client, context.subject) is not None
    found: Client | User = _own(state, context, Client) if is_client else _own(state, context, User)
    if context.actor != found.id:
        _manager(state, context, on_behalf=True)
    note = _note("token.revoked", found.id, found.party)
    if not form.token and form.expires is None:
        newer: Write = (type(found), found.id, replace(found, tokens=found.tokens + 1))
        return Outcome({"id": found.id}, (newer, *_ungranted(state, found.id)), (note,))
    refuse("The revocation", _revocation_faults(form, context.at))
    assert form.expires is not None
    kept = state.grouped(RevokedToken, "party", lambda one: one.party).get(found.party, ())
    if sum(one.expires > context.at for one in kept) >= MOST_REVOKED:
        raise Conflict(f"{MOST_REVOKED} single tokens are revoked, the most there may be.", "Revoke all: name none.")
    gone = RevokedToken(form.token, found.party, form.expires)
    return Outcome({"id": found.id}, _revoked(state, context.at, gone), (note,))


def _revocation_faults(form: Revocation, at: datetime) -> Iterator[Finding]:
    yield from _digest_faults("token", form.token)
    if form.expires is None:
        yield Finding("expires", "missing", "Say until when the token would hold; add 'expires'.")
    elif form.expires.tzinfo is not None and form.expires <= at:
        yield Finding("expires", "past", "The token has expired by itself; nothing is to be done.")
    else:
        yield from _end_faults(form.expires, at)


# ---------------------------------------------------------------- webhooks


def _sandbox(state: State) -> bool:
    market = state.find(Market, "market")
    return market is not None and market.sandbox


def _takes_part(context: Context) -> None:
    """Raises Forbidden for a party without a role that counts: the platform calls nobody for it."""
    if not context.roles and context.actor not in PLATFORM:
        raise Forbidden("Webhooks are for parties that were approved.", "Wait for the operator's decision.")


def _webhook_faults(form: WebhookForm) -> Iterator[Finding]:
    # Whether private networks are called is the server's to say, at the door and with each delivery.
    fault = url_fault(form.url, private=True)
    if fault:
        yield Finding("url", "bad_address", fault)
    if not 1 <= len(form.kinds) <= MOST_KINDS:
        yield Finding("kinds", "bad_kinds", f"Name 1 to {MOST_KINDS} kinds of notes, or '*' for all.")
    for position, kind in enumerate(form.kinds):
        if not _KIND.fullmatch(kind) or len(kind) > MOST_NAME:
            yield Finding(f"kinds[{position}]", "bad_kind", "Kinds are as 'unit.registered', 'unit.*' or '*'; correct.")


def _create_webhook(state: State, context: Context, form: WebhookForm) -> Outcome:
    """Notes from this entry on go to it."""
    _manager(state, context)
    _takes_part(context)
    _room(state, Webhook, context.party, MOST_WEBHOOKS)
    refuse("The webhook", _webhook_faults(form))
    webhook = Webhook(context.new_id("webhook"), context.party, form.url, form.kinds, context.at)
    return _outcome("webhook.created", webhook, [_progress(webhook, context.number, 0)], CREATED)


def _progress(webhook: Webhook, number: int, position: int, failing_since: datetime | None = None) -> Write:
    record = WebhookProgress(webhook.id, webhook.party, number, position, failing_since)
    return WebhookProgress, webhook.id, record


def _change_webhook(state: State, context: Context, webhook: Webhook, form: WebhookForm) -> Outcome:
    _takes_part(context)
    refuse("The webhook", _webhook_faults(form))
    return _outcome("webhook.changed", replace(webhook, url=form.url, kinds=form.kinds))


def _rotate_webhook(state: State, context: Context, webhook: Webhook, form: Nothing) -> Outcome:
    """A new secret signs, and for a day the old one as well."""
    rotated = replace(webhook, generation=webhook.generation + 1, rotated=context.at)
    return _outcome("webhook.rotated", rotated)


def _remove_webhook(state: State, context: Context, webhook: Webhook, form: Nothing) -> Outcome:
    writes: tuple[Write, ...] = ((Webhook, webhook.id, None),)
    if state.find(WebhookProgress, webhook.id) is not None:
        writes += ((WebhookProgress, webhook.id, None),)
    return Outcome({"id": webhook.id}, writes, (_note("webhook.removed", webhook.id, webhook.party),))


def _enable_webhook(state: State, context: Context, webhook: Webhook, form: Enabling) -> Outcome:
    """From where it was, so that nothing is missed, or from now on. Raises Conflict when it is on."""
    _takes_part(context)
    if webhook.enabled:
        raise Conflict("The webhook is on.", "Nothing is to be done.")
    at = state.get(WebhookProgress, webhook.id)
    number, position = (context.number, 0) if form.from_now else (at.number, at.position)
    on = replace(webhook, enabled=True, reason="")
    return _outcome("webhook.enabled", on, [_progress(webhook, number, position)])


def _disable_webhook(state: State, context: Context, webhook: Webhook, form: Disabling) -> Outcome:
    """The platform gives it up, or its party turns it off."""
    if not webhook.enabled:
        raise Conflict("The webhook is off already.", "Enable it, or leave it.")
    if len(form.reason) > MOST_NAME:
        refuse("The reason", [Finding("reason", "too_long", f"A reason has at most {MOST_NAME} characters.")])
    return _outcome("webhook.disabled", replace(webhook, enabled=False, reason=form.reason), reason=form.reason)


def _delivered(state: State, context: Context, form: Delivered) -> Outcome:
    """Keeps how far webhooks are; one that was removed meanwhile is passed over."""
    writes = []
    for one in form.webhooks:
        webhook = state.find(Webhook, one.webhook)
        if webhook is not None:
            writes.append(_progress(webhook, one.number, one.position, one.failing_since))
    return Outcome({"webhooks": len(writes)}, tuple(writes))


# ---------------------------------------------------------------- outside issuers


def _issuer_faults(state: State, form: IssuerForm) -> Iterator[Finding]:
    # The market operator names it, and a company's issuer may well be inside its network: only http is refused.
    fault = url_fault(form.url, private=True)
    if fault or (not _sandbox(state) and not form.url.startswith("https://")):
        yield Finding("url", "bad_address", fault or "Only https is called; use an https address.")
    if "?" in form.url:
        yield Finding("url", "bad_address", "The identifier of an issuer has no query; leave it out.")
    for name, value in (("audience", form.audience), ("claim", form.claim)):
        if not 1 <= len(value) <= MOST_NAME:
            yield Finding(name, "bad_name", f"It has 1 to {MOST_NAME} characters; correct it.")
    yield from _scope_faults(form.scopes)
    if not form.parties:
        yield Finding("parties", "missing", "Name the parties for which the issuer may speak.")
    for position, party in enumerate(form.parties):
        if state.find(PartyEntry, party) is None:
            yield Finding(f"parties[{position}]", "unknown_party", f"There is no party '{party}'; correct the id.")


def _set_issuer(state: State, context: Context, form: IssuerForm) -> Outcome:
    _manager(state, context)
    findings = list(_issuer_faults(state, form))
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", context.subject):
        findings.append(Finding("id", "bad_id", "An id has 1 to 64 letters, digits, dots, hyphens or underscores."))
    if any(one.url == form.url and one.id != context.subject for one in state.all(Issuer)):
        findings.append(Finding("url", "url_taken", "Another entry has this issuer; change that one."))
    refuse("The issuer", findings)
    issuer = Issuer(context.subject, **{name: getattr(form, name) for name in form.__struct_fields__})
    status = CREATED if state.find(Issuer, issuer.id) is None else 200
    note = _note("issuer.set", issuer.id, context.party)
    return Outcome(shown(issuer), ((Issuer, issuer.id, issuer),), (note,), status)


def _remove_issuer(state: State, context: Context, form: Nothing) -> Outcome:
    _manager(state, context)
    issuer = state.get(Issuer, context.subject)
    return Outcome(
        {"id": issuer.id}, ((Issuer, issuer.id, None),), (_note("issuer.removed", issuer.id, context.party),)
    )


# ---------------------------------------------------------------- the verbs

_OPERATOR = frozenset({Role.MARKET_OPERATOR})

# `public` where the records say who may, whatever the roles: also a party that is not approved yet has clients.
VERBS = (
    Verb("client.first", FirstClientForm, _first_client, kind=Client),
    Verb("client.create", ClientForm, _create_client, kind=Client, public=True),
    Verb("client.change", ClientChange, _managed(Client, _change_client), kind=Client, public=True),
    Verb("client.rotate", Rotation, _managed(Client, _rotate_client), kind=Client, public=True),
    Verb("client.revoke", Nothing, _managed(Client, _revoke_client, on_behalf=True), kind=Client, public=True),
    Verb("client.limit", RatesForm, _limit_client, _OPERATOR, kind=Client),
    Verb("user.create", UserForm, _create_user, kind=User, public=True),
    Verb("user.change", UserChange, _managed(User, _change_user), kind=User, public=True),
    Verb("user.change_password", PasswordForm, _change_password, kind=User, public=True),
    Verb("user.lock", Nothing, _managed(User, _lock_user, on_behalf=True), kind=User, public=True),
    Verb("user.unlock", Nothing, _managed(User, _unlock_user), kind=User, public=True),
    Verb("user.remove", Nothing, _managed(User, _remove_user, on_behalf=True), kind=User, public=True),
    Verb("user.sign_out", SignOut, _sign_out, kind=User, public=True),
    Verb("grant.open", GrantForm, _open_grant, public=True),
    Verb("grant.refresh", Refresh, _refresh_grant, public=True),
    Verb("grant.end", GrantEnd, _end_grant, public=True),
    Verb("token.revoke", Revocation, _revoke_token, public=True),
    Verb("webhook.create", WebhookForm, _create_webhook, kind=Webhook, public=True),
    Verb("webhook.change", WebhookForm, _managed(Webhook, _change_webhook), kind=Webhook, public=True),
    Verb("webhook.rotate", Nothing, _managed(Webhook, _rotate_webhook), kind=Webhook, public=True),
    Verb("webhook.remove", Nothing, _managed(Webhook, _remove_webhook, on_behalf=True), kind=Webhook, public=True),
    Verb("webhook.enable", Enabling, _managed(Webhook, _enable_webhook), kind=Webhook, public=True),
    Verb("webhook.disable", Disabling, _managed(Webhook, _disable_webhook, on_behalf=True), kind=Webhook, public=True),
    Verb("webhook.delivered", Delivered, _delivered),
    Verb("issuer.set", IssuerForm, _set_issuer, _OPERATOR, kind=Issuer),
    Verb("issuer.remove", Nothing, _remove_issuer, _OPERATOR, kind=Issuer),
)
