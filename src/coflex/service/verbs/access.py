"""Access: clients, users, grants and tokens (PLAT-01, PLAT-07); who may is said in `managing`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import msgspec

from coflex.domain.errors import Conflict, Finding, Forbidden, NotFound, refuse
from coflex.domain.party import Role
from coflex.register.access import (
    Client,
    ClientScope,
    Grant,
    Grants,
    Rates,
    RevokedToken,
    User,
    url_fault,
)
from coflex.service.machine import CREATED, Context, Outcome, Verb
from coflex.service.state import State
from coflex.service.verbs.managing import (
    Form,
    Nothing,
    Write,
    behind,
    managed,
    may_manage,
    name_faults,
    note_of,
    own,
    room_for,
    scope_faults,
    written,
)

MOST_CLIENTS, MOST_USERS, MOST_GRANTS, MOST_REVOKED = 1_000, 10_000, 50, 10_000
MOST_REDIRECTS, MOST_RATE = 20, 1_000_000
LONGEST_OVERLAP_S = 30 * 86_400
GRANTED_FOR = timedelta(days=30)
LONGEST_TOKEN = timedelta(hours=12)  # a sign-in; a revocation is kept until its token would have ended
EVERY_SCOPE = tuple(ClientScope)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ARGON2ID = re.compile(r"\$argon2id\$v=19\$m=\d{4,7},t=\d{1,2},p=\d{1,2}\$[A-Za-z0-9+/]{16,}\$[A-Za-z0-9+/]{27,}")


# ---------------------------------------------------------------- forms


class ClientForm(Form, frozen=True):
    """A new client. `secret_hash`: SHA-256 of its secret, hexadecimal; empty for an application that keeps none."""

    name: str
    scopes: tuple[ClientScope, ...]
    secret_hash: str
    expires: datetime | None = None
    redirects: tuple[str, ...] = ()


class FirstClientForm(Form, frozen=True):
    """The first client of a party, with every scope."""

    name: str
    secret_hash: str


class ClientChange(Form, frozen=True):
    """What a client is from now on."""

    name: str
    scopes: tuple[ClientScope, ...]
    expires: datetime | None = None
    redirects: tuple[str, ...] = ()


class Rotation(Form, frozen=True):
    """A new secret; the old one is taken for `overlap_s` seconds more."""

    secret_hash: str
    overlap_s: int = 86_400


class RatesForm(Form, frozen=True):
    """What a client may send; see `Rates`."""

    requests_per_s: int
    requests_burst: int
    items_per_s: int
    items_burst: int


class UserForm(Form, frozen=True):
    """A new user. `login`: see `login_digest`. `password`: argon2id, or empty for one that signs in elsewhere."""

    login: str
    password: str
    scopes: tuple[ClientScope, ...]


class UserChange(Form, frozen=True):
    """What a user may from now on."""

    scopes: tuple[ClientScope, ...]


class PasswordForm(Form, frozen=True):
    """A new password as argon2id."""

    password: str


class GrantForm(Form, frozen=True):
    """A user lets a client act for it. `session`: SHA-256 of the id of the sign-in."""

    client: str
    scopes: tuple[ClientScope, ...]
    session: str
    signed_in: datetime
    openid: bool = False


class Refresh(Form, frozen=True):
    """A refresh token of a grant was shown, of this generation."""

    grant: str
    generation: int


class GrantEnd(Form, frozen=True):
    """A grant is needed no more."""

    grant: str


class SignOut(Form, frozen=True):
    """A sign-in ends: SHA-256 of its id, and when it would have ended by itself."""

    session: str
    expires: datetime


class Revocation(Form, frozen=True):
    """One token (SHA-256 of its id) that would hold until `expires`, or with neither all of the holder's until now."""

    token: str = ""
    expires: datetime | None = None


# ---------------------------------------------------------------- clients


def _client_faults(form: ClientForm | ClientChange, secret_hash: str, at: datetime) -> Iterator[Finding]:
    yield from name_faults(form.name)
    yield from scope_faults(form.scopes)
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


def _digest_faults(place: str, digest: str) -> Iterator[Finding]:
    if not _DIGEST.fullmatch(digest):
        yield Finding(place, "bad_digest", "This is no SHA-256 in 64 hexadecimal digits; send one.")


def _instant_faults(place: str, at: datetime) -> Iterator[Finding]:
    if at.tzinfo is None:
        yield Finding(place, "no_zone", "The instant has no offset from UTC; add one, as 'Z'.")


def _create_client(state: State, context: Context, form: ClientForm) -> Outcome:
    may_manage(state, context)
    return _new_client(state, context, form)


def _first_client(state: State, context: Context, form: FirstClientForm) -> Outcome:
    """Of a party that was just registered. Raises Conflict when it has one."""
    if context.party in state.grouped(Client, "party", lambda one: one.party):
        raise Conflict(f"The party '{context.party}' has a client already.", "Let that one make others.")
    return _new_client(state, context, ClientForm(form.name, EVERY_SCOPE, form.secret_hash))


def _new_client(state: State, context: Context, form: ClientForm) -> Outcome:
    room_for(state, Client, context.party, MOST_CLIENTS)
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
        behind=behind(state, context.actor),
    )
    return written("client.created", client, status=CREATED)


def _change_client(state: State, context: Context, client: Client, form: ClientChange) -> Outcome:
    refuse("The client", _client_faults(form, client.secret_hash, context.at))
    changed = replace(client, name=form.name, scopes=form.scopes, expires=form.expires, redirects=form.redirects)
    return written("client.changed", changed)


def _rotate_client(state: State, context: Context, client: Client, form: Rotation) -> Outcome:
    """A new secret beside the old one, which goes on for the overlap: then who knew that one may have used it for more.
    Raises Conflict for a revoked client."""
    if not client.live(context.at) or not client.secret_hash:
        raise Conflict("A client that is revoked, expired or keeps no secret gets no new one.", "Create a client.")
    findings = list(_digest_faults("secret_hash", form.secret_hash))
    if not 0 <= form.overlap_s <= LONGEST_OVERLAP_S:
        findings.append(
            Finding("overlap_s", "out_of_range", f"The overlap has 0 to {LONGEST_OVERLAP_S} seconds; choose one.")
        )
    refuse("The rotation", findings)
    until = context.at + timedelta(seconds=form.overlap_s)
    rotated = replace(
        client,
        secret_hash=form.secret_hash,
        previous_hash=client.secret_hash,
        previous_until=until,
        behind=behind(state, context.actor, *((client,) if form.overlap_s else ())),
    )
    return written("client.rotated", rotated, previous_until=until)


def _revoke_client(state: State, context: Context, client: Client, form: Nothing) -> Outcome:
    if client.revoked is not None:
        raise Conflict("The client is revoked already.", "Create another one.")
    return written("client.revoked", replace(client, revoked=context.at, tokens=client.tokens + 1))


def _limit_client(state: State, context: Context, form: RatesForm) -> Outcome:
    """The market operator sets what any client may send."""
    may_manage(state, context)
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
    return written("client.limited", replace(client, rates=Rates(**values)))


# ---------------------------------------------------------------- users


def _password_faults(password: str) -> Iterator[Finding]:
    if not _ARGON2ID.fullmatch(password):
        yield Finding("password", "bad_hash", "This is no argon2id hash in its text form; send one.")


def _create_user(state: State, context: Context, form: UserForm) -> Outcome:
    may_manage(state, context)
    room_for(state, User, context.party, MOST_USERS)
    findings = [*_digest_faults("login", form.login), *scope_faults(form.scopes)]
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
        behind=behind(state, context.actor),
    )
    return written("user.created", user, status=CREATED)


def user_by_login(state: State, login: str) -> User | None:
    """The user with a sign-in name, by its digest."""
    found = state.grouped(User, "login", lambda one: one.login).get(login)
    return found[0] if found else None


def _change_user(state: State, context: Context, user: User, form: UserChange) -> Outcome:
    refuse("The user", scope_faults(form.scopes))
    return written("user.changed", replace(user, scopes=form.scopes))


def _change_password(state: State, context: Context, form: PasswordForm) -> Outcome:
    """By the user itself (the door has seen the old one) or who manages; every token and grant of before ends."""
    user = own(state, context, User)
    if context.actor != user.id:
        may_manage(state, context)
    refuse("The password", _password_faults(form.password))
    changed = replace(
        user,
        password=form.password,
        password_since=context.at,
        tokens=user.tokens + 1,
        behind=user.behind if context.actor == user.id else behind(state, context.actor, user),
    )
    return written("user.password_changed", changed, _ungranted(state, user.id))


def _lock_user(state: State, context: Context, user: User, form: Nothing) -> Outcome:
    if user.locked is not None:
        raise Conflict("The user is locked already.", "Unlock it, or leave it.")
    locked = replace(user, locked=context.at, tokens=user.tokens + 1)
    return written("user.locked", locked, _ungranted(state, user.id))


def _unlock_user(state: State, context: Context, user: User, form: Nothing) -> Outcome:
    if user.locked is None:
        raise Conflict("The user is not locked.", "Nothing is to be done.")
    return written("user.unlocked", replace(user, locked=None))


def _remove_user(state: State, context: Context, user: User, form: Nothing) -> Outcome:
    writes = ((User, user.id, None), *_ungranted(state, user.id))
    return Outcome({"id": user.id}, writes, (note_of("user.removed", user.id, user.party),))


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
    note = note_of("grant.reused", grant.id, user.party, user=user.id, client=grant.client)
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
    found: Client | User = own(state, context, Client) if is_client else own(state, context, User)
    if context.actor != found.id:
        may_manage(state, context, on_behalf=True)
    note = note_of("token.revoked", found.id, found.party)
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


# ---------------------------------------------------------------- the verbs

_OPERATOR = frozenset({Role.MARKET_OPERATOR})

# `public` where the records say who may, whatever the roles: also a party that is not approved yet has clients.
VERBS = (
    Verb("client.first", FirstClientForm, _first_client, kind=Client),
    Verb("client.create", ClientForm, _create_client, kind=Client, public=True),
    Verb("client.change", ClientChange, managed(Client, _change_client), kind=Client, public=True),
    Verb("client.rotate", Rotation, managed(Client, _rotate_client), kind=Client, public=True),
    Verb("client.revoke", Nothing, managed(Client, _revoke_client, on_behalf=True), kind=Client, public=True),
    Verb("client.limit", RatesForm, _limit_client, _OPERATOR, kind=Client),
    Verb("user.create", UserForm, _create_user, kind=User, public=True),
    Verb("user.change", UserChange, managed(User, _change_user), kind=User, public=True),
    Verb("user.change_password", PasswordForm, _change_password, kind=User, public=True),
    Verb("user.lock", Nothing, managed(User, _lock_user, on_behalf=True), kind=User, public=True),
    Verb("user.unlock", Nothing, managed(User, _unlock_user), kind=User, public=True),
    Verb("user.remove", Nothing, managed(User, _remove_user, on_behalf=True), kind=User, public=True),
    Verb("user.sign_out", SignOut, _sign_out, kind=User, public=True),
    Verb("grant.open", GrantForm, _open_grant, public=True),
    Verb("grant.refresh", Refresh, _refresh_grant, public=True),
    Verb("grant.end", GrantEnd, _end_grant, public=True),
    Verb("token.revoke", Revocation, _revoke_token, public=True),
)
