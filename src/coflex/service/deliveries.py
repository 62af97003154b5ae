"""From orders to deliveries: what units were told, at which prices it was bought, what was metered (SET-02, SET-03).

    set point x quarter-hour  ->  part: ordered energy, and what an operator's limit took off it
    parts of one offer        ->  its awards' price steps, the cheapest first, in the order of the orders and units
    parts of one unit         ->  one delivery for each session and product, judged once
    an order's rest           ->  a delivery of its own: what no unit was told to give, or failed and nobody replaced
    an award of capacity      ->  a delivery of what its group or unit held ready
    a session's purchase      ->  paid by its buyer, or by all who agreed to share it

Energies to 0.001 kWh. A set point that lies in the past counts as carried out: what was not done shows in the meter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import TypedDict

from coflex.activation.profile import Profile, between, constant, minus, plus
from coflex.domain.clearing import Award
from coflex.domain.errors import Conflict
from coflex.domain.party import Role
from coflex.domain.reading import Quality
from coflex.domain.statement import Evidence
from coflex.domain.time import QUARTER, Axis, delivery_day
from coflex.market.design import SessionPlan
from coflex.market.design.document import Buyer, Service
from coflex.metering.delivery import QUARTER_HOUR, WATT_HOUR, energy_kwh
from coflex.register.activations import ActivationOrder, OrderKind
from coflex.register.market import SessionEntry
from coflex.register.packing import canonical
from coflex.register.products import ProductEntry
from coflex.register.resources import UnitEntry
from coflex.register.settlement import (
    BaselineDay,
    DisputeEntry,
    LeftOut,
    MeteredDay,
    OwnerContract,
    Quantity,
    ReadyDay,
    SharedPurchase,
    day_id,
)
from coflex.service.gates import plan_of
from coflex.service.orders import awards_of, quarter, set_points, spans
from coflex.service.relations import operators
from coflex.service.settling import (
    NOMINATED,
    Period,
    capacity_of,
    nominated,
    proof,
    rule_in,
    sessions_around,
    terms_of,
    zone_of,
)
from coflex.service.state import State
from coflex.settlement.dispute import Change, change
from coflex.settlement.dispute import State as DisputeState
from coflex.settlement.document import By, Need, Payer, Rule
from coflex.settlement.inputs import ZERO, Bought, Contract, Delivery, Held, Inputs, Purchase

PLATFORM = "platform"  # who earns the fees where nobody operates the market
MINUTES = 15
STAMP = "%Y%m%dT%H%MZ"  # of an instant, in the id of a delivery
JOINT = "~"  # between the parts of a delivery's id; no other id has it
_MICROSECOND, _MINUTE = timedelta(microseconds=1), timedelta(minutes=1)
_KW_US_PER_KWH = Decimal(3_600_000_000)
_OWN_ACCOUNT = "The provider bought it of itself, alone or with others, and would pay itself."
_VOLTAGE, _CONGESTION = frozenset({Service.VOLTAGE}), frozenset({Service.CONGESTION, Service.VOLTAGE})


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run settles. `documents`: the rules by id. `left_out`: set points that nothing prices."""

    inputs: Inputs
    documents: Mapping[str, str]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def rules(self) -> dict[str, Rule]:
        return {name: rule_in(text) for name, text in self.documents.items()}

    @property
    def unmetered(self) -> tuple[str, ...]:
        """Deliveries of which a reading, a baseline or the readiness is missing, by id."""
        rules = self.rules
        return tuple(one.id for one in self.inputs.deliveries if _lacks(one, rules[one.rule]))

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of inputs and documents in canonical JSON."""
        return sha256(contents(self.inputs, self.documents)).hexdigest()


def _lacks(delivery: Delivery, rule: Rule) -> bool:
    if delivery.bought and delivery.response_kwh(rule) is None:
        return True
    by_readiness = rule.availability is not None and bool(rule.availability.by_readiness)
    return by_readiness and any(one.ready_share is None for one in delivery.held)


def contents(inputs: Inputs, documents: Mapping[str, str]) -> bytes:
    """What the digest of a run is of: one JSON object with the inputs, as `coflex settlement` reads them, and rules."""
    return canonical({"inputs": inputs, "rules": documents})


def prepare(state: State, period: Period, before: Prepared | None = None) -> Prepared:
    """What is to be settled of a period as the state is now, with what disputes decided. `before`: of the last run of
    the period, whose platform and rules of the catalogue stand.

    Raises Refused where a dispute's change does not fit any more, Conflict where two deliveries have one id.
    """
    scene = _Scene(state, period, before)
    for order in state.all(ActivationOrder):
        scene.take(order)
    deliveries: dict[str, Delivery] = {}
    for one in (*scene.deliveries(), *scene.capacity()):
        if one.id in deliveries:
            raise Conflict(f"Two deliveries are called '{one.id}'.", "Give the units and products other ids.")
        deliveries[one.id] = one
    for dispute in _decided(state, period):
        found = deliveries.get(delivery_named(dispute.line))
        if found is not None:
            deliveries[found.id] = change(found, changes_of(dispute))
    known = (before.inputs.platform,) if before is not None else operators(state, Role.MARKET_OPERATOR)
    platform = next(iter(known), PLATFORM)
    ordered = tuple(deliveries[name] for name in sorted(deliveries))
    inputs = Inputs(period.name, ordered, scene.contracts(), scene.purchases(), platform)
    return Prepared(inputs, scene.documents, tuple(scene.left_out))


def _decided(state: State, period: Period) -> list[DisputeEntry]:
    """Disputes of a period that changed something, in the order of their decisions."""
    mine = (one for one in state.all(DisputeEntry) if one.period == period.name)
    changed = (one for one in mine if one.state is DisputeState.CHANGED)
    return sorted(changed, key=lambda one: (one.steps[-1].at, state.number(DisputeEntry, one.id)))


def delivery_named(line: str) -> str:
    """Id of the delivery in the id of a line."""
    return line.split("|")[1] if line.count("|") else ""


def changes_of(dispute: DisputeEntry) -> tuple[Change, ...]:
    return tuple(Change(one.field, one.value, one.source) for one in dispute.changes)


# ---------------------------------------------------------------- energies


def energies(one: Profile, starts: datetime, ends: datetime) -> dict[datetime, Decimal]:
    """Energy of a profile in each quarter-hour of [starts, ends), kWh to 0.001, without zeros."""
    sums: dict[datetime, int] = {}
    for first, last, kw in spans(between(one, starts, ends)):
        place = quarter(first)
        sums[place] = sums.get(place, 0) + kw * ((last - first) // _MICROSECOND)
    exact = {place: (Decimal(total) / _KW_US_PER_KWH).quantize(WATT_HOUR) for place, total in sums.items()}
    return {place: energy for place, energy in exact.items() if energy}


def limited(order: ActivationOrder, unit: str | None = None) -> Profile:
    """What operators' limits took off an order, or off one of its units."""
    taken = (
        constant(one.from_kw - one.to_kw, one.starts, one.ends)
        for one in order.notices
        if unit is None or one.unit == unit
    )
    return plus(*taken)


def responses(total: Decimal, orders: Sequence[tuple[int, Decimal]]) -> tuple[Decimal, ...]:
    """A unit's response divided over its orders of one quarter-hour, in the order in which they came: what was ordered
    first is delivered first. `orders`: sign (+1 up, -1 down) and energy of each; `total` signed, injection positive.

    Each part is positive in its order's direction, and the signed parts add to the total: what is missing is missed by
    the last order down to nothing, then by the one before it, what remains by the first; a surplus is the last one's.
    """
    left = total - sum((sign * energy for sign, energy in orders), ZERO)
    found = [energy for _, energy in orders]
    for place in reversed(range(len(orders))):
        sign, energy = orders[place]
        taken = max(sign * left, -energy)
        found[place] += taken
        left -= sign * taken
    if orders:
        found[0] += orders[0][0] * left
    return tuple(found)


# ---------------------------------------------------------------- parts


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What one order asks of one unit in a quarter-hour. `limited`: energy that an operator took off it. `rest`: what
    no unit gave; then `unit` is the group or unit that was sold."""

    order: ActivationOrder
    entry: SessionEntry
    unit: str
    set_point: str
    start: datetime
    energy: Decimal
    limited: Decimal
    rest: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        """Parts with one key are one delivery."""
        order = self.order
        own = (order.id, "rest") if self.rest else (self.unit,)
        return (order.session, order.product, *own, order.direction.value, self.start.strftime(STAMP))


@dataclass(slots=True)
class _Step:
    """What is left of a price step of an offer in a quarter-hour, kWh."""

    award: str
    left: Decimal
    bid_eur_mwh: Decimal
    price_eur_mwh: Decimal

    def bought(self, energy: Decimal) -> Bought:
        price = self.price_eur_mwh
        return Bought(self.award, energy, self.bid_eur_mwh, clearing_eur_mwh=price, nodal_eur_mwh=price)


class _CalledFor(TypedDict):
    """Fields of a delivery."""

    need: Need
    roles: dict[Payer, str]
    purchase: str


@dataclass(eq=False)
class _Scene:
    """A period's orders while they become deliveries."""

    state: State
    period: Period
    before: Prepared | None
    documents: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    _parts: list[_Part] = field(default_factory=list)
    _owners: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    _products: dict[str, str] = field(default_factory=dict)
    _plans: dict[str, SessionPlan] = field(default_factory=dict)
    _rules: dict[tuple[str, date], tuple[Rule, tuple[str, ...]]] = field(default_factory=dict)
    _foreseen: dict[tuple[str, str, date], tuple[Axis, tuple[float | None, ...]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.zone = zone_of(self.state)
        self._shared = {one.session: one for one in self.state.all(SharedPurchase) if one.agreed}

    # ------------------------------------------------------------ who pays

    def purchases(self) -> tuple[Purchase, ...]:
        """What several pay together."""
        return tuple(one.purchase() for one in self._shared.values() if one.session in self._plans)

    def _payers(self, session: str, buyer: str) -> tuple[str, ...]:
        shared = self._shared.get(session)
        return (buyer,) if shared is None else tuple(shared.roles.values())

    def _called_for(self, entry: SessionEntry, buyer: str) -> _CalledFor:
        """Why a delivery was called for, and who plays which part in paying for it."""
        plan, shared = self._plan(entry), self._shared.get(entry.id)
        if shared is None:
            return {"need": need_of(plan), "roles": {Payer(plan.session.buyers[0].value): buyer}, "purchase": ""}
        return {"need": Need.SHARED, "roles": shared.roles, "purchase": shared.id}

    # ------------------------------------------------------------ orders to parts

    def take(self, order: ActivationOrder) -> None:
        """Take what an order asks in the period."""
        starts, ends = self.period.starts, self.period.ends
        if not between((*order.awarded, *order.profile), starts, ends):
            return
        points = set_points(self.state, order.id)
        if order.provider in self._payers(order.session, order.buyer):
            self.left_out += [LeftOut(one.id, _OWN_ACCOUNT) for one in points or (order,)]
            return
        entry = self.state.get(SessionEntry, order.session)
        for point in points:
            self._owners.setdefault((point.unit, point.provider), set()).add(point.owner)
            off = energies(limited(order, point.unit), starts, ends)
            for start, energy in energies(point.profile, starts, ends).items():
                part = _Part(order, entry, point.unit, point.id, start, energy, off.get(start, ZERO))
                self._parts.append(part)
        missing = minus(order.profile, plus(*(one.profile for one in points)))
        rest = plus(missing, minus(order.lost, limited(order)))
        for start, energy in energies(rest, starts, ends).items():
            sold = order.unit or order.group or order.offer
            self._parts.append(_Part(order, entry, sold, order.id, start, energy, ZERO, rest=True))

    def contracts(self) -> tuple[Contract, ...]:
        """What providers pay on to owners: by contracts that hold the whole period, of units that nobody else owned."""
        return tuple(
            Contract(one.unit, one.provider, one.owner, one.share, one.eur_mwh, one.penalty_share)
            for one in self.state.all(OwnerContract)
            if one.covers(self.period.first, self.period.last)
            and self._owners.get((one.unit, one.provider)) == {one.owner}
        )

    # ------------------------------------------------------------ parts to deliveries

    def deliveries(self) -> Iterator[Delivery]:
        """The deliveries of all parts."""
        bought = self._bought()
        grouped: dict[tuple[str, ...], list[_Part]] = {}
        for part in sorted(bought, key=lambda one: (one.order.ordered_at, one.order.id, one.unit)):
            grouped.setdefault(part.key, []).append(part)
        made = [self._delivery(key, parts, bought) for key, parts in grouped.items()]
        of_unit: dict[tuple[str, datetime], list[Delivery]] = {}
        for one, parts in zip(made, grouped.values(), strict=True):
            if parts[0].rest:
                yield one
            else:
                of_unit.setdefault((one.unit, one.start), []).append(one)
        for (unit, start), mine in of_unit.items():
            yield from self._metered(unit, start, mine)

    def _bought(self) -> dict[_Part, tuple[Bought, ...]]:
        """What was bought of each part; the cheapest step first. Parts without an award are left out."""
        by_offer: dict[tuple[str, ...], list[_Part]] = {}
        for part in sorted(self._parts, key=lambda one: (one.start, one.order.id, one.rest, one.unit)):
            order = part.order
            own = order.id if order.kind is OrderKind.SUCCESSION else ""
            key = (order.session, order.offer, order.direction.value, own, part.start.isoformat())
            by_offer.setdefault(key, []).append(part)
        found: dict[_Part, tuple[Bought, ...]] = {}
        for parts in by_offer.values():
            pile = self._pile(parts[0], sum((part.energy + part.limited for part in parts), ZERO))
            if not pile:
                why = f"Nothing is bought of '{parts[0].order.offer}' in {parts[0].order.session} any more."
                self.left_out += [LeftOut(part.set_point, why) for part in parts]
                continue
            drawn = [_draw(pile, part.energy, last=True) for part in parts]
            # what limits took off is bought of what is left, and costs nobody anything
            for part, mine in zip(parts, drawn, strict=True):
                found[part] = _added((*mine, *_draw(pile, part.limited, last=False)))
        return found

    def _pile(self, part: _Part, needed: Decimal) -> list[_Step]:
        order = part.order
        if order.kind is OrderKind.SUCCESSION:
            price = order.price_eur_mwh
            return [] if price is None else [_Step(f"{order.offer}.{order.id}", needed, price, price)]
        awards = awards_of(self.state, part.entry).get((order.offer, order.direction), ())
        mine = [one for one in awards if one.start == part.start]
        ranked = sorted(mine, key=lambda one: (one.price_eur_mwh, one.step))
        return [_step(one) for one in ranked]

    def _delivery(
        self, key: tuple[str, ...], parts: Sequence[_Part], bought: Mapping[_Part, tuple[Bought, ...]]
    ) -> Delivery:
        """A delivery before anything is known of the meter."""
        first = parts[0]
        order = first.order
        ordered = sum((part.energy for part in parts), ZERO)
        names = ", ".join(sorted({part.set_point for part in parts}))
        rule, _ = self._terms(order.product, first.start)
        self._products[JOINT.join(key)] = order.product
        made = Delivery(
            id=JOINT.join(key),
            rule=rule.id,
            unit=first.unit,
            provider=order.provider,
            buyer=order.buyer,
            session=order.session,
            start=first.start,
            minutes=MINUTES,
            direction=order.direction,
            ordered_kwh=ordered,
            bought=_added(one for part in parts for one in bought[part]),
            quality=Quality.MISSING,
            limited=any(part.limited for part in parts),
            **self._called_for(first.entry, order.buyer),
            evidence=Evidence(offer=", ".join(sorted({part.order.offer for part in parts})), set_point=names),
        )
        return _without_a_unit(made, rule) if first.rest else made

    # ------------------------------------------------------------ capacity

    def capacity(self) -> Iterator[Delivery]:
        """What was held ready: a delivery for each session, product, band, direction and quarter-hour."""
        starts, ends = self.period.starts, self.period.ends
        for entry in sessions_around(self.state, self.period.first, self.period.last):
            for band, awards in capacity_of(self.state, entry).items():
                grouped: dict[tuple[str, ...], list[Award]] = {}
                for one in awards:
                    if starts <= one.start < ends:
                        place = (entry.id, one.product, band, one.direction.value, one.start.strftime(STAMP))
                        grouped.setdefault(place, []).append(one)
                for key, mine in grouped.items():
                    if mine[0].provider in self._payers(entry.id, mine[0].buyer):
                        self.left_out.append(LeftOut(JOINT.join(key), _OWN_ACCOUNT))
                    else:
                        yield self._held(JOINT.join(key), entry, band, mine)

    def _held(self, id: str, entry: SessionEntry, band: str, awards: Sequence[Award]) -> Delivery:
        first, plan = awards[0], self._plan(entry)
        unit = self.state.find(UnitEntry, band)
        if unit is not None and (band, first.provider) not in self._owners:
            self._owners[band, first.provider] = {unit.unit.owner}
        there = self.state.find(ReadyDay, day_id(band, first.start.astimezone(self.zone).date()))
        ready = there.at(first.start) if there is not None else None
        share = ready.share if ready is not None else None
        evidence = Evidence(offer=first.offer)
        if there is not None and ready is not None:
            evidence = replace(evidence, measurements=there.log, log_size=ready.log_size)
        return Delivery(
            id=id,
            rule=self._terms(first.product, first.start)[0].id,
            unit=band,
            provider=first.provider,
            buyer=first.buyer,
            session=entry.id,
            start=first.start,
            minutes=int(plan.horizon.step / _MINUTE),
            direction=first.direction,
            held=tuple(
                Held(f"{one.offer}.{one.step}", Decimal(one.quantity_kw), one.price_eur_mwh, share) for one in awards
            ),
            evidence=evidence,
            **self._called_for(entry, first.buyer),
        )

    # ------------------------------------------------------------ what was metered

    def _metered(self, unit: str, start: datetime, mine: Sequence[Delivery]) -> Iterator[Delivery]:
        """Deliveries of a unit in a quarter-hour with its reading and its baseline. Of several, what the others brought
        about is part of the baseline of each."""
        day = start.astimezone(self.zone).date()
        there = self.state.find(MeteredDay, day_id(unit, day))
        read = there.at(start) if there is not None else None
        whole = [self._based(_read(one, there, read), day) for one in mine]
        # each order has a method of its own, and the first of them may lack its baseline
        baseline = next((one.baseline_kwh for one in whole if one.baseline_kwh is not None), None)
        measured = whole[0].measured_kwh
        if len(whole) > 1 and measured is not None and baseline is not None:
            parts = responses(measured - baseline, [(one.direction.sign, one.ordered_kwh) for one in whole])
            whole = [
                one if one.baseline_kwh is None else replace(one, baseline_kwh=measured - one.direction.sign * part)
                for one, part in zip(whole, parts, strict=True)
            ]
        yield from whole

    def _based(self, delivery: Delivery, day: date) -> Delivery:
        """A delivery with its baseline: the one of the methods of its terms that comes first and is there."""
        rule, methods = self._rules[self._products[delivery.id], day]
        brought = self.state.find(BaselineDay, day_id(delivery.unit, day))
        for method in methods:
            if brought is not None and brought.method == method:
                if brought.kwh:
                    kwh = brought.kwh[(delivery.start - brought.start) // QUARTER]
                    return _on(delivery, rule, f"{method}@{brought.method_version}", kwh, proof(brought))
            elif method == NOMINATED:
                kw = self._nominated(delivery, day)
                if kw is not None:
                    return _on(delivery, rule, method, energy_kwh(kw), f"nomination for {delivery.session}")
        return delivery

    def _nominated(self, delivery: Delivery, day: date) -> float | None:
        place = delivery.unit, delivery.session, day
        if place not in self._foreseen:
            axis = delivery_day(day, self.zone)
            entry = self.state.get(SessionEntry, delivery.session)
            self._foreseen[place] = axis, nominated(self.state, delivery.unit, entry, axis)
        axis, values = self._foreseen[place]
        return values[axis.position(delivery.start)]

    # ------------------------------------------------------------ sessions and terms, looked up once

    def _plan(self, entry: SessionEntry) -> SessionPlan:
        if entry.id not in self._plans:
            self._plans[entry.id] = plan_of(self.state, entry)
        return self._plans[entry.id]

    def _terms(self, product: str, start: datetime) -> tuple[Rule, tuple[str, ...]]:
        """Rule and baseline methods of what is ordered of a product at an instant; its document is kept."""
        place = product, start.astimezone(self.zone).date()
        if place not in self._rules:
            terms = terms_of(self.state, self.state.get(ProductEntry, product).product, place[1])
            known = self.before.documents if self.before is not None else {}
            # the catalogue may have changed since: what was settled once is settled by the same rule again
            text = known.get(terms.rule, terms.document)
            self.documents[terms.rule] = text
            self._rules[place] = rule_in(text), terms.methods
        return self._rules[place]


def _draw(pile: Sequence[_Step], energy: Decimal, last: bool) -> tuple[Bought, ...]:
    """Take energy off the steps of a pile, the first one first (in place). `last`: what is beyond all of them, as
    roundings may be, goes to the last."""
    drawn = []
    for step in pile:
        mine = min(step.left, energy)
        step.left -= mine
        energy -= mine
        drawn.append(mine)
    if last:
        drawn[-1] += energy
    return tuple(step.bought(mine) for step, mine in zip(pile, drawn, strict=True) if mine)


def _added(parts: Iterable[Bought]) -> tuple[Bought, ...]:
    """Parts of one award as one."""
    found: dict[str, Bought] = {}
    for one in parts:
        known = found.get(one.award)
        found[one.award] = one if known is None else replace(known, energy_kwh=known.energy_kwh + one.energy_kwh)
    return tuple(found.values())


def _step(award: Award) -> _Step:
    left = award.quantity_kw * QUARTER_HOUR
    return _Step(f"{award.offer}.{award.step}", left, award.bid_eur_mwh, award.price_eur_mwh)


def _read(delivery: Delivery, there: MeteredDay | None, read: Quantity | None) -> Delivery:
    """A delivery with the reading of its unit."""
    if there is None or read is None:
        return delivery
    evidence = replace(delivery.evidence, measurements=there.log, log_size=read.log_size)
    return replace(delivery, measured_kwh=read.kwh, quality=read.quality, evidence=evidence)


def _on(delivery: Delivery, rule: Rule, method: str, kwh: Decimal, evidence: str) -> Delivery:
    """A delivery on a baseline; of a drop-to product it is the level that is not passed."""
    limit = kwh if rule.delivered.by is By.DROP_TO else None
    proved = replace(delivery.evidence, baseline=evidence)
    return replace(delivery, baseline_method=method, baseline_kwh=kwh, limit_kwh=limit, evidence=proved)


def _without_a_unit(delivery: Delivery, rule: Rule) -> Delivery:
    """What no unit was told to give is known without a meter: nothing of it was delivered."""
    drops = rule.delivered.by is By.DROP_TO
    return replace(
        delivery,
        baseline_method="no unit gave it",
        baseline_kwh=ZERO,
        measured_kwh=-delivery.direction.sign * delivery.ordered_kwh if drops else ZERO,
        limit_kwh=ZERO if drops else None,
        quality=Quality.MEASURED,
    )


def need_of(plan: SessionPlan) -> Need:
    """Why a session buys: its first buyer, and the services it names."""
    services = frozenset(plan.session.services)
    buyer = plan.session.buyers[0]
    if buyer is Buyer.BRP:
        return Need.BRP_IMBALANCE
    if buyer is Buyer.DSO:
        return Need.DSO_VOLTAGE if services == _VOLTAGE else Need.DSO_CONGESTION
    return Need.TSO_CONGESTION if services and services <= _CONGESTION else Need.TSO_BALANCING
