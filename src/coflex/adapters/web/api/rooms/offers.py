"""Offers into open sessions: sealed until the gate, and the routes that thousands of requests a second come through.

Until the gate nobody but the provider reads an offer, not the market operator either, and not on its behalf.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.document import CURSOR, LIMIT
from coflex.adapters.web.api.endpoints import command_of, tagged
from coflex.adapters.web.api.incoming import JSON, caller, idempotency_key, json_body, only_parameters
from coflex.adapters.web.api.operations import Room, Special
from coflex.adapters.web.api.paging import CONTROLS, page_of
from coflex.domain.errors import Finding, Forbidden, NotFound, Refused
from coflex.domain.offer import Offer
from coflex.domain.party import Role
from coflex.register.access import ClientScope
from coflex.register.market import SessionEntry
from coflex.service.books import books, offer_id
from coflex.service.machine import CREATED, decode, encode
from coflex.service.verbs.offers import (
    REPLACE,
    SUBMIT,
    WITHDRAW,
    Accepted,
    OfferForm,
    StepForm,
    Withdrawal,
    Withdrawn,
)
from coflex.service.who import Who

PATH = "/sessions/{session}/offers"
# Counts the items of a batch against the caller's rate. Raises TooMany.
Items: TypeAlias = Callable[[Who, int], None]
_decode = msgspec.json.Decoder(SUBMIT.form).decode


class OwnOffer(msgspec.Struct, frozen=True):
    """An offer as its provider reads it: as it was sent, with its receipt and the tenant's time of receipt."""

    offer: OfferForm
    receipt: int
    received_at: datetime


class OwnOfferPage(msgspec.Struct, frozen=True):
    """A part of the caller's offers, by receipt. `total`: how many there are. `next`: the cursor of the page that
    follows, null on the last one."""

    items: list[OwnOffer]
    next: str | None
    total: int


class Offers:
    """The handlers."""

    def __init__(self, items: Items | None = None) -> None:
        self._items = items

    async def submit(self, desk: Desk, request: Request) -> Response:
        who = await caller(desk, request, ClientScope.WRITE)
        key = idempotency_key(request)
        raw = await json_body(request)
        try:
            form: Any = _decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            form = decode(raw, SUBMIT.form)  # refuses, with the place
        if self._items is not None and isinstance(form, list):
            self._items(who, len(form))
        return await _done(desk, request, who, SUBMIT.name, raw, form, key)

    async def replace(self, desk: Desk, request: Request) -> Response:
        who = await caller(desk, request, ClientScope.WRITE)
        key, raw, named = idempotency_key(request), await json_body(request), request.path_params["offer"]
        form: OfferForm = decode(raw, OfferForm)
        if form.id != named:
            raise Refused("The offer", [Finding("id", "other_id", "The address names another; name the same in both.")])
        return await _done(desk, request, who, REPLACE.name, raw, form, key)

    async def withdraw(self, desk: Desk, request: Request) -> Response:
        who = await caller(desk, request, ClientScope.WRITE)
        key, form = idempotency_key(request), Withdrawal(request.path_params["offer"])
        return await _done(desk, request, who, WITHDRAW.name, encode(form), form, key)

    async def own(self, desk: Desk, request: Request) -> Response:
        only_parameters(request, CONTROLS)
        who = await _reader(desk, request)
        mine = [(f"{one.receipt:020d}", one) for one in _book(desk, request) if one.provider == who.party]
        page = page_of(request, mine, lambda one: shown(one, who.party))
        await desk.settled()
        return tagged(request, encode(page))

    async def one(self, desk: Desk, request: Request) -> Response:
        only_parameters(request, ())
        who = await _reader(desk, request)
        named = request.path_params["offer"]
        async with desk.looking():
            found = next((one for one in _book(desk, request) if one.id == offer_id(who.party, named)), None)
            if found is None:
                raise NotFound("There is no such offer of yours in the session.", "Check its id and the session.")
        await desk.settled()
        return tagged(request, encode(shown(found, who.party)))


def _book(desk: Desk, request: Request) -> tuple[Offer, ...]:
    """The offers of the session while its result is not known, by receipt. Raises NotFound."""
    state = desk.state(request.path_params["tenant"])
    return books(state).offers(state.get(SessionEntry, request.path_params["session"]).id)


async def _reader(desk: Desk, request: Request) -> Who:
    """Who reads its own offers. Raises NotSignedIn, Forbidden."""
    who = await caller(desk, request, ClientScope.READ)
    if who.on_behalf:
        raise Forbidden("Offers are sealed: they are not read on behalf of a party.", "Let the party read them.")
    if Role.SERVICE_PROVIDER not in who.roles:
        raise Forbidden("Offers are read by their providers alone.", "Use a client of a service provider.")
    return who


async def _done(desk: Desk, request: Request, who: Who, verb: str, body: bytes, form: Any, key: str) -> Response:
    session = request.path_params["session"]
    receipt = await desk.submit(command_of(who, verb, session, body, key, form=form))
    again = {"Idempotency-Replayed": "true"} if receipt.again else None
    return Response(receipt.reply, receipt.status, again, JSON)


def shown(offer: Offer, party: str) -> OwnOffer:
    """An offer in the words in which it came."""
    own = len(party) + 1
    steps = tuple(StepForm(step.start, step.price_eur_mwh, step.quantity_kw, step.number) for step in offer.steps)
    form = OfferForm(
        id=offer.id[own:],
        product=offer.product,
        direction=offer.direction,
        steps=steps,
        unit=offer.unit,
        group=offer.group,
        min_quantity_kw=offer.min_quantity_kw,
        block=offer.block,
        max_periods=offer.max_periods,
        energy_limit_kwh=offer.energy_limit_kwh,
        exclusive=None if offer.exclusive is None else offer.exclusive[own:],
        valid_until=offer.valid_until,
        local_only=offer.local_only,
    )
    return OwnOffer(form, offer.receipt, offer.received_at)


def room(offers: Offers) -> Room:
    """The operations."""
    one = PATH + "/{offer}"
    return Room(
        "offers",
        "Offers into open sessions. Nobody but the provider reads them before the gate.",
        (
            Special(
                "POST", PATH, offers.submit, "Offer: one, or up to 1,000 in a list, all or nothing.",
                "offer_submit", {CREATED: Accepted}, body=SUBMIT.form, write=True, problems=(409, 422),
                scope=ClientScope.WRITE,
            ),
            Special(
                "GET", PATH, offers.own, "The caller's own offers, by receipt.", "list_offer", {200: OwnOfferPage},
                parameters=(LIMIT, CURSOR),
            ),
            Special("GET", one, offers.one, "One of the caller's own offers.", "get_offer", {200: OwnOffer}),
            Special(
                "PUT", one, offers.replace, "Another offer in its place, with a new receipt.", "offer_replace",
                {200: Accepted}, body=OfferForm, write=True, problems=(409, 422), scope=ClientScope.WRITE,
            ),
            Special(
                "DELETE", one, offers.withdraw, "Take an offer out of the book.", "offer_withdraw", {200: Withdrawn},
                write=True, problems=(409, 422), scope=ClientScope.WRITE,
            ),
        ),
    )  # fmt: skip
