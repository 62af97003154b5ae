"""The rules of the intake a second time, by plain loops over instants, and offers and contexts drawn at random.

Nothing here knows `coflex.market.intake` but its context: no masks, no sums kept, every offer held against every other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import strategies as st

from coflex.domain.clearing import Holding, Status
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.product import Product, QuantityKind
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction
from coflex.domain.unit import Group, Level, Scope, Technology, Unit
from coflex.market.design import DistributionGrid, SessionPlan, load_design, schedule
from coflex.market.intake import IntakeContext
from coflex.market.ledger import assign_over

ROME = ZoneInfo("Europe/Rome")
QUARTER = timedelta(minutes=15)
# Days of 92, 96 and 100 quarter-hours.
SPRING, DAY, AUTUMN = date(2016, 3, 27), date(2016, 7, 5), date(2016, 10, 30)

Found = set[tuple[str, str]]


def session(day: date, *, sees_grid: bool = False, firm_quarters: int | None = None) -> SessionPlan:
    """The first local session of a day, over all of it; groups may offer unless it sees the grid."""
    plan = next(plan for plan in schedule(load_design("beflexible_six"), day, ROME) if plan.id == "local-1")
    if not sees_grid:
        grid = plan.session.grid.model_copy(update={"distribution": DistributionGrid.NONE})
        plan = replace(plan, session=plan.session.model_copy(update={"grid": grid}))
    return plan if firm_quarters is None else replace(plan, firm=replace(plan.horizon, count=firm_quarters))


def label(instant: datetime) -> str:
    return instant.astimezone(ROME).isoformat(timespec="minutes")


# ---------------------------------------------------------------- the rules again


class Plain:
    """What one session takes, the slow way. `taken` grows with each parcel that has no fault."""

    def __init__(self, plan: SessionPlan, context: IntakeContext) -> None:
        self.plan, self.context = plan, context
        self.instants = [plan.horizon.start + t * QUARTER for t in range(plan.horizon.count)]
        self.taken: list[Offer] = list(context.taken)

    def take(self, parcel: Sequence[Offer]) -> Found:
        accepted, found = self.judge(parcel)
        if not found:
            self.taken += accepted
        return found

    def judge(self, parcel: Sequence[Offer]) -> tuple[list[Offer], Found]:
        """What is accepted, by receipt, and (place, code) of every fault."""
        ordered = sorted(parcel, key=lambda o: (o.receipt, o.id, o.provider))
        found: Found = set()
        clean = []
        for i, offer in enumerate(ordered):
            mine = {self._place(offer, *where, code=code) for *where, code in self._alone(offer)}
            mine |= {self._place(offer, code=code) for code in self._named(offer, i, ordered)}
            found |= mine
            clean += [] if mine else [offer]
        dear, doubled = self._dear(clean), self._doubled(clean)
        found |= set(dear.values()) | set(doubled.values())
        # Of an offer that has both, the second is told.
        found -= {dear[name] for name in dear if name in doubled}
        accepted: list[Offer] = []
        for offer in clean:
            if offer.id not in dear and offer.id not in doubled:
                more = self._more_than_qualified(offer, [*self.taken, *accepted])
                found |= more
                accepted += [] if more else [offer]
        return accepted, found

    def _more_than_qualified(self, offer: Offer, before: Sequence[Offer]) -> Found:
        """The first quarter-hour in which the offers under one qualification come to more than it."""
        limit = self.limit(offer)
        if limit is None:
            return set()
        beside = [one for one in before if one.direction is offer.direction and self.limit(one) == limit]
        for at in sorted(self.kw(offer)):
            kw: dict[str, int] = {}
            for one in [*beside, offer]:
                key = f"offer {one.id}" if one.exclusive is None else f"label {one.exclusive}"
                kw[key] = max(kw.get(key, 0), self.kw(one).get(at, 0))
            if sum(kw.values()) > limit.kw(offer.direction):
                return {self._place(offer, label(at), code="above_qualified")}
        return set()

    def limit(self, offer: Offer) -> ProductLimit | None:
        """Of the qualification under which something is offered."""
        qualified = (self.context.products_of or {}).get(offer.unit or offer.group or "", {})
        return qualified.get(offer.product) if self.own(offer) else None

    def given(self, offer: Offer, at: datetime) -> tuple[int, int, int]:
        """The caps of an offer: of its units, inside the qualification under which they are offered."""
        limit, caps = self.limit(offer), self.caps(self.members(offer), offer.direction, at)
        most = caps[0] if limit is None else limit.kw(offer.direction)
        return min(caps[0], most), min(caps[1], most), min(caps[2], most)

    def _place(self, offer: Offer, *where: str, code: str) -> tuple[str, str]:
        return ", ".join([f"offer {offer.id}", *where]), code

    # ------------------------------------------------------------ quantities by instant

    def kw(self, offer: Offer) -> dict[datetime, int]:
        """kW above zero in each quarter-hour of the horizon that has any."""
        found: dict[datetime, int] = {}
        for step in offer.steps:
            for i, kw in enumerate(step.quantity_kw):
                at = step.start + i * QUARTER
                if at in self.instants and kw > 0:
                    found[at] = found.get(at, 0) + kw
        return found

    def members(self, offer: Offer) -> tuple[str, ...]:
        if offer.group is None and offer.unit in self.context.units:
            return (str(offer.unit),)
        if offer.unit is None and offer.group in self.context.groups:
            return self.context.groups[str(offer.group)].units
        return ()

    def own(self, offer: Offer) -> bool:
        unit, group = self.context.units.get(offer.unit or ""), self.context.groups.get(offer.group or "")
        return offer.provider in [one.provider for one in (unit, group) if one is not None]

    def caps(self, units: Sequence[str], direction: Direction, at: datetime) -> tuple[int, int, int]:
        """Qualified, of that not held, of that declared."""
        c, totals = self.context, [0, 0, 0]
        for unit in units:
            limit = free = c.qualified_kw.get((unit, direction), 0)
            holding = c.held.get((unit, at))
            if holding is not None:
                mine = holding.buyer in c.buyers and holding.status is Status.PRELIMINARY
                free = limit if mine else 0
            given = free
            if unit in c.available_kw:
                given = min(free, int(c.available_kw[unit][direction is Direction.DOWN][self.instants.index(at)]))
            totals = [a + b for a, b in zip(totals, (limit, free, given), strict=True)]
        return totals[0], totals[1], totals[2]

    # ------------------------------------------------------------ an offer alone

    def _alone(self, offer: Offer) -> Iterator[tuple[str, ...]]:
        yield from [(code,) for code in self._gate(offer)]
        yield from [(code,) for code in self._seller(offer)]
        yield from [(code,) for code in self._product(offer)]
        yield from [(code,) for code in self._terms(offer)]
        for step in offer.steps:
            yield from self._step(offer, step)
        yield from self._order(offer)
        if offer.block:
            yield from self._block(offer)
        yield from self._amounts(offer)
        yield from self._lasts(offer, [offer])

    def _gate(self, offer: Offer) -> Iterator[str]:
        if offer.session != self.plan.id:
            yield "unknown_session"
        if offer.received_at >= self.plan.closes:
            yield "after_gate"
        if offer.received_at < self.plan.opens:
            yield "before_gate"
        if offer.valid_until and offer.valid_until <= self.plan.closes:
            yield "expired"

    def _seller(self, offer: Offer) -> Iterator[str]:
        c = self.context
        if offer.provider not in [one.provider for one in (*c.units.values(), *c.groups.values())]:
            yield "unknown_provider"
        if all(buyer == offer.provider for buyer in c.buyers):
            yield "own_account"
        if [offer.unit, offer.group].count(None) != 1:
            yield "unit_or_group"
        if offer.unit is not None:
            if offer.unit not in c.units:
                yield "unknown_unit"
            elif c.units[offer.unit].provider != offer.provider:
                yield "foreign_unit"
        if offer.group is not None:
            yield from self._group(offer, offer.group)
        if self.own(offer):
            for unit in self.members(offer):
                if unit in c.units and c.levels.get(unit) not in self.plan.session.sellers.levels:
                    yield "level"
                if unit in c.barred:
                    yield "barred"
            name = offer.unit or offer.group or ""
            if self.members(offer) and c.products_of is not None and offer.product not in c.products_of.get(name, ()):
                yield "not_qualified"

    def _group(self, offer: Offer, name: str) -> Iterator[str]:
        if name not in self.context.groups:
            yield "unknown_group"
            return
        group = self.context.groups[name]
        if group.provider != offer.provider:
            yield "foreign_group"
        if group.scope is not Scope.LOCAL:
            yield "group_scope"
        if group.product != offer.product:
            yield "group_product"
        if self.plan.session.grid.distribution is not DistributionGrid.NONE:
            yield "group_without_place"

    def _product(self, offer: Offer) -> Iterator[str]:
        product = self.context.products.get(offer.product)
        if product is None:
            yield "unknown_product"
            return
        if product.scope is not Scope.LOCAL:
            yield "product_session"
        if offer.direction not in product.directions:
            yield "direction"
        if not product.divisible and not offer.block:
            yield "indivisible"

    def _terms(self, offer: Offer) -> Iterator[str]:
        numbers = sorted({step.number for step in offer.steps})
        if numbers and numbers != [i + 1 for i in range(len(numbers))]:
            yield "step_numbers"
        if offer.min_quantity_kw < 0:
            yield "negative_minimum"
        if offer.max_periods is not None and offer.max_periods <= 0:
            yield "max_periods"
        if offer.energy_limit_kwh is not None and offer.energy_limit_kwh <= 0:
            yield "energy_limit_kwh"
        if offer.block and len(numbers) >= 2:
            yield "block_steps"
        if sum(max(0, kw) for step in offer.steps for kw in step.quantity_kw) == 0:
            yield "empty"

    def _step(self, offer: Offer, step: OfferStep) -> Iterator[tuple[str, ...]]:
        number, product = f"step {step.number}", self.context.products.get(offer.product)
        here = (number, label(step.start))
        if not step.price_eur_mwh.is_finite():
            yield *here, "price_not_finite"
        elif product and step.price_eur_mwh > product.price_cap_eur_mwh:
            yield *here, "price_cap"
        elif product and step.price_eur_mwh < -product.price_cap_eur_mwh:
            yield *here, "price_floor"
        cells = [step.start + i * QUARTER for i in range(len(step.quantity_kw))] or [step.start]
        if (step.start - self.instants[0]) % QUARTER != timedelta(0):
            yield *here, "off_quarter_hour"
        elif outside := [at for at in cells if at not in self.instants]:
            yield number, label(outside[0]), "outside_horizon"
        for at, kw in zip(cells, step.quantity_kw, strict=False):
            if kw < 0:
                yield number, label(at), "negative"
            if product and kw % product.tick_kw:
                yield number, label(at), "tick"

    def _order(self, offer: Offer) -> Iterator[tuple[str, ...]]:
        """Steps of a number apart in time; in each quarter-hour a price above those of all lower numbers."""
        for number in {step.number for step in offer.steps}:
            mine = sorted((s for s in offer.steps if s.number == number), key=lambda s: s.start)
            for i, step in enumerate(mine):
                if any(step.start < other.start + len(other.quantity_kw) * QUARTER for other in mine[:i]):
                    yield f"step {number}", label(step.start), "overlap"
        for at in self.instants:
            prices: dict[int, Decimal] = {}
            for step in offer.steps:
                covered = [step.start + i * QUARTER for i in range(len(step.quantity_kw))]
                if step.price_eur_mwh.is_finite() and at in covered:
                    prices[step.number] = step.price_eur_mwh
            for number, price in prices.items():
                if any(other < number and price <= prices[other] for other in prices):
                    yield f"step {number}", label(at), "price_order"

    def _block(self, offer: Offer) -> Iterator[tuple[str, ...]]:
        kw = self.kw(offer)
        firm = [at for at in kw if self.plan.firm.start <= at < self.plan.firm.end]
        later = [at for at in kw if at >= self.plan.firm.end]
        if firm and later:
            yield label(self.plan.firm.end), "block_across"
        runs = [0]
        for at in self.instants:
            runs.append(runs[-1] + 1 if at in kw else 0)
        if offer.max_periods is not None and max(runs) > offer.max_periods:
            yield ("block_periods",)
        if offer.energy_limit_kwh is not None and sum(kw.values()) > 4 * offer.energy_limit_kwh:
            yield ("block_energy",)

    def _amounts(self, offer: Offer) -> Iterator[tuple[str, ...]]:
        product = self.context.products.get(offer.product)
        for at, kw in self.kw(offer).items():
            if product and kw < product.min_quantity_kw:
                yield label(at), "below_product_minimum"
            if kw < offer.min_quantity_kw:
                yield label(at), "minimum_above_quantity"
            if self.members(offer) and self.own(offer):
                qualified, free, given = self.given(offer, at)
                if kw > qualified:
                    yield self._step_above(offer, at, qualified), label(at), "above_qualified"
                if min(kw, qualified) > free:
                    yield self._step_above(offer, at, free), label(at), "held"
                if min(kw, free) > given:
                    yield self._step_above(offer, at, given), label(at), "above_available"

    def _step_above(self, offer: Offer, at: datetime, cap: int) -> str:
        for number in sorted({step.number for step in offer.steps}):
            so_far = [step for step in offer.steps if step.number <= number]
            if self.kw(replace(offer, steps=tuple(so_far))).get(at, 0) > cap:
                return f"step {number}"
        raise AssertionError("the offer is not above the cap")

    # ------------------------------------------------------------ offers together

    def _named(self, offer: Offer, place: int, ordered: Sequence[Offer]) -> Iterator[str]:
        before = [*self.taken, *ordered[:place]]
        alike = [other for other in ordered[place + 1 :] if (other.id, other.receipt) == (offer.id, offer.receipt)]
        if alike or any(other.id == offer.id for other in before):
            yield "duplicate_id"
        owners = [other.provider for other in before if offer.exclusive and other.exclusive == offer.exclusive]
        if owners and owners[0] != offer.provider:
            yield "foreign_label"

    def _apart(self, one: Offer, other: Offer) -> bool:
        """Whether both may be taken."""
        return one.exclusive is None or one.exclusive != other.exclusive

    def _doubled(self, clean: Sequence[Offer]) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        before = list(self.taken)
        for offer in clean:
            rivals = [
                (at, unit)
                for unit in self.members(offer)
                for other in sorted(before, key=lambda o: (o.receipt, o.id, o.provider))
                if unit in self.members(other) and other.direction is offer.direction and self._apart(offer, other)
                for at in self.instants
                if at in self.kw(offer) and at in self.kw(other)
            ]
            if rivals:
                found[offer.id] = self._place(offer, label(rivals[0][0]), code="offered_twice")
            else:
                before.append(offer)
        return found

    def _dear(self, clean: Sequence[Offer]) -> dict[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = {}
        before = list(self.taken)
        for offer in clean:
            seller = (offer.unit, offer.group, offer.direction)
            beside = [other for other in before if (other.unit, other.group, other.direction) == seller]
            faults = []
            if any(self._apart(offer, other) for other in beside):
                faults = list(self._lasts(offer, [*beside, offer]))
            if faults:
                *where, code = faults[0]
                found[offer.id] = self._place(offer, *where, code=code)
            else:
                before.append(offer)
        return found

    def _lasts(self, offer: Offer, offers: Sequence[Offer]) -> Iterator[tuple[str, ...]]:
        """Whether the energy lasts for some offers of one seller, of those that exclude each other the largest."""
        units, way = self.members(offer), int(offer.direction is Direction.DOWN)
        left = [self.context.energy_kwh.get(unit, (np.inf, np.inf))[way] for unit in units]
        if not self.own(offer) or all(np.isinf(left)):
            return
        choices = [[o for o in offers if not self._apart(o, one) or o is one] for one in offers]
        choices = [choice for i, choice in enumerate(choices) if choice[0] is offers[i]]
        if offer.unit is not None:
            if sum(max(self._kwh(one) for one in choice) for choice in choices) > left[0] + 1e-6:
                yield ("above_energy",)
            return
        free = np.array([[self.caps((unit,), offer.direction, at)[2] for at in self.instants] for unit in units])
        wanted = [
            min(sum(max(self.kw(o).get(at, 0) for o in choice) for choice in choices), int(free[:, t].sum()))
            for t, at in enumerate(self.instants)
        ]
        _, misfit = assign_over(np.array(wanted), free, np.array(left), 0.25, units)
        if misfit is not None:
            yield label(self.instants[misfit]), "above_energy"

    def _kwh(self, offer: Offer) -> float:
        kwh = sum(min(kw, self._given(offer, at)) for at, kw in self.kw(offer).items()) / 4
        return kwh if offer.energy_limit_kwh is None else min(kwh, offer.energy_limit_kwh)

    def _given(self, offer: Offer, at: datetime) -> int:
        return self.given(offer, at)[2]


# ---------------------------------------------------------------- a small register


def product(name: str, **changes: object) -> Product:
    given = Product(
        id=name,
        scope=Scope.LOCAL,
        kind=QuantityKind.ACTIVE_ENERGY,
        directions=(Direction.UP, Direction.DOWN),
        resolution_s=900,
        tick_kw=5,
        min_quantity_kw=10,
        full_activation_time_s=900,
        price_cap_eur_mwh=Decimal(400),
        divisible=True,
        symmetric=False,
        tolerance=Decimal("0.1"),
        penalty_share=Decimal("0.5"),
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def unit(name: str, provider: str, kw: int = 100) -> Unit:
    return Unit(
        id=name,
        category="load",
        technology=Technology.BATTERY,
        connection_point=f"cp-{name}",
        element=name,
        provider=provider,
        owner=provider,
        balance_responsible_party="brp",
        up_kw=kw,
        down_kw=kw,
        tan_phi=0.0,
        preparation_period_s=0,
        ramping_period_s=0,
        full_activation_time_s=900,
        deactivation_period_s=0,
        min_quantity_kw=0,
        max_quantity_kw=kw,
        min_duration_s=900,
        max_duration_s=86400,
        recovery_time_s=0,
    )


UNITS = {name: unit(name, "anna") for name in ("a1", "a2", "a3", "t1")} | {"b1": unit("b1", "bruno")}
GROUPS = {
    "ga": Group("ga", "anna", Scope.LOCAL, "cm", "p1", ("a1", "a2"), "brp"),
    "gb": Group("gb", "bruno", Scope.LOCAL, "cm", "p1", ("b1",), "brp"),
    "gw": Group("gw", "anna", Scope.GLOBAL, "cm", "p1", ("a3",), "brp"),
    "gv": Group("gv", "anna", Scope.LOCAL, "vc", "p1", ("a2", "a3"), "brp"),
}
PRODUCTS = {
    "cm": product("cm"),
    "vc": product("vc", tick_kw=1),
    "whole": product("whole", divisible=False),
    "upward": product("upward", directions=(Direction.UP,)),
    "mfrr": product("mfrr", scope=Scope.GLOBAL),
}


def plain_context(plan: SessionPlan, **changes: object) -> IntakeContext:
    """A register in which nothing is in the way of its units' 100 kW."""
    base = IntakeContext(
        units=UNITS,
        groups=GROUPS,
        products=PRODUCTS,
        levels={name: Level.TRANSMISSION if name == "t1" else Level.DISTRIBUTION for name in UNITS},
        buyers=("dso",),
        qualified_kw={(name, direction): 100 for name in UNITS for direction in Direction},
        available_kw={},
        held={},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def plain_offer(plan: SessionPlan, name: str = "o1", **changes: object) -> Offer:
    """An offer of unit a1, 40 and 30 kW from the fifth quarter-hour on."""
    given = Offer(
        id=name,
        receipt=1,
        received_at=plan.opens,
        session=plan.id,
        provider="anna",
        product="cm",
        direction=Direction.UP,
        unit="a1",
        group=None,
        steps=(stretch(plan, 4, (40, 30)),),
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def stretch(plan: SessionPlan, first: int, kw: tuple[int, ...], price: str = "80", number: int = 1) -> OfferStep:
    return OfferStep(number, plan.horizon.start + first * QUARTER, Decimal(price), kw)


# ---------------------------------------------------------------- at random


@st.composite
def contexts(draw: st.DrawFn, plan: SessionPlan) -> IntakeContext:
    """Contexts with holders, declarations, little energy, barred units and missing qualifications."""
    held = {}
    for _ in range(draw(st.integers(0, 3))):
        name, t = draw(st.sampled_from(["a1", "a2", "b1"])), draw(st.integers(4, 12))
        buyer, status = draw(st.sampled_from(["dso", "tso"])), draw(st.sampled_from(Status))
        start = plan.horizon.start + t * QUARTER
        held[name, start] = Holding(name, start, "global-1", buyer, Direction.UP, 50, "earlier", status)
    kw = st.sampled_from([0, 40, 100, 150])
    declared = {}
    for name in draw(st.sets(st.sampled_from(["a1", "a2", "b1"]))):
        some = draw(st.lists(kw, min_size=1, max_size=5))
        rows = [np.resize(some, plan.horizon.count), np.resize(some[::-1], plan.horizon.count)]
        declared[name] = (rows[0], rows[1])
    energy = st.sampled_from([10.0, 30.0, 60.0, 120.0, np.inf])
    return plain_context(
        plan,
        held=held,
        available_kw=declared,
        energy_kwh=draw(st.dictionaries(st.sampled_from(["a1", "a2", "b1"]), st.tuples(energy, energy))),
        barred=draw(
            st.dictionaries(st.sampled_from(["a2", "b1"]), st.just("its owner has given no consent"), max_size=1)
        ),
        products_of=draw(st.none() | qualifications()),
    )


@st.composite
def qualifications(draw: st.DrawFn) -> dict[str, dict[str, ProductLimit]]:
    """What groups are qualified for by test, and their units with them; "gv" is for "vc" where it is at all."""
    found: dict[str, dict[str, ProductLimit]] = {}
    kw = st.sampled_from([0, 30, 60, 120, 200, 10**6])
    tests = [("ga", "cm"), ("gb", "cm"), ("gw", "cm"), *draw(st.sampled_from([[], [("gv", "vc")]]))]
    for group, product in tests:
        limit = ProductLimit(group, product, draw(kw), draw(kw), GROUPS[group].units)
        for name in (group, *limit.units):
            found.setdefault(name, {})[product] = limit
    return found


ODD_TERMS: list[dict[str, object]] = [
    {"session": "local-9"},
    {"provider": "bruno"},
    {"provider": "carla"},
    {"unit": None},
    {"unit": "a9", "group": None},
    {"unit": "t1", "group": None},
    {"unit": "b1", "group": None},
    {"unit": None, "group": "g9"},
    {"unit": None, "group": "gw"},
    {"unit": None, "group": "gv"},
    {"product": "gas"},
    {"product": "vc"},
    {"product": "whole"},
    {"product": "upward"},
    {"product": "mfrr"},
    {"min_quantity_kw": -1},
    {"min_quantity_kw": 30},
    {"max_periods": 0},
    {"max_periods": 2, "block": True},
    {"energy_limit_kwh": 0},
    {"energy_limit_kwh": 5},
    {"energy_limit_kwh": 5, "block": True},
    {"block": True},
    {"steps": ()},
]


@st.composite
def offers(draw: st.DrawFn, plan: SessionPlan, name: str) -> Offer:
    """Offers near each other in time, most of them sound; one in six or so has odd terms or odd steps."""
    odd = draw(st.integers(0, 5)) == 0
    kw = st.sampled_from([10, 20, 40, 100] + ([-5, 0, 3, 5, 105] if odd else []))
    first, price, steps = draw(st.integers(3, 16)), 10, []
    for number in range(1, draw(st.sampled_from([1, 1, 2, 3])) + 1):
        begin = draw(st.sampled_from([first, first, first + 1, *([-1, plan.horizon.count - 1, 200] if odd else [])]))
        price += draw(st.integers(0 if odd else 1, 9))
        amounts = tuple(draw(st.lists(kw, min_size=0 if odd else 1, max_size=4)))
        value = draw(st.sampled_from([str(price), "401", "-401", "NaN", "Infinity"])) if odd else str(price)
        step = stretch(plan, begin, amounts, value, draw(st.sampled_from([number, 1, 2])) if odd else number)
        late = odd and draw(st.integers(0, 5)) == 0
        steps.append(replace(step, start=step.start + timedelta(minutes=5)) if late else step)
    seller = draw(st.sampled_from(["a1", "a1", "a2", "a3", "ga", "b1", "gb"]))
    who: dict[str, object] = {"unit": None, "group": seller} if seller in GROUPS else {"unit": seller}
    terms = draw(st.sampled_from(ODD_TERMS)) if odd and draw(st.booleans()) else {}
    label = draw(st.sampled_from([None, None, "one", "two"]))
    at = plan.opens + timedelta(seconds=draw(st.sampled_from([0, 1, *([-1, 10**7] if odd else [])])))
    sound: dict[str, object] = {
        "receipt": draw(st.integers(1, 9)),
        "received_at": at,
        "valid_until": draw(st.sampled_from([None, plan.closes, plan.closes + QUARTER])) if odd else None,
        "provider": "bruno" if seller in ("b1", "gb") else "anna",
        "direction": draw(st.sampled_from(Direction)),
        "exclusive": label if seller not in ("b1", "gb") or odd or label is None else f"{label}'s",
        "steps": tuple(steps),
        **who,
    }
    return plain_offer(plan, name, **(sound | terms))


@st.composite
def parcels(draw: st.DrawFn, plan: SessionPlan, most: int = 5) -> list[list[Offer]]:
    """Some parcels one after another; now and then an id stands twice."""
    count, found = 0, []
    for _ in range(draw(st.integers(1, most))):
        parcel = []
        for _ in range(draw(st.sampled_from([1, 1, 1, 2, 4]))):
            count += 1
            again = draw(st.integers(0, 9)) == 0
            parcel.append(draw(offers(plan, f"o{max(1, count - 1) if again else count}")))
        found.append(parcel)
    return found
