"""The demo: a small market that runs by itself, without any data from elsewhere.

Two feeders of 20 kV with photovoltaics that lift the voltage at noon and an evening peak that bends it down; about
twenty units of four providers on them, three power plants above. The week of 5 July 2016 is replayed on the clock of a
sandbox. `seed` gives the commands that open the tenant "demo" and fill its register, `Counterparts` those with which
the system operator asks and the providers offer: the same commands as anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.clearing import Holding
from coflex.domain.offer import Offer
from coflex.domain.party import Role
from coflex.domain.product import Product
from coflex.domain.qualification import StaticMode
from coflex.domain.quantity import Direction, Floats
from coflex.domain.series import Series
from coflex.domain.time import QUARTER, Axis, delivery_day, midnight
from coflex.domain.unit import Group, Scope, Technology, Unit
from coflex.grid.tables import Bus, Generator, GridTables, Line, Load, Source, Switch, Transformer
from coflex.market.design import Needs, SessionPlan, load_design, schedule
from coflex.market.engine import SessionState
from coflex.market.ledger import changeable, free_units
from coflex.process.ports import Case, CaseSettings, DeviceSettings, SessionCall, TsoSettings
from coflex.register.consents import ConsentScope
from coflex.register.market import SessionEntry, SessionRequests
from coflex.register.parties import PartyEntry
from coflex.register.prequalification import (
    GridPrequalification,
    GridStatus,
    ProductQualification,
    grid_id,
    qualification_id,
)
from coflex.register.products import ProductEntry
from coflex.register.resources import GroupEntry, PointEntry, UnitEntry, UnitStatus
from coflex.service.books import books
from coflex.service.gates import plan_of
from coflex.service.ledger import buyer_of, by_unit, free_kw, holdings
from coflex.service.limits import qualified_kw
from coflex.service.machine import encode
from coflex.service.ports import Command
from coflex.service.state import State
from coflex.service.verbs.access import FirstClientForm
from coflex.service.verbs.consents import ConsentForm
from coflex.service.verbs.offers import OfferForm, StepForm
from coflex.service.verbs.parties import Approval, Registration
from coflex.service.verbs.prequalification import GridCheckRequest, GridRequest, OwnAnswer
from coflex.service.verbs.product_tests import QualificationRequest, Temporary
from coflex.service.verbs.products import ProductForm
from coflex.service.verbs.resource_forms import GroupForm, PerimeterForm, PointForm, UnitForm
from coflex.service.verbs.sessions import AskedForm, Requests
from coflex.service.verbs.tenants import OpenTenant
from coflex.simulation.cases import draw_case
from coflex.simulation.providers import SimulatedProviders, nominate
from coflex.simulation.tso import SimulatedTso

TENANT = "demo"
CLIENT = "demo"
DAY, DAYS = date(2016, 7, 5), 7
ZONE = ZoneInfo("Europe/Berlin")
UNITS, PROVIDERS = 22, 4
# The clock runs a day in half an hour. It begins so that the first gate opens a minute later on ours, time enough to
# qualify everybody, and five minutes later at least on its own.
SPEED = 48
AHEAD, LEAST_AHEAD = timedelta(minutes=1), timedelta(minutes=5)
CONSENT_DAYS = 300
OPERATOR = "operator"
# Days of profiles before the first delivery day: four weeks for lights, five to choose a forecast.
_HISTORY_DAYS = 38

# An aluminium cable of 185 mm2: ohm, ohm and nF per km, A.
_R, _X, _C, _I_MAX = 0.161, 0.117, 273.0, 300.0
# (from, to, km) and MW of load at each bus, feeder by feeder; the last two buses of a feeder carry the sun.
_NORTH = (("north 1", 4.0, 0.7), ("north 2", 3.0, 0.8), ("north 3", 2.5, 0.9), ("north 4", 2.0, 0.7),
          ("north 5", 2.0, 0.9), ("north 6", 2.0, 0.6), ("north 7", 1.5, 0.6))  # fmt: skip
_SOUTH = (("south 1", 5.0, 0.9), ("south 2", 3.5, 0.8), ("south 3", 3.0, 0.9), ("south 4", 2.5, 0.8),
          ("south 5", 2.0, 0.7), ("south 6", 2.0, 0.5))  # fmt: skip
_SUN_MW = {"north 3": 1.2, "north 5": 2.0, "north 6": 2.4, "north 7": 2.6,
           "south 3": 1.5, "south 5": 2.2, "south 6": 2.4}  # fmt: skip
_V_MIN, _V_MAX = 0.98, 1.035
# Where the substation stands, and how far a km of feeder is on the map.
_LONGITUDE, _LATITUDE, _DEGREES_KM = 11.0, 48.5, 0.009


@lru_cache(maxsize=1)
def demo_case() -> Case:
    """Grid, profiles and register of the demo."""
    settings = CaseSettings(
        id=TENANT,
        title="Two feeders of Sonnfeld",
        grid="made for the demo",
        day=DAY,
        zone="Europe/Berlin",
        seed=5,
        design="beflexible_six",
        load_scale=1.0,
        pv_scale=1.0,
        tso=TsoSettings(up_mw=1.0, down_mw=1.0, price_limit_eur_mwh=Decimal(300)),
        devices=DeviceSettings(failure_share=0.05, noise_share=0.0),
    )
    return draw_case(demo_grid(), demo_profiles(), settings, UNITS, PROVIDERS)


def demo_grid() -> GridTables:
    """Two radial feeders behind one transformer, with an open ring between their ends."""
    feeders = (("N", 1.0, _NORTH), ("S", -1.0, _SOUTH))
    buses = [_bus("above", 110.0, 0.0, ""), _bus("substation", 20.0, 0.0, "")]
    lines, loads = [], []
    for feeder, side, stretch in feeders:
        before, km = "substation", 0.0
        for name, length, mw in stretch:
            km += length
            buses.append(_bus(name, 20.0, side * km, feeder))
            lines.append(_line(before, name, length))
            loads.append(Load(f"load {name}", name, mw, round(0.3 * mw, 3), "load", "load"))
            before = name
    lines.append(_line(_NORTH[-1][0], _SOUTH[-1][0], 3.0))
    ring = lines[-1].line
    return GridTables(
        buses=tuple(buses),
        lines=tuple(lines),
        transformers=(
            Transformer(
                "transformer", "above", "substation", 25.0, 110.0, 20.0, 11.2, 0.276, 28.0, 0.071, 150.0, "hv", 0, -9,
                9, 1.5, 1, 100.0,
            ),
        ),
        switches=(Switch("ring", "line", _SOUTH[-1][0], ring, False),),
        sources=(Source("grid above", "above", 1.02),),
        loads=tuple(loads),
        generators=tuple(
            Generator(f"pv {bus}", bus, mw, 0.0, Technology.PV.value, "sun") for bus, mw in _SUN_MW.items()
        ),
        storages=(),
    )  # fmt: skip


def _bus(name: str, kv: float, km: float, feeder: str) -> Bus:
    bend = 0.3 * np.sin(km / 4.0)
    longitude = round(_LONGITUDE + _DEGREES_KM * 1.5 * float(bend), 6)
    return Bus(name, kv, _V_MIN, _V_MAX, longitude, round(_LATITUDE + _DEGREES_KM * km, 6), feeder)


def _line(a: str, b: str, km: float) -> Line:
    return Line(f"{a} - {b}", a, b, km, round(_R * km, 6), round(_X * km, 6), round(_C * km, 3), _I_MAX, 100.0)


def demo_profiles() -> Series:
    """Shares of each element's power: a load with an evening peak, quieter at weekends, and clear and cloudy days."""
    start = midnight(DAY - timedelta(days=_HISTORY_DAYS), ZONE)
    axis = Axis(start, (midnight(DAY + timedelta(days=DAYS + 1), ZONE) - start) // QUARTER)
    clock, day = np.arange(len(axis)) % 96 / 96, np.arange(len(axis)) // 96
    weekday = (np.arange(day[-1] + 1) + (DAY - timedelta(days=_HISTORY_DAYS)).weekday()) % 7
    evening, morning = np.exp(-(((clock - 0.81) / 0.07) ** 2)), np.exp(-(((clock - 0.32) / 0.05) ** 2))
    load = 0.38 + 0.42 * evening + 0.18 * morning - 0.05 * (weekday >= 5)[day] + 0.02 * np.cos(1.7 * day)
    sun = np.maximum(0.0, np.sin(np.pi * (clock - 0.21) / 0.58)) * (0.9 + 0.1 * np.cos(2.3 * day))
    return Series(("load", "sun"), axis, np.round(np.vstack([load, sun]), 6))


# ---------------------------------------------------------------- the register, by commands


def seed(case: Case, name: str = TENANT, speed: int = SPEED) -> tuple[Command, ...]:
    """The commands that open the tenant on a case and fill its register, in their order, each under a key of its own,
    so that they can be given again after a crash. `name`: of the case, as the tenant keeps it.

    What follows from them (prequalification by the engine, then qualification) `Counterparts` bring to its end.
    """
    asked = [_tenant(case, name, speed), *_parties(case), *_catalogue(case), *_resources(case), *_groups_of(case)]
    return tuple(
        Command(TENANT, verb, subject, party, party, OPERATOR, encode(form), f"seed-{number:04d}")
        for number, (verb, subject, party, form) in enumerate(asked, start=1)
    )


def seeded(case: Case, state: State) -> bool:
    """Whether all of the seed was taken: a crash may have come between its commands."""
    found = (state.find(GroupEntry, group.id) for group in case.groups)
    return all(entry is not None and entry.status is not UnitStatus.NEW for entry in found)


def visitors(state: State) -> tuple[tuple[str, str], ...]:
    """A party of each kind that a visitor may want to be, and what it is."""
    wanted = (Role.MARKET_OPERATOR, Role.DSO, Role.TSO, Role.SERVICE_PROVIDER, Role.ASSET_OWNER)
    first = [(next((one.id for one in state.all(PartyEntry) if role in one.roles), ""), role) for role in wanted]
    return tuple((party, role.value.replace("_", " ")) for party, role in first if party)


def first_client(party: str, secret_hash: str) -> Command:
    """The command that gives a party its first client, with every scope."""
    body = encode(FirstClientForm(CLIENT, secret_hash))
    return Command(TENANT, "client.first", "", party, party, OPERATOR, body)


_Step = tuple[str, str, str, object]  # verb, subject, party, form


def _tenant(case: Case, name: str, speed: int) -> _Step:
    settings, profiles = case.settings, case.profiles.axis
    days = [settings.day + timedelta(days=n) for n in range(DAYS)]
    first = min(plan.opens for plan in schedule(load_design(settings.design), settings.day, case.zone))
    form = OpenTenant(
        title=settings.title,
        zone=settings.zone,
        design=settings.design,
        case=name,
        first_day=settings.day,
        last_day=max(day for day in days if delivery_day(day, case.zone).end <= profiles.end),
        starts=first - max(LEAST_AHEAD, speed * AHEAD),
        speed=speed,
        sandbox=True,
        price_limit_eur_mwh=settings.tso.price_limit_eur_mwh,
    )
    return "tenant.open", "market", _party(case, Role.MARKET_OPERATOR), form


def _party(case: Case, role: Role) -> str:
    """The first party with a role."""
    return next(party.id for party in sorted(case.parties, key=lambda one: one.id) if role in party.roles)


def _parties(case: Case) -> Iterator[_Step]:
    for party in case.parties:
        contract = "demo contract" if Role.SERVICE_PROVIDER in party.roles else None
        yield "party.register", "", party.id, Registration(party.id, party.roles, party.name, tso_contract=contract)
    for party in case.parties:
        yield "party.approve", party.id, _party(case, Role.MARKET_OPERATOR), Approval()


def _catalogue(case: Case) -> Iterator[_Step]:
    """Perimeters of the feeders, and the products."""
    for feeder in sorted({bus.perimeter for bus in case.grid.buses} - {""}):
        buses = tuple(bus.bus for bus in case.grid.buses if bus.perimeter == feeder)
        yield "perimeter.set", f"feeder-{feeder}", _party(case, Role.DSO), PerimeterForm(name=feeder, buses=buses)
    for product in case.products:
        buyer = _party(case, Role.DSO if product.scope is Scope.LOCAL else Role.TSO)
        yield "product.register", "", buyer, ProductForm(**_fields(product))


def _resources(case: Case) -> Iterator[_Step]:
    """Units with their connection points, their owners' consent, and the request to qualify them."""
    points = {point.id: PointForm(**_fields(point)) for point in case.points}
    until = midnight(case.settings.day + timedelta(days=CONSENT_DAYS), case.zone)
    for unit in case.units:
        form = UnitForm(**_fields(unit), point=points[unit.connection_point])
        yield "unit.register", "", unit.provider, form
        both = (ConsentScope.OFFER, ConsentScope.MEASURE)
        yield "consent.give", "", unit.owner, ConsentForm(unit=unit.id, provider=unit.provider, scope=both, ends=until)
        yield "unit.activate", unit.id, unit.provider, {}
    for provider in sorted({unit.provider for unit in case.units}):
        mine = tuple(unit.id for unit in case.units if unit.provider == provider)
        yield "grid_prequalification.request", "", provider, GridRequest(mine)
    yield "grid_check.request", "", _party(case, Role.DSO), GridCheckRequest(StaticMode.ONE_BY_ONE)
    for unit in case.units:
        if not unit.element:
            operator = next(point.system_operator for point in case.points if point.id == unit.connection_point)
            answer = OwnAnswer(GridStatus.APPROVED, "It is planned for in the grid above.", "connection contract")
            yield "grid_prequalification.answer", grid_id(unit.id, operator), operator, answer


def _groups_of(case: Case) -> Iterator[_Step]:
    for group in case.groups:
        yield "group.register", "", group.provider, GroupForm(**_fields(group))
        yield "group.activate", group.id, group.provider, {}


def _fields(record: object) -> dict[str, Any]:
    """The fields of a record of the register, as its form names them."""
    return {one.name: getattr(record, one.name) for one in fields(record)}  # type: ignore[arg-type]


# ---------------------------------------------------------------- counterparts


@dataclass(eq=False)
class Counterparts:
    """The demo's system operators and providers: what they would send now, each thing once.

    Groups whose units the grid lets give something ask for their qualification and get it for a time. The system
    operator asks as soon as a session is announced; providers offer once an open session is planned, from what they
    foresee of their units. After a restart all of them look at what is there already.
    """

    case: Case
    tenant: str = TENANT
    actor: str = "simulated"
    _sent: set[tuple[str, str]] = field(default_factory=set)

    def commands(self, state: State, now: datetime) -> tuple[Command, ...]:
        """Commands that are due at the tenant's time, groups first, then in the order of the sessions."""
        found = [one for entry in state.all(GroupEntry) for one in self._qualifying(state, entry, now)]
        found += [one for entry in state.all(SessionEntry) for one in self._of(state, entry)]
        return tuple(found)

    def _first(self, what: str, about: str) -> bool:
        """Whether something is done for the first time since this process began."""
        fresh = (what, about) not in self._sent
        self._sent.add((what, about))
        return fresh

    def _qualifying(self, state: State, entry: GroupEntry, now: datetime) -> Iterator[Command]:
        """Step by step towards the qualification of a group for its product."""
        group, id = entry.group, qualification_id(entry.id, entry.group.product)
        record = state.find(ProductQualification, id)
        if record is None and all(_answered(state, unit) for unit in group.units) and self._first("ask", id):
            power = qualified_kw(state, now)
            up, down = (sum(power.get((unit, way), 0) for unit in group.units) for way in Direction)
            body = encode(QualificationRequest(entry.id, group.product, up, down))
            yield self._command("product_qualification.request", "", group.provider, body, entry.id)
        elif record is not None and record.grant is None and record.testers and self._first("grant", id):
            body = encode(Temporary(now + timedelta(days=CONSENT_DAYS), "For the demo, until it is tested."))
            verb = "product_qualification.grant_temporarily"
            yield self._command(verb, id, record.testers[0], body, id)

    def _of(self, state: State, entry: SessionEntry) -> Iterator[Command]:
        if entry.state == SessionState.ANNOUNCED and state.find(SessionRequests, entry.id) is None:
            plan = plan_of(state, entry)
            if plan.session.needs is Needs.REQUESTS and self._first("request", entry.id):
                yield from self._requests(state, entry, plan)
        elif entry.state == SessionState.OPEN and entry.plan and self._first("offer", entry.plan):
            yield from self._offers(state, entry)

    def _requests(self, state: State, entry: SessionEntry, plan: SessionPlan) -> Iterator[Command]:
        product, buyer = _product(state, plan), buyer_of(state, plan)
        if product is None or not buyer:
            return
        settings = self.case.settings
        operator = SimulatedTso(settings.tso, settings.seed, plan.zone, buyer)
        asked = operator.requests(plan.id, plan.number, plan.horizon, product)
        forms = tuple(AskedForm(r.start, r.direction, r.asked_kw, r.price_limit_eur_mwh) for r in asked)
        yield self._command("request.submit", entry.id, buyer, encode(Requests(forms)), entry.id)

    def _offers(self, state: State, entry: SessionEntry) -> Iterator[Command]:
        call = session_call(state, entry)
        if call is None:
            return
        there = {offer.provider for offer in books(state).offers(entry.id)}
        by_provider: dict[str, list[Offer]] = {}
        for offer in SimulatedProviders(self.case.settings.seed, plan_of(state, entry).zone).offers(call):
            by_provider.setdefault(offer.provider, []).append(offer)
        for provider in sorted(by_provider.keys() - there):
            forms = [_form(offer) for offer in by_provider[provider]]
            yield self._command("offer.submit", entry.id, provider, encode(forms), entry.id)

    def _command(self, verb: str, subject: str, party: str, body: bytes, about: str) -> Command:
        return Command(self.tenant, verb, subject, party, party, self.actor, body, f"{self.actor}:{verb}:{about}")


def _answered(state: State, unit: str) -> bool:
    """Whether all operators concerned have answered a unit."""
    entry = state.find(UnitEntry, unit)
    point = state.find(PointEntry, entry.unit.connection_point) if entry is not None else None
    records = [state.find(GridPrequalification, grid_id(unit, one)) for one in (point.operators if point else ())]
    return bool(records) and all(record is not None and record.answer is not None for record in records)


def session_call(state: State, entry: SessionEntry) -> SessionCall | None:
    """What simulated providers need to know of an open session; None before it is planned."""
    plan, free, foreseen = plan_of(state, entry), free_kw(state, entry), by_unit(state, entry, "nomination")
    product = _product(state, plan)
    if free is None or foreseen is None or product is None:
        return None
    groups = _groups(state, plan)
    names = sorted({unit for group in groups for unit in group.units} & set(foreseen.names))
    units = tuple(state.get(UnitEntry, name).unit for name in names)
    nomination = nominate(foreseen, units)
    buyer, ledger = buyer_of(state, plan), holdings(state, entry.day)
    energy_up, energy_down = _energy_left(units, ledger, plan, buyer)
    return SessionCall(
        session=plan.id,
        scope=plan.scope,
        product=product,
        horizon=plan.horizon,
        firm=plan.firm,
        opens=plan.opens,
        closes=plan.closes,
        units=units,
        groups=groups,
        up_kw=np.minimum(nomination.up_kw, free[0].rows(names)),
        down_kw=np.minimum(nomination.down_kw, free[1].rows(names)),
        held=~free_units(ledger, names, buyer, plan.horizon),
        energy_up_kwh=energy_up,
        energy_down_kwh=energy_down,
    )


def _product(state: State, plan: SessionPlan) -> Product | None:
    """The product that a session trades."""
    of_scope = [one.product for one in state.all(ProductEntry) if one.product.scope is plan.scope]
    return next((one for one in of_scope if plan.session.product in (None, one.id)), None)


def _groups(state: State, plan: SessionPlan) -> tuple[Group, ...]:
    """Active groups that may sell in a session."""
    found = [one.group for one in state.all(GroupEntry) if one.status is UnitStatus.ACTIVE]
    return tuple(group for group in found if group.scope is plan.scope and _sells(state, plan, group.units[0]))


def _sells(state: State, plan: SessionPlan, unit: str) -> bool:
    point = state.find(PointEntry, state.get(UnitEntry, unit).unit.connection_point)
    return point is not None and point.point.level in plan.session.sellers.levels


def _energy_left(
    units: tuple[Unit, ...], ledger: tuple[Holding, ...], plan: SessionPlan, buyer: str
) -> tuple[Floats, Floats]:
    """kWh that units may still give over the day, up and down; infinite where nothing limits it."""
    used = {(unit.id, direction): 0.0 for unit in units for direction in Direction}
    for holding in ledger:
        mine = changeable(holding, buyer) and plan.horizon.covers(holding.start)
        if (holding.unit, holding.direction) in used and not mine:
            used[holding.unit, holding.direction] += holding.quantity_kw * plan.horizon.hours

    def left(unit: Unit, direction: Direction, energy_kwh: int | None) -> float:
        return np.inf if energy_kwh is None else max(0.0, energy_kwh - used[unit.id, direction])

    up = [left(unit, Direction.UP, unit.energy_up_kwh) for unit in units]
    return np.array(up), np.array([left(unit, Direction.DOWN, unit.energy_down_kwh) for unit in units])


def _form(offer: Offer) -> OfferForm:
    return OfferForm(
        id=offer.id,
        product=offer.product,
        direction=offer.direction,
        steps=tuple(StepForm(s.start, s.price_eur_mwh, s.quantity_kw, s.number) for s in offer.steps),
        unit=offer.unit,
        group=offer.group,
        min_quantity_kw=offer.min_quantity_kw,
        block=offer.block,
        max_periods=offer.max_periods,
        energy_limit_kwh=offer.energy_limit_kwh,
        exclusive=offer.exclusive,
        local_only=offer.local_only,
    )
