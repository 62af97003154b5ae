"""Who offers what: what a context says of sellers and products, and the rules for them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

import numpy as np

from coflex.domain.errors import Finding
from coflex.domain.offer import Offer
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction
from coflex.domain.unit import Group, Unit
from coflex.market.design import SessionPlan
from coflex.market.intake.context import IntakeContext
from coflex.market.intake.laid import Caps, Cells, Lot, UnitWay, fault
from coflex.market.ledger import changeable


class Sellers:
    """What a context says of sellers and products, read when an offer first asks for it."""

    def __init__(self, plan: SessionPlan, context: IntakeContext, cells: Mapping[UnitWay, Cells]) -> None:
        self.plan, self.context, self.cells = plan, context, cells
        self._lots: dict[tuple[str, str | None, str | None, str, Direction], Lot] = {}
        self._caps: dict[tuple[tuple[str, ...], Direction], Caps] = {}
        self._held: dict[str, set[int]] = defaultdict(set)
        columns = {start: t for t, start in enumerate(plan.horizon)}
        for (unit, start), holding in context.held.items():
            column = columns.get(start)
            if column is not None and not any(changeable(holding, buyer) for buyer in context.buyers):
                self._held[unit].add(column)
        owners: Iterable[Unit | Group] = [*context.units.values(), *context.groups.values()]
        self._providers = frozenset([owner.provider for owner in owners])

    def lot(self, offer: Offer, found: list[Finding]) -> Lot:
        """Of an offer; appends every fault of its seller and its product. Only what has none is remembered."""
        key = (offer.provider, offer.unit, offer.group, offer.product, offer.direction)
        lot = self._lots.get(key)
        if lot is None:
            faults = [*self._seller(offer), *self._product(offer), *self._allowed(offer)]
            found.extend(faults)
            lot = self._made(offer)
            if not faults:
                self._lots[key] = lot
        return lot

    def faults(self, offer: Offer) -> tuple[Finding, ...]:
        """Why its seller may not offer it: it has not got the unit or group, or not the right to sell it."""
        return (*self._seller(offer), *self._allowed(offer))

    def units(self, offer: Offer) -> tuple[str, ...]:
        """The known units behind an offer; none unless it names exactly one unit or group."""
        if offer.unit is not None and offer.group is None:
            return (offer.unit,) if offer.unit in self.context.units else ()
        group = self.context.groups.get(offer.group) if offer.group is not None and offer.unit is None else None
        return group.units if group else ()

    def caps(self, units: tuple[str, ...], direction: Direction) -> Caps:
        """What some units can give together."""
        key = (units, direction)
        if key not in self._caps:
            single = [self._cap(unit, direction) for unit in units]
            self._caps[key] = single[0] if len(single) == 1 else _all(single)
        return self._caps[key]

    def limit(self, offer: Offer) -> ProductLimit | None:
        """Of the qualification under which something of its own is offered."""
        products_of = self.context.products_of
        if products_of is None or not self._is_own(offer):
            return None
        return products_of.get(_seller(offer), {}).get(offer.product)

    def left_kwh(self, unit: str, direction: Direction) -> float:
        """Energy that a unit can still give, infinite where nothing limits it."""
        up, down = self.context.energy_kwh.get(unit, (math.inf, math.inf))
        return float(up if direction is Direction.UP else down)

    # ------------------------------------------------------------ what is remembered

    def _made(self, offer: Offer) -> Lot:
        units, direction, own = self.units(offer), offer.direction, self._is_own(offer)
        limit = self.limit(offer)
        product = self.context.products.get(offer.product)
        bound = product.price_cap_eur_mwh if product else Decimal("Infinity")
        return Lot(
            name=(offer.unit, offer.group, direction),
            units=units,
            cells=tuple([self.cells[unit, direction] for unit in units]),
            caps=_within(self.caps(units, direction), limit, direction) if units and own else None,
            limited=own and not all(math.isinf(self.left_kwh(unit, direction)) for unit in units),
            limit=limit,
            tick_kw=product.tick_kw if product else 1,
            least_kw=product.min_quantity_kw if product else 0,
            lowest=-bound,
            highest=bound,
            divisible=product is None or product.divisible,
        )

    def _is_own(self, offer: Offer) -> bool:
        """Whether the offer's unit or group is its provider's; of others' nothing more is told."""
        units, groups = self.context.units, self.context.groups
        owners = [
            units.get(offer.unit) if offer.unit is not None else None,
            groups.get(offer.group) if offer.group is not None else None,
        ]
        return any(owner is not None and owner.provider == offer.provider for owner in owners)

    def _cap(self, unit: str, direction: Direction) -> Caps:
        limit = self.context.qualified_kw.get((unit, direction), 0)
        declared = self.context.available_kw.get(unit)
        unheld = [limit] * len(self.plan.horizon)
        for t in self._held.get(unit, ()):
            unheld[t] = 0
        available = unheld
        if declared is not None:
            available = np.minimum(unheld, declared[0 if direction is Direction.UP else 1]).tolist()
        return Caps(limit, unheld, available, min(available, default=0))

    # ------------------------------------------------------------ rules

    def _seller(self, offer: Offer) -> Iterator[Finding]:
        if offer.provider not in self._providers:
            message = f"The provider '{offer.provider}' has no unit here; register the provider and its units."
            yield fault(offer, "unknown_provider", message)
        if set(self.context.buyers) == {offer.provider}:
            message = f"{self.plan.id} buys for '{offer.provider}', which would pay itself; offer in another session."
            yield fault(offer, "own_account", message)
        if (offer.unit is None) == (offer.group is None):
            yield fault(offer, "unit_or_group", "An offer is of a unit or of a group; name exactly one of them.")
        if offer.unit is not None:
            unit = self.context.units.get(offer.unit)
            if unit is None:
                yield fault(offer, "unknown_unit", f"The unit '{offer.unit}' is not registered; register it first.")
            elif unit.provider != offer.provider:
                message = f"The unit '{offer.unit}' is another provider's; offer units of your own."
                yield fault(offer, "foreign_unit", message)
        if offer.group is not None:
            yield from self._group(offer, offer.group)
        yield from self._level(offer)

    def _level(self, offer: Offer) -> Iterator[Finding]:
        levels = self.plan.session.sellers.levels
        for unit in self.units(offer) if self._is_own(offer) else ():
            if unit in self.context.units and self.context.levels.get(unit) not in levels:
                where = " or ".join(levels)
                message = f"Unit {unit} is not connected at {where} level; {self.plan.id} buys there only."
                yield fault(offer, "level", message)

    def _group(self, offer: Offer, name: str) -> Iterator[Finding]:
        group = self.context.groups.get(name)
        if group is None:
            yield fault(offer, "unknown_group", f"The group '{name}' is not registered; register it first.")
            return
        if group.provider != offer.provider:
            yield fault(offer, "foreign_group", f"The group '{name}' is another provider's; offer groups of your own.")
        scope = self.plan.session.scope
        if scope is not None and group.scope is not scope:
            message = f"The group '{name}' is {group.scope.value} and the session {scope.value}; "
            yield fault(offer, "group_scope", f"{message}offer it in a session of its scope.")
        if group.product != offer.product:
            message = f"The group '{name}' is for {group.product}, not {offer.product}; offer the product it is for."
            yield fault(offer, "group_product", message)
        if self.plan.session.grid.distribution.sees_network:
            message = "This session clears on the grid, where a group has no single place; offer the group's units."
            yield fault(offer, "group_without_place", message)

    def _product(self, offer: Offer) -> Iterator[Finding]:
        product, session = self.context.products.get(offer.product), self.plan.session
        if product is None:
            message = f"The product '{offer.product}' is not in the catalogue; choose one that is."
            yield fault(offer, "unknown_product", message)
            return
        scope = session.scope or product.scope
        if product.scope is not scope or (session.product or product.id) != product.id:
            wanted = session.product or f"products of scope {scope.value}"
            message = f"The session trades {wanted}, not {product.id}; offer there or elsewhere."
            yield fault(offer, "product_session", message)
        if offer.direction not in product.directions:
            message = f"The product {product.id} has no direction {offer.direction.value}; offer one that it has."
            yield fault(offer, "direction", message)

    def _allowed(self, offer: Offer) -> Iterator[Finding]:
        """Whether the units may be offered at all, and whether their seller is qualified for the product."""
        barred, units, name = self.context.barred, self.units(offer), _seller(offer)
        if not units or not self._is_own(offer):
            return
        for unit in units:
            if unit in barred:
                message = f"Unit {unit} may not be offered: {barred[unit]}; settle that first, or offer another."
                yield fault(offer, "barred", message)
        if self.context.products_of is not None and self.limit(offer) is None:
            message = f"{name} is not qualified for the product {offer.product}; let it be qualified, or offer another."
            yield fault(offer, "not_qualified", message)


def _seller(offer: Offer) -> str:
    """The unit or the group that is offered."""
    return offer.unit or offer.group or ""


def _within(caps: Caps, limit: ProductLimit | None, direction: Direction) -> Caps:
    """What units can give inside a qualification."""
    most = caps.qualified if limit is None else limit.kw(direction)
    if most >= caps.qualified:
        return caps
    available = [min(kw, most) for kw in caps.available]
    return Caps(most, [min(kw, most) for kw in caps.unheld], available, min(available, default=0))


def _all(caps: Sequence[Caps]) -> Caps:
    """The caps of several units as one."""
    unheld = [sum(kw) for kw in zip(*[one.unheld for one in caps], strict=True)]
    available = [sum(kw) for kw in zip(*[one.available for one in caps], strict=True)]
    return Caps(sum(one.qualified for one in caps), unheld, available, min(available, default=0))
