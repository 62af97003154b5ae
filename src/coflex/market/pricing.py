"""Pricing: what an accepted block is paid.

pay_as_bid: its own price. pay_as_clear: the dearest accepted bid of the same quarter-hour and direction, for all;
active and reactive power apart. marginal: the dearest of the same clock hour and direction, the last that was mobilised
(document O, VPP demonstration). nodal: what the needs pay for one more MWh at the block's place, less its toll, from
the duals of the last linearisation, never less than the bid (indivisible blocks may be accepted above the dual; they
are made whole) and never more than the dearest bid that could have been bought in the quarter-hour and direction (where
a need stays uncovered the duals know no bound).
"""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np

from coflex.domain.quantity import CENT, Ints
from coflex.domain.time import Axis
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer
from coflex.market.design import Pricing


def prices(book: OrderBook, answer: Answer, rule: Pricing) -> dict[int, Decimal]:
    """Price in EUR/MWh of every accepted block (by its place in the book), in whole cents."""
    accepted = np.flatnonzero(answer.award_kw > 0).tolist()
    bids = {i: bid(book, i) for i in accepted}
    if rule is Pricing.PAY_AS_BID:
        return bids
    way = 2 * book.reactive + (book.sign > 0)
    cell = 4 * book.period + way
    if rule in (Pricing.PAY_AS_CLEAR, Pricing.MARGINAL):
        if rule is Pricing.MARGINAL:
            cell = 4 * clock_hours(book.axis)[book.period] + way
        dearest: dict[int, Decimal] = {}
        for i in accepted:
            dearest[int(cell[i])] = max(dearest.get(int(cell[i]), bids[i]), bids[i])
        return {i: dearest[int(cell[i])] for i in accepted}
    worth = answer.request_worth + answer.grid_worth + answer.light_worth
    top = np.full(4 * len(book.axis), -np.inf)
    np.maximum.at(top, cell[answer.considered], book.price[answer.considered])
    paid = np.minimum(worth, top[cell])
    return {i: max(bids[i], Decimal(float(paid[i])).quantize(CENT, ROUND_HALF_EVEN)) for i in accepted}


def bid(book: OrderBook, block: int) -> Decimal:
    """The price that the block was offered at, exact."""
    return book.offers[int(book.offer[block])].steps[int(book.step[block])].price_eur_mwh


def clock_hours(axis: Axis) -> Ints:
    """Which clock hour each quarter-hour of an axis lies in, counted from the axis's first."""
    into = timedelta(minutes=axis.start.minute)
    return np.array([(start - axis.start + into) // timedelta(hours=1) for start in axis], dtype=np.int64)
