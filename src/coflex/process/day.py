"""The delivery day as the verbs see it: the case's grid ready to compute, units in one order, and the sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from coflex.domain.clearing import Holding
from coflex.domain.errors import CoflexError, NotReady, refuse
from coflex.domain.party import Role
from coflex.domain.product import Product
from coflex.domain.quantity import Floats, Ints
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.domain.unit import Group, Level, Scope, Unit
from coflex.forecast.backtest import forecast
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.network import Network, build
from coflex.market.design import Design, SessionPlan, schedule
from coflex.market.design.operating import unheld
from coflex.process.ports import Case, Transaction
from coflex.process.terms import unnamed, unsettled
from coflex.settlement.document import Rule
from coflex.settlement.shelf import Rulebook, rulebook

SESSIONS = "sessions"


@dataclass(frozen=True, eq=False)
class Day:
    """A case and a design laid on its delivery day, and the rules by which it is settled. u units in the order of
    `units`.

    Raises Refused with everything that the design asks and the operating day does not do.
    """

    case: Case
    design: Design
    rules: Rulebook = field(default_factory=rulebook)

    def __post_init__(self) -> None:
        refuse(f"The design {self.design.id} in the operating day", unheld(self.design))

    @cached_property
    def network(self) -> Network:
        return build(self.case.grid)

    @cached_property
    def networks(self) -> dict[str, Network]:
        """The network at settings that depart from the normal one, as `process.operation` comes to need them."""
        return {}

    @cached_property
    def plans(self) -> tuple[SessionPlan, ...]:
        """All sessions in the order of their gates; at one instant the design's order decides."""
        laid = schedule(self.design, self.case.settings.day, self.case.zone)
        return tuple(sorted(laid, key=lambda plan: plan.closes))

    def plan(self, session: str) -> SessionPlan:
        """The plan of a session. Raises NotReady when the design has no such session."""
        for plan in self.plans:
            if plan.id == session:
                return plan
        names = ", ".join(plan.id for plan in self.plans)
        raise NotReady(f"The design {self.design.id} has no session '{session}'.", f"Its sessions are {names}.")

    def forwarder(self, plan: SessionPlan) -> SessionPlan:
        """The session that forwards to this one, whose forecast and light it works on; itself if none does, or if
        that one does not look as far ahead."""
        for other in self.plans:
            forwards = other.session.forward is not None and other.session.forward.to == plan.id
            if forwards and other.horizon.start <= plan.horizon.start and plan.horizon.end <= other.horizon.end:
                return other
        return plan

    @cached_property
    def units(self) -> tuple[Unit, ...]:
        return tuple(sorted(self.case.units, key=lambda unit: unit.id))

    @cached_property
    def unit_by_id(self) -> dict[str, Unit]:
        return {unit.id: unit for unit in self.units}

    @cached_property
    def unit_index(self) -> dict[str, int]:
        return {unit.id: u for u, unit in enumerate(self.units)}

    @cached_property
    def unit_node(self) -> Ints:
        """Node of each unit, -1 outside the modelled grid."""
        at = self.network.node_of_element
        return np.array([at.get(unit.element, -1) for unit in self.units], dtype=np.int64)

    @cached_property
    def unit_tan_phi(self) -> Floats:
        return np.array([unit.tan_phi for unit in self.units])

    @cached_property
    def unit_perimeter(self) -> tuple[str, ...]:
        """Perimeter of each unit, empty outside the distribution grid."""
        return tuple(self.network.node_perimeter[n] if n >= 0 else "" for n in self.unit_node)

    @cached_property
    def levels(self) -> dict[str, Level]:
        """Level at which each unit is connected."""
        at = {point.id: point.level for point in self.case.points}
        return {unit.id: at[unit.connection_point] for unit in self.units}

    @cached_property
    def perimeters(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.network.node_perimeter) - {""}))

    @cached_property
    def _unit_element(self) -> Ints:
        at = {name: i for i, name in enumerate(self.network.element_names)}
        return np.array([at.get(unit.element, -1) for unit in self.units], dtype=np.int64)

    def products(self, scope: Scope) -> tuple[Product, ...]:
        return tuple(product for product in self.case.products if product.scope is scope)

    def product(self, plan: SessionPlan) -> Product:
        """The product a session trades: the one it names, or the one of its scope."""
        named, scope = plan.session.product, plan.scope
        for product in self.products(scope):
            if named in (None, product.id):
                return product
        what = f"product '{named}'" if named else f"{scope} product"
        raise CoflexError(f"Session {plan.id} trades a {what} that the case does not have.", "Add it to products.csv.")

    def rule(self, plan: SessionPlan) -> Rule:
        """The rule that settles what a session sells. Raises CoflexError where there is none; see `check_terms`."""
        product = self.product(plan)
        rule = self.rules.of(product)
        if rule is None:
            wanted = self.rules.id_of(product)
            raise CoflexError(f"There is no settlement rule '{wanted}'.", "Write it into the folder rules of the case.")
        return rule

    def check_terms(self) -> None:
        """Raise Refused with every reason why what the day sells cannot be settled by the rules of its products."""
        sold = [(plan, self.product(plan)) for plan in self.plans]
        ids = [("unit", one.id) for one in self.units] + [("party", one.id) for one in self.case.parties]
        refuse(f"The settlement of the case {self.case.settings.id}", (*unsettled(sold, self.rules), *unnamed(ids)))

    def groups(self, scope: Scope) -> tuple[Group, ...]:
        return tuple(sorted((g for g in self.case.groups if g.scope is scope), key=lambda g: g.id))

    def party(self, role: Role) -> str:
        """The first party with a role."""
        return next(p.id for p in sorted(self.case.parties, key=lambda p: p.id) if role in p.roles)

    def buyer(self, plan: SessionPlan) -> str:
        """The party that buys in a session (its first buyer's role)."""
        return self.party(plan.session.buyers[0].role)

    @cached_property
    def local_groups_of(self) -> dict[str, str]:
        """Local group of each unit that has one."""
        return {unit: group.id for group in self.groups(Scope.LOCAL) for unit in group.units}

    def truth(self, axis: Axis) -> Series:
        """What the profiles really were."""
        return self.case.profiles.window(axis)

    def outlook(self, issued: datetime, axis: Axis) -> Series:
        """Central forecast of all profiles made at `issued`."""
        made = forecast(self.case.profiles, issued, axis, self.case.zone)
        # What was never below zero stays so: the sun does not shine backwards.
        never_negative = self.case.profiles.values.min(axis=1, keepdims=True) >= 0
        return Series(made.names, made.axis, np.where(never_negative, np.maximum(made.values, 0.0), made.values))

    def elements(self, profiles: Series) -> tuple[Floats, Floats]:
        """Element powers (elements, t) in MW and Mvar."""
        return element_powers(self.case.grid, profiles)

    def injections(self, profiles: Series) -> tuple[Floats, Floats]:
        """Node injections (t, n) in MW and Mvar that profiles bring."""
        p, q = self.elements(profiles)
        return node_injections(self.network, p), node_injections(self.network, q)

    def unit_kw(self, profiles: Series) -> Series:
        """Power of each unit's element in kW, injection positive; zero for units outside the modelled grid."""
        p, _ = self.elements(profiles)
        inside = self._unit_element >= 0
        values = np.zeros((len(self.units), len(profiles.axis)))
        values[inside] = p[self._unit_element[inside]] * 1000.0
        return Series(tuple(unit.id for unit in self.units), profiles.axis, values)

    def changes(self, unit_kw: Floats) -> tuple[Floats, Floats]:
        """Node changes (t, n) in MW and Mvar of unit changes (u, t) in kW, injection positive."""
        p = np.zeros((unit_kw.shape[1], self.network.n))
        inside = np.flatnonzero(self.unit_node >= 0)
        np.add.at(p.T, self.unit_node[inside], unit_kw[inside] / 1000.0)
        q = np.zeros_like(p)
        np.add.at(q.T, self.unit_node[inside], unit_kw[inside] * self.unit_tan_phi[inside, None] / 1000.0)
        return p, q

    def held_kw(self, holdings: Iterable[Holding], axis: Axis) -> Floats:
        """Signed kW (u, t) that holdings inside the axis mean, injection positive."""
        kw = np.zeros((len(self.units), len(axis)))
        for holding in holdings:
            if axis.covers(holding.start):
                u = self.unit_index[holding.unit]
                kw[u, axis.position(holding.start)] += holding.direction.sign * holding.quantity_kw
        return kw

    def firm(self, transaction: Transaction, name: str) -> Series:
        """A planned series put together from the definitive parts; where two sessions planned one, the earlier's."""
        axis = self.case.axis
        names: tuple[str, ...] = ()
        values: Floats = np.zeros((0, 0))
        open_ = np.ones(len(axis), dtype=np.bool_)
        for plan in self.plans:
            planned = transaction.series(f"{plan.id}/{name}")
            if planned is None:
                continue
            if not names:
                names, values = planned.names, np.zeros((len(planned.names), len(axis)))
            part = np.zeros(len(axis), dtype=np.bool_)
            part[axis.slice_of(plan.firm)] = True
            values[:, part & open_] = planned.window(plan.firm).values[:, open_[part]]
            open_ &= ~part
        if open_.any():
            raise NotReady("The day is not planned to its end yet.", "Run coflex plan first.")
        return Series(names, axis, values)


def history_days(day: Day, count: int) -> tuple[Axis, ...]:
    """The `count` local days before the delivery day, earliest first, as far as the profiles reach."""
    days = [day.case.settings.day - timedelta(days=back) for back in range(count, 0, -1)]
    axes = (delivery_day(one, day.case.zone) for one in days)
    first = day.case.profiles.axis.start
    return tuple(axis for axis in axes if axis.start >= first)


def states(transaction: Transaction) -> dict[str, Any]:
    """State of every session that has one."""
    return dict(transaction.document(SESSIONS) or {})


def told(transaction: Transaction, kind: str, at: datetime, sender: str, receivers: Sequence[str], detail: str) -> None:
    """One message to each receiver."""
    for receiver in receivers:
        transaction.event(kind, at, sender, receiver, detail)
