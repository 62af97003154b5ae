"""The browser's end of the issuer: sign in once, go back to the application with a code; sign out.

    GET  /v1/{tenant}/oauth/authorize  an application sends a browser here (RFC 6749 4.1, OpenID Connect Core 3.1)
    POST /v1/{tenant}/oauth/sign-in    name and password, from the page
    GET, POST /v1/{tenant}/oauth/logout  (OpenID Connect RP-Initiated Logout)

The pages are plain HTML without scripts. A form is taken only from the browser that was given it: a random cookie and
what was asked are sealed together into the form.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib import resources
from typing import Any
from urllib.parse import urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from coflex.adapters.web.api.problems import TooMany
from coflex.adapters.web.identity.forms import OAuthError, fields, read_form
from coflex.adapters.web.identity.keys import digest
from coflex.adapters.web.identity.known import Identity
from coflex.adapters.web.identity.limits import UNKNOWN_BURST, UNKNOWN_PER_S, Throttle
from coflex.adapters.web.identity.oauth import CODE_FOR, OPENID, Code, Codes
from coflex.adapters.web.identity.passwords import Passwords
from coflex.adapters.web.identity.platform import Platform
from coflex.adapters.web.identity.tokens import ID, SESSION, SESSION_FOR, BadToken, scopes_of
from coflex.register.access import Client, ClientScope, RevokedToken, User, login_digest
from coflex.service.machine import encode
from coflex.service.ports import Command
from coflex.service.state import State
from coflex.service.verbs.access import SignOut, user_by_login
from coflex.service.verbs.managing import is_operator

SESSION_COOKIE, FORM_COOKIE = "coflex_session", "coflex_form"
# A company's people may come from one address.
FREE_PER_ADDRESS = 50
MOST_FIELD = 2_000
_CHALLENGE_LENGTH = 43


@dataclass(frozen=True, slots=True)
class Asked:
    """What an application asks for, once the client and where to go back to are sure."""

    client: Client
    redirect: str
    query: dict[str, str]

    @property
    def scopes(self) -> tuple[ClientScope, ...]:
        return scopes_of(self.query.get("scope", ""))


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's sign-in."""

    user: User
    id: str
    since: datetime
    expires: datetime


class _Pages:
    """HTML pages, with headers that let nothing be loaded, framed or kept."""

    def __init__(self) -> None:
        environment = Environment(
            loader=PackageLoader("coflex.adapters.web", "identity"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._template = environment.get_template("page.html.j2")
        css = resources.files("coflex.adapters.web.identity").joinpath("page.css").read_text(encoding="utf-8")
        self._css = Markup(css)  # our own, and named by its digest in the policy
        self._style = b64encode(sha256(css.encode()).digest()).decode()

    def page(self, title: str, status: int = 200, goes_to: str = "", **shown: Any) -> Response:
        """A page; `goes_to`: where its form may lead after our own answer (browsers ask that of the policy)."""
        values = {"text": "", "alert": "", "action": "", "asked": "", "seal": "", "names": False, "button": ""}
        html = self._template.render(title=title, css=self._css, **(values | shown))
        parts = urlsplit(goes_to)
        then = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
        policy = (
            f"default-src 'none'; style-src 'sha256-{self._style}'; form-action 'self'{then}; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return Response(html, status, headers, "text/html; charset=utf-8")


class SignInEnd:
    """The handlers. Used on the machine's thread."""

    def __init__(self, platform: Platform, identity: Identity, codes: Codes, passwords: Passwords) -> None:
        self.platform, self.identity, self.codes, self.passwords = platform, identity, codes, passwords
        self.throttle = Throttle()
        self._pages = _Pages()

    def routes(self) -> list[Route]:
        base = "/v1/{tenant}/oauth"
        return [
            Route(f"{base}/authorize", self._guarded(self._authorize), methods=["GET"]),
            Route(f"{base}/sign-in", self._guarded(self._sign_in), methods=["POST"]),
            Route(f"{base}/logout", self._guarded(self._logout), methods=["GET"]),
            Route(f"{base}/logout", self._guarded(self._logged_out), methods=["POST"]),
        ]

    def _guarded(
        self, act: Callable[[Request, str, datetime], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """A handler whose faults are pages, and whose callers are counted by address."""

        async def handler(request: Request) -> Response:
            tenant = request.path_params["tenant"]
            self._state(tenant)
            try:
                self.identity.limits.take(("pages", _address(request)), UNKNOWN_PER_S, UNKNOWN_BURST)
                return await act(request, tenant, self.platform.clock())
            except OAuthError as fault:
                return self._pages.page("This does not work", fault.status, alert=fault.description)
            except TooMany as fault:
                page = self._pages.page("Too many attempts", 429, alert=f"{fault.message} {fault.remedy}")
                page.headers["Retry-After"] = str(fault.after_s)
                return page

        return handler

    # ---------------------------------------------------------------- signing in

    async def _authorize(self, request: Request, tenant: str, at: datetime) -> Response:
        asked = self._asked(tenant, request.url.query, at)
        try:
            _check(asked)
            session = self._session(request, tenant, at)
            prompt = asked.query.get("prompt", "").split()
            if session is not None and "login" not in prompt and _fresh(asked, session, at):
                return self._back_with_code(tenant, asked, session, at)
            if "none" in prompt:
                raise OAuthError("login_required", "Nobody is signed in.")
        except OAuthError as fault:
            return self._back(tenant, asked, {"error": fault.error, "error_description": fault.description})
        return self._form(request, tenant, request.url.query, asked.redirect)

    async def _sign_in(self, request: Request, tenant: str, at: datetime) -> Response:
        form = await read_form(request)
        query = form.get("asked", "")
        self._sealed(request, tenant, form)
        asked = self._asked(tenant, query, at)
        name, password = form.get("name", ""), form.get("password", "")
        user = await self._proven(request, tenant, name, password)
        if user is None:
            told = "The name or the password is not right."
            return self._form(request, tenant, query, asked.redirect, told, 401)
        token = self.identity.tokens.session(tenant, user, at)
        session = self._read_session(tenant, token, at)
        assert session is not None
        try:
            response = self._back_with_code(tenant, asked, session, at)
        except OAuthError as fault:
            response = self._back(tenant, asked, {"error": fault.error, "error_description": fault.description})
        self._set_cookie(response, tenant, SESSION_COOKIE, token, SESSION_FOR)
        return response

    async def _proven(self, request: Request, tenant: str, name: str, password: str) -> User | None:
        """The user with this name and password. Raises TooMany after failures with the name or from the address."""
        login = login_digest(tenant, name)
        places = (("login", tenant, login), ("address", _address(request)))
        self.throttle.attempt(places[0])
        self.throttle.attempt(places[1], FREE_PER_ADDRESS)
        user = user_by_login(self._state(tenant), login)
        try:
            right = await self.passwords.right(user.password if user is not None else "", password[:MOST_FIELD])
        except TooMany:
            for place in places:
                self.throttle.took_back(place)
            raise
        # The record as it is now: it may have been locked while the password was looked at.
        found = user_by_login(self._state(tenant), login)
        if not right or user is None or found is None or found.locked or found.password != user.password:
            return None
        self.throttle.succeeded(places[0])
        self.throttle.took_back(places[1])
        return found

    def _back_with_code(self, tenant: str, asked: Asked, session: Session, at: datetime) -> Response:
        """To the application, with a code. Raises OAuthError for an application of another company."""
        user, client = session.user, asked.client
        if user.party != client.party and not is_operator(self._state(tenant), client.party):
            raise OAuthError("access_denied", "The application is of another company.")
        wanted = asked.scopes
        code = Code(
            client=client.id,
            user=user.id,
            redirect=asked.redirect,
            scopes=tuple(scope for scope in wanted if scope in user.scopes),
            openid=OPENID in asked.query.get("scope", "").split(),
            nonce=asked.query.get("nonce"),
            challenge=asked.query["code_challenge"],
            session=session.id,
            signed_in=session.since,
            until=at + CODE_FOR,
        )
        return self._back(tenant, asked, {"code": self.codes.give(code)})

    def _back(self, tenant: str, asked: Asked, answer: dict[str, str]) -> Response:
        """To the application, with what it sent along and who answers (RFC 9207)."""
        state = {"state": asked.query["state"]} if "state" in asked.query else {}
        answer = answer | state | {"iss": self.identity.tokens.issuer(tenant)}
        joint = "&" if urlsplit(asked.redirect).query else "?"
        headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return RedirectResponse(f"{asked.redirect}{joint}{urlencode(answer)}", 303, headers)

    def _asked(self, tenant: str, query: str, at: datetime) -> Asked:
        """Raises OAuthError, which is shown and not sent on: an address that is not registered is never gone to."""
        found = fields(query)
        if any(len(value) > MOST_FIELD for value in found.values()):
            raise OAuthError(
                "invalid_request", "The application asks in too many words. Start from it again, and tell its makers."
            )
        client = self._state(tenant).find(Client, found.get("client_id", ""))
        if client is None or not client.live(at):
            raise OAuthError(
                "invalid_client", "The application is not known here. Start from it again; its makers register it anew."
            )
        if found.get("redirect_uri") not in client.redirects:
            raise OAuthError(
                "invalid_request",
                "The application asks to be answered where it has not registered. Its makers register that address.",
            )
        return Asked(client, found["redirect_uri"], found)

    # ---------------------------------------------------------------- signing out

    async def _logout(self, request: Request, tenant: str, at: datetime) -> Response:
        """At once when the application proves with an ID token whose sign-in it is; else the user is asked."""
        query = fields(request.url.query)
        session = self._session(request, tenant, at)
        hint = self._hint(tenant, query.get("id_token_hint", ""), at)
        if session is not None and (hint is None or hint["sub"] != session.user.id):
            return self._form(request, tenant, request.url.query, "", sign_out=True)
        return await self._end(request, tenant, session, self._after(tenant, query, hint))

    async def _logged_out(self, request: Request, tenant: str, at: datetime) -> Response:
        form = await read_form(request)
        self._sealed(request, tenant, form)
        query = fields(form.get("asked", ""))
        hint = self._hint(tenant, query.get("id_token_hint", ""), at)
        return await self._end(request, tenant, self._session(request, tenant, at), self._after(tenant, query, hint))

    async def _end(self, request: Request, tenant: str, session: Session | None, then: str) -> Response:
        if session is not None:
            user, form = session.user, SignOut(session.id, session.expires)
            await self.platform.submit(
                Command(tenant, "user.sign_out", user.id, user.party, user.party, user.id, encode(form), form=form)
            )
        response: Response
        if then:
            response = RedirectResponse(then, 303, {"Cache-Control": "no-store"})
        else:
            response = self._pages.page("You are signed out", text="You can close this page.")
        self._set_cookie(response, tenant, SESSION_COOKIE, "", timedelta(0))
        return response

    def _hint(self, tenant: str, token: str, at: datetime) -> dict[str, Any] | None:
        try:
            return self.identity.tokens.read(tenant, ID, token, at, expired=True) if token else None
        except BadToken:
            return None

    def _after(self, tenant: str, query: dict[str, str], hint: dict[str, Any] | None) -> str:
        """Where to go after signing out: only to an address of the application that the ID token was for."""
        wanted = query.get("post_logout_redirect_uri", "")
        client = self._state(tenant).find(Client, hint["aud"]) if hint is not None else None
        if client is None or wanted not in client.redirects:
            return ""
        joint = "&" if urlsplit(wanted).query else "?"
        return f"{wanted}{joint}{urlencode({'state': query['state']})}" if "state" in query else wanted

    # ---------------------------------------------------------------- cookies and forms

    def _session(self, request: Request, tenant: str, at: datetime) -> Session | None:
        """Who is signed in with this browser."""
        return self._read_session(tenant, request.cookies.get(SESSION_COOKIE, ""), at)

    def _read_session(self, tenant: str, token: str, at: datetime) -> Session | None:
        try:
            claims = self.identity.tokens.read(tenant, SESSION, token, at)
        except BadToken:
            return None
        state, id = self._state(tenant), digest(claims["jti"])
        user = state.find(User, claims["sub"])
        if user is None or not user.live(at) or user.tokens != claims["gen"] or state.find(RevokedToken, id):
            return None
        since, until = (datetime.fromtimestamp(claims[name], UTC) for name in ("iat", "exp"))
        return Session(user, id, since, until)

    def _form(
        self,
        request: Request,
        tenant: str,
        query: str,
        goes_to: str,
        alert: str = "",
        status: int = 200,
        sign_out: bool = False,
    ) -> Response:
        """The page to sign in, or to confirm signing out."""
        cookie = request.cookies.get(FORM_COOKIE, "")
        given = cookie if len(cookie) == 43 else secrets.token_urlsafe(32)
        response = self._pages.page(
            "Sign out" if sign_out else "Sign in",
            status,
            goes_to,
            text=f"Market: {tenant}",
            alert=alert,
            action=f"{self._path(tenant)}/{'logout' if sign_out else 'sign-in'}",
            asked=query,
            seal=self._seal(tenant, given, query),
            names=not sign_out,
            button="Sign out" if sign_out else "Sign in",
        )
        if given != cookie:
            self._set_cookie(response, tenant, FORM_COOKIE, given, SESSION_FOR)
        return response

    def _seal(self, tenant: str, cookie: str, query: str) -> str:
        return self.identity.keys.derived("form", tenant, digest(cookie), digest(query)).hex()

    def _sealed(self, request: Request, tenant: str, form: dict[str, str]) -> None:
        """Raises OAuthError for a form that this browser was not given."""
        cookie = request.cookies.get(FORM_COOKIE, "")
        ours = self._seal(tenant, cookie, form.get("asked", ""))
        if not cookie or not hmac.compare_digest(ours.encode(), form.get("seal", "").encode()):
            raise OAuthError("invalid_request", "The page is too old, or cookies are off; go back and try again.", 403)

    def _set_cookie(self, response: Response, tenant: str, name: str, value: str, lasts: timedelta) -> None:
        response.set_cookie(
            name,
            value,
            max_age=int(lasts.total_seconds()),
            path=self._path(tenant),
            secure=self.identity.tokens.address.startswith("https:"),
            httponly=True,
            samesite="lax",
        )

    def _path(self, tenant: str) -> str:
        """Of these pages, as the browser sees it."""
        return f"{urlsplit(self.identity.tokens.issuer(tenant)).path}/oauth"

    def _state(self, tenant: str) -> State:
        return self.platform.machine.state(tenant)


def _check(asked: Asked) -> None:
    """Raises OAuthError, which is sent to the application."""
    query = asked.query
    for name in ("request", "request_uri"):
        if name in query:
            raise OAuthError(f"{name}_not_supported", "Ask with plain parameters.")
    if query.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "The response_type here is 'code'.")
    if query.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "The response_mode here is 'query'.")
    challenge = query.get("code_challenge", "")
    if query.get("code_challenge_method") != "S256" or len(challenge) != _CHALLENGE_LENGTH:
        raise OAuthError("invalid_request", "PKCE with S256 is needed: code_challenge and code_challenge_method.")
    named = [name for name in query.get("scope", "").split() if name != OPENID]
    if len(set(named)) != len(asked.scopes) or not set(asked.scopes) <= set(asked.client.scopes):
        raise OAuthError("invalid_scope", f"The scopes here are {OPENID} {' '.join(asked.client.scopes)}.")
    if "max_age" in query and not (query["max_age"].isascii() and query["max_age"].isdigit()):
        raise OAuthError("invalid_request", "max_age is a number of seconds.")


def _fresh(asked: Asked, session: Session, at: datetime) -> bool:
    """Whether the sign-in is as young as the application wants it."""
    most = asked.query.get("max_age")
    return most is None or at - session.since <= timedelta(seconds=min(int(most), 10**9))


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else ""
