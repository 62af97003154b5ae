"""Tenants: a market of its own, with its own register; the platform itself opens one. Its settings are changed by two
persons, and the clock of a sandbox by its market operator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec

from coflex.domain.errors import CoflexError, Conflict, Finding, Refused, refuse
from coflex.domain.party import Role
from coflex.market.design import design_text, schedule
from coflex.market.design.operating import unheld
from coflex.register.market import DesignText, Market
from coflex.register.products import ProductEntry
from coflex.service.gates import design_of, last_announced, next_day, next_gate
from coflex.service.machine import CREATED, EVERYBODY, Context, Outcome, Verb, encode
from coflex.service.ports import Note
from coflex.service.state import State
from coflex.service.verbs.products import MOST_PRICE

_OPERATOR = frozenset({Role.MARKET_OPERATOR})
# Bounds that keep one command from passing gates for minutes.
MOST_DAYS = 3 * 366
FARTHEST_JUMP = timedelta(days=31)
FASTEST = 86_400


class OpenTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings a market begins with.

    `design`: id of a design that comes with the platform, or of the one in `document`, a YAML text. `case`: name of the
    grid and profiles. `starts`: the tenant's time at the beginning, for sandboxes alone; else it is the server's.
    """

    title: str
    zone: str
    design: str
    case: str
    first_day: date
    last_day: date
    document: str = ""
    starts: datetime | None = None
    speed: int = 1
    sandbox: bool = False
    price_limit_eur_mwh: Decimal = Decimal(3000)


class ChangeMarket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes different; what is absent stays. `design`, `document`: for the delivery days that are not announced
    yet. `first_day`: from which on they are held, for a market that paused. `price_caps`: EUR/MWh by product."""

    title: str | None = None
    first_day: date | None = None
    last_day: date | None = None
    design: str | None = None
    document: str = ""
    price_limit_eur_mwh: Decimal | None = None
    price_caps: dict[str, Decimal] = {}


class SetClock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Jump ahead to an instant of the tenant's time, or to its next gate; and how fast its time runs from now on, in
    seconds a second (0: it stands)."""

    to: datetime | None = None
    next_gate: bool = False
    speed: int | None = None


def _open(state: State, context: Context, form: OpenTenant) -> Outcome:
    """Begin a tenant with its settings. Raises Conflict when it is there, Refused with every fault."""
    if state.find(Market, "market") is not None:
        raise Conflict(f"The tenant '{state.tenant}' is there already.", "Open another, or change its settings.")
    text, findings = _document(form.design, form.document)
    refuse(f"The tenant {state.tenant}", [*findings, *_faults(form)])
    starts = context.at if form.starts is None else form.starts.astimezone(UTC)
    refuse(f"The tenant {state.tenant}", _too_late(form.first_day, text, form.zone, starts))
    market = Market(
        id="market",
        title=form.title,
        zone=form.zone,
        design=form.design,
        case=form.case,
        first_day=form.first_day,
        last_day=form.last_day,
        since=context.at,
        starts=starts,
        speed=form.speed,
        sandbox=form.sandbox,
        price_limit_eur_mwh=form.price_limit_eur_mwh,
    )
    design = DesignText(form.design, text)
    note = Note("tenant.opened", "market", EVERYBODY, encode({"title": form.title}))
    return Outcome(market, ((DesignText, design.id, design), (Market, "market", market)), (note,), CREATED)


def _document(design: str, document: str) -> tuple[str, list[Finding]]:
    """The text of a design and what is wrong with it."""
    try:
        text = document or design_text(design)
        read = design_of(text)
    except Refused as fault:
        return "", list(fault.findings)
    except CoflexError as fault:
        return "", [Finding("design", "unknown_design", str(fault))]
    held = list(unheld(read))
    if held:
        return "", held
    if read.id != design:
        message = f"The document describes the design '{read.id}', not '{design}'; name it by its id."
        return "", [Finding("design", "other_design", message)]
    return text, []


def _faults(form: OpenTenant) -> Iterator[Finding]:
    if _unknown(form.zone):
        yield Finding("zone", "unknown_zone", f"There is no time zone '{form.zone}'; name one such as Europe/Rome.")
    yield from _days(form.first_day, form.last_day)
    yield from _limit(form.price_limit_eur_mwh)
    if form.starts is not None and form.starts.tzinfo is None:
        yield Finding("starts", "no_zone", "The instant has no time zone; write one, such as Z.")
    if not form.sandbox and (form.speed != 1 or form.starts is not None):
        yield Finding("sandbox", "real_clock", "Only a sandbox has a clock of its own; leave `starts` and `speed`.")
    yield from _speed(form.speed)


def _days(first: date, last: date) -> Iterator[Finding]:
    if not 0 <= (last - first).days < MOST_DAYS:
        yield Finding("last_day", "days", f"From the first to the last day it is 1 to {MOST_DAYS} days; correct them.")


def _limit(price: Decimal) -> Iterator[Finding]:
    if not price.is_finite() or price < 0:
        yield Finding("price_limit_eur_mwh", "price", "The limit is no price; give EUR/MWh, not negative.")


def _speed(speed: int) -> Iterator[Finding]:
    if not 0 <= speed <= FASTEST:
        yield Finding("speed", "speed", f"The clock runs 0 to {FASTEST} seconds a second; choose one of them.")


def _too_late(day: date, text: str, zone: str, now: datetime) -> Iterator[Finding]:
    """A market goes on before the first gate of its next day, so that no session is over before anybody could offer."""
    first = min(plan.opens for plan in schedule(design_of(text), day, ZoneInfo(zone)))
    if first < now:
        message = f"The first gate of {day} opens at {first.isoformat()}, and it is {now.isoformat()}; "
        yield Finding("first_day", "too_late", f"{message}choose a later first day.")


def _unknown(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return True
    return False


def _change(state: State, context: Context, form: ChangeMarket) -> Outcome:
    """Change the settings of a market; a design for the days that are not announced yet. Raises Refused with every
    fault."""
    market = state.get(Market, "market")
    design, findings = _other_design(state, form)
    capped, faults = _capped(state, form.price_caps)
    changed = replace(
        market,
        title=market.title if form.title is None else form.title,
        design=market.design if form.design is None else form.design,
        first_day=market.first_day if form.first_day is None else form.first_day,
        last_day=market.last_day if form.last_day is None else form.last_day,
        price_limit_eur_mwh=(
            market.price_limit_eur_mwh if form.price_limit_eur_mwh is None else form.price_limit_eur_mwh
        ),
    )
    refuse("The change of the market", [*findings, *_faults_of_change(state, changed, form), *faults])
    if (form.design, form.first_day, form.last_day) != (None, None, None) and (day := next_day(state, changed)):
        text = next((one.text for _, _, one in design), "") or state.get(DesignText, changed.design).text
        refuse("The change of the market", _too_late(day, text, market.zone, context.now))
    body = encode({"design": changed.design, "first_day": changed.first_day, "last_day": changed.last_day})
    notes = [Note("market.changed", "market", EVERYBODY, body)]
    notes += [Note("product.changed", one.id, EVERYBODY, encode({"fields": ["price_cap_eur_mwh"]})) for one in capped]
    written = ((ProductEntry, one.id, one) for one in capped)
    return Outcome(changed, (*design, (Market, "market", changed), *written), tuple(notes))


def _other_design(
    state: State, form: ChangeMarket
) -> tuple[tuple[tuple[type[DesignText], str, DesignText], ...], list[Finding]]:
    """The design's text to keep, and what is wrong with it."""
    if form.design is None:
        fault = Finding("document", "no_id", "A document comes with the id of its design; name it in `design`.")
        return (), [fault] if form.document else []
    known = state.find(DesignText, form.design)
    if known is not None and not form.document:
        return (), []
    text, findings = _document(form.design, form.document)
    if known is not None and text and known.text != text:
        message = f"Another document has been in use as '{form.design}'; give this one an id of its own."
        findings.append(Finding("design", "id_taken", message))
    return ((DesignText, form.design, DesignText(form.design, text)),), findings


def _faults_of_change(state: State, changed: Market, form: ChangeMarket) -> Iterator[Finding]:
    if form.price_limit_eur_mwh is not None:
        yield from _limit(form.price_limit_eur_mwh)
    if form.first_day is None and form.last_day is None:
        return
    yield from _days(changed.first_day, changed.last_day)
    announced = last_announced(state)
    if announced is not None and form.last_day is not None and form.last_day < announced:
        message = f"The days to {announced.isoformat()} are announced; choose that one or a later one."
        yield Finding("last_day", "announced", message)
    if announced is not None and form.first_day is not None and form.first_day <= announced:
        message = f"The days to {announced.isoformat()} are announced; choose a later one."
        yield Finding("first_day", "announced", message)


def _capped(state: State, caps: dict[str, Decimal]) -> tuple[list[ProductEntry], list[Finding]]:
    """Products with other price caps, and what is wrong with these: the same as with a cap that is set alone."""
    capped: list[ProductEntry] = []
    findings = []
    for product in sorted(caps):
        entry, cap = state.find(ProductEntry, product), caps[product]
        place = f"price_caps.{product}"
        if entry is None:
            findings.append(Finding(place, "unknown_product", f"There is no product '{product}'; correct its id."))
        elif entry.withdrawn is not None:
            message = f"The product '{product}' is withdrawn; leave it out."
            findings.append(Finding(place, "withdrawn", message))
        elif not cap.is_finite() or not 0 <= cap <= MOST_PRICE:
            message = f"The cap is not between 0 and {MOST_PRICE} EUR/MWh; correct it."
            findings.append(Finding(place, "price", message))
        else:
            capped.append(replace(entry, product=replace(entry.product, price_cap_eur_mwh=cap)))
    return capped, findings


def _clock(state: State, context: Context, form: SetClock) -> Outcome:
    """Set the clock of a sandbox; it never goes back. Raises Conflict elsewhere, Refused with every fault.

    The gates that a jump passes are taken after it, one by one, each with its own time.
    """
    market = state.get(Market, "market")
    if not market.sandbox:
        raise Conflict("The time of this tenant is the server's.", "Clocks are set in sandboxes alone.")
    speed = market.speed if form.speed is None else form.speed
    refuse("The clock", [*_speed(speed), *_jump(state, context, form)])
    shown = context.now
    if form.to is not None:
        shown = form.to.astimezone(UTC)
    elif form.next_gate and (gate := next_gate(state)) is not None:
        shown = max(shown, gate.at)
    changed = replace(market, since=context.at, starts=shown, speed=speed)
    note = Note("clock.set", "market", EVERYBODY, encode({"now": shown, "speed": speed}))
    return Outcome({"now": shown, "speed": speed}, ((Market, "market", changed),), (note,))


def _jump(state: State, context: Context, form: SetClock) -> Iterator[Finding]:
    if form.to is not None and form.next_gate:
        yield Finding("to", "two_aims", "The clock jumps to an instant or to the next gate; choose one of them.")
    if form.next_gate and next_gate(state) is None:
        yield Finding("next_gate", "no_gate", "There is no gate left; move the market's last day first.")
    if form.to is None:
        return
    if form.to.tzinfo is None:
        yield Finding("to", "no_zone", "The instant has no time zone; write one, such as Z.")
    elif form.to < context.now:
        yield Finding("to", "back", f"It is {context.now.isoformat()} already; the clock only goes ahead.")
    elif form.to - context.now > FARTHEST_JUMP:
        yield Finding("to", "far", f"The clock jumps {FARTHEST_JUMP.days} days at most; jump again after that.")


VERBS = (
    Verb("tenant.open", OpenTenant, _open),
    Verb("market.change", ChangeMarket, _change, _OPERATOR, kind=Market, two_persons=True),
    Verb("sandbox.clock", SetClock, _clock, _OPERATOR, kind=Market),
)
