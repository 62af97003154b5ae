"""What the offers of a session are checked against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from coflex.domain.clearing import Holding
from coflex.domain.offer import Offer
from coflex.domain.product import Product
from coflex.domain.qualification import ProductLimit
from coflex.domain.quantity import Direction, Ints
from coflex.domain.unit import Group, Level, Unit


@dataclass(frozen=True, eq=False)
class IntakeContext:
    """What offers are checked against.

    `levels`: the level at which each unit is connected. `buyers`: the parties that buy in the session.
    `qualified_kw`: the static light's limit of a unit and direction; nothing is qualified that is not there.
    `available_kw`: declared by unit as (up, down), kW in each quarter-hour of the session's horizon; a unit
    without a declaration is bound by its qualification alone. `held`: the ledger. `taken`: offers that the
    session accepted before; they are neither checked nor returned again. `energy_kwh`: what each unit can still give
    over the day, (up, down); a unit that is not there has no limit but its power.
    `barred`: units that may not be offered at all, alone or in a group, each with the reason ("its owner has given no
    consent"). `products_of`: the products that a unit or a group is qualified for, by id, each with the limit within
    which all offers under that qualification must stay together; a seller that is not there has none, and with None
    nobody's qualification is asked for.
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
    barred: Mapping[str, str] = field(default_factory=dict)
    products_of: Mapping[str, Mapping[str, ProductLimit]] | None = None
