"""The order book: columns, one row an offer block (one price step in one quarter-hour), in one canonical order.

Sorting by period, direction, price, receipt number, offer and step before anything is built makes the outcome the
same for any order of arrival; the receipt number breaks ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.time import Axis


@dataclass(frozen=True, slots=True)
class Place:
    """Where a seller (unit or group) acts: its node in the session's grid model (-1 if it has none), the
    perimeter whose light limits it (empty if none does), the reactive power that follows, kvar per kW, and the zone
    whose requests it can fill besides those for all (-1 if it belongs to none)."""

    node: int
    perimeter: str
    tan_phi: float
    zone: int = -1


@dataclass(frozen=True, eq=False)
class OrderBook:
    """n blocks on a horizon of t periods. `offers` in canonical order; all arrays of shape (n,).

    `offer[i]`: index in `offers`; `step[i]`: index of the step in that offer; `period[i]`; `sign[i]`: +1 up,
    -1 down; `quantity_mw[i]`; `price[i]` in EUR/MWh; `node[i]`, `perimeter[i]` (index in `perimeters`), `tan_phi[i]`;
    `p_share[i]`; `zone[i]` (-1 for none).

    A block's quantity times `p_share` is active power in MW, times `tan_phi` reactive power in Mvar: `p_share` is 1
    for a block of active power. A block of reactive power has `p_share` 0 and `tan_phi` 1, its quantity is in Mvar and
    its price in EUR/Mvarh; up is more reactive injection.
    """

    axis: Axis
    offers: tuple[Offer, ...]
    perimeters: tuple[str, ...]
    offer: Ints
    step: Ints
    period: Ints
    sign: Ints
    quantity_mw: Floats
    price: Floats
    node: Ints
    perimeter: Ints
    tan_phi: Floats
    p_share: Floats
    zone: Ints

    def __len__(self) -> int:
        return len(self.offer)

    @property
    def reactive(self) -> Bools:
        """Whether each block is one of reactive power, (n,)."""
        mask: Bools = self.p_share == 0.0
        return mask


def seller(offer: Offer) -> str:
    """The unit or group that offers."""
    return offer.unit or offer.group or ""


def build(
    offers: Sequence[Offer], axis: Axis, places: Mapping[str, Place], reactive: frozenset[str] = frozenset()
) -> OrderBook:
    """The book of all blocks with a quantity inside the horizon `axis`. `places` by unit or group; offers of the
    products `reactive` are quantities of kvar, which act on reactive power alone."""
    ranked = tuple(sorted(offers, key=lambda offer: (offer.receipt, offer.id)))
    perimeters = tuple(sorted({places[seller(offer)].perimeter for offer in ranked}))
    parts: list[tuple[int, int, int, float, Ints]] = []
    for i, offer in enumerate(ranked):
        for s, step in enumerate(offer.steps):
            first = (step.start - axis.start) // axis.step
            parts.append((i, s, first, float(step.price_eur_mwh), np.array(step.quantity_kw, dtype=np.int64)))
    lengths = np.array([len(quantity) for *_, quantity in parts], dtype=np.int64)
    quantity = np.concatenate([quantity for *_, quantity in parts]) if parts else np.zeros(0, dtype=np.int64)
    offer_of = np.repeat(np.array([part[0] for part in parts], dtype=np.int64), lengths)
    step_of = np.repeat(np.array([part[1] for part in parts], dtype=np.int64), lengths)
    price = np.repeat(np.array([part[3] for part in parts], dtype=np.float64), lengths)
    period = np.repeat(np.array([part[2] for part in parts], dtype=np.int64), lengths) + _within(lengths)
    sign_of = np.array([offer.direction.sign for offer in ranked], dtype=np.int64)
    keep = np.flatnonzero((quantity > 0) & (period >= 0) & (period < len(axis)))
    # Receipt and id are already the order of `ranked`, so the offer's index stands for both.
    order = keep[np.lexsort((step_of[keep], offer_of[keep], price[keep], -sign_of[offer_of[keep]], period[keep]))]
    offer_of = offer_of[order]
    at = [places[seller(offer)] for offer in ranked]
    acts = [(0.0, 1.0) if o.product in reactive else (1.0, place.tan_phi) for o, place in zip(ranked, at, strict=True)]
    p_share, tan_phi = np.array(acts, dtype=np.float64).reshape(-1, 2)[offer_of].T.copy()
    return OrderBook(
        axis=axis,
        offers=ranked,
        perimeters=perimeters,
        offer=offer_of,
        step=step_of[order],
        period=period[order],
        sign=sign_of[offer_of] if ranked else np.zeros(0, dtype=np.int64),
        quantity_mw=quantity[order] / 1000.0,
        price=price[order],
        node=np.array([place.node for place in at], dtype=np.int64)[offer_of],
        perimeter=np.array([perimeters.index(place.perimeter) for place in at], dtype=np.int64)[offer_of],
        tan_phi=tan_phi,
        p_share=p_share,
        zone=np.array([place.zone for place in at], dtype=np.int64)[offer_of],
    )


def _within(lengths: Ints) -> Ints:
    """0, 1, .. of each run: (2, 3) gives 0 1 0 1 2."""
    total = int(lengths.sum())
    starts: Ints = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.arange(total, dtype=np.int64) - starts


def direction_of(sign: int) -> Direction:
    return Direction.UP if sign > 0 else Direction.DOWN
