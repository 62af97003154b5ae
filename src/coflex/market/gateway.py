"""The gateway to the TSO: what local sessions left over, added up per control area, forwarded, and split again.

Offers of equal price and place become one line of a merit order list, after the traffic lights have taken off what the
distribution grid cannot carry. A passive TSO receives the list, merges it into its own and answers later; an active one
buys from it on the platform. Either way its answer is a set of accepted quantities, and `split` gives each service
provider its part, paid as bid. Source: document F, sections 5.1.4 and 6.1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from coflex.domain.clearing import Award, Status
from coflex.domain.errors import CoflexError, Finding, refuse
from coflex.domain.light import DynamicLight
from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.domain.quantity import CENT, Direction, energy_mwh, split_cents
from coflex.domain.time import Axis
from coflex.market.book import seller

# (perimeter, direction, quarter-hour)
_Lamp = tuple[str, Direction, datetime]
# (area, tag, balance responsible party, product, direction, quarter-hour)
_Place = tuple[str, str, str, str, Direction, datetime]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a seller stands for the TSO: the control `area` whose list it enters, the location `tag` that its lines
    carry (a perimeter or a distribution grid), the `perimeter` whose light limits it (empty if none does), and its
    balance responsible party, which a line never mixes."""

    area: str
    tag: str
    perimeter: str = ""
    brp: str = ""


class Kept(StrEnum):
    """Why power on offer is not forwarded."""

    LOCAL_ONLY = "local_only"
    TERMS = "terms"
    EXPIRED = "expired"
    HELD = "held"
    NO_LIGHT = "no_light"
    LIGHT = "light"
    TOO_SMALL = "too_small"


@dataclass(frozen=True, slots=True, order=True)
class KeptBack:
    """Power of one step in one quarter-hour that is not forwarded, positive kW, and why."""

    start: datetime
    offer: str
    step: int
    quantity_kw: int
    reason: Kept
    detail: str


@dataclass(frozen=True, slots=True)
class Share:
    """What one step of an offer adds to a line: whole kW, positive, in one quarter-hour."""

    offer: Offer
    step: int
    start: datetime
    price_eur_mwh: Decimal
    quantity_kw: int

    @property
    def rank(self) -> tuple[Decimal, int, str, int]:
        """Cheapest first, ties by receipt."""
        return self.price_eur_mwh, self.offer.receipt, self.offer.id, self.step


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the forwarded merit order list: so much power of a product in one quarter-hour, divisible.

    `price_eur_mwh`: the dearest bid behind it. `shares`: the bids behind it, in the order in which they are used; the
    TSO does not see them.
    """

    id: str
    rank: int
    area: str
    tag: str
    brp: str
    product: str
    direction: Direction
    start: datetime
    price_eur_mwh: Decimal
    shares: tuple[Share, ...]

    @property
    def quantity_kw(self) -> int:
        return sum(share.quantity_kw for share in self.shares)


@dataclass(frozen=True, eq=False)
class Forwarded:
    """What goes to the TSO, in economic order within area, product, direction and quarter-hour, and what stays.

    `units`: of each group that is behind a line. `kept`: sorted by quarter-hour and offer.
    """

    axis: Axis
    lines: tuple[Line, ...]
    kept: tuple[KeptBack, ...]
    units: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The TSO's answer to one line: kW that it activates, 0 if none."""

    line: str
    quantity_kw: int
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request of an active TSO on the lines of a control area; `tag` restricts it to one location."""

    request: Request
    area: str
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """The part of a request that no line covers within its price limit, kW."""

    wanted: Wanted
    quantity_kw: int


@dataclass(frozen=True, eq=False)
class Split:
    """The TSO's answers as awards, paid as bid, by quarter-hour, line and rank within it.

    `findings`: answers of which nothing was taken. `unanswered`: lines without a valid answer; they are not sold.
    """

    awards: tuple[Award, ...]
    findings: tuple[Finding, ...]
    unanswered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Amount:
    """What the TSO owes a service provider: exact, and in whole cents (negative: the provider pays)."""

    provider: str
    exact_eur: Decimal
    cents: int


# ---------------------------------------------------------------- forwarding


def aggregate(
    offers: Sequence[Offer],
    axis: Axis,
    spots: Mapping[str, Spot],
    lights: Iterable[DynamicLight],
    at: datetime,
    sold: Sequence[Award] = (),
    room_kw: Mapping[tuple[str, datetime], int] | None = None,
    units: Mapping[str, tuple[str, ...]] | None = None,
    least_kw: int = 1,
) -> Forwarded:
    """Lines for the TSO from the offers that are left at the instant `at`.

    `spots` by seller (unit or group). `lights` hold for all products of a perimeter together; of two for the same, the
    narrower counts; a perimeter without one forwards nothing. `sold`: awards of earlier
    sessions; they are taken off their steps, and a unit that one of them holds is not forwarded in that quarter-hour
    (mutual unavailability). `room_kw`: the most that a seller can still give in a quarter-hour; a group whose units are
    partly held needs it. `units` of each group. `least_kw`: the smallest line that the TSO takes; smaller ones are
    joined with the next dearer of the same place and party.

    Guarantees: a line holds one area, tag, party, product, direction and quarter-hour; per perimeter, direction and
    quarter-hour no more is forwarded than the light allows, cheapest first, ties by receipt; no step forwards more than
    it has left; forwarded and kept back add to what was offered and not sold; any order of the offers gives the same.
    An offer whose own terms (block, least quantity, run length, energy limit, exclusive label) bind its quarter-hours
    to each other stays, for a line that is accepted in part could break them.
    Raises Refused with every offer that has no spot or whose id stands twice, CoflexError on a least line below 1 kW.
    """
    if least_kw < 1:
        raise CoflexError(f"A smallest line of {least_kw} kW is none.", "Give 1 kW or more.")
    refuse("Offers for the gateway", _faults(offers, spots))
    allowed: dict[_Lamp, int] = {}
    for lamp in lights:
        key = (lamp.perimeter, lamp.direction, lamp.start)
        allowed[key] = min(lamp.capability_kw, allowed.get(key, lamp.capability_kw))
    drawer = _Drawer(spots, allowed, at, sold, room_kw or {}, least_kw)
    for share in sorted(_shares(offers, axis), key=lambda one: (one.start, one.rank)):
        drawer.take(share)
    lines = drawer.lines()
    behind = {seller(share.offer) for line in lines for share in line.shares}
    groups = {name: members for name, members in sorted((units or {}).items()) if name in behind}
    return Forwarded(axis, lines, tuple(sorted(drawer.kept)), groups)


def _faults(offers: Sequence[Offer], spots: Mapping[str, Spot]) -> list[Finding]:
    seen: set[str] = set()
    found = []
    for offer in offers:
        if seller(offer) not in spots:
            message = f"Nothing says where {seller(offer) or 'its seller'} stands; give its control area."
            found.append(Finding(f"offer {offer.id}", "no_spot", message))
        if offer.id in seen:
            found.append(Finding(f"offer {offer.id}", "offer_twice", "Two offers have this id; name them apart."))
        seen.add(offer.id)
    return found


def _shares(offers: Sequence[Offer], axis: Axis) -> list[Share]:
    """Every step and quarter-hour inside the horizon that offers anything."""
    found = []
    for offer in offers:
        for step in offer.steps:
            for i, kw in enumerate(step.quantity_kw):
                start = step.start + i * axis.step
                if kw > 0 and axis.covers(start):
                    found.append(Share(offer, step.number, start, step.price_eur_mwh, kw))
    return found


class _Drawer:
    """Draws shares in economic order from lights and sellers, until these are used up."""

    def __init__(
        self,
        spots: Mapping[str, Spot],
        allowed: Mapping[_Lamp, int],
        at: datetime,
        sold: Sequence[Award],
        room_kw: Mapping[tuple[str, datetime], int],
        least_kw: int,
    ) -> None:
        self.spots, self.at, self.least_kw = spots, at, least_kw
        self.light, self.room = dict(allowed), dict(room_kw)
        self.bought: dict[tuple[str, int, datetime], int] = defaultdict(int)
        for award in sold:
            self.bought[(award.offer, award.step, award.start)] += award.quantity_kw
        self.held = {(award.unit, award.start) for award in sold if award.unit is not None and award.quantity_kw > 0}
        # A seller's room is for each direction apart: up and down are never both called.
        self.used: dict[tuple[str, datetime, Direction], int] = defaultdict(int)
        self.kept: list[KeptBack] = []
        self.drawn: list[Share] = []

    def take(self, share: Share) -> None:
        offer, start = share.offer, share.start
        left = share.quantity_kw - self.bought[(offer.id, share.step, start)]
        if left <= 0:
            return
        whole = self._whole(share)
        if whole is not None:
            self._keep(share, left, *whole)
            return
        name, spot = seller(offer), self.spots[seller(offer)]
        key, lamp = (name, start, offer.direction), (spot.perimeter, offer.direction, start)
        free = left
        if (name, start) in self.room:
            free = max(0, min(left, self.room[(name, start)] - self.used[key]))
            self._keep(share, left - free, Kept.HELD, f"{name} has no more that is free")
        lit = free
        if spot.perimeter:
            lit = max(0, min(free, self.light[lamp]))
            self.light[lamp] -= lit
            self._keep(share, free - lit, Kept.LIGHT, f"the light of {spot.perimeter} is used up")
        self.used[key] += lit
        if lit:
            self.drawn.append(Share(offer, share.step, start, share.price_eur_mwh, lit))

    def _whole(self, share: Share) -> tuple[Kept, str] | None:
        """Why nothing of the share is forwarded."""
        offer, spot = share.offer, self.spots[seller(share.offer)]
        if offer.local_only:
            return Kept.LOCAL_ONLY, "its provider keeps it for local buyers"
        if offer.valid_until is not None and offer.valid_until < self.at:
            return Kept.EXPIRED, f"valid until {offer.valid_until.isoformat()}"
        term = _term(offer)
        if term:
            return Kept.TERMS, f"{term} cannot be promised for a part of a line"
        if (offer.unit, share.start) in self.held:
            return Kept.HELD, f"{offer.unit} is held by an earlier session"
        if spot.perimeter and (spot.perimeter, offer.direction, share.start) not in self.light:
            return Kept.NO_LIGHT, f"no light of {spot.perimeter} says that it is safe"
        return None

    def _keep(self, share: Share, kw: int, reason: Kept, detail: str) -> None:
        if kw > 0:
            self.kept.append(KeptBack(share.start, share.offer.id, share.step, kw, reason, detail))

    def lines(self) -> tuple[Line, ...]:
        places: dict[_Place, list[Share]] = defaultdict(list)
        for share in self.drawn:
            spot, offer = self.spots[seller(share.offer)], share.offer
            places[(spot.area, spot.tag, spot.brp, offer.product, offer.direction, share.start)].append(share)
        drawn = [(key, group) for key, shares in places.items() for group in self._joined(shares)]
        drawn.sort(key=_economic)
        lines: list[Line] = []
        rank: dict[tuple[str, str, Direction, datetime], int] = defaultdict(int)
        for (area, tag, brp, product, direction, start), shares in drawn:
            rank[(area, product, direction, start)] += 1
            place = rank[(area, product, direction, start)]
            name = f"{area}/{product}/{direction.value}/{start:%Y-%m-%dT%H:%MZ}/{place}"
            price = shares[-1].price_eur_mwh
            lines.append(Line(name, place, area, tag, brp, product, direction, start, price, tuple(shares)))
        return tuple(lines)

    def _joined(self, shares: Sequence[Share]) -> list[list[Share]]:
        """The shares of a place, in economic order, as lines: one for each price, or more prices until it is large
        enough. What stays too small at the dear end is kept back: it would make a whole line dearer."""
        lines: list[list[Share]] = []
        size = 0
        for share in shares:
            if lines and (size < self.least_kw or share.price_eur_mwh == lines[-1][-1].price_eur_mwh):
                lines[-1].append(share)
                size += share.quantity_kw
            else:
                lines.append([share])
                size = share.quantity_kw
        if lines and size < self.least_kw:
            for share in lines.pop():
                self._keep(share, share.quantity_kw, Kept.TOO_SMALL, f"no line of {self.least_kw} kW comes together")
        return lines


def _economic(drawn: tuple[_Place, list[Share]]) -> tuple[datetime, str, str, int, Decimal, int, str, str]:
    """Lines by quarter-hour, area, product, direction, then price; equal prices by their first receipt."""
    (area, tag, brp, product, direction, start), shares = drawn
    first = min(share.offer.receipt for share in shares)
    return start, area, product, -direction.sign, shares[-1].price_eur_mwh, first, tag, brp


def _term(offer: Offer) -> str:
    """The term that binds an offer's quarter-hours or parts to each other, empty if it has none."""
    terms = (
        (offer.block, "a block"),
        (offer.min_quantity_kw > 0, "a least quantity"),
        (offer.max_periods is not None, "a longest run"),
        (offer.energy_limit_kwh is not None, "an energy limit"),
        (offer.exclusive is not None, "an exclusive label"),
    )
    return next((name for stated, name in terms if stated), "")


# ---------------------------------------------------------------- an active TSO


def buy(
    forwarded: Forwarded, wanted: Sequence[Wanted], at: datetime
) -> tuple[tuple[Acceptance, ...], tuple[Missing, ...]]:
    """What an active TSO buys from the list at the instant `at`, and what it still misses.

    Requests with the highest price limit first, then by quarter-hour, direction, session, buyer, area and tag; each
    takes the cheapest lines of its area, product, direction and quarter-hour at or below its limit. A unit that a
    request has taken is not taken for another product or direction of the same quarter-hour: such lines are left alone.
    Guarantees: no line is accepted beyond its quantity, no request filled beyond its own; `split` takes every answer.
    """
    rest = {line.id: line.quantity_kw for line in forwarded.lines}
    taken: dict[str, int] = defaultdict(int)
    claims = _Claims(forwarded.units)
    missing = []
    for one in sorted(wanted, key=_urgency):
        lack = one.request.quantity_kw
        for line in forwarded.lines:
            if not lack or not _serves(line, one):
                continue
            take = min(lack, rest[line.id])
            if not take or claims.clash(line, _used(line, taken[line.id] + take)):
                continue
            taken[line.id] += take
            rest[line.id] -= take
            lack -= take
            claims.add(line, _used(line, taken[line.id]))
        if lack:
            missing.append(Missing(one, lack))
    return tuple(Acceptance(line, taken[line], at) for line in sorted(taken)), tuple(missing)


def _urgency(one: Wanted) -> tuple[Decimal, datetime, str, str, str, str, str, str, int]:
    r = one.request
    return (
        -r.price_limit_eur_mwh,
        r.start,
        r.direction,
        r.session,
        r.buyer,
        r.product,
        one.area,
        one.tag,
        r.quantity_kw,
    )


def _serves(line: Line, one: Wanted) -> bool:
    request = one.request
    same = (line.product, line.direction, line.start) == (request.product, request.direction, request.start)
    here = line.area == one.area and one.tag in ("", line.tag)
    return same and here and line.price_eur_mwh <= request.price_limit_eur_mwh


# ---------------------------------------------------------------- the answers


def split(
    forwarded: Forwarded,
    acceptances: Sequence[Acceptance],
    session: str,
    buyer: str,
    deadline: datetime | None = None,
) -> Split:
    """Awards of the offers behind what the TSO accepted, which may be all, a part, or nothing of each line.

    An answer counts once, the first received; the same answer again changes nothing. Of an answer that names no line,
    comes after `deadline`, exceeds its line, is negative, differs from an earlier one, or would sell a unit twice in a
    quarter-hour (for a second product or direction, or by itself and in its group), nothing is taken and a finding says
    why. Passive TSOs may answer in several parts: give all answers so far.

    Guarantees: the awards of a line add to what was accepted of it, in whole kW, cheapest first, ties by receipt; none
    exceeds its share, so lights and offers hold; every award is paid as bid; any order of the answers gives the same.
    """
    lines = {line.id: line for line in forwarded.lines}
    claims = _Claims(forwarded.units)
    answered: dict[str, int] = {}
    findings: list[Finding] = []
    for one in sorted(acceptances, key=lambda answer: (answer.received_at, answer.line, answer.quantity_kw)):
        if answered.get(one.line) == one.quantity_kw:
            continue
        fault = _fault(one, lines, answered, claims, deadline)
        if fault:
            findings.append(Finding(f"line {one.line}", *fault))
            continue
        answered[one.line] = one.quantity_kw
        claims.add(lines[one.line], _used(lines[one.line], one.quantity_kw))
    awards = [
        _award(share, kw, session, buyer)
        for line in forwarded.lines
        for share, kw in _used(line, answered.get(line.id, 0))
    ]
    silent = tuple(line.id for line in forwarded.lines if line.id not in answered)
    return Split(tuple(awards), tuple(sorted(findings)), silent)


def _fault(
    one: Acceptance,
    lines: Mapping[str, Line],
    answered: Mapping[str, int],
    claims: _Claims,
    deadline: datetime | None,
) -> tuple[str, str] | None:
    """Code and message of what is wrong with an answer."""
    line = lines.get(one.line)
    if line is None:
        return "unknown_line", "No line of this name was forwarded; answer one of the list."
    if deadline is not None and one.received_at > deadline:
        return "late", f"The answer came at {one.received_at.isoformat()}; answer until {deadline.isoformat()}."
    if one.line in answered:
        before = answered[one.line]
        return "answered_twice", f"{before} kW were accepted before, now {one.quantity_kw} kW; the first answer stands."
    if one.quantity_kw < 0:
        return "negative", f"{one.quantity_kw} kW cannot be accepted; answer 0 to refuse the line."
    if one.quantity_kw > line.quantity_kw:
        return "over_accepted", f"{one.quantity_kw} kW of {line.quantity_kw} kW; accept at most what was forwarded."
    unit = claims.clash(line, _used(line, one.quantity_kw))
    if unit:
        return "sold_twice", f"{unit} is already called otherwise in this quarter-hour; accept another line."
    return None


def _used(line: Line, kw: int) -> list[tuple[Share, int]]:
    """The shares that deliver `kw` of a line, each filled before the next is touched."""
    used = []
    for share in line.shares:
        part = min(kw, share.quantity_kw)
        if part:
            used.append((share, part))
        kw -= part
    return used


class _Claims:
    """For which seller, product and direction each unit is called in a quarter-hour."""

    def __init__(self, units: Mapping[str, tuple[str, ...]]) -> None:
        self.units = units
        self.called: dict[tuple[str, datetime], tuple[str, str, Direction]] = {}

    def _cells(self, line: Line, used: Sequence[tuple[Share, int]]) -> list[tuple[str, tuple[str, str, Direction]]]:
        sellers = [seller(share.offer) for share, _ in used]
        return [(unit, (one, line.product, line.direction)) for one in sellers for unit in self.units.get(one, (one,))]

    def clash(self, line: Line, used: Sequence[tuple[Share, int]]) -> str:
        """A unit that is called otherwise already, or by two of the sellers; empty if there is none."""
        mine: dict[str, tuple[str, str, Direction]] = {}
        for unit, call in self._cells(line, used):
            if self.called.get((unit, line.start), mine.setdefault(unit, call)) != call or mine[unit] != call:
                return unit
        return ""

    def add(self, line: Line, used: Sequence[tuple[Share, int]]) -> None:
        for unit, call in self._cells(line, used):
            self.called[(unit, line.start)] = call


def _award(share: Share, kw: int, session: str, buyer: str) -> Award:
    offer = share.offer
    return Award(
        session=session,
        offer=offer.id,
        step=share.step,
        provider=offer.provider,
        buyer=buyer,
        product=offer.product,
        unit=offer.unit,
        group=offer.group,
        direction=offer.direction,
        start=share.start,
        quantity_kw=kw,
        bid_eur_mwh=share.price_eur_mwh,
        price_eur_mwh=share.price_eur_mwh,
        status=Status.DEFINITIVE,
    )


# ---------------------------------------------------------------- money


def amounts(awards: Iterable[Award], axis: Axis) -> tuple[Amount, ...]:
    """What each service provider is owed for its awards, by name.

    Exact energy times bid, rounded once in all: the cents of the providers add to the rounded total (largest
    remainder), so that what the TSO pays is what they receive.
    """
    hours = Fraction(axis.step.total_seconds()) / 3600
    exact: dict[str, Decimal] = defaultdict(Decimal)
    for award in awards:
        exact[award.provider] += award.price_eur_mwh * energy_mwh(award.quantity_kw, hours)
    names = sorted(exact)
    cents = split_cents([exact[name] for name in names])
    return tuple(Amount(name, exact[name], cent) for name, cent in zip(names, cents, strict=True))


def owed(forwarded: Forwarded, accepted: Mapping[str, int]) -> Decimal:
    """EUR, to the cent, that the TSO owes for so many kW of each line: the bids behind it, never more than the line's
    price. Raises CoflexError when a line is not of the list or the quantity does not fit it."""
    hours = Fraction(forwarded.axis.step.total_seconds()) / 3600
    lines = {line.id: line for line in forwarded.lines}
    total = Decimal(0)
    for name, kw in sorted(accepted.items()):
        if name not in lines or not 0 <= kw <= lines[name].quantity_kw:
            raise CoflexError(f"{kw} kW of {name} were not forwarded.", "Ask for what the list holds.")
        for share, part in _used(lines[name], kw):
            total += share.price_eur_mwh * energy_mwh(part, hours)
    return total.quantize(CENT)
