"""Activation: orders, set points, and what stops them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from coflex.domain.quantity import Direction


class Hop(StrEnum):
    """The way of an order: market, DSO platform, light node, energy management system of the customer."""

    MARKET = "market"
    DSO_PLATFORM = "dso_platform"
    LIGHT_NODE = "light_node"
    ENERGY_MANAGEMENT_SYSTEM = "energy_management_system"


@dataclass(frozen=True, slots=True)
class SetPoint:
    """The power a unit is to hold in a quarter-hour, signed, injection positive: baseline plus the change ordered.

    `ordered_kw`: unsigned change in `direction` that stands (after any limit). `awarded_kw`: what was bought.
    `acknowledged`: the last hop that confirmed it.
    """

    unit: str
    start: datetime
    buyer: str
    session: str
    direction: Direction
    awarded_kw: int
    ordered_kw: int
    baseline_kw: float
    power_kw: float
    acknowledged: Hop


@dataclass(frozen=True, slots=True)
class Limitation:
    """The DSO limits or ends a running activation because the state of the grid asks for it."""

    start: datetime
    unit: str
    buyer: str
    from_kw: int
    to_kw: int
    element: str
    value: float
    bound: float


@dataclass(frozen=True, slots=True)
class Replacement:
    """The TSO calls the next line of its list for what a limitation or a failure took away."""

    start: datetime
    session: str
    offer: str
    step: int
    unit: str
    direction: Direction
    quantity_kw: int
    price_eur_mwh: Decimal
    reason: str


# ---------------------------------------------------------------- orders of the running service


class Verdict(StrEnum):
    """What a hop says of an order or a set point."""

    TAKEN = "taken"
    REFUSED = "refused"
    NOT_REACHABLE = "not_reachable"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A hop's word: who said it (a party, or the unit behind a light node), what, and when."""

    hop: Hop
    by: str
    verdict: Verdict
    at: datetime


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """`kw` in [starts, ends), above zero; which way is said beside it. A profile is a tuple of pieces in the order of
    time that do not overlap; where there is none it is zero."""

    starts: datetime
    ends: datetime
    kw: int


@dataclass(frozen=True, slots=True)
class Notice:
    """The DSO limits or ends what a unit gives: from `from_kw` to `to_kw` at the most in [starts, ends), because
    `element` shows `value` against its `bound` (T activation 7: limit and measurement go to the TSO)."""

    unit: str
    operator: str
    starts: datetime
    ends: datetime
    from_kw: int
    to_kw: int
    element: str
    value: float
    bound: float
    reason: str
    at: datetime
