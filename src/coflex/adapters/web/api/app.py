"""The application: every operation of every room on one platform, and the document that describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from coflex.adapters.web.api import problems
from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.document import document, merged
from coflex.adapters.web.api.endpoints import routes_of, tagged
from coflex.adapters.web.api.events import Bell
from coflex.adapters.web.api.incoming import JSON
from coflex.adapters.web.api.operations import Room
from coflex.adapters.web.api.reference import page
from coflex.adapters.web.api.rooms import (
    activations,
    devices,
    feed,
    market,
    measurements,
    parties,
    products,
    proposals,
    qualification,
    resources,
    scheduling,
    sessions,
    settlement,
)
from coflex.adapters.web.api.rooms.offers import Offers
from coflex.adapters.web.api.rooms.offers import room as room_of_offers
from coflex.adapters.web.identity import Accounts, access_room, issuer_document
from coflex.service.machine import Verb, encode


def rooms_of(
    accounts: Accounts,
    bell: Bell,
    readers: Mapping[str, resources.Reader],
    offers: Offers | None = None,
    field: measurements.Field | None = None,
) -> tuple[Room, ...]:
    """All operations, by topic."""
    return (
        market.ROOM,
        parties.room(accounts),
        *resources.rooms(readers),
        products.PRODUCTS,
        products.CONSENTS,
        qualification.GRID,
        qualification.PRODUCT,
        scheduling.ROOM,
        sessions.ROOM,
        room_of_offers(offers or Offers()),
        *activations.ROOMS,
        *devices.ROOMS,
        measurements.room(field or measurements.NoField()),
        *settlement.ROOMS,
        proposals.ROOM,
        access_room(accounts),
        feed.room(bell),
    )


def create_app(
    desk: Desk,
    accounts: Accounts,
    readers: Mapping[str, resources.Reader] | None = None,
    extra_routes: Iterable[BaseRoute] = (),
    extra_document: Mapping[str, Any] | None = None,
    offers: Offers | None = None,
    field: measurements.Field | None = None,
) -> Starlette:
    """The API on a platform. `readers`: of tables of units, by media type. `extra_routes`: routes written by hand,
    described by `extra_document`. `field`: what takes measurements, None where nothing does.

    `app.state.bell` ends the streams of events when the server stops; `app.state.about` is what /openapi.json answers
    to programs and /docs to people.
    """
    bell = Bell(desk)
    rooms = rooms_of(accounts, bell, readers or {}, offers, field)
    about = About(rooms, desk.machine.verbs, extra_document or {})
    app = Starlette(routes=[*about.routes(), *extra_routes, *routes_of(desk, rooms)])
    app.router.redirect_slashes = False
    app.state.desk, app.state.bell, app.state.about = desk, bell, about
    problems.install(app)
    return app


class About:
    """The API described, for programs and for people; written when somebody first asks."""

    def __init__(self, rooms: tuple[Room, ...], verbs: Mapping[str, Verb], extra: Mapping[str, Any]) -> None:
        self._rooms, self._verbs, self._extra = rooms, verbs, extra

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return document(self._rooms, self._verbs, merged(issuer_document(), self._extra))

    def routes(self) -> list[Route]:
        return [Route("/openapi.json", self._openapi, methods=["GET"]), Route("/docs", self._page, methods=["GET"])]

    async def _openapi(self, request: Request) -> Response:
        return _told(request, self._openapi_body, JSON)

    async def _page(self, request: Request) -> Response:
        return _told(request, self._page_body, "text/html; charset=utf-8")

    @cached_property
    def _openapi_body(self) -> bytes:
        return encode(self.document)

    @cached_property
    def _page_body(self) -> bytes:
        return page(self.document)


def _told(request: Request, body: bytes, media: str) -> Response:
    """A document that stays as it is while the server runs."""
    response = tagged(request, body)
    response.headers["Cache-Control"] = "no-cache"
    if response.body:
        response.headers["Content-Type"] = media
    return response
