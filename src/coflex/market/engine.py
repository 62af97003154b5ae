"""The life of a session: which one is due now, and which offers it takes.

Everything here is a pure function of the plans, the states and an instant, so a market day replays to the bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import numpy as np

from coflex.domain.clearing import Holding
from coflex.domain.errors import Finding, NotReady
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.product import Product
from coflex.domain.quantity import Bools, Direction, Ints
from coflex.domain.time import Axis, local_label
from coflex.domain.unit import Group, Level, Unit
from coflex.market.design import Session, SessionPlan, Validation
from coflex.market.ledger import assign_over, changeable

# ---------------------------------------------------------------- states


class SessionState(StrEnum):
    """States of a session in the order in which it goes through them."""

    ANNOUNCED = "announced"
    OPEN = "open"
    CLOSED = "closed"
    CLEARED = "cleared"
    VALIDATED = "validated"
    DEFINITIVE = "definitive"
    PUBLISHED = "published"


@dataclass(frozen=True, slots=True)
class Action:
    """The next step of a session: the state it goes to, and the instant from which that is due."""

    session: str
    to: SessionState
    at: datetime


def life(session: Session) -> tuple[SessionState, ...]:
    """The states a session goes through: all of them, without `validated` where its design validates nothing."""
    skipped = SessionState.VALIDATED if session.validation is Validation.NONE else None
    return tuple(state for state in SessionState if state is not skipped)


def advance(session: Session, state: SessionState, to: SessionState) -> SessionState:
    """The state after a step. Raises NotReady unless `to` is the one that follows `state` in the session's life."""
    follows = _next(session, state)
    if follows is not to or follows is None:
        then = f"it can only become {follows.value} next" if follows else "nothing follows"
        raise NotReady(f"Session {session.id} is {state.value}, not ready to be {to.value}; {then}.")
    return to


def upcoming(plans: Sequence[SessionPlan], states: Mapping[str, SessionState]) -> Action | None:
    """The step that comes first of all, due or not; None when every session is published.

    A session opens and closes at its gate; what follows is due at once. At one instant the design's order
    decides, so a session is published before a later one clears. A session without a state is announced.
    """
    steps = []
    for place, plan in enumerate(plans):
        to = _next(plan.session, states.get(plan.id, SessionState.ANNOUNCED))
        if to is not None:
            at = plan.opens if to is SessionState.OPEN else plan.closes
            steps.append((at, place, Action(plan.id, to, at)))
    return min(steps, key=lambda step: step[:2])[2] if steps else None


def due(plans: Sequence[SessionPlan], states: Mapping[str, SessionState], at: datetime) -> Action | None:
    """The step to take now: the first of all steps whose instant has come by `at`, or None.

    Repeated until None, it gives the same steps in the same order however late or seldom it is asked.
    """
    action = upcoming(plans, states)
    return action if action is not None and action.at <= at else None


def _next(session: Session, state: SessionState) -> SessionState | None:
    order = tuple(SessionState)
    return next((to for to in life(session) if order.index(to) > order.index(state)), None)


# ---------------------------------------------------------------- intake


@dataclass(frozen=True, eq=False)
class IntakeContext:
    """What offers are checked against.

    `levels`: the level at which each unit is connected. `buyers`: the parties that buy in the session.
    `qualified_kw`: the static light's limit of a unit and direction; nothing is qualified that is not there.
    `available_kw`: declared by unit as (up, down), kW in each quarter-hour of the session's horizon; a unit
    without a declaration is bound by its qualification alone. `held`: the ledger. `taken`: offers that the
    session accepted before; they are neither checked nor returned again. `energy_kwh`: what each unit can still give
    over the day, (up, down); a unit that is not there has no limit but its power.
    """

    units: Mapping[str, Unit]
    groups: Mapping[str, Group]
    products: Mapping[str, Product]
    levels: Mapping[str, Level]
    buyers: tuple[str, ...]
    qualified_kw: Mapping[tuple[str, Direction], int]
    available_kw: Mapping[str, tuple[Ints, Ints]]
    held: Mapping[tuple[str, datetime], Holding]
    taken: tuple[Offer, ...] = ()
    energy_kwh: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def intake(
    plan: SessionPlan, offers: Sequence[Offer], context: IntakeContext
) -> tuple[tuple[Offer, ...], tuple[Finding, ...]]:
    """The offers that the session takes, by receipt and id, and every fault of the others, sorted by place.

    An offer is taken whole or not at all. Of offers that collide (same id, same label of two providers, same
    unit in a quarter-hour and direction) the one with the lowest receipt number stays; the order of `offers`
    does not matter.
    """
    check = _Check(plan, context)
    ordered = sorted(offers, key=_order)
    faults = [[*check.offer(offer), *collisions] for offer, collisions in _with_collisions(ordered, context.taken)]
    clean = [offer for offer, found in zip(ordered, faults, strict=True) if not found]
    twice = check.energy_shared(clean) | check.offered_twice(clean)
    accepted = tuple(offer for offer in clean if offer.id not in twice)
    findings = {finding for found in [*faults, twice.values()] for finding in found}
    return accepted, tuple(sorted(findings))


def _order(offer: Offer) -> tuple[int, str, str]:
    return offer.receipt, offer.id, offer.provider


def _with_collisions(ordered: Sequence[Offer], taken: Sequence[Offer]) -> Iterator[tuple[Offer, list[Finding]]]:
    """Each offer with what is wrong between it and the offers before it."""
    ids: dict[str, list[Offer]] = defaultdict(list)
    owners: dict[str, str] = {}
    for offer in [*taken, *ordered]:
        ids[offer.id].append(offer)
        if offer.exclusive is not None:
            owners.setdefault(offer.exclusive, offer.provider)
    for offer in ordered:
        found = []
        first, *others = ids[offer.id]
        if others and (offer is not first or others[0].receipt == first.receipt):
            found.append(_fault(offer, "duplicate_id", "An offer of this id is already here; give each its own id."))
        if offer.exclusive is not None and owners[offer.exclusive] != offer.provider:
            message = f"The exclusive label '{offer.exclusive}' is another provider's; choose a label of your own."
            found.append(_fault(offer, "foreign_label", message))
        yield offer, found


def _fault(offer: Offer, code: str, message: str, *where: str) -> Finding:
    return Finding(", ".join((f"offer {offer.id}", *where)), code, message)


@dataclass(frozen=True, eq=False)
class _Caps:
    """What the units behind an offer can give, in kW, shape (periods,); each cap lies within the one before it.

    `qualified` by the static light; `unheld`: of units that no other buyer holds; `available`: of that, as declared.
    """

    qualified: Ints
    unheld: Ints
    available: Ints


@dataclass(frozen=True, eq=False)
class _Laid:
    """An offer on the session's horizon: `kw[n, t]` of step `numbers[n]`, `rank[n, t]` of its price, -1 for none."""

    numbers: tuple[int, ...]
    kw: Ints
    rank: Ints

    @property
    def total(self) -> Ints:
        """What is offered in each quarter-hour, all steps together."""
        return np.asarray(self.kw.sum(axis=0), dtype=np.int64)


class _Check:
    """The checks of one intake. The ledger and the register are read once, the caps once for each unit or group."""

    def __init__(self, plan: SessionPlan, context: IntakeContext) -> None:
        self.plan, self.context = plan, context
        self.caps: dict[tuple[tuple[str, ...], Direction], _Caps] = {}
        self.held: dict[str, Bools] = {}
        columns = {start: t for t, start in enumerate(plan.horizon)}
        for (unit, start), holding in context.held.items():
            column = columns.get(start)
            if column is not None and not any(changeable(holding, buyer) for buyer in context.buyers):
                self.held.setdefault(unit, np.zeros(len(columns), dtype=np.bool_))[column] = True
        owners: Iterable[Unit | Group] = [*context.units.values(), *context.groups.values()]
        self.providers = frozenset(owner.provider for owner in owners)

    # ------------------------------------------------------------ one offer

    def offer(self, offer: Offer) -> Iterator[Finding]:
        """Every fault of one offer by itself."""
        yield from self._gate(offer)
        yield from self._seller(offer)
        yield from self._product(offer)
        yield from self._terms(offer)
        for step in offer.steps:
            yield from self._price(offer, step)
            yield from self._place(offer, step)
            yield from self._ticks(offer, step)
        laid = self._lay(offer)
        yield from self._stack(offer, laid)
        yield from self._whole(offer, laid)
        yield from self._minima(offer, laid)
        yield from self._maxima(offer, laid)
        yield from self._energy(offer, laid)

    def _gate(self, offer: Offer) -> Iterator[Finding]:
        plan = self.plan
        if offer.session != plan.id:
            message = f"The session '{offer.session}' is not {plan.id}, which takes offers here; name {plan.id}."
            yield _fault(offer, "unknown_session", message)
        opens, closes = (local_label(instant, plan.zone) for instant in (plan.opens, plan.closes))
        if offer.received_at >= plan.closes:
            message = f"The gate of {plan.id} closed at {closes}; offer in a later session."
            yield _fault(offer, "after_gate", message)
        if offer.received_at < plan.opens:
            message = f"The gate of {plan.id} opens at {opens} and closes at {closes}; send the offer in that time."
            yield _fault(offer, "before_gate", message)
        if offer.valid_until is not None and offer.valid_until <= plan.closes:
            message = f"The offer ends before the session clears at {closes}; let it be valid for longer."
            yield _fault(offer, "expired", message)

    def _seller(self, offer: Offer) -> Iterator[Finding]:
        if offer.provider not in self.providers:
            message = f"The provider '{offer.provider}' has no unit here; register the provider and its units."
            yield _fault(offer, "unknown_provider", message)
        if (offer.unit is None) == (offer.group is None):
            yield _fault(offer, "unit_or_group", "An offer is of a unit or of a group; name exactly one of them.")
        if offer.unit is not None:
            unit = self.context.units.get(offer.unit)
            if unit is None:
                yield _fault(offer, "unknown_unit", f"The unit '{offer.unit}' is not registered; register it first.")
            elif unit.provider != offer.provider:
                message = f"The unit '{offer.unit}' is another provider's; offer units of your own."
                yield _fault(offer, "foreign_unit", message)
        if offer.group is not None:
            yield from self._group(offer, offer.group)
        levels = self.plan.session.sellers.levels
        for unit_id in self._units(offer):
            if unit_id in self.context.units and self.context.levels.get(unit_id) not in levels:
                message = (
                    f"Unit {unit_id} is not connected at {' or '.join(levels)} level; {self.plan.id} buys there only."
                )
                yield _fault(offer, "level", message)

    def _group(self, offer: Offer, name: str) -> Iterator[Finding]:
        group = self.context.groups.get(name)
        if group is None:
            yield _fault(offer, "unknown_group", f"The group '{name}' is not registered; register it first.")
            return
        if group.provider != offer.provider:
            yield _fault(offer, "foreign_group", f"The group '{name}' is another provider's; offer groups of your own.")
        scope = self.plan.session.scope
        if scope is not None and group.scope is not scope:
            message = f"The group '{name}' is {group.scope.value} and the session {scope.value}; "
            yield _fault(offer, "group_scope", f"{message}offer it in a session of its scope.")
        if group.product != offer.product:
            message = f"The group '{name}' is for {group.product}, not {offer.product}; offer the product it is for."
            yield _fault(offer, "group_product", message)
        if self.plan.session.grid.distribution.sees_network:
            message = "This session clears on the grid, where a group has no single place; offer the group's units."
            yield _fault(offer, "group_without_place", message)

    def _product(self, offer: Offer) -> Iterator[Finding]:
        product, session = self.context.products.get(offer.product), self.plan.session
        if product is None:
            message = f"The product '{offer.product}' is not in the catalogue; choose one that is."
            yield _fault(offer, "unknown_product", message)
            return
        scope = session.scope or product.scope
        if product.scope is not scope or (session.product or product.id) != product.id:
            wanted = session.product or f"products of scope {scope.value}"
            message = f"The session trades {wanted}, not {product.id}; offer there or elsewhere."
            yield _fault(offer, "product_session", message)
        if offer.direction not in product.directions:
            message = f"The product {product.id} has no direction {offer.direction.value}; offer one that it has."
            yield _fault(offer, "direction", message)
        if not product.divisible and not offer.block:
            message = f"The product {product.id} is not divisible; offer it as a block."
            yield _fault(offer, "indivisible", message)

    def _terms(self, offer: Offer) -> Iterator[Finding]:
        """Conditions that no clearing could meet, whatever the quantities."""
        if offer.min_quantity_kw < 0:
            yield _fault(offer, "negative_minimum", "The minimum quantity is negative; write 0 for none.")
        for name, value in (("max_periods", offer.max_periods), ("energy_limit_kwh", offer.energy_limit_kwh)):
            if value is not None and value < 1:
                yield _fault(offer, name, f"{name} is {value}, which allows nothing; raise it or leave it out.")
        numbers = sorted({step.number for step in offer.steps})
        if numbers != list(range(1, len(numbers) + 1)):
            yield _fault(
                offer, "step_numbers", f"The steps are numbered {numbers}; number them 1, 2, ... without a gap."
            )
        if offer.block and len(numbers) > 1:
            yield _fault(
                offer, "block_steps", "A block is taken whole, so it has one price step; leave out the others."
            )
        if not any(kw > 0 for step in offer.steps for kw in step.quantity_kw):
            yield _fault(offer, "empty", "Nothing is offered; give a quantity above zero.")

    # ------------------------------------------------------------ its steps

    def _price(self, offer: Offer, step: OfferStep) -> Iterator[Finding]:
        product, price = self.context.products.get(offer.product), step.price_eur_mwh
        where = self._where(step.number, step.start)
        if not price.is_finite():
            yield _fault(offer, "price_not_finite", f"The price {price} is no number; give EUR/MWh.", *where)
        elif product is not None and price > product.price_cap_eur_mwh:
            message = f"The price {price} is above the cap of {product.price_cap_eur_mwh} EUR/MWh; lower it."
            yield _fault(offer, "price_cap", message, *where)
        elif product is not None and price < -product.price_cap_eur_mwh:
            message = f"The price {price} is below the floor of {-product.price_cap_eur_mwh} EUR/MWh; raise it."
            yield _fault(offer, "price_floor", message, *where)

    def _place(self, offer: Offer, step: OfferStep) -> Iterator[Finding]:
        axis = self.plan.horizon
        outside = _first_outside(step, axis)
        if (step.start - axis.start) % axis.step:
            message = "The step does not begin on a quarter-hour; move it to one."
            yield _fault(offer, "off_quarter_hour", message, *self._where(step.number, step.start))
        elif outside is not None:
            first, last = (local_label(instant, self.plan.zone) for instant in (axis.start, axis.end))
            message = f"The session buys for {first} to {last} only; leave out what is before or after."
            yield _fault(offer, "outside_horizon", message, *self._where(step.number, outside))

    def _ticks(self, offer: Offer, step: OfferStep) -> Iterator[Finding]:
        product = self.context.products.get(offer.product)
        tick = product.tick_kw if product else 1
        kw = np.asarray(step.quantity_kw, dtype=np.int64)
        for i in np.flatnonzero((kw < 0) | (kw % tick != 0)):
            where = self._where(step.number, step.start + int(i) * self.plan.horizon.step)
            if kw[i] < 0:
                message = f"The quantity of {kw[i]} kW is negative; give the quantity unsigned and the direction."
                yield _fault(offer, "negative", message, *where)
            if kw[i] % tick:
                message = f"The quantity of {kw[i]} kW is no multiple of the tick of {tick} kW; round it."
                yield _fault(offer, "tick", message, *where)

    def _lay(self, offer: Offer) -> _Laid:
        """The offer as arrays; what is outside the horizon or negative is reported elsewhere and counts as nothing."""
        axis = self.plan.horizon
        numbers = tuple(sorted({step.number for step in offer.steps}))
        rows = {number: row for row, number in enumerate(numbers)}
        prices = sorted({step.price_eur_mwh for step in offer.steps if step.price_eur_mwh.is_finite()})
        ranks = {price: rank for rank, price in enumerate(prices)}
        kw = np.zeros((len(numbers), len(axis)), dtype=np.int64)
        rank = np.full_like(kw, -1)
        for step in offer.steps:
            first, rest = divmod(step.start - axis.start, axis.step)
            begin, end = max(0, first), min(len(axis), first + len(step.quantity_kw))
            if rest or begin >= end:
                continue
            inside = np.asarray(step.quantity_kw[begin - first : end - first], dtype=np.int64)
            kw[rows[step.number], begin:end] += np.maximum(inside, 0)
            if step.price_eur_mwh.is_finite():
                rank[rows[step.number], begin:end] = ranks[step.price_eur_mwh]
        return _Laid(numbers, kw, rank)

    def _stack(self, offer: Offer, laid: _Laid) -> Iterator[Finding]:
        """Steps of one number must not overlap; from number to number the price rises in every quarter-hour."""
        ends: dict[int, datetime] = {}
        for step in sorted(offer.steps, key=lambda step: (step.number, step.start)):
            end = ends.get(step.number)
            if end is not None and step.start < end:
                message = "Two steps of this number meet in this quarter-hour; number them apart or end one sooner."
                yield _fault(offer, "overlap", message, *self._where(step.number, step.start))
            reach = step.start + len(step.quantity_kw) * self.plan.horizon.step
            ends[step.number] = reach if end is None else max(end, reach)
        below = np.maximum.accumulate(laid.rank, axis=0)[:-1]
        falls = (laid.rank[1:] >= 0) & (laid.rank[1:] <= below)
        for row, t in np.argwhere(falls):
            message = "The price is not above that of the step before; let prices rise from step to step."
            where = self._where(laid.numbers[row + 1], self.plan.horizon[int(t)])
            yield _fault(offer, "price_order", message, *where)

    def _whole(self, offer: Offer, laid: _Laid) -> Iterator[Finding]:
        """A block that its own limits forbid could never be taken."""
        if not offer.block:
            return
        total = laid.total
        energy_kwh = float(total.sum()) * self.plan.horizon.hours
        firm = self.plan.horizon.slice_of(self.plan.firm)
        if total[firm].any() and total[firm.stop :].any():
            message = "Only a part of the block would become definitive; end it there, or start it after that."
            yield _fault(offer, "block_across", message, self._label(firm.stop))
        if offer.max_periods is not None and offer.max_periods < _longest_run(total > 0):
            message = f"The block is longer than its own limit of {offer.max_periods} quarter-hours; shorten it."
            yield _fault(offer, "block_periods", message)
        if offer.energy_limit_kwh is not None and energy_kwh > offer.energy_limit_kwh:
            message = (
                f"The block of {energy_kwh:g} kWh is above its own limit of {offer.energy_limit_kwh} kWh; lower it."
            )
            yield _fault(offer, "block_energy", message)

    def _minima(self, offer: Offer, laid: _Laid) -> Iterator[Finding]:
        product, total = self.context.products.get(offer.product), laid.total
        least = product.min_quantity_kw if product else 0
        for t in np.flatnonzero((total > 0) & (total < least)):
            message = f"{total[t]} kW is less than the product's {least} kW; offer more, or nothing."
            yield _fault(offer, "below_product_minimum", message, self._label(int(t)))
        for t in np.flatnonzero((total > 0) & (total < offer.min_quantity_kw)):
            message = (
                f"The offer's minimum of {offer.min_quantity_kw} kW is above its {total[t]} kW; lower the minimum."
            )
            yield _fault(offer, "minimum_above_quantity", message, self._label(int(t)))

    def _maxima(self, offer: Offer, laid: _Laid) -> Iterator[Finding]:
        """Each cap is held against what the caps before it leave, so that one excess is reported once."""
        units = self._units(offer)
        if not units:
            return
        caps, total = self._caps(units, offer.direction), laid.total
        for code, asked, cap, reason in (
            ("above_qualified", total, caps.qualified, "are qualified; offer at most that"),
            ("held", np.minimum(total, caps.qualified), caps.unheld, "are free of other holders; offer at most that"),
            ("above_available", np.minimum(total, caps.unheld), caps.available, "are declared available; lower it"),
        ):
            for t in np.flatnonzero(asked > cap):
                row = int(np.argmax(laid.kw[:, t].cumsum() > cap[t]))
                where = self._where(laid.numbers[row], self.plan.horizon[int(t)])
                yield _fault(offer, code, f"Of the {total[t]} kW offered only {cap[t]} kW {reason}.", *where)

    def _energy(self, offer: Offer, laid: _Laid) -> Iterator[Finding]:
        """Whether the units' energy lasts for all that the offer holds."""
        yield from self._lasts(offer, laid.total, self._asked_kwh(offer, laid.total))

    def _asked_kwh(self, offer: Offer, total: Ints) -> float:
        """Most energy of a unit's offer: what it lays down and the unit has free, within the offer's own limit."""
        units = self._units(offer)
        free = self._caps(units, offer.direction).available if units else total
        asked = float(np.minimum(total.clip(0), free).sum()) * self.plan.horizon.hours
        return asked if offer.energy_limit_kwh is None else min(asked, float(offer.energy_limit_kwh))

    def _lasts(self, offer: Offer, total: Ints, asked_kwh: float) -> Iterator[Finding]:
        """Whether the energy of the units behind an offer lasts for kW (periods,), or for kWh of a single unit."""
        units = self._units(offer)
        way = 0 if offer.direction is Direction.UP else 1
        left = np.array([self.context.energy_kwh.get(unit, (np.inf, np.inf))[way] for unit in units])
        if not len(units) or np.isinf(left).all():
            return
        if offer.unit is not None:
            if asked_kwh > left[0] + 1e-6:
                message = f"{asked_kwh:g} kWh are offered and {left[0]:g} kWh are left; state an energy limit of that."
                yield _fault(offer, "above_energy", message)
            return
        free = np.array([self._caps((unit,), offer.direction).available for unit in units])
        wanted = np.minimum(total, free.sum(axis=0))
        _, misfit = assign_over(wanted, free, left, self.plan.horizon.hours, units)
        if misfit is not None:
            message = "The energy of the group's units does not last until then; offer less, or in fewer quarter-hours."
            yield _fault(offer, "above_energy", message, self._label(misfit))

    def energy_shared(self, offers: Sequence[Offer]) -> dict[str, Finding]:
        """Offers, by id, for which the energy does not last after those that the same seller made before.

        Of offers that share an exclusive label only one can be taken; the largest counts.
        """
        found: dict[str, Finding] = {}
        before: dict[tuple[str, Direction], dict[str, tuple[Ints, float]]] = defaultdict(dict)
        for place, offer in enumerate([*self.context.taken, *offers]):
            mine = before[(offer.unit or offer.group or "", offer.direction)]
            total = self._lay(offer).total
            asked = self._asked_kwh(offer, total)
            label = f"label {offer.exclusive}" if offer.exclusive is not None else f"offer {offer.id}"
            if label in mine:
                total, asked = np.maximum(total, mine[label][0]), max(asked, mine[label][1])
            others = [value for key, value in mine.items() if key != label]
            if others and place >= len(self.context.taken):
                summed = total + sum(laid for laid, _ in others)
                faults = list(self._lasts(offer, summed, asked + sum(kwh for _, kwh in others)))
                if faults:
                    found[offer.id] = faults[0]
                    continue
            mine[label] = total, asked
        return found

    # ------------------------------------------------------------ units

    def offered_twice(self, offers: Sequence[Offer]) -> dict[str, Finding]:
        """Offers, by id, of a unit that an earlier offer already offers in the same quarter-hour and direction.

        Offers that share an exclusive label may do so, since only one of them can be taken.
        """
        found: dict[str, Finding] = {}
        before: dict[tuple[str, Direction], list[tuple[Offer, Bools]]] = defaultdict(list)
        for place, offer in enumerate([*self.context.taken, *offers]):
            offered = self._lay(offer).total > 0
            keys = [(unit, offer.direction) for unit in self._units(offer)]
            earlier = [(key[0], *entry) for key in keys for entry in before[key]]
            fault = _same_unit(offer, offered, earlier)
            if fault is not None and place >= len(self.context.taken):
                unit, other, period = fault
                message = f"Unit {unit} is already in offer {other}; offer it once, or give both one exclusive label."
                found[offer.id] = _fault(offer, "offered_twice", message, self._label(period))
                continue
            for key in keys:
                before[key].append((offer, offered))
        return found

    def _units(self, offer: Offer) -> tuple[str, ...]:
        """The known units behind an offer; none unless it names exactly one unit or group."""
        if offer.unit is not None and offer.group is None:
            return (offer.unit,) if offer.unit in self.context.units else ()
        group = self.context.groups.get(offer.group) if offer.group is not None and offer.unit is None else None
        return group.units if group else ()

    def _caps(self, units: tuple[str, ...], direction: Direction) -> _Caps:
        key = (units, direction)
        if key not in self.caps:
            periods = len(self.plan.horizon)
            qualified, unheld, available = np.zeros((3, periods), dtype=np.int64)
            for unit in units:
                limit = self.context.qualified_kw.get((unit, direction), 0)
                free = np.full(periods, limit, dtype=np.int64)
                if unit in self.held:
                    free[self.held[unit]] = 0
                up_kw, down_kw = self.context.available_kw.get(unit, (free, free))
                qualified += limit
                unheld += free
                available += np.minimum(free, up_kw if direction is Direction.UP else down_kw)
            self.caps[key] = _Caps(qualified, unheld, available)
        return self.caps[key]

    def _where(self, number: int, at: datetime) -> tuple[str, str]:
        return f"step {number}", local_label(at, self.plan.zone)

    def _label(self, period: int) -> str:
        return local_label(self.plan.horizon[period], self.plan.zone)


def _same_unit(
    offer: Offer, offered: Bools, earlier: Iterable[tuple[str, Offer, Bools]]
) -> tuple[str, str, int] | None:
    """The first unit, earlier offer and period in which both offer it without excluding each other."""
    for unit, other, cells in earlier:
        common = np.flatnonzero(cells & offered)
        if common.size and (offer.exclusive is None or offer.exclusive != other.exclusive):
            return unit, other.id, int(common[0])
    return None


def _first_outside(step: OfferStep, axis: Axis) -> datetime | None:
    """The first quarter-hour of a step that the axis does not hold."""
    end = step.start + len(step.quantity_kw) * axis.step
    if step.start < axis.start or step.start >= axis.end:
        return step.start
    return axis.end if end > axis.end else None


def _longest_run(offered: Bools) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], offered.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))
