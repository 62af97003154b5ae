"""Report: what the day brought, as tables, indicators and the contents of one page; nothing is written to the store."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coflex.domain.activation import Limitation, Replacement, SetPoint
from coflex.domain.clearing import Award, Holding, MeritLine, Status, Uncovered
from coflex.domain.errors import NotReady
from coflex.domain.light import DynamicLight
from coflex.domain.need import LocalNeed, Request, Violation
from coflex.domain.offer import Offer
from coflex.domain.party import Party, Role
from coflex.domain.qualification import LimitKind, StaticLight
from coflex.domain.quantity import Floats
from coflex.domain.reading import Reading
from coflex.domain.series import Series
from coflex.domain.statement import Posting, SettlementLine, Statement
from coflex.domain.time import local_label
from coflex.domain.unit import Group, Scope, Technology, Unit
from coflex.market.design import SessionPlan
from coflex.process.coupled import Coupled, coupled_market
from coflex.process.day import Day
from coflex.process.lookups import EVIDENCE, SETTLEMENT, STATES, kept_settlement, planned_holdings
from coflex.process.operation import OPERATION
from coflex.process.ports import Event, Evidence, Publisher, Store, Table, Transaction
from coflex.process.profile import sent_in
from coflex.reporting import kpi, tables
from coflex.reporting.delivery import Missed, activation_section, balance, money_section
from coflex.reporting.form import euros
from coflex.reporting.grid import StateView, grid_section, lights_section, static_section
from coflex.reporting.interface import Netting, netting
from coflex.reporting.market import interface_section, merit_section, needs_section, session_view
from coflex.reporting.outlook import forecast_section
from coflex.reporting.trail import Followed, chosen, trail_section
from coflex.settlement.books import Run
from coflex.settlement.inputs import Inputs
from coflex.settlement.records import plain
from coflex.settlement.summary import LineCents, line_cents, settled

CERTIFICATE = "certificate.json"


@dataclass(frozen=True, slots=True)
class Reported:
    """The day in a few lines: violations in each state, MWh definitively bought, the day's money, and the page."""

    violations: dict[str, int]
    local_mwh: float
    global_mwh: float
    paid_eur: str
    received_eur: str
    fees_eur: str
    sessions: int
    offers: int
    awards: int
    page: Path


def report(day: Day, store: Store, publisher: Publisher, evidence: Evidence | None = None) -> Reported:
    """Put out the day's tables, indicators and page, and the certificate of one award where `evidence` is kept.

    Raises NotReady before the day is settled.
    """
    with store.transaction() as t:
        if t.document(SETTLEMENT) is None:
            raise NotReady("The day is not settled yet.", "Run coflex settle first.")
        past = _read(day, t)
        coupled = coupled_market(day, t)
    indicators = _indicators(past, coupled)
    listed = [asdict(one) for one in indicators]
    followed = past.followed if evidence is not None else None
    files = {}
    if evidence is not None and followed is not None:
        files[CERTIFICATE] = evidence.certificate((followed.order_leaf, followed.reading_leaf))
    page = publisher.publish(
        _tables(past),
        {"kpis": {"kpis": listed}, "inputs": plain(past.inputs)},
        _contents(past, listed, followed),
        files,
    )
    money = balance(past.statements)
    bought = {scope: sum(a.quantity_kw for a in past.awards_of(scope)) * past.hours / 1000 for scope in Scope}
    return Reported(
        violations={name: len(view.violations) for name, view in past.states.items()},
        local_mwh=bought[Scope.LOCAL],
        global_mwh=bought[Scope.GLOBAL],
        paid_eur=euros(money.paid),
        received_eur=euros(money.received),
        fees_eur=euros(money.fees),
        sessions=len(day.plans),
        offers=len(past.offers),
        awards=len(past.awards),
        page=page,
    )


# ---------------------------------------------------------------- what the day left behind


@dataclass(frozen=True, eq=False)
class _Past:
    """All of a settled day that is told; awards, lights and merit lines of definitive parts only."""

    day: Day
    static_lights: tuple[StaticLight, ...]
    needs: tuple[LocalNeed, ...]
    requests: tuple[Request, ...]
    lights: tuple[DynamicLight, ...]
    offers: tuple[Offer, ...]
    awards: tuple[Award, ...]
    merit: tuple[MeritLine, ...]
    holdings: tuple[Holding, ...]
    uncovered: tuple[Uncovered, ...]
    points: tuple[SetPoint, ...]
    limits: tuple[Limitation, ...]
    replaced: tuple[Replacement, ...]
    readings: tuple[Reading, ...]
    inputs: Inputs
    run: Run
    lines: tuple[SettlementLine, ...]
    postings: tuple[Posting, ...]
    statements: tuple[Statement, ...]
    events: tuple[Event, ...]
    missed: tuple[Missed, ...]
    planned: dict[str, dict[str, Any]]
    cleared: dict[str, dict[str, Any]]
    states: dict[str, StateView]
    flows: dict[str, Series]
    flowed: Series
    outlook: Series
    outlooks: tuple[tuple[SessionPlan, Series], ...]
    planned_holdings: tuple[Holding, ...]
    settings: dict[str, Any]
    profiles: tuple[tables.ProfileLine, ...]
    evidence: dict[str, Any]

    @property
    def hours(self) -> float:
        return self.day.case.axis.hours

    @cached_property
    def plans(self) -> dict[str, SessionPlan]:
        return {plan.id: plan for plan in self.day.plans}

    @cached_property
    def parties(self) -> dict[str, Party]:
        return {party.id: party for party in self.day.case.parties}

    @cached_property
    def operators(self) -> dict[str, str]:
        return {"tso": self.day.party(Role.TSO), "dso": self.day.party(Role.DSO)}

    @cached_property
    def followed(self) -> Followed | None:
        """One award's way from offer to payment, with its messages in the log; None where none was kept."""
        found = chosen(self.lines, self.line_cents, self.awards, self.readings)
        if found is None or not self.evidence:
            return None
        line, cents, award = found
        here = line.unit, line.start
        told = next(
            one for one in self.evidence["orders"] if (one["unit"], one["start"]) == (here[0], here[1].isoformat())
        )
        return Followed(
            offer=next(offer for offer in self.offers if (offer.session, offer.id) == (award.session, award.offer)),
            award=award,
            point=next(point for point in self.points if (point.unit, point.start) == here),
            line=line,
            cents=cents,
            reading=next(reading for reading in self.readings if (reading.unit, reading.start) == here),
            order_leaf=told["leaf"],
            reading_leaf=self.evidence["readings"][line.unit][self.day.case.axis.position(line.start)],
            hops=tuple((hop, datetime.fromisoformat(at)) for hop, at in told["hops"]),
        )

    def scope(self, session: str) -> Scope:
        return self.plans[session].scope

    def awards_of(self, scope: Scope) -> list[Award]:
        return [award for award in self.awards if self.scope(award.session) is scope]

    def cost_eur(self, scope: Scope) -> float:
        """What the awards of a scope cost at their prices."""
        spent = sum(award.quantity_kw * award.price_eur_mwh for award in self.awards_of(scope))
        return float(spent) * self.hours / 1000

    def merit_of(self, scope: Scope) -> list[MeritLine]:
        return [line for line in self.merit if self.scope(line.session) is scope]

    @cached_property
    def netting(self) -> Netting:
        """The netting of the definitive parts."""
        firm = [r for r in self.requests if self.plans[r.session].firm.covers(r.start)]
        return netting(firm, self.day.case.axis)

    @cached_property
    def losses_mwh(self) -> dict[str, float]:
        return {name: float(flow.row("losses_mw").sum()) * self.hours for name, flow in self.flows.items()}

    @cached_property
    def line_cents(self) -> tuple[LineCents, ...]:
        return line_cents(self.lines, self.run)


def _read(day: Day, t: Transaction) -> _Past:
    fixed = Status.DEFINITIVE
    firm = {plan.id: plan.firm for plan in day.plans}
    inputs, rules = kept_settlement(t)
    outlooks = [(plan, t.series(f"{plan.id}/forecast")) for plan in day.plans]
    return _Past(
        day=day,
        static_lights=t.all(StaticLight),
        needs=t.all(LocalNeed),
        requests=t.all(Request),
        lights=tuple(x for x in t.all(DynamicLight) if firm[x.session].covers(x.start)),
        offers=t.all(Offer),
        awards=t.all(Award, status=fixed),
        merit=t.all(MeritLine, status=fixed),
        holdings=t.all(Holding),
        uncovered=t.all(Uncovered),
        points=t.all(SetPoint),
        limits=t.all(Limitation),
        replaced=t.all(Replacement),
        readings=t.all(Reading),
        inputs=inputs,
        run=settled(inputs, rules)[1],
        lines=t.all(SettlementLine),
        postings=t.all(Posting),
        statements=t.all(Statement),
        events=t.all(Event),
        missed=tuple(
            Missed(one["unit"], datetime.fromisoformat(one["start"]), one["ordered_kw"], one["moved_kw"])
            for one in _document(t, "monitoring")["missed"]
        ),
        planned={plan.id: _document(t, f"planned/{plan.id}") for plan in day.plans},
        cleared={plan.id: _document(t, f"cleared/{plan.id}") for plan in day.plans},
        states={name: _state(t, name) for name in STATES},
        flows={name: _series(t, f"state/{name}/interface") for name in STATES},
        flowed=_series(t, "actual"),
        outlook=day.firm(t, "forecast"),
        outlooks=tuple((plan, series) for plan, series in outlooks if series is not None),
        planned_holdings=tuple(planned_holdings(t)),
        settings=t.document(OPERATION) or {},
        evidence=t.document(EVIDENCE) or {},
        profiles=tuple(
            line
            for plan in day.plans
            for one in sent_in(t, plan)
            for line in tables.profile_lines(plan.id, one.substation, plan.horizon, one.p_mw, one.q_mvar)
        ),
    )


def _document(t: Transaction, name: str) -> dict[str, Any]:
    """A document that every settled day has. Raises NotReady where an older version did not keep it."""
    found = t.document(name)
    if found is None:
        raise NotReady(f"The store has no '{name}' of this day.", "Run the day again from the start.")
    return found


def _series(t: Transaction, name: str) -> Series:
    """As `_document`, for series."""
    found = t.series(name)
    if found is None:
        raise NotReady(f"The store has no series '{name}' of this day.", "Run the day again from the start.")
    return found


def _state(t: Transaction, name: str) -> StateView:
    broken = tuple(
        Violation(datetime.fromisoformat(v["start"]), v["element"], LimitKind(v["kind"]), v["value"], v["bound"])
        for v in _document(t, f"violations/{name}")["violations"]
    )
    return StateView(_series(t, f"state/{name}/vm").values, _series(t, f"state/{name}/loading").values, broken)


# ---------------------------------------------------------------- indicators


def _indicators(past: _Past, coupled: Coupled | None) -> list[kpi.Kpi]:
    day = past.day
    inside = [unit for unit in day.units if unit.element]
    found = [
        *kpi.messages(len(past.events), past.points),
        *kpi.activated(past.points, past.awards),
        *kpi.dso_participation(past.merit_of(Scope.GLOBAL), past.lights, past.limits),
        *kpi.prequalification_effort(past.static_lights, day.case.groups),
        *kpi.local_constraints(past.lights),
        *kpi.continuance(past.statements, day.units),
        *kpi.violations_avoided({name: len(view.violations) for name, view in past.states.items()}),
    ]
    # Costs compare only where both ways cover every need.
    if coupled is not None and not past.uncovered and coupled.uncovered_mwh < 0.01:
        costs = past.cost_eur(Scope.LOCAL), past.cost_eur(Scope.GLOBAL)
        found += kpi.market_efficiency(*costs, coupled.cost_eur)
    pv = np.array([day.unit_index[u.id] for u in inside if u.technology is Technology.PV], dtype=np.int64)
    untouched = day.unit_kw(day.truth(day.case.axis)).values
    return [
        *found,
        *kpi.curtailment(untouched[pv], past.flowed.values[pv], past.hours),
        *kpi.losses_change(past.losses_mwh),
        *kpi.procurement_cost(past.statements, sorted(past.operators.values())),
        *(one for scope in Scope for one in kpi.liquidity(scope, past.merit_of(scope), past.awards_of(scope))),
        *kpi.price_of_coordination(past.netting, past.awards_of(Scope.GLOBAL)),
    ]


# ---------------------------------------------------------------- the page


def _contents(past: _Past, indicators: list[dict[str, Any]], followed: Followed | None) -> dict[str, Any]:
    """The contents of the page; every time in the market's zone."""
    day = past.day
    case, axis, zone = day.case, day.case.axis, day.case.zone
    place = {bus.bus: (bus.longitude, bus.latitude) for bus in case.grid.buses}
    kinds = Counter(event.kind for event in past.events)
    buyers = {plan.id: day.buyer(plan) for plan in day.plans}
    flows = {name: flow.row("p_mw") for name, flow in past.flows.items()}
    return {
        "case": _case(past),
        "axis": [local_label(start, zone) for start in axis],
        "kpis": indicators,
        "grid": grid_section(day.network, axis, zone, place, past.states),
        "static_lights": static_section(past.static_lights, day.unit_by_id),
        "sessions": [_session(past, plan) for plan in day.plans],
        "needs": needs_section(past.needs, past.plans, axis),
        "merit_orders": merit_section(past.merit, past.requests, past.plans, axis),
        "lights": lights_section(past.lights, axis),
        "interface": interface_section(past.netting, past.awards_of(Scope.GLOBAL), axis, flows, past.losses_mwh),
        "forecast": _forecast(past),
        "activation": activation_section(
            axis, zone, past.operators, day.unit_by_id, past.points, past.limits, past.replaced, past.missed
        ),
        "trail": None if followed is None else trail_section(followed, past.evidence, CERTIFICATE, zone),
        "money": money_section(
            past.statements,
            past.postings,
            past.lines,
            past.line_cents,
            past.parties,
            day.unit_by_id,
            buyers,
            zone,
        ),
        "messages": {
            "total": len(past.events),
            "by_kind": [{"kind": k, "count": n} for k, n in sorted(kinds.items(), key=lambda kn: (-kn[1], kn[0]))],
        },
    }


def _case(past: _Past) -> dict[str, Any]:
    day, case = past.day, past.day.case
    settings, source = case.settings, day.design.source
    technologies = sorted({unit.technology for unit in day.units})
    return {
        "id": settings.id,
        "title": settings.title,
        "grid": settings.grid,
        "day": settings.day.isoformat(),
        "zone": settings.zone,
        "seed": settings.seed,
        "design": {
            "id": day.design.id,
            "title": day.design.title,
            "source": {"document": source.document, "section": source.section},
        },
        "load_scale": settings.load_scale,
        "pv_scale": settings.pv_scale,
        "counts": {
            "buses": len(case.grid.buses),
            "branches": day.network.m,
            "units": len(day.units),
            "providers": len({unit.provider for unit in day.units}),
            "groups": len(case.groups),
            "perimeters": len(day.perimeters),
            "connection_points": len(case.points),
        },
        "technologies": [
            {
                "technology": technology.value,
                "units": sum(u.technology is technology for u in day.units),
                "up_kw": sum(u.up_kw for u in day.units if u.technology is technology),
                "down_kw": sum(u.down_kw for u in day.units if u.technology is technology),
            }
            for technology in technologies
        ],
    }


def _session(past: _Past, plan: SessionPlan) -> dict[str, Any]:
    return session_view(
        plan,
        past.day.buyer(plan),
        past.day.case.axis,
        past.planned[plan.id],
        past.cleared[plan.id],
        [request for request in past.requests if request.session == plan.id],
        [one for one in past.uncovered if one.session == plan.id],
    )


def _forecast(past: _Past) -> dict[str, Any]:
    day = past.day
    return forecast_section(
        day.case.axis,
        _totals(day, day.truth(day.case.axis)),
        _totals(day, past.outlook),
        [(plan.id, plan.horizon, _totals(day, series)) for plan, series in past.outlooks],
    )


def _totals(day: Day, profiles: Series) -> dict[str, Floats]:
    """Loads and PV of the whole grid in MW, injection positive."""
    power, _ = day.elements(profiles)
    loads = len(day.case.grid.loads)
    pv = [loads + i for i, row in enumerate(day.case.grid.generators) if row.technology == Technology.PV]
    return {"loads": power[:loads].sum(axis=0), "pv": power[pv].sum(axis=0)}


# ---------------------------------------------------------------- the tables


def _tables(past: _Past) -> dict[str, Table[Any]]:
    case = past.day.case
    return {
        "parties": Table(Party, case.parties),
        "units": Table(Unit, past.day.units),
        "groups": Table(Group, case.groups),
        "static_lights": Table(StaticLight, past.static_lights),
        "needs": Table(tables.NeedLine, tables.need_lines(past.needs)),
        "requests": Table(tables.RequestLine, tables.request_lines(past.requests)),
        "dynamic_lights": Table(DynamicLight, past.lights),
        "offers": Table(tables.OfferStepLine, tables.offer_lines(past.offers)),
        "awards": Table(Award, past.awards),
        "merit_order": Table(MeritLine, past.merit),
        "holdings": Table(Holding, past.holdings),
        "uncovered": Table(Uncovered, past.uncovered),
        "setpoints": Table(SetPoint, past.points),
        "limitations": Table(Limitation, past.limits),
        "replacements": Table(Replacement, past.replaced),
        "readings": Table(Reading, past.readings),
        "settlement_lines": Table(tables.SettledLine, tables.settled_lines(past.lines, past.line_cents)),
        "postings": Table(Posting, past.postings),
        "statements": Table(tables.StatementLine, tables.statement_lines(past.statements)),
        "events": Table(Event, past.events),
        "planned_state": Table(tables.NodeState, _planned_state(past)),
        "settings": Table(tables.SettingLine, tables.setting_lines(past.settings)),
        "substation_profiles": Table(tables.ProfileLine, past.profiles),
    }


def _planned_state(past: _Past) -> tuple[tables.NodeState, ...]:
    """Injections of the state that definitive purchases plan, for anyone to check with another power flow."""
    day, axis = past.day, past.day.case.axis
    p, q = day.injections(past.outlook)
    change_p, change_q = day.changes(day.held_kw(past.planned_holdings, axis))
    return tables.node_states(day.network.node_names, axis, p + change_p, q + change_q)
