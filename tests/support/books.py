"""Offers and books in a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from coflex.domain.offer import Offer, OfferStep
from coflex.domain.quantity import Direction, Floats, Ints
from coflex.domain.time import Axis
from coflex.grid.network import Network
from coflex.grid.rows import AcGrid
from coflex.market.book import OrderBook, Place, build
from coflex.market.clearing import Answer, clear
from coflex.market.model import Demand

START = datetime(2016, 6, 1, tzinfo=UTC)
UP, DOWN = Direction.UP, Direction.DOWN


def axis(periods: int) -> Axis:
    return Axis(START, periods)


def offer(
    receipt: int, unit: str, direction: Direction, *steps: tuple[str, Sequence[int]], name: str = "", **terms: Any
) -> Offer:
    """Steps as (price, kW of each quarter-hour from the start)."""
    rows = tuple(
        OfferStep(number, START, Decimal(price), tuple(kw)) for number, (price, kw) in enumerate(steps, start=1)
    )
    return Offer(
        name or f"offer {receipt}",
        receipt,
        START,
        "session",
        "provider",
        "product",
        direction,
        unit,
        None,
        rows,
        **terms,
    )


def book(offers: Sequence[Offer], periods: int, places: Mapping[str, Place] | None = None) -> OrderBook:
    """Places that are not given have no node and no perimeter."""
    nowhere = {o.unit or "": Place(-1, "", 0.0) for o in offers}
    return build(offers, axis(periods), nowhere | dict(places or {}))


def places_of(network: Network, tan_phi: float = 0.0) -> dict[str, Place]:
    """A unit at each bus, named after it."""
    return {
        bus: Place(network.node_of(bus), network.node_perimeter[network.node_of(bus)], tan_phi)
        for bus in network.bus_names
    }


def demand(*asked: tuple[Direction, int, int]) -> Demand:
    """Requests as (direction, quarter-hour, kW)."""
    return Demand(
        np.array([direction.sign for direction, _, _ in asked], dtype=np.int64),
        np.array([period for _, period, _ in asked], dtype=np.int64),
        np.array([kw / 1000 for *_, kw in asked]),
        np.full(len(asked), 1000.0),
    )


def cleared(
    of: OrderBook,
    asked: Demand | None = None,
    grid: AcGrid | None = None,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
) -> Answer:
    """Clear with every block admissible."""
    everything = np.ones(len(of), dtype=np.bool_)
    return clear(of, everything, asked or Demand.none(), grid, capability_mw)


def bought(of: OrderBook, answer: Answer) -> dict[tuple[str, int, int], int]:
    """kW by offer id, step number and quarter-hour, nothing left out."""
    return {
        (of.offers[int(o)].id, int(s) + 1, int(t)): int(kw)
        for o, s, t, kw in zip(of.offer, of.step, of.period, answer.award_kw, strict=True)
    }


def total(of: OrderBook, answer: Answer, direction: Direction, period: int) -> int:
    mine: Ints = answer.award_kw[(of.sign == direction.sign) & (of.period == period)]
    return int(mine.sum())


def cost_eur(of: OrderBook, award_kw: Ints) -> float:
    return float(of.price @ award_kw) / 1000 * of.axis.hours
