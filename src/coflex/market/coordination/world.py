"""The case that a design is run on: grids, sellers with their offers, needs, and how well all of it is foreseen.

One network holds the transmission grid and every distribution grid below it; a session sees the limits of those parts
that its design names, and the same physics everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from zoneinfo import ZoneInfo

import numpy as np

from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.reserve import CapacityOffer
from coflex.domain.time import Axis
from coflex.domain.unit import Level
from coflex.grid.means import Means
from coflex.grid.network import Network
from coflex.grid.tables import GridTables
from coflex.grid.unbalanced import PhaseGrid
from coflex.market.design import Buyer, Service
from coflex.market.leasing import LeaseBid, Storage

# Hours ahead from which on a forecast is no worse.
FARTHEST_H = 24.0
# pu, and share of a rating, at which a limit is none.
FAR = 1e6


@dataclass(frozen=True, slots=True)
class Seller:
    """A controllable unit as coordination sees it.

    `grid`: the distribution grid that it is connected to, empty for transmission. `node` of the case's network, -1
    where it acts on none. `perimeter`: that of its traffic light. `tan_phi`: kvar that follow each kW. `up_kw`,
    `down_kw`: what its static light confirms. `services` that it is qualified for.
    """

    id: str
    provider: str
    grid: str
    node: int
    perimeter: str
    tan_phi: float
    up_kw: int
    down_kw: int
    services: tuple[Service, ...]

    @property
    def level(self) -> Level:
        return Level.DISTRIBUTION if self.grid else Level.TRANSMISSION

    @property
    def light(self) -> str:
        """The perimeter whose light limits it: a unit of a distribution grid without one has that of its whole grid."""
        return self.perimeter or (f"{self.grid}/" if self.grid else "")

    def limit_kw(self, direction: Direction) -> int:
        return self.up_kw if direction is Direction.UP else self.down_kw


@dataclass(frozen=True, eq=False)
class Order:
    """What a balance responsible party wants to buy: `kw[t]`, up positive (more energy for it to sell or use), at most
    at `limit_eur_mwh` for each MWh."""

    id: str
    party: str
    kw: Ints
    limit_eur_mwh: float


@dataclass(frozen=True, eq=False)
class VoltageReduction:
    """What a DSO gives up by lowering its grid's voltage (document T, scenario II).

    `kw[s, t]`: less load by step s of the tap alone, once those before it are taken, 0 where a step would break a limit
    of the grid; `change_p_mw[s, t, n]`, `change_q_mvar[s, t, n]`: its effect at the nodes. `price_eur_mwh[s]`.
    """

    grid: str
    kw: Ints
    change_p_mw: Floats
    change_q_mvar: Floats
    price_eur_mwh: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class OwnTools:
    """What DSOs may set by themselves: `tables` of the whole grid, in which `network` of the case is built, and the
    `means` among them that are a distribution grid's."""

    tables: GridTables
    means: Means


@dataclass(frozen=True, eq=False)
class PhaseFeeder:
    """A grid of three phases below a distribution grid, where phases are balanced by a market of their own.

    `p_mw`, `q_mvar` as `grid.unbalanced.solve` takes them, (t, nodes, 3); units v with `node[v]`, `share[v, 3]` of
    their power on the phases, `tan_phi[v]`; `offers` of them by id, kW of active power.
    """

    grid: str
    phases: PhaseGrid
    p_mw: Floats
    q_mvar: Floats
    units: tuple[str, ...]
    providers: tuple[str, ...]
    node: Ints
    share: Floats
    tan_phi: Floats
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class StorageLot:
    """Storage that its owner lets (document F, section 5.2.6), over windows of the case's day.

    `grid`: the distribution grid that it is connected to, empty for transmission. `unit`: the seller that it is, which
    sells nothing else in quarter-hours that are let; empty where it is none.
    """

    storage: Storage
    grid: str
    unit: str = ""

    @property
    def id(self) -> str:
        return self.storage.id

    @property
    def level(self) -> Level:
        return Level.DISTRIBUTION if self.grid else Level.TRANSMISSION


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A bid for a lot of storage; `buyer`: as what its lessee buys, a provider as `brp`."""

    lot: str
    buyer: Buyer
    bid: LeaseBid


@dataclass(frozen=True, eq=False)
class World:
    """A case: t quarter-hours, n nodes, m branches, g distribution grids.

    `grids` by name, sorted; `node_grid[n]`, `branch_grid[m]`: index in `grids`, -1 for transmission; `border[g]`: node
    at which a grid hangs on transmission. `p_mw`, `q_mvar` (t, n): what will flow without any market, injection
    positive; `error_p_mw` (t, n): by how much a forecast from a day ahead is above it at `error_level` 1.
    `offers` of energy: active in kW and EUR/MWh, those with a product of `reactive` in kvar and EUR/Mvarh;
    `capacity` by service. `system_kw[t]`: balancing energy that the system needs beyond what forecasts show, up
    positive; `reserve_kw` by service and direction (t,), what the TSO wants to be held ready, inertia in kW s;
    `local_kw` likewise, what the DSOs want together. `profile_kvar[g, t]`: reactive power that the TSO wants of each
    grid beyond what flows, up positive, 0 where it wants none; without rows it never does. `energy_eur_mwh[t]`: price
    of energy between the grids, where a design prices the interface. `emergency_eur_mwh`: what an operator pays for any
    change it orders without a market. `value_eur_mwh`: most that a buyer pays.
    `lots` of storage to let, none twice, and the `lease_bids` for them, prices for the day.
    """

    id: str
    axis: Axis
    zone: ZoneInfo
    network: Network
    grids: tuple[str, ...]
    node_grid: Ints
    branch_grid: Ints
    border: Ints
    p_mw: Floats
    q_mvar: Floats
    error_p_mw: Floats
    error_level: float
    sellers: tuple[Seller, ...]
    offers: tuple[Offer, ...]
    reactive: frozenset[str]
    capacity: Mapping[Service, tuple[CapacityOffer, ...]]
    groups: Mapping[str, tuple[str, ...]]
    orders: tuple[Order, ...]
    system_kw: Ints
    reserve_kw: Mapping[tuple[Service, Direction], Ints]
    energy_eur_mwh: Floats
    emergency_eur_mwh: float
    value_eur_mwh: float
    reductions: tuple[VoltageReduction, ...] = ()
    phases: PhaseFeeder | None = None
    tools: OwnTools | None = None
    lots: tuple[StorageLot, ...] = ()
    lease_bids: tuple[LeaseRequest, ...] = ()
    local_kw: Mapping[tuple[Service, Direction], Ints] = field(default_factory=dict)
    profile_kvar: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    notes: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def seller(self) -> dict[str, Seller]:
        """Sellers by id."""
        return {one.id: one for one in self.sellers}

    def ordered(self) -> World:
        """The same case with sellers, orders, reductions and lots by name, so that no order of theirs decides."""
        return replace(
            self,
            sellers=tuple(sorted(self.sellers, key=lambda one: one.id)),
            orders=tuple(sorted(self.orders, key=lambda one: one.id)),
            reductions=tuple(sorted(self.reductions, key=lambda one: one.grid)),
            lots=tuple(sorted(self.lots, key=lambda one: one.id)),
            lease_bids=tuple(sorted(self.lease_bids, key=lambda one: (one.lot, one.bid.receipt, one.bid.id))),
        )

    def errors(self, at: datetime) -> Floats:
        """MW (t, n) by which what is foreseen at an instant lies above what will be: it grows with the root of the
        hours ahead, up to a day."""
        ahead = np.array([(start - at).total_seconds() / 3600.0 for start in self.axis])
        grown = np.sqrt(np.clip(ahead, 0.0, FARTHEST_H) / FARTHEST_H)
        errors: Floats = self.error_level * grown[:, None] * self.error_p_mw
        return errors

    def foreseen(self, at: datetime) -> tuple[Floats, Floats]:
        """Injections (t, n) in MW and Mvar as they are foreseen at an instant."""
        return self.p_mw + self.errors(at), self.q_mvar

    def need_kw(self, at: datetime) -> Floats:
        """Balancing energy (t,) that the system is foreseen to need at an instant, up positive: what forecasts put too
        high is missing later."""
        need: Floats = self.system_kw - 1000.0 * self.errors(at).sum(axis=1)
        return need

    def watched(self, distribution: bool, transmission: bool, grid: int | None = None) -> tuple[Bools, Bools]:
        """Nodes and branches of the named levels, or of one distribution grid alone."""
        nodes, branches = self.node_grid, self.branch_grid
        if grid is not None:
            return nodes == grid, branches == grid
        return np.where(nodes >= 0, distribution, transmission), np.where(branches >= 0, distribution, transmission)

    def seen(self, distribution: bool, transmission: bool) -> Network:
        """The network with the limits of the named levels alone."""
        return limited(self.network, *self.watched(distribution, transmission))


def limited(network: Network, nodes: Bools, branches: Bools) -> Network:
    """The network with the limits of these nodes and branches alone; the others know none."""
    return replace(
        network,
        v_max=np.where(nodes, network.v_max, FAR),
        v_min=np.where(nodes, network.v_min, -FAR),
        loading_max=np.where(branches, network.loading_max, FAR),
    )
