"""The market of a tenant: its settings, its designs, and the clock of a sandbox."""

from __future__ import annotations

from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.incoming import JSON, caller, only_parameters
from coflex.adapters.web.api.operations import History, Read, Room, Special, Write
from coflex.register.access import ClientScope
from coflex.register.market import DesignText, Market
from coflex.service.machine import encode


class ClockSet(msgspec.Struct, frozen=True):
    """The tenant's time, and how many of its seconds pass in one of the server's."""

    now: datetime
    speed: int


async def _time(desk: Desk, request: Request) -> Response:
    """The tenant's time: sessions, consents and qualifications go by it."""
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ())
    market = desk.state(who.tenant).find(Market, "market")
    told = ClockSet(desk.now(who.tenant), 1 if market is None else market.speed)
    return Response(encode(told), headers={"Cache-Control": "no-store"}, media_type=JSON)


ROOM = Room(
    "market",
    "The settings of the market, the documents of its designs, and the clock of a sandbox.",
    (
        Read("/market", Market, "The settings of the market.", subject="market"),
        Special("GET", "/time", _time, "The tenant's time now.", "get_time", {200: ClockSet}),
        Write(
            "PATCH", "/market", "market.change", "Change the settings; a second person confirms it.", Market,
            example={"last_day": "2026-12-31"}, subject="market",
        ),
        Read("/designs", DesignText, "Market designs that are or were in use."),
        Read("/designs/{design}", DesignText, "The document of a market design, as it came into use."),
        History("/market/history", Market, "Every version of the settings.", subject="market"),
        Write(
            "POST", "/sandbox/clock", "sandbox.clock",
            "Set the clock of a sandbox: to an instant ahead, to the next gate, or how fast it runs.", ClockSet,
            example={"next_gate": True}, subject="market",
        ),
    ),
)  # fmt: skip
