"""Who comes in, and where news go out: API clients, users, what they were granted, outside issuers, webhooks (PLAT-01).

No secret is here. Of random secrets the records hold SHA-256, of passwords argon2id, of sign-in names SHA-256; what the
platform must be able to say again (refresh tokens, the secrets of webhooks) it derives from the server's key and a
generation that is here. All instants are the server's: a credential does not age faster in a sandbox.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any
from unicodedata import normalize
from urllib.parse import urlsplit

MOST_URL = 2_000
# IPv6 addresses that stand for IPv4 ones behind a translator (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class ClientScope(StrEnum):
    """What a client or user may do for its party: read, write, or also manage clients, users and webhooks."""

    READ = "read"
    WRITE = "write"
    MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class Rates:
    """What a client may send: requests in a second and at once, and the same for the items of its batches."""

    requests_per_s: int = 200
    requests_burst: int = 400
    items_per_s: int = 5_000
    items_burst: int = 20_000


@dataclass(frozen=True, slots=True)
class Client:
    """An API client of a party, or an application in which users sign in.

    `secret_hash`: SHA-256 of its random secret of 256 bits, hexadecimal; empty for an application that can keep none.
    `previous_hash` is taken as well until `previous_until`. `redirects`: where users may be sent back to, exactly.
    `tokens`: generation of its tokens; those of an earlier one do not hold. `behind`: see `persons`.
    """

    id: str
    party: str
    name: str
    scopes: tuple[ClientScope, ...]
    secret_hash: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    previous_hash: str = ""
    previous_until: datetime | None = None
    redirects: tuple[str, ...] = ()
    tokens: int = 0
    rates: Rates = field(default_factory=Rates)
    behind: tuple[str, ...] = ()

    def live(self, at: datetime) -> bool:
        return self.revoked is None and (self.expires is None or at < self.expires)


@dataclass(frozen=True, slots=True)
class User:
    """A person of a party, without a name. `login`: see `login_digest`. `password`: argon2id in its usual text form,
    empty for one that signs in elsewhere. `tokens`: as of a client. `created_by`: the user or client that made it.
    `behind`: see `persons`.
    """

    id: str
    party: str
    scopes: tuple[ClientScope, ...]
    login: str
    password: str
    created: datetime
    password_since: datetime
    locked: datetime | None = None
    tokens: int = 0
    created_by: str = ""
    behind: tuple[str, ...] = ()

    def live(self, at: datetime) -> bool:
        return self.locked is None


def persons(one: Client | User | None) -> frozenset[str]:
    """Who may know how to come in as a client or user: users that no other person made.

    Whoever makes an account, or sets its password or secret, knows how to come in with it; so do all who know how to
    come in as that one. A user that nobody made but the platform, or a client that nobody else knows the secret of, is
    a person of its own. Two users are two persons where the same person is not behind both.
    """
    if one is None:
        return frozenset()
    return frozenset(one.behind or ((one.id,) if isinstance(one, User) else ()))


@dataclass(frozen=True, slots=True)
class Grant:
    """What a user let an application do: the life of its refresh tokens, of which only that of `generation` is taken.

    `session`: digest of the sign-in from which it came; signing out ends all of its grants. `openid`: whether the
    application asked who the user is.
    """

    id: str
    client: str
    scopes: tuple[ClientScope, ...]
    session: str
    signed_in: datetime
    expires: datetime
    openid: bool = False
    generation: int = 1


@dataclass(frozen=True, slots=True)
class Grants:
    """All grants of a user; `id` is the user's. Apart from the user, who would else change with every refresh."""

    id: str
    party: str
    grants: tuple[Grant, ...]

    def of(self, id: str) -> Grant | None:
        return next((grant for grant in self.grants if grant.id == id), None)


@dataclass(frozen=True, slots=True)
class RevokedToken:
    """A token that does not hold any more; `id`: SHA-256 of its own id. Kept until the token has expired anyway."""

    id: str
    party: str
    expires: datetime


class Naming(StrEnum):
    """What the claim of an outside issuer names: the sign-in name of a user here, or a party."""

    USER = "user"
    PARTY = "party"


@dataclass(frozen=True, slots=True)
class Issuer:
    """An outside issuer of identities. `url`: its issuer identifier. `audience`: what its tokens must be made for.

    `claim` names a user or a party; only users of `parties`, or these parties, are taken from it, and of these only
    such as `accepted` it as it is: the market operator names an issuer, yet none speaks for a party against its will.
    `scopes`: the most that its tokens give; a token that names a party gives never more than read and write.
    """

    id: str
    url: str
    audience: str
    claim: str
    names: Naming
    parties: tuple[str, ...]
    scopes: tuple[ClientScope, ...]
    accepted: tuple[str, ...] = ()

    def speaks_for(self, party: str) -> bool:
        return party in self.parties and party in self.accepted


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where notes of the feed are sent. `kinds`: of notes ("unit.registered", "unit.*", "*").

    `generation`: of its secret, since `rotated`; the secret before it signs too for a day. `reason`: why it is off.
    """

    id: str
    party: str
    url: str
    kinds: tuple[str, ...]
    created: datetime
    generation: int = 1
    rotated: datetime | None = None
    enabled: bool = True
    reason: str = ""

    def wants(self, kind: str) -> bool:
        """Whether notes of a kind are sent here."""
        return any(one in ("*", kind) or (one.endswith(".*") and kind.startswith(one[:-1])) for one in self.kinds)


@dataclass(frozen=True, slots=True)
class WebhookProgress:
    """How far a webhook is: the last note that was received, by number of its entry and position therein."""

    id: str
    party: str
    number: int
    position: int
    failing_since: datetime | None = None


RECORDS: dict[str, type[object]] = {
    "client": Client,
    "user": User,
    "grants": Grants,
    "revoked_token": RevokedToken,
    "issuer": Issuer,
    "webhook": Webhook,
    "webhook_progress": WebhookProgress,
}

# Fields that nobody reads: they prove who somebody is.
HIDDEN = frozenset({"secret_hash", "previous_hash", "login", "password"})


def shown(record: Any) -> dict[str, Any]:
    """A record of this room as its party reads it."""
    return {one.name: getattr(record, one.name) for one in fields(record) if one.name not in HIDDEN}


def login_digest(tenant: str, name: str) -> str:
    """SHA-256 of tenant, a zero byte, and the sign-in name in NFKC and lower case without outer blanks; hexadecimal."""
    return sha256(f"{tenant}\0{normalize('NFKC', name).strip().lower()}".encode()).hexdigest()


def url_fault(url: str, private: bool = False) -> str:
    """Why an address may not be called by the platform, as one sentence; empty if it may.

    It is https, names a host and no user, and no address of a private network. Where `private`, these are allowed, and
    http to this machine itself. Names are not resolved here: whoever calls looks at the addresses again.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "It is no address of the web; correct it."
    if len(url) > MOST_URL or not url.isascii() or any(one <= " " for one in url):
        return f"An address has at most {MOST_URL} characters, all plain ASCII without blanks; correct it."
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        return "An address names a host, no user and no fragment; correct it."
    if parts.scheme != "https" and not (private and parts.scheme == "http" and host in LOOPBACK):
        return "Only https is called; use an https address."
    if not private and (host == "localhost" or host.endswith(".localhost") or _private(host)):
        return "Addresses of private networks are not called; use a public one."
    return ""


def public_address(address: str) -> bool:
    """Whether an IP address is one of the open internet, also where IPv6 wraps an IPv4 address."""
    found = ip_address(address)
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not public_address(str(inner)):
            return False
    return found.is_global and not found.is_multicast


def _private(host: str) -> bool:
    try:
        return not public_address(host)
    except ValueError:
        return host.replace(".", "").isdigit()  # "127.1" and "2130706433" are addresses to some resolvers
