"""Identity at the door: who asks, with which rights, and our own small issuer of tokens (PLAT-01, PLAT-07).

`Identity.authenticate` tells who sends a request. `identity_routes` are the addresses of OAuth 2.0 and OpenID Connect,
`issuer_document` describes them. `access_room` are those where a party manages its clients, users and webhooks.
"""

from __future__ import annotations

from starlette.routing import Route

from coflex.adapters.web.identity.accounts import Accounts, access_room
from coflex.adapters.web.identity.document import issuer_document
from coflex.adapters.web.identity.keys import Keys
from coflex.adapters.web.identity.known import Identity
from coflex.adapters.web.identity.oauth import Codes, TokenEnd
from coflex.adapters.web.identity.passwords import Passwords
from coflex.adapters.web.identity.platform import Platform
from coflex.adapters.web.identity.signin import SignInEnd

__all__ = ["Accounts", "Identity", "Keys", "Passwords", "Platform", "access_room", "identity_routes", "issuer_document"]


def identity_routes(platform: Platform, identity: Identity, passwords: Passwords) -> list[Route]:
    """The addresses of the issuer, below /v1/{tenant}."""
    codes = Codes()
    return [
        *TokenEnd(platform, identity, codes).routes(),
        *SignInEnd(platform, identity, codes, passwords).routes(),
    ]
