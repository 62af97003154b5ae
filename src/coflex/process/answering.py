"""Answering: what a running platform has computed outside of it, by the verbs of the day, as plain data.

A job brings the register and what the day's sessions decided so far; the case brings grid and profiles. From both a
store is filled as the verbs would have left it, one verb runs on it, and what it wrote and took away is the answer.
Nothing else enters: the same job on the same case gives the same bytes.

The register a session was planned with goes with it to its clearing, and on to the session that it forwards to. Offers
are held against the less of what was allowed then and at the gate, where it was settled whose they are. Units that the
case's grid does not know act outside of it. Parties offer within their qualified power and their owners' limits; the
platform nominates nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from coflex.domain.clearing import Award, Holding
from coflex.domain.errors import CoflexError, Finding, NotReady
from coflex.domain.light import DynamicLight
from coflex.domain.need import Request
from coflex.domain.offer import Offer
from coflex.domain.party import Party, Role
from coflex.domain.product import Product
from coflex.domain.qualification import LimitKind, ProductLimit, StaticLight, StaticMode, Verdict
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis
from coflex.domain.unit import ConnectionPoint, Group, Unit
from coflex.market.design import Design, SessionPlan, read_design
from coflex.market.engine import SessionState
from coflex.market.intake import IntakeContext, intake
from coflex.process.clear import clear
from coflex.process.day import SESSIONS, Day
from coflex.process.lookups import energy_left, free_power, qualified_kw
from coflex.process.plan import plan
from coflex.process.ports import Case, Store, Transaction
from coflex.process.qualify import qualify
from coflex.register.outcomes import (
    SessionOutcome,
    Step,
    UnitLimit,
    computed_with,
    keep_document,
    keep_series,
    kept_document,
    kept_series,
    outcome_id,
    pack,
    unpack,
)
from coflex.register.work import Answer, Job, Register, Work

R = TypeVar("R")
NewStore = Callable[[ZoneInfo], Store]
# Rows of earlier steps that a step of the day looks at.
STANDING = (DynamicLight, Request, Award, Holding)
# Series by unit; all others are by profile or substation.
BY_UNIT = ("nomination", "up", "down")
# Who takes part in every session of the operating day.
NEEDED = (Role.MARKET_OPERATOR, Role.DSO, Role.TSO, Role.REGISTER_OPERATOR)


def answer(job: Job, case: Case, new_store: NewStore) -> Answer:
    """The answer to a job on a case; why there is none, where a verb refuses. `new_store`: an empty one."""
    try:
        if job.work is Work.GRID_CHECK:
            return Answer(_encoded(_checked(job, case, new_store)))
        return Answer(_encoded(_session(job, case, new_store)))
    except CoflexError as fault:
        return Answer(fault="; ".join([str(fault), *map(str, getattr(fault, "findings", ()))]))


@lru_cache(maxsize=8)
def _design(text: str) -> Design:
    return read_design(text, "design")


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


# ---------------------------------------------------------------- a session's plan or result


def _session(job: Job, case: Case, new_store: NewStore) -> SessionOutcome:
    """Run plan or clear on what the day's sessions left."""
    scene = _Scene(job, case)
    session, store = scene.day.plan(job.session), new_store(scene.day.case.zone)
    with store.transaction() as t:
        scene.fill(t, session)
        left_out = scene.offer(t, session) if job.work is Work.CLEAR else ()
    recorder = _Recorder(store)
    if job.work is Work.PLAN:
        plan(scene.day, recorder, session, job.at, scene.nominate, _Asked(job.requests))
    else:
        clear(scene.day, recorder, session, job.at)
    given = scene.register_rows() if scene.looks_ahead else job.offers if job.work is Work.CLEAR else ()
    step = Step.PLAN if job.work is Work.PLAN else Step.RESULT
    return SessionOutcome(
        id=outcome_id(job.subject, step),
        day=job.day,
        session=job.session,
        step=step,
        at=job.at,
        buyer=scene.day.buyer(session),
        given=pack(given),
        added=pack(recorder.added),
        removed=pack(recorder.removed),
        documents=tuple(keep_document(name, body) for name, body in sorted(recorder.documents.items())),
        series=tuple(keep_series(name, series) for name, series in sorted(recorder.series.items())),
        left_out=left_out,
    )


@dataclass(frozen=True)
class _Asked:
    """The buyer's requests, as it sent them. Implements `process.ports.SystemOperator`."""

    asked: tuple[Request, ...]

    def requests(self, session: str, number: int, horizon: Axis, product: Product) -> Sequence[Request]:
        return [
            replace(one, session=session, product=product.id)
            for one in self.asked
            if horizon.covers(one.start) and one.direction in product.directions
        ]


class _Scene:
    """The day of a job: its register, its grid, and what its sessions left so far."""

    def __init__(self, job: Job, case: Case) -> None:
        self.job, self.case = job, case
        self.design = _design(job.design)

    @cached_property
    def day(self) -> Day:
        """The delivery day with the units of the job's register. Raises NotReady where a role is missing or the
        case's profiles do not hold the day."""
        register = self.register
        if self.job.buyer:
            register = _buying(register, self.job.buyer, self._bare.plan(self.job.session).session.buyers[0].role)
        _somebody(register)
        day = Day(_case(self.job, self.case, register), self.design)
        span, axis = self.case.profiles.axis, day.case.axis
        if axis.start < span.start or span.end < axis.end:
            raise NotReady(f"The case '{self.job.case}' has no profiles of {self.job.day}.", "Choose days it holds.")
        return day

    @cached_property
    def _bare(self) -> Day:
        """The delivery day without a register: its sessions alone."""
        return Day(_case(self.job, self.case, Register()), self.design)

    @cached_property
    def source(self) -> str:
        """The session whose plan looked ahead for this one: itself, or the one that forwards to it."""
        return self._bare.forwarder(self._bare.plan(self.job.session)).id

    @property
    def looks_ahead(self) -> bool:
        """Whether this step is a plan with a forecast of its own."""
        return self.job.work is Work.PLAN and self.source == self.job.session

    # ------------------------------------------------------------ the register

    @cached_property
    def register(self) -> Register:
        """The register that this step works with: of now for a plan that looks ahead, else of that plan, for a clearing
        as the gate found it; with every unit that is held in the day, whatever became of it."""
        base = self.job.register
        if not self.looks_ahead:
            base = self._planned_with(self.source)
        if self.job.work is Work.CLEAR:
            base = _at_gate(base, self.job.register)
        known = {unit.id for unit in base.units}
        gone = {holding.unit for holding in self.holdings} - known
        units, points = list(base.units), {point.id: point for point in base.points}
        for outcome in self.job.before:
            kept = {point.id: point for point in unpack(outcome.given, ConnectionPoint)}
            for unit in unpack(outcome.given, Unit):
                if unit.id in gone:
                    units.append(unit)
                    points.setdefault(unit.connection_point, kept[unit.connection_point])
                    gone.discard(unit.id)
        return replace(base, units=tuple(units), points=tuple(points[name] for name in sorted(points)))

    def _planned_with(self, source: str) -> Register:
        for outcome in self.job.before:
            if outcome.session == source and outcome.step is Step.PLAN:
                return Register(
                    parties=unpack(outcome.given, Party),
                    points=unpack(outcome.given, ConnectionPoint),
                    units=unpack(outcome.given, Unit),
                    groups=unpack(outcome.given, Group),
                    products=unpack(outcome.given, Product),
                    limits=unpack(outcome.given, UnitLimit),
                )
        raise NotReady(f"The session {source} is not planned.", "Plan it first.")

    def register_rows(self) -> tuple[object, ...]:
        one = self.register
        return (*one.parties, *one.points, *one.units, *one.groups, *one.products, *one.limits)

    @cached_property
    def limits(self) -> dict[str, UnitLimit]:
        return {limit.unit: limit for limit in self.register.limits}

    # ------------------------------------------------------------ what was decided

    @cached_property
    def rows(self) -> dict[type[Any], dict[Any, None]]:
        """Rows that stand, by kind, in the order in which they were written."""
        rows: dict[type[Any], dict[Any, None]] = {kind: {} for kind in STANDING}
        for outcome in self.job.before:
            for kind in STANDING:
                for gone in unpack(outcome.removed, kind):
                    del rows[kind][gone]
                rows[kind].update(dict.fromkeys(unpack(outcome.added, kind)))
        return rows

    @cached_property
    def holdings(self) -> tuple[Holding, ...]:
        return tuple(self.rows[Holding])

    def fill(self, t: Transaction, session: SessionPlan) -> None:
        """Leave a store as the verbs before this step would have left it."""
        t.add([record for kind in STANDING for record in self.rows[kind]])
        t.add([*self._forwarded(session), *self._lights()])
        for outcome in self.job.before:
            for document in outcome.documents:
                t.put_document(document.name, kept_document(document))
            for kept in outcome.series:
                t.put_series(kept.name, self._aligned(kept.name, kept_series(kept)))
        states = {}
        for one in self.job.before:
            states[one.session] = SessionState.OPEN if one.step is Step.PLAN else SessionState.PUBLISHED
        t.put_document(SESSIONS, {name: state.value for name, state in sorted(states.items())})

    def _forwarded(self, session: SessionPlan) -> list[Offer]:
        """Offers of the session that forwards to this one, of which some are for it alone; a provider may have used
        their names here again, so they have others."""
        if self.source == session.id:
            return []
        results = [one for one in self.job.before if (one.session, one.step) == (self.source, Step.RESULT)]
        offers = [offer for one in results for offer in computed_with(one)]
        return [replace(_kept(offer), id=f"{self.source}/{offer.id}") for offer in offers]

    def _lights(self) -> Iterator[StaticLight]:
        """The prequalified power as lights; one of nothing where there is no unit, for all there are have theirs."""
        for unit in self.day.units:
            limit = self.limits.get(unit.id)
            for direction in Direction:
                kw = 0 if limit is None else limit.up_kw if direction is Direction.UP else limit.down_kw
                yield _light(unit.id, direction, kw, unit.up_kw if direction is Direction.UP else unit.down_kw)
        if not self.day.units:
            yield _light("", Direction.UP, 0, 0)

    def _aligned(self, name: str, series: Series) -> Series:
        """Series by unit in the day's order of units; nothing for a unit that they do not hold. At the gate a unit has
        no more than it is allowed there, whatever it was planned with."""
        what = name.rpartition("/")[2]
        if what not in BY_UNIT:
            return series
        names = tuple(unit.id for unit in self.day.units)
        values = np.zeros((len(names), len(series.axis)))
        for u, unit in enumerate(names):
            if unit in series.names:
                values[u] = series.row(unit)
        if self.job.work is Work.CLEAR and what != "nomination":
            values = np.minimum(values, self.caps(series.axis)[0 if what == "up" else 1])
        return Series(names, series.axis, values)

    # ------------------------------------------------------------ what may be offered

    def nominate(self, unit_kw: Series) -> tuple[Series, Floats, Floats]:
        """The forecast as the schedule, and what each unit may be offered with."""
        up, down = self.caps(unit_kw.axis)
        return unit_kw, up.astype(np.float64), down.astype(np.float64)

    def caps(self, axis: Axis) -> tuple[Ints, Ints]:
        """kW (u, t) up and down inside prequalification, consent and the owners' limits."""
        up = np.zeros((len(self.day.units), len(axis)), dtype=np.int64)
        down = np.zeros_like(up)
        starts = list(axis)
        for u, unit in enumerate(self.day.units):
            limit = self.limits.get(unit.id)
            if limit is None:
                continue
            allowed = _allowed(limit, starts, axis)
            up[u], down[u] = np.where(allowed, limit.up_kw, 0), np.where(allowed, limit.down_kw, 0)
            for window in limit.owner:
                here = [window.starts < start + axis.step and start < window.ends for start in starts]
                up[u, here] = np.minimum(up[u, here], window.up_kw)
                down[u, here] = np.minimum(down[u, here], window.down_kw)
        return up, down

    def offer(self, t: Transaction, session: SessionPlan) -> tuple[tuple[str, str], ...]:
        """Put in the offers that are good at the gate; the others with the reasons."""
        why = dict(self.job.without)
        why |= {offer.id: reason for offer in self.job.offers if offer.id not in why and (reason := self._new(offer))}
        offers = [replace(offer, session=session.id) for offer in self.job.offers if offer.id not in why]
        kept, findings = intake(session, offers, self._context(t, session))
        t.add([_kept(offer) for offer in kept])
        good = {offer.id for offer in kept}
        for offer in offers:
            if offer.id not in good:
                why[offer.id] = " ".join(f.message for f in findings if _is_of(f, offer.id))
        return tuple(sorted(why.items()))

    def _new(self, offer: Offer) -> str:
        """Why an offer is of something that the session's plan did not know; empty where it did."""
        groups = {group.id for group in self.day.case.groups}
        if offer.unit in self.day.unit_by_id or offer.group in groups:
            return ""
        return f"{offer.unit or offer.group} was not registered and qualified when the session was planned."

    def _context(self, t: Transaction, session: SessionPlan) -> IntakeContext:
        """What offers are held against at the gate: what the clearing itself will count on."""
        day, buyer = self.day, self.day.buyer(session)
        up, down = free_power(t, day.plan(self.source), session)
        energy = zip(day.units, *energy_left(day.units, self.holdings, session, buyer), strict=True)
        available = zip(day.units, up.astype(np.int64), down.astype(np.int64), strict=True)
        return IntakeContext(
            units=day.unit_by_id,
            groups={group.id: group for group in day.case.groups},
            products={product.id: self._any_price(product) for product in day.case.products},
            levels=day.levels,
            buyers=(buyer,),
            qualified_kw=qualified_kw(t.all(StaticLight), day.units),
            available_kw={unit.id: (u, d) for unit, u, d in available},
            held={(holding.unit, holding.start): holding for holding in self.holdings},
            energy_kwh={unit.id: (float(u), float(d)) for unit, u, d in energy},
            products_of=self._products_of(),
        )

    def _products_of(self) -> dict[str, dict[str, ProductLimit]] | None:
        """What was qualified at the gate of those whose offers stood; None for a gate that did not keep it."""
        found: dict[str, dict[str, ProductLimit]] = {}
        for limit in self.register.product_limits:
            for name in (limit.group, *limit.units):
                found.setdefault(name, {})[limit.product] = limit
        return found or None

    def _any_price(self, product: Product) -> Product:
        """A product whose cap lets every offer pass: each was held against the cap of when it came."""
        prices = (abs(step.price_eur_mwh) for offer in self.job.offers for step in offer.steps)
        return replace(product, price_cap_eur_mwh=max(prices, default=product.price_cap_eur_mwh))


def _buying(register: Register, buyer: str, role: Role) -> Register:
    """A register in which nobody but the session's buyer has its role."""
    known = {party.id: party for party in register.parties} | {buyer: Party(buyer, buyer, (role,))}
    known |= {party.id: party for party in register.parties if party.id == buyer and role in party.roles}
    parties = [
        party if party.id == buyer else replace(party, roles=tuple(one for one in party.roles if one is not role))
        for party in known.values()
    ]
    return replace(register, parties=tuple(parties))


def _at_gate(planned: Register, gate: Register) -> Register:
    """The register of a plan as the gate found it: a unit that is offered is with its provider of then, and gives the
    less of what it could when the session was planned and then; its groups are those of then."""
    now = {unit.id: unit for unit in gate.units}
    then, limits = {limit.unit: limit for limit in planned.limits}, {limit.unit: limit for limit in gate.limits}
    for name in now.keys() & then.keys():
        limit, before = limits.get(name, UnitLimit(name, 0, 0, ())), then[name]
        up_kw, down_kw = min(limit.up_kw, before.up_kw), min(limit.down_kw, before.down_kw)
        then[name] = replace(limit, up_kw=up_kw, down_kw=down_kw)
    units = tuple(_taken_over(unit, now.get(unit.id, unit)) for unit in planned.units)
    known = {unit.id for unit in units}
    groups = {group.id: group for group in planned.groups}
    groups |= {group.id: group for group in gate.groups if known.issuperset(group.units)}
    return replace(
        planned,
        units=units,
        limits=tuple(then.values()),
        groups=tuple(groups[name] for name in sorted(groups)),
        product_limits=gate.product_limits,
    )


def _taken_over(planned: Unit, now: Unit) -> Unit:
    """A unit as it was planned, with who sells it now and the less of its energy."""
    return replace(
        planned,
        provider=now.provider,
        balance_responsible_party=now.balance_responsible_party,
        energy_up_kwh=_less(planned.energy_up_kwh, now.energy_up_kwh),
        energy_down_kwh=_less(planned.energy_down_kwh, now.energy_down_kwh),
    )


def _less(one: int | None, other: int | None) -> int | None:
    """The less of two limits, of which None is none."""
    return min((kwh for kwh in (one, other) if kwh is not None), default=None)


def _somebody(register: Register) -> None:
    """Raises NotReady unless every role that the operating day needs is filled."""
    here = {role for party in register.parties for role in party.roles}
    missing = [role.value.replace("_", " ") for role in NEEDED if role not in here]
    if missing:
        raise NotReady(f"There is no approved {', no '.join(missing)}.", "Approve one, then retry.")


def _second(at: datetime) -> datetime:
    """The verbs' store keeps whole seconds."""
    return at.replace(microsecond=0)


def _kept(offer: Offer) -> Offer:
    """An offer as the verbs' store keeps it; its receipt tells the order."""
    until = offer.valid_until
    return replace(offer, received_at=_second(offer.received_at), valid_until=None if until is None else _second(until))


def _is_of(finding: Finding, offer: str) -> bool:
    return finding.place == f"offer {offer}" or finding.place.startswith(f"offer {offer}, ")


def _allowed(limit: UnitLimit, starts: Sequence[datetime], axis: Axis) -> Bools:
    """In which quarter-hours the owner's consent holds."""
    return np.array(
        [any(span.starts <= start and start + axis.step <= span.ends for span in limit.allowed) for start in starts],
        dtype=np.bool_,
    )


def _light(unit: str, direction: Direction, kw: int, registered_kw: int) -> StaticLight:
    """A prequalification as the light that the verbs look up."""
    return StaticLight(
        unit=unit,
        direction=direction,
        mode=StaticMode.ONE_BY_ONE,
        verdict=Verdict.REJECTED if kw == 0 else Verdict.CONFIRMED if kw == registered_kw else Verdict.LIMITED,
        registered_kw=registered_kw,
        limit_kw=kw,
        element="",
        kind=LimitKind.LOADING,
        value=0.0,
        bound=1.0,
        state="grid prequalification",
    )


def _case(job: Job, case: Case, register: Register) -> Case:
    """The case with the register and the settings of the job."""
    elements = {load.load for load in case.grid.loads}
    elements |= {generator.generator for generator in case.grid.generators}
    elements |= {storage.storage for storage in case.grid.storages}
    limits = {limit.unit: limit for limit in register.limits}
    settings = replace(
        case.settings,
        day=job.day,
        zone=job.zone,
        tso=replace(case.settings.tso, price_limit_eur_mwh=job.price_limit_eur_mwh),
    )
    return replace(
        case,
        settings=settings,
        parties=register.parties,
        points=register.points,
        units=tuple(_placed(unit, elements, limits.get(unit.id)) for unit in register.units),
        groups=register.groups,
        products=register.products,
    )


def _placed(unit: Unit, elements: set[str], limit: UnitLimit | None) -> Unit:
    """A unit as the day sees it. Outside the grid the verbs take the registered power as qualified, so there it is
    what was prequalified."""
    if unit.element in elements:
        return unit
    up, down = (0, 0) if limit is None else (limit.up_kw, limit.down_kw)
    return replace(unit, element="", up_kw=up, down_kw=down)


# ---------------------------------------------------------------- a check of units against the grid


@dataclass(frozen=True, slots=True)
class _Uncomputed:
    unit: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Checked:
    """Lights of the units asked about, for each direction in which they are registered, and units without any."""

    lights: tuple[StaticLight, ...]
    failed: tuple[_Uncomputed, ...]
    at: datetime


def _checked(job: Job, case: Case, new_store: NewStore) -> _Checked:
    """The static lights of the units asked about, in the mode asked for, beside all other units."""
    _somebody(job.register)
    day = Day(_case(job, case, job.register), _design(job.design))
    store = new_store(day.case.zone)
    with store.transaction() as t:
        t.add(day.case.units)
    qualify(day, store, _second(job.at))
    with store.transaction() as t:
        found = t.all(StaticLight, mode=StaticMode(job.mode))
    lights = tuple(light for light in found if light.unit in job.only and light.registered_kw > 0)
    proved = {light.unit for light in lights}
    outside = "It is outside the modelled grid, or gives nothing there."
    return _Checked(lights, tuple(_Uncomputed(name, outside) for name in job.only if name not in proved), job.at)


# ---------------------------------------------------------------- what a verb wrote


@dataclass
class _Recorder:
    """A store that tells what one verb wrote. Implements `process.ports.Store`."""

    store: Store
    added: list[object] = field(default_factory=list)
    removed: list[object] = field(default_factory=list)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    series: dict[str, Series] = field(default_factory=dict)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self.store.transaction() as t:
            yield _Recording(t, self)


@dataclass(frozen=True)
class _Recording:
    """A transaction that tells what goes through it. What was told to whom is the platform's to say."""

    t: Transaction
    into: _Recorder

    def add(self, records: Iterable[object]) -> None:
        written = list(records)
        self.t.add(written)
        self.into.added += written

    def all(self, kind: type[R], /, **where: object) -> tuple[R, ...]:
        return self.t.all(kind, **where)

    def remove(self, kind: type[object], /, **where: object) -> int:
        self.into.removed += self.t.all(kind, **where)
        return self.t.remove(kind, **where)

    def put_document(self, name: str, body: dict[str, Any]) -> None:
        self.t.put_document(name, body)
        if name != SESSIONS:
            self.into.documents[name] = body

    def document(self, name: str) -> dict[str, Any] | None:
        return self.t.document(name)

    def put_series(self, name: str, series: Series) -> None:
        self.t.put_series(name, series)
        self.into.series[name] = series

    def series(self, name: str) -> Series | None:
        return self.t.series(name)

    def event(self, kind: str, at: datetime, sender: str, receiver: str, detail: str) -> None:
        """The platform tells its parties itself."""
