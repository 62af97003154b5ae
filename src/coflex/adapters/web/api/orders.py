"""The way of offers before the application: plain ASGI, so that nothing else of the application is on it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TypeAlias

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.operations import PREFIX
from coflex.adapters.web.api.problems import answer
from coflex.adapters.web.api.rooms.offers import PATH, Offers
from coflex.domain.errors import CoflexError

_ADDRESS = re.compile(r"/v1/([^/]+)/sessions/([^/]+)/offers(?:/([^/]+))?")
# Counts a request: method, template of the route, status, seconds.
Count: TypeAlias = Callable[[str, str, int, float], None]
# Told of a failure of the platform itself.
Failed: TypeAlias = Callable[[Scope, Exception], None]
Act: TypeAlias = Callable[[Desk, Request], Awaitable[Response]]


def _nobody(scope: Scope, fault: Exception) -> None:
    """Nobody is told."""


class Orders:
    """The application with the routes of offers before it. What they are is written in `rooms.offers`, with all others;
    a method that they do not know goes on to the application, which says so."""

    def __init__(
        self, app: ASGIApp, desk: Desk, count: Count, offers: Offers | None = None, failed: Failed = _nobody
    ) -> None:
        self._app, self._desk, self._count, self._failed = app, desk, count, failed
        offers = offers or Offers()
        self._acts: dict[tuple[str, bool], Act] = {
            ("POST", False): offers.submit,
            ("GET", False): offers.own,
            ("GET", True): offers.one,
            ("PUT", True): offers.replace,
            ("DELETE", True): offers.withdraw,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _ADDRESS.fullmatch(scope["path"]) if scope["type"] == "http" else None
        act = self._acts.get((scope["method"], found[3] is not None)) if found is not None else None
        if found is None or act is None:
            await self._app(scope, receive, send)
            return
        begun, names = perf_counter(), found.groups()
        scope["path_params"] = dict(zip(("tenant", "session", "offer"), names, strict=True))
        try:
            response = await act(self._desk, Request(scope, receive))
        except CoflexError as error:
            response = answer(error)
        except ClientDisconnect:  # nobody is left to answer
            return
        except Exception as fault:
            self._failed(scope, fault)
            response = answer(fault)
        route = PREFIX + (PATH if names[2] is None else PATH + "/{offer}")
        self._count(scope["method"], route, response.status_code, perf_counter() - begun)
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body})
