"""From grids, profiles and rows of a seller's sheet to a case: what every case of this package has in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from math import ceil
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.reserve import CapacityOffer
from coflex.domain.series import Series
from coflex.domain.time import Axis, delivery_day
from coflex.grid.attach import Attachment, attach
from coflex.grid.injection import element_powers, node_injections
from coflex.grid.means import Means
from coflex.grid.network import Network, build
from coflex.grid.tables import GridTables
from coflex.market.coordination.world import (
    LeaseRequest,
    Order,
    OwnTools,
    PhaseFeeder,
    Seller,
    StorageLot,
    VoltageReduction,
    World,
)
from coflex.market.design import Service

DAY = date(2016, 7, 5)
ZONE = ZoneInfo("Europe/Rome")
ENERGY, REACTIVE = "energy", "reactive"
EMERGENCY_EUR_MWH, VALUE_EUR_MWH = 400.0, 1000.0
# Offers are given well before the first gate of any design, a minute apart in the order of their receipts.
EARLY = timedelta(days=400)


@dataclass(frozen=True, eq=False)
class Place:
    """A transmission grid with distribution grids attached, and which part of it is whose (as in `World`)."""

    tables: GridTables
    network: Network
    grids: tuple[str, ...]
    node_grid: Ints
    branch_grid: Ints
    border: Ints

    def injections(self, profiles: Series) -> tuple[Floats, Floats]:
        """Injections (t, n) in MW and Mvar of the loads and generators. At the slack stands what balances all others'
        active power without losses: the schedule that was agreed on."""
        p_of, q_of = element_powers(self.tables, profiles)
        p, q = node_injections(self.network, p_of), node_injections(self.network, q_of)
        p[:, self.network.slack] = 0.0
        p[:, self.network.slack] = -p.sum(axis=1)
        return p, q

    def own(self, grid: str) -> tuple[Bools, Bools]:
        """Nodes (n,) and branches (m,) of one distribution grid."""
        number = self.grids.index(grid)
        return self.node_grid == number, self.branch_grid == number

    def means(self) -> Means:
        """What the distribution grids' operators may move."""
        every = Means.all_of(self.tables)
        groups = (tuple(n for n in names if "/" in n) for names in (every.transformers, every.shunts, every.switches))
        return Means(*groups)


def place(transmission: GridTables, attachments: Sequence[Attachment]) -> Place:
    """The whole grid. Names of the transmission grid are without a slash. Raises Refused as `attach` and `build` do."""
    ranked = sorted(attachments, key=lambda one: one.name)
    tables = attach(transmission, ranked)
    network = build(tables)
    grids = tuple(one.name for one in ranked)
    of = {name: number for number, name in enumerate(grids)}

    def owner(names: Iterable[str]) -> Ints:
        return np.array([of.get(name.split("/")[0], -1) if "/" in name else -1 for name in names], dtype=np.int64)

    border = np.array([network.node_of(one.bus) for one in ranked], dtype=np.int64)
    return Place(tables, network, grids, owner(network.node_names), owner(network.branch_names), border)


@dataclass(frozen=True, eq=False)
class EnergyRow:
    """What a seller offers of a product (`ENERGY` in kW, `REACTIVE` in kvar) in one direction: `kw[t]` at a price for
    each MWh (Mvarh)."""

    seller: str
    direction: Direction
    kw: Ints
    price: Decimal
    product: str = ENERGY


@dataclass(frozen=True, slots=True)
class CapacityRow:
    """What a seller holds ready for a service all day: kW (kW s of inertia), paid `availability` for each MW and hour,
    and `use` for each MWh called."""

    seller: str
    service: Service
    direction: Direction
    kw: int
    availability: Decimal
    use: Decimal


def seller(
    where: Place,
    id: str,
    provider: str,
    bus: str,
    most_kw: tuple[int, int],
    services: Iterable[Service],
    tan_phi: float,
) -> Seller:
    """The seller at a bus of the whole grid; `most_kw`: up and down, as its static light confirms."""
    node = where.network.node_of(bus)
    grid = where.node_grid[node]
    return Seller(
        id=id,
        provider=provider,
        grid=where.grids[grid] if grid >= 0 else "",
        node=node,
        perimeter=where.network.node_perimeter[node] if grid >= 0 else "",
        tan_phi=tan_phi,
        up_kw=most_kw[0],
        down_kw=most_kw[1],
        services=tuple(sorted(services)),
    )


def offers(axis: Axis, sellers: Iterable[Seller], rows: Iterable[EnergyRow]) -> tuple[Offer, ...]:
    """Offers of energy, received in the order of product, seller and direction."""
    provider = {one.id: one.provider for one in sellers}
    ranked = sorted(rows, key=lambda row: (row.product, row.seller, row.direction))
    return tuple(
        _offer(axis, number, provider[row.seller], row.seller, row.product, row.direction, row.kw, row.price)
        for number, row in enumerate(ranked, start=1)
    )


def capacity(
    axis: Axis, sellers: Iterable[Seller], rows: Iterable[CapacityRow]
) -> Mapping[Service, tuple[CapacityOffer, ...]]:
    """Offers of capacity by service, received in the order of service, seller and direction."""
    provider = {one.id: one.provider for one in sellers}
    found: dict[Service, list[CapacityOffer]] = {}
    ranked = sorted(rows, key=lambda row: (row.service, row.seller, row.direction))
    for number, row in enumerate(ranked, start=1):
        kw = np.full(len(axis), row.kw, dtype=np.int64)
        terms = (axis, number, provider[row.seller], row.seller, row.service.value, row.direction, kw, row.use)
        found.setdefault(row.service, []).append(CapacityOffer(_offer(*terms), (row.availability,)))
    return {service: tuple(held) for service, held in found.items()}


@dataclass(frozen=True, eq=False)
class Book:
    """Who sells, and what those who offer do; `lots` of storage as they are let."""

    sellers: tuple[Seller, ...]
    energy: Iterable[EnergyRow]
    capacity: Iterable[CapacityRow]
    offering: frozenset[str]
    lots: tuple[StorageLot, ...] = ()


@dataclass(frozen=True, eq=False)
class Needs:
    """What is asked for, as in `World`; `reserve_kw` and `local_kw` all day; `profile_kvar` of the grids by name."""

    orders: tuple[Order, ...]
    system_kw: Ints
    reserve_kw: Mapping[tuple[Service, Direction], int]
    local_kw: Mapping[tuple[Service, Direction], int]
    energy_eur_mwh: Floats
    profile_kvar: Ints
    lease_bids: tuple[LeaseRequest, ...] = ()


def not_negative(name: str, value: float) -> None:
    """Raises CoflexError on a lever below 0 or without end."""
    if not 0 <= value < np.inf:
        raise CoflexError(f"A {name} of {value:g} is out of range.", "Give 0 or a number above it.")


@dataclass(frozen=True, slots=True)
class Levers:
    """What a case may be varied by (see `case`). Raises CoflexError on one out of its range."""

    liquidity: float
    congestion: float
    forecast_error: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.liquidity <= 1:
            raise CoflexError(f"A liquidity of {self.liquidity:g} is no share.", "Give a number from 0 to 1.")
        not_negative("congestion", self.congestion)
        not_negative("forecast error", self.forecast_error)
        if self.seed < 0:
            raise CoflexError(f"A seed of {self.seed} is out of range.", "Give 0 or a whole number above it.")

    def offering(self, ranked: Sequence[str]) -> frozenset[str]:
        """The first share of a list of sellers, rounded up: a larger share holds every smaller one."""
        return frozenset(ranked[: ceil(self.liquidity * len(ranked) - 1e-9)])

    @property
    def notes(self) -> dict[str, str]:
        """Each lever's value as text."""
        return {name: f"{getattr(self, name):g}" for name in ("liquidity", "congestion", "forecast_error", "seed")}


def world(
    id: str,
    where: Place,
    flows: tuple[Floats, Floats],
    errors: Floats,
    book: Book,
    needs: Needs,
    reductions: tuple[VoltageReduction, ...],
    phases: PhaseFeeder | None,
    levers: Levers,
) -> World:
    """The case of the delivery day at which `flows`, active and reactive power (t, n), are what will be."""
    axis = delivery_day(DAY, ZONE)
    return World(
        id=id,
        axis=axis,
        zone=ZONE,
        network=where.network,
        grids=where.grids,
        node_grid=where.node_grid,
        branch_grid=where.branch_grid,
        border=where.border,
        p_mw=flows[0],
        q_mvar=flows[1],
        error_p_mw=errors,
        error_level=levers.forecast_error,
        sellers=book.sellers,
        offers=offers(axis, book.sellers, (row for row in book.energy if row.seller in book.offering)),
        reactive=frozenset({REACTIVE}),
        capacity=capacity(axis, book.sellers, (row for row in book.capacity if row.seller in book.offering)),
        groups={},
        orders=needs.orders,
        system_kw=needs.system_kw,
        reserve_kw={key: np.full(len(axis), kw, dtype=np.int64) for key, kw in needs.reserve_kw.items()},
        local_kw={key: np.full(len(axis), kw, dtype=np.int64) for key, kw in needs.local_kw.items()},
        energy_eur_mwh=needs.energy_eur_mwh,
        emergency_eur_mwh=EMERGENCY_EUR_MWH,
        value_eur_mwh=VALUE_EUR_MWH,
        reductions=reductions,
        phases=phases,
        tools=OwnTools(where.tables, where.means()),
        lots=book.lots,
        lease_bids=needs.lease_bids,
        profile_kvar=needs.profile_kvar,
        notes=levers.notes,
    )


def _offer(
    axis: Axis, number: int, provider: str, seller: str, product: str, direction: Direction, kw: Ints, price: Decimal
) -> Offer:
    return Offer(
        id=f"{product}-{seller}-{direction}",
        receipt=number,
        received_at=axis.start - EARLY + number * timedelta(minutes=1),
        session="case",
        provider=provider,
        product=product,
        direction=direction,
        unit=seller,
        group=None,
        steps=(OfferStep(1, axis.start, price, tuple(kw.tolist())),),
    )
