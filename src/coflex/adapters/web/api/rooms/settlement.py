"""Settlement: what was metered, the terms of products, runs, statements, invoices in every form, and disputes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from coflex.adapters.web.api.desk import Desk
from coflex.adapters.web.api.document import CURSOR, LIMIT
from coflex.adapters.web.api.endpoints import tagged
from coflex.adapters.web.api.incoming import JSON, caller, only_parameters
from coflex.adapters.web.api.operations import Handler, History, Parameter, Read, Room, Special, Write
from coflex.adapters.web.api.paging import CONTROLS, page_of
from coflex.adapters.web.api.problems import Malformed
from coflex.domain.errors import Finding, NotFound
from coflex.domain.party import Role
from coflex.domain.statement import Line
from coflex.register.access import ClientScope
from coflex.register.records import Record
from coflex.register.settlement import (
    BaselineDay,
    BillingDetails,
    DisputeEntry,
    InvoiceEntry,
    Kept,
    LeftOut,
    MeteredDay,
    OwnerContract,
    ReadyDay,
    SettlementRun,
    SettlementTerms,
    SharedPurchase,
    StatementEntry,
    lines_in,
)
from coflex.service import reading
from coflex.service.deliveries import contents
from coflex.service.machine import encode
from coflex.service.posting import invoice_of, kept_by, propose, runs_of
from coflex.service.settling import period_of
from coflex.service.verbs.settlement import InvoicesIssued
from coflex.settlement.invoice import Invoice
from coflex.settlement.records import write

# Of a list without pages, what is shown.
MOST_SHOWN = 100
HTML, PDF, CSV, UBL = "text/html", "application/pdf", "text/csv", "application/xml"
_FILTERS = ("unit", "session", "cause", "seller", "customer")


# ---------------------------------------------------------------- lines


class LinePage(msgspec.Struct, frozen=True):
    """A part of a list of lines, in the order of time; see `Page`."""

    items: list[Line]
    next: str | None
    total: int


def _lines(kind: type[Record]) -> Handler:
    """The lines of a run or of a statement that the caller may read."""

    async def handler(desk: Desk, request: Request) -> Response:
        who = await caller(desk, request, ClientScope.READ)
        only_parameters(request, (*CONTROLS, *_FILTERS))
        state, params = desk.state(who.tenant), request.path_params
        id = params["settlement"] if kind is SettlementRun else params["statement"]
        reading.record(state, who, kind, id)
        asked = {name: request.query_params[name] for name in _FILTERS if name in request.query_params}
        found = await asyncio.to_thread(lines_in, state.find(Kept, id))
        rows = [(f"{i:08d}", one) for i, one in enumerate(found) if _is(one, asked)]
        body = encode(page_of(request, rows))
        await desk.settled()
        return tagged(request, body)

    return handler


def _is(line: Line, asked: Mapping[str, str]) -> bool:
    return all(str(getattr(line.charge, name)) == text for name, text in asked.items())


# ---------------------------------------------------------------- a period, before a run


class PartyBalance(msgspec.Struct, frozen=True):
    """What a run would credit to a party, in cents; below zero, what it would owe."""

    party: str
    cents: int


class PeriodPreview(msgspec.Struct, frozen=True):
    """What a run over a period would settle and post now. `inputs`: digest that a second run names. `unmetered`: how
    many deliveries lack a reading or a baseline, the first of them by name. `lines`: how many it would post."""

    period: str
    first_day: date
    last_day: date
    over: bool
    runs: tuple[str, ...]
    inputs: str
    deliveries: int
    unmetered: int
    first_unmetered: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    lines: int
    balances: tuple[PartyBalance, ...]


async def _preview(desk: Desk, request: Request) -> Response:
    """For the market operator; to all others there is no such list."""
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ())
    state = desk.state(who.tenant)
    if Role.MARKET_OPERATOR not in who.roles:
        raise NotFound("There is no such preview.", "Read your statements.")
    period = period_of(state, request.path_params["period"])
    found = propose(state, period)
    lacking = found.prepared.unmetered
    told = PeriodPreview(
        period=period.name,
        first_day=period.first,
        last_day=period.last,
        over=period.ends <= desk.now(who.tenant),
        runs=tuple(one.id for one in runs_of(state, period.name)),
        inputs=found.digest,
        deliveries=len(found.prepared.inputs.deliveries),
        unmetered=len(lacking),
        first_unmetered=lacking[:MOST_SHOWN],
        left_out=found.prepared.left_out[:MOST_SHOWN],
        lines=len(found.run.lines),
        balances=tuple(PartyBalance(one.party, one.balance_cents) for one in found.run.accounts),
    )
    body = encode(told)
    await desk.settled()
    return tagged(request, body)


async def _inputs(desk: Desk, request: Request) -> Response:
    """The bytes whose SHA-256 a run names."""
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ())
    state = desk.state(who.tenant)
    run = reading.record(state, who, SettlementRun, request.path_params["settlement"])
    prepared = kept_by(state, run)
    body = await asyncio.to_thread(contents, prepared.inputs, prepared.documents)
    await desk.settled()
    return tagged(request, body)


# ---------------------------------------------------------------- an invoice in every form


def _html(one: Invoice) -> bytes:
    from coflex.reporting.invoice import invoice_html

    return invoice_html(one).encode()


def _pdf(one: Invoice) -> bytes:
    from coflex.reporting.invoice_pdf import invoice_pdf

    return invoice_pdf(one)


def _csv(one: Invoice) -> bytes:
    from coflex.reporting.invoice import invoice_csv

    return invoice_csv(one).encode()


def _ubl(one: Invoice) -> bytes:
    from coflex.reporting.invoice_ubl import invoice_ubl

    return invoice_ubl(one)


def _json(one: Invoice) -> bytes:
    return write(one).encode()


# The first one is answered where the caller takes anything.
FORMS: Mapping[str, Callable[[Invoice], bytes]] = {JSON: _json, HTML: _html, PDF: _pdf, CSV: _csv, UBL: _ubl}
_TEXT = {HTML: f"{HTML}; charset=utf-8", CSV: f"{CSV}; charset=utf-8"}


async def _invoice(desk: Desk, request: Request) -> Response:
    """An invoice with every line, in the form that the caller takes."""
    who = await caller(desk, request, ClientScope.READ)
    only_parameters(request, ())
    media = wanted(request.headers.get("accept", ""))
    state = desk.state(who.tenant)
    entry = reading.record(state, who, InvoiceEntry, request.path_params["invoice"])
    found = invoice_of(state, entry)
    body = await asyncio.to_thread(FORMS[media], found)
    await desk.settled()
    response = tagged(request, body)
    response.headers["Vary"] = f"Accept, {response.headers['Vary']}"
    if response.body:
        response.headers["Content-Type"] = _TEXT.get(media, media)
    return response


def wanted(accept: str) -> str:
    """The form of an invoice that a header Accept (RFC 9110, 12.5.1) asks for first. Raises Malformed for none of
    ours."""
    ranked = sorted(_ranges(accept), key=lambda one: -one[1])
    if not ranked:
        return JSON
    for name, weight in ranked:
        kind, _, rest = name.partition("/")
        for media in FORMS:
            if weight > 0 and (name in ("*/*", media) or (rest == "*" and media.startswith(f"{kind}/"))):
                return media
    message = f"An invoice comes as {', '.join(FORMS)}; ask for one of them."
    raise Malformed("The request", [Finding("header Accept", "header", message)])


def _ranges(accept: str) -> Sequence[tuple[str, float]]:
    """Media ranges of a header with their weights; what is none is passed over."""
    found = []
    for part in accept.split(","):
        name, *parameters = (one.strip().lower() for one in part.split(";"))
        weights = [one[2:] for one in parameters if one.startswith("q=")]
        try:
            weight = float(weights[0]) if weights else 1.0
        except ValueError:
            continue
        if name:
            found.append((name, weight))
    return found


# ---------------------------------------------------------------- the operations

_PAGED = (LIMIT, CURSOR, *(Parameter(name, f"Only lines whose `{name}` is this.") for name in _FILTERS))
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

_METERED = Room(
    "metered-quantities",
    "What was metered of units in the quarter-hours in which something was ordered of them, their baselines, and how "
    "ready bought capacity was.",
    (
        Read(
            "/metered-days", MeteredDay, "Metered days of units that concern the caller.",
            {"unit": "unit", "day": "day"},
        ),
        Read("/metered-days/{metered_day}", MeteredDay, "What was metered of a unit on a day; the id is unit@day."),
        History("/metered-days/{metered_day}/history", MeteredDay, "Every version: corrections supersede."),
        Read(
            "/baseline-days", BaselineDay, "Baselines of units that concern the caller.",
            {"unit": "unit", "day": "day", "method": "method"},
        ),
        Read("/baseline-days/{baseline_day}", BaselineDay, "The baseline of a unit on a day; the id is unit@day."),
        History("/baseline-days/{baseline_day}/history", BaselineDay, "Every version of a baseline."),
        Read("/ready-days", ReadyDay, "How ready groups and units held capacity.", {"band": "band", "day": "day"}),
        Read("/ready-days/{ready_day}", ReadyDay, "How ready one was on a day; the id is band@day."),
        History("/ready-days/{ready_day}/history", ReadyDay, "Every version: corrections supersede."),
    ),
)  # fmt: skip

_TERMS = Room(
    "settlement-terms",
    "By which rule and on which baselines each product is settled; before any are set, as its catalogue entry says.",
    (
        Read("/settlement-terms", SettlementTerms, "Terms of products."),
        Read("/settlement-terms/{product}", SettlementTerms, "The terms of a product, from day to day."),
        History("/settlement-terms/{product}/history", SettlementTerms, "Every version of a product's terms."),
        Write(
            "PUT", "/settlement-terms/{product}", "settlement_terms.set",
            "Settle a product otherwise from a day on that is not settled yet; a second person confirms it.",
            SettlementTerms, example={"from_day": "2026-08-01", "document": "local_congestion",
                                      "methods": ["last_4_alike", "nominated"]}, match=False,
        ),
        Read("/billing-details", BillingDetails, "The caller's own; all of them for the market operator."),
        Read("/billing-details/{party}", BillingDetails, "A party as its invoices name it."),
        Write(
            "PUT", "/billing-details/{party}", "billing_details.set", "Say how a party's invoices name it.",
            BillingDetails, example={"name": "Flex Ltd", "street": "Via Roma 1", "postcode": "00100", "city": "Rome",
                                     "country": "IT", "vat_id": "IT12345678901", "vat_percent": "22"}, match=False,
        ),
    ),
)  # fmt: skip

_CONTRACTS = Room(
    "owner-contracts",
    "What providers pay on to the owners of units.",
    (
        Read(
            "/owner-contracts", OwnerContract, "Contracts of the caller.",
            {"unit": "unit", "provider": "provider", "owner": "owner"},
        ),
        Read("/owner-contracts/{owner_contract}", OwnerContract, "A contract."),
        History("/owner-contracts/{owner_contract}/history", OwnerContract, "Every version of a contract."),
        Write(
            "POST", "/owner-contracts", "owner_contract.offer", "Offer a contract to the owner of one's unit.",
            OwnerContract, 201, "/owner-contracts/{id}",
            {"unit": "UNIT-1", "from_day": "2026-08-01", "share": "0.6", "penalty_share": "0.2"},
        ),
        Write(
            "POST", "/owner-contracts/{owner_contract}/agree", "owner_contract.agree", "Agree, as the owner.",
            OwnerContract, example={},
        ),
        Write(
            "POST", "/owner-contracts/{owner_contract}/end", "owner_contract.end",
            "Name the last day on which it counts, as either side.", OwnerContract,
            example={"until_day": "2026-12-31"},
        ),
    ),
)  # fmt: skip

_PURCHASES = Room(
    "shared-purchases",
    "What a session bought for one operator and several pay together, once all of them agreed.",
    (
        Read(
            "/shared-purchases", SharedPurchase, "Purchases that the caller shares.",
            {"session": "session", "buyer": "buyer", "day": "day"},
        ),
        Read("/shared-purchases/{shared_purchase}", SharedPurchase, "Who shares a purchase, and who agreed to it."),
        History("/shared-purchases/{shared_purchase}/history", SharedPurchase, "Every version of it."),
        Write(
            "POST", "/shared-purchases", "shared_purchase.offer", "Offer others to share what one's session bought.",
            SharedPurchase, 201, "/shared-purchases/{id}",
            {"session": "2026-07-05.local-1", "sharers": [
                {"role": "dso", "party": "DSO1", "need": "3"}, {"role": "tso", "party": "TSO1", "need": "1"}]},
        ),
        Write(
            "POST", "/shared-purchases/{shared_purchase}/agree", "shared_purchase.agree", "Agree, as a sharer.",
            SharedPurchase, example={},
        ),
        Write(
            "POST", "/shared-purchases/{shared_purchase}/decline", "shared_purchase.decline",
            "Decline, or take the offer back, before all agreed.", SharedPurchase, example={},
        ),
    ),
)  # fmt: skip

_RUNS = Room(
    "settlements",
    "Runs over periods, and each party's statement of them. The first run of a period takes one person, every other "
    "one two; it posts the differences alone.",
    (
        Special(
            "GET", "/settlement-periods/{period}", _preview,
            "What a run over a month or a day would post now; for the market operator.", "get_settlement_period",
            {200: PeriodPreview, 304: None}, problems=(409, 422),
        ),
        Write(
            "POST", "/settlement-periods/{period}/run", "settlement.run", "Settle a period for the first time.",
            SettlementRun, 201, "/settlements/{id}", {"incomplete": False},
        ),
        Write(
            "POST", "/settlement-periods/{period}/rerun", "settlement.rerun",
            "Post what changed since a period was settled; a second person confirms it.", SettlementRun,
            example={"inputs": _DIGEST, "reason": "Readings of three meters were corrected."},
        ),
        Read("/settlements", SettlementRun, "Runs.", {"period": "period"}),
        Read("/settlements/{settlement}", SettlementRun, "A run: what it was computed from, and its sums."),
        History("/settlements/{settlement}/history", SettlementRun, "Every version of a run."),
        Special(
            "GET", "/settlements/{settlement}/inputs", _inputs,
            "All that a run was computed from; SHA-256 of these bytes is its `inputs`.", "get_settlement_input",
            {200: dict[str, Any], 304: None},
        ),
        Special(
            "GET", "/settlements/{settlement}/lines", _lines(SettlementRun), "Every line of a run.",
            "list_settlement_line", {200: LinePage, 304: None}, _PAGED,
        ),
        Read(
            "/statements", StatementEntry, "The caller's statements; all of them for the market operator.",
            {"period": "period", "run": "run", "party": "party"},
        ),
        Read("/statements/{statement}", StatementEntry, "What a party pays and receives by a run."),
        History("/statements/{statement}/history", StatementEntry, "Every version of a statement."),
        Special(
            "GET", "/statements/{statement}/lines", _lines(StatementEntry),
            "The lines of a statement, each with its reason, its evidence and its booking.", "list_statement_line",
            {200: LinePage, 304: None}, _PAGED,
        ),
    ),
)  # fmt: skip

_INVOICES = Room(
    "invoices",
    "Invoices and credit notes, with every line they stand on: as JSON, a page, PDF, CSV and UBL, by the header "
    "Accept.",
    (
        Read(
            "/invoices", InvoiceEntry, "Invoices that the caller issued or is to pay.",
            {"period": "period", "run": "run", "seller": "seller", "customer": "customer", "kind": "kind"},
        ),
        Special(
            "GET", "/invoices/{invoice}", _invoice, "An invoice with every line.", "get_invoice",
            {200: Invoice, 304: None}, media=(HTML, PDF, CSV, UBL),
        ),
        History("/invoices/{invoice}/history", InvoiceEntry, "Every version of an invoice: there is one."),
        Write(
            "POST", "/settlements/{settlement}/invoices", "invoice.issue",
            "Issue the invoices of a run, all or none.", InvoicesIssued,
            example={"issued": "2026-08-05", "due_days": 30},
        ),
    ),
)  # fmt: skip

_DISPUTES = Room(
    "disputes",
    "Lines that their seller or customer contests, and what two persons decided.",
    (
        Read(
            "/disputes", DisputeEntry, "Disputes of the caller's lines.",
            {"period": "period", "state": "state", "line": "line"},
        ),
        Read("/disputes/{dispute}", DisputeEntry, "A dispute: its steps, and the settlement before and after."),
        History("/disputes/{dispute}/history", DisputeEntry, "Every version of a dispute."),
        Write(
            "POST", "/disputes", "dispute.open", "Contest a line of one's own.", DisputeEntry, 201, "/disputes/{id}",
            {"period": "2026-07", "line": "2026-07-05.local-1|delivery|award|activation|SP1|DSO1",
             "reason": "The meter was changed at noon."},
        ),
        Write(
            "POST", "/disputes/{dispute}/decide", "dispute.decide",
            "Settle the line's delivery anew, or let it stand; a second person confirms it.", DisputeEntry,
            example={"reason": "Protocol of the change of the meter.", "changes": [
                {"field": "measured_kwh", "value": "-15", "source": "protocol-12"}]},
        ),
        Write(
            "POST", "/disputes/{dispute}/withdraw", "dispute.withdraw", "Take back a dispute of one's own.",
            DisputeEntry, example={"reason": "The reading was right."},
        ),
    ),
)  # fmt: skip

ROOMS = (_METERED, _TERMS, _CONTRACTS, _PURCHASES, _RUNS, _INVOICES, _DISPUTES)
