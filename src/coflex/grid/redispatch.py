"""What a transmission operator needs, from a schedule and the dc optimal flow: balancing and congestion energy by bus,
direction and quarter-hour, and reserve capacity.

Two programs a quarter-hour over the same offers: the cheapest balance as if no branch had a limit, and the cheapest
balance within all limits. The first is the need for balancing energy, what the second adds or takes back is the need
against congestion. Capacity follows Commission Regulation (EU) 2017/1485, article 157(2) for FRR and 160(2) for RR.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Floats, Ints
from coflex.grid.controllable import Controllables, controllables
from coflex.grid.network import Network
from coflex.grid.opf import OptimalFlow, dc_optimal_flow

# MW: a smaller need is none.
LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class TsoNeeds:
    """t periods, n nodes, k offers. `balancing_mw`, `congestion_mw` (t, n): signed, up (more injection) positive.
    `uncovered_mw` (t, n): what no offer covers. `cost_eur_h`, `balancing_eur_h` (t,): of all and of balancing alone.
    `change_mw` (t, k): of each offer. `flow`: the state within all limits, with prices and what binds; `loading_before`
    (t, m): share of the rating that the balanced schedule would take without congestion relief."""

    node_names: tuple[str, ...]
    balancing_mw: Floats
    congestion_mw: Floats
    uncovered_mw: Floats
    change_mw: Floats
    cost_eur_h: Floats
    balancing_eur_h: Floats
    loading_before: Floats
    flow: OptimalFlow

    def lines(self) -> Iterator[tuple[int, str, str, str, float]]:
        """(period, bus, purpose, direction, MW) of every need, in that order."""
        for t in range(len(self.balancing_mw)):
            for node, name in enumerate(self.node_names):
                for purpose, mw in (
                    ("balancing", self.balancing_mw),
                    ("congestion", self.congestion_mw),
                    ("uncovered", self.uncovered_mw),
                ):
                    if abs(mw[t, node]) > LEAST:
                        yield t, name, purpose, "up" if mw[t, node] > 0 else "down", abs(float(mw[t, node]))


def redispatch_offers(
    names: tuple[str, ...], node: Ints, down_mw: Floats, up_mw: Floats, down_price: Floats, up_price: Floats
) -> Controllables:
    """Offers to change a schedule: up to `down_mw`, `up_mw` (t, k), both 0 or more; up is paid `up_price`, down pays
    back `down_price` (k,), EUR/MWh.

    Raises Refused where an offer up is cheaper than one down pays: that is a trade and no need; clear it first.
    """
    places = [f"offer {name}" for name in names]
    findings = [
        Finding(place, "impossible_value", "A quantity is below zero; give the room in each direction.")
        for i, place in enumerate(places)
        if (down_mw[:, i] < 0).any() or (up_mw[:, i] < 0).any()
    ]
    if len(names) and up_price.min() < down_price.max():
        cheap, dear = int(up_price.argmin()), int(down_price.argmax())
        message = f"It sells below what {names[dear]} buys back at; clear such trades in the market first."
        findings.append(Finding(places[cheap], "crossed_offers", message))
    refuse("The offers", findings)
    far = float(max(down_mw.max(initial=0.0), up_mw.max(initial=0.0), 1.0))
    corners = tuple(
        ((-far, -far * float(back)), (0.0, 0.0), (far, far * float(paid)))
        for back, paid in zip(down_price, up_price, strict=True)
    )
    return replace(controllables(names, node, (-down_mw, up_mw)), corners=corners)


def tso_needs(network: Network, schedule_mw: Floats, offers: Controllables) -> TsoNeeds:
    """The least-cost change of a schedule (t, n) in MW that balances it and relieves every branch, by the dc model.

    `offers`: changes of injection, see `redispatch_offers`. What they cannot cover is told and named in `flow.binding`.
    Raises as `dc_optimal_flow`.
    """
    endless = np.full(network.m, np.inf)
    free = dc_optimal_flow(replace(network, rating_from=endless, rating_to=endless), schedule_mw, offers)
    held = dc_optimal_flow(network, schedule_mw, offers)
    at = np.zeros((len(offers), network.n))
    at[np.arange(len(offers)), offers.node] = 1.0
    balancing, whole = free.p_mw @ at, held.p_mw @ at
    rated = np.minimum(network.rating_from, network.rating_to)
    return TsoNeeds(
        node_names=network.node_names,
        balancing_mw=_clean(balancing),
        congestion_mw=_clean(whole - balancing),
        uncovered_mw=held.uncovered_mw,
        change_mw=held.p_mw,
        cost_eur_h=held.objective_eur_h,
        balancing_eur_h=free.objective_eur_h,
        loading_before=np.abs(free.flow_mw) / rated,
        flow=held,
    )


def _clean(mw: Floats) -> Floats:
    return np.where(np.abs(mw) > LEAST, mw, 0.0)


@dataclass(frozen=True, slots=True)
class ReserveNeeds:
    """MW of capacity. `frr_up`, `frr_down`: frequency restoration; `rr_up`, `rr_down`: replacement, what the imbalances
    of the past ask beyond it."""

    frr_up: float
    frr_down: float
    rr_up: float
    rr_down: float


def reserve_needs(
    imbalance_mw: Floats, largest_loss_mw: float, largest_gain_mw: float, covered: float = 0.99
) -> ReserveNeeds:
    """Reserve capacity of a block from past imbalances (s,), negative where short, and its dimensioning incidents.

    FRR covers the largest loss of injection (up) and the largest loss of withdrawal (down), article 157(2)(d) to (f);
    FRR and RR together cover imbalances for at least the share `covered` of the time in each direction, 157(2)(h), (i)
    and 160(2). Raises Refused without a record, on negative incidents, or on a share outside (0, 1].
    """
    findings = []
    if not len(imbalance_mw) or not np.isfinite(imbalance_mw).all():
        message = "Past imbalances are missing or have gaps; give their whole record."
        findings.append(Finding("imbalances", "empty", message))
    if min(largest_loss_mw, largest_gain_mw) < 0 or not 0 < covered <= 1:
        message = "Incidents are 0 MW or more and the share that is covered lies in (0, 1]."
        findings.append(Finding("reserve", "impossible_value", message))
    refuse("The reserve", findings)
    short, long = (max(0.0, float(np.quantile(s * imbalance_mw, covered, method="higher"))) for s in (-1.0, 1.0))
    return ReserveNeeds(
        frr_up=float(largest_loss_mw),
        frr_down=float(largest_gain_mw),
        rr_up=max(0.0, short - largest_loss_mw),
        rr_down=max(0.0, long - largest_gain_mw),
    )
