"""Another issuer of identities: an application of its own, with keys of every kind, that counts what it is asked."""

from __future__ import annotations

from typing import Any

import httpx
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from support.access import AT
from support.identity import NAME


class Outside:
    """`url`: what it calls itself. `down`: whether it fails. `asked`: how often its discovery document was."""

    def __init__(self, url: str = "https://login.corp.example") -> None:
        self.url, self.asked, self.down = url, 0, False
        self.keys: dict[str, Any] = {
            "RS256": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
            "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
            "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
        }
        self.app = Starlette(
            routes=[Route("/.well-known/openid-configuration", self._discovery), Route("/keys", self._jwks)]
        )

    async def _discovery(self, request: Request) -> Response:
        self.asked += 1
        if self.down:
            return Response(status_code=503)
        return JSONResponse({"issuer": self.url, "jwks_uri": f"{self.url}/keys", "token_endpoint": "x"})

    async def _jwks(self, request: Request) -> Response:
        foreign = {"kty": "AKP", "kid": "of another time", "alg": "ML-DSA-44", "pub": "x"}
        return JSONResponse({"keys": [foreign, *(key.as_dict(private=False) for key in self.keys.values())]})

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app))

    def token(self, algorithm: str = "RS256", **claims: Any) -> str:
        key = self.keys[algorithm]
        at = int(AT.timestamp())
        whole = {"iss": self.url, "aud": "coflex", "sub": "42", "iat": at, "exp": at + 600, "email": NAME} | claims
        return jwt.encode({"alg": algorithm, "kid": key.kid}, whole, key, algorithms=[algorithm])
