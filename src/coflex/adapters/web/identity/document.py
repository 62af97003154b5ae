"""The issuer's addresses in the OpenAPI document, beside those of the rooms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coflex.adapters.web.identity.forms import FORM

_PREFIX = "/v1/{tenant}"
_TENANT = {"name": "tenant", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_TEXT = {"type": "string"}
_PUBLIC: list[dict[str, Any]] = [{}]
_BASIC: list[dict[str, Any]] = [{"client": []}, {}]


def issuer_document() -> dict[str, Any]:
    """Paths, schemas and the tag of OAuth 2.0 and OpenID Connect, to be merged into the document."""
    paths = {
        f"{_PREFIX}/oauth/token": {"post": _token()},
        f"{_PREFIX}/oauth/revoke": {"post": _revoke()},
        f"{_PREFIX}/oauth/authorize": {"get": _authorize()},
        f"{_PREFIX}/oauth/logout": {"get": _logout()},
        f"{_PREFIX}/oauth/userinfo": {"get": _userinfo()},
        f"{_PREFIX}/oauth/jwks": {"get": _reads("oauth_jwks", "Keys that verify our tokens (RFC 7517)")},
        f"{_PREFIX}/.well-known/openid-configuration": {
            "get": _reads("openid_configuration", "The discovery document of OpenID Connect")
        },
    }
    text = "Tokens by OAuth 2.0, sign-in by OpenID Connect. Errors are those of RFC 6749, not problem documents."
    return {
        "tags": [{"name": "sign-in", "description": text}],
        "paths": paths,
        "components": {
            "schemas": {"TokenAnswer": _ANSWER, "OAuthFault": _FAULT},
            "securitySchemes": {"client": {"type": "http", "scheme": "basic"}},
        },
    }


_ANSWER = {
    "title": "TokenAnswer",
    "description": "Tokens as RFC 6749 answers them.",
    "type": "object",
    "properties": {
        "access_token": _TEXT,
        "token_type": {"const": "Bearer"},
        "expires_in": {"type": "integer", "description": "Seconds."},
        "scope": _TEXT,
        "refresh_token": {"type": "string", "description": "Taken once; the answer has the next one."},
        "id_token": {"type": "string", "description": "Who signed in, where the scope openid was asked for."},
    },
    "required": ["access_token", "token_type", "expires_in", "scope"],
}
_FAULT = {
    "title": "OAuthFault",
    "description": "An error as RFC 6749 answers it.",
    "type": "object",
    "properties": {"error": _TEXT, "error_description": _TEXT},
    "required": ["error", "error_description"],
}


def _token() -> dict[str, Any]:
    names = "client_id client_secret scope code redirect_uri code_verifier refresh_token"
    grants = ["client_credentials", "authorization_code", "refresh_token"]
    return _posts(
        "oauth_token",
        "A token for a client's secret, an authorization code, or a refresh token (RFC 6749, RFC 7636)",
        {"grant_type": {"enum": grants}, **dict.fromkeys(names.split(), _TEXT)},
        "grant_type",
        {"$ref": "#/components/schemas/TokenAnswer"},
    )


def _revoke() -> dict[str, Any]:
    names = "token token_type_hint client_id client_secret"
    fields = dict.fromkeys(names.split(), _TEXT)
    return _posts("oauth_revoke", "A token is needed no more (RFC 7009)", fields, "token", {"type": "object"})


def _authorize() -> dict[str, Any]:
    required = ["response_type", "client_id", "redirect_uri", "code_challenge", "code_challenge_method"]
    others = ["scope", "state", "nonce", "prompt", "max_age"]
    return {
        "tags": ["sign-in"],
        "operationId": "oauth_authorize",
        "summary": "Where an application sends a browser to sign in; the code comes back to its redirect_uri",
        "security": _PUBLIC,
        "parameters": [_TENANT, *_queries(required, True), *_queries(others, False)],
        "responses": {
            "200": _page("The page to sign in."),
            "303": {"description": "Back to the application, with a code or an error."},
            "400": _page("The application is not known, or asks to be answered elsewhere than registered."),
            "429": _page("Too many attempts."),
        },
    }


def _logout() -> dict[str, Any]:
    names = ["id_token_hint", "post_logout_redirect_uri", "state"]
    return {
        "tags": ["sign-in"],
        "operationId": "oauth_logout",
        "summary": "End a sign-in and every token that came from it (OpenID Connect RP-Initiated Logout)",
        "security": _PUBLIC,
        "parameters": [_TENANT, *_queries(names, False)],
        "responses": {
            "200": _page("Signed out, or the page that asks whether to."),
            "303": {"description": "Back to the application."},
            "400": _page("The query cannot be read."),
            "429": _page("Too many attempts."),
        },
    }


def _userinfo() -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"sub": _TEXT, "party": _TEXT, "roles": {"type": "array", "items": _TEXT}},
        "required": ["sub", "party", "roles"],
    }
    return {
        "tags": ["sign-in"],
        "operationId": "oauth_userinfo",
        "summary": "Who the bearer of an access token is: user, party and its roles; no name",
        "parameters": [_TENANT],
        "responses": {
            "200": {"description": "The user.", "content": {"application/json": {"schema": schema}}},
            **{status: {"$ref": f"#/components/responses/Problem{status}"} for status in ("401", "403", "404", "429")},
        },
    }


def _reads(id: str, summary: str) -> dict[str, Any]:
    return {
        "tags": ["sign-in"],
        "operationId": id,
        "summary": summary,
        "security": _PUBLIC,
        "parameters": [_TENANT],
        "responses": {
            "200": {"description": "The document.", "content": {"application/json": {"schema": {"type": "object"}}}},
            "404": {"$ref": "#/components/responses/Problem404"},
        },
    }


def _posts(id: str, summary: str, fields: dict[str, Any], required: str, reply: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "properties": fields, "required": [required]}
    fault = {"application/json": {"schema": {"$ref": "#/components/schemas/OAuthFault"}}}
    return {
        "tags": ["sign-in"],
        "operationId": id,
        "summary": summary,
        "security": _BASIC,
        "parameters": [_TENANT],
        "requestBody": {"required": True, "content": {FORM: {"schema": form}}},
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": reply}}},
            "400": {"description": "The request has a fault.", "content": fault},
            "401": {"description": "The client is not known.", "content": fault},
            "404": {"$ref": "#/components/responses/Problem404"},
            "413": {"description": "The form is too long.", "content": fault},
            "429": {"$ref": "#/components/responses/Problem429"},
        },
    }


def _queries(names: Iterable[str], required: bool) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "required": required, "schema": _TEXT} for name in names]


def _page(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"text/html": {"schema": _TEXT}}}
