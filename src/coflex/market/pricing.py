"""Pricing: what an accepted block is paid.

pay_as_bid: its own price. pay_as_clear: the dearest accepted bid of the same quarter-hour and direction, for all.
nodal: what the needs pay for one more MWh at the block's place, from the duals of the last linearisation, never
less than the bid (indivisible blocks may be accepted above the dual; they are made whole) and never more than the
dearest bid that could have been bought in the quarter-hour and direction (where a need stays uncovered the duals
know no bound).
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np

from coflex.domain.quantity import CENT
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer
from coflex.market.design import Pricing


def prices(book: OrderBook, answer: Answer, rule: Pricing) -> dict[int, Decimal]:
    """Price in EUR/MWh of every accepted block (by its place in the book), in whole cents."""
    accepted = np.flatnonzero(answer.award_kw > 0).tolist()
    bids = {i: bid(book, i) for i in accepted}
    if rule is Pricing.PAY_AS_BID:
        return bids
    if rule is Pricing.PAY_AS_CLEAR:
        dearest: dict[tuple[int, int], Decimal] = {}
        for i in accepted:
            key = int(book.period[i]), int(book.sign[i])
            dearest[key] = max(dearest.get(key, bids[i]), bids[i])
        return {i: dearest[int(book.period[i]), int(book.sign[i])] for i in accepted}
    worth = answer.request_worth + answer.grid_worth + answer.light_worth
    cell = 2 * book.period + (book.sign > 0)
    top = np.full(2 * len(book.axis), -np.inf)
    np.maximum.at(top, cell[answer.considered], book.price[answer.considered])
    paid = np.minimum(worth, top[cell])
    return {i: max(bids[i], Decimal(float(paid[i])).quantize(CENT, ROUND_HALF_EVEN)) for i in accepted}


def bid(book: OrderBook, block: int) -> Decimal:
    """The price that the block was offered at, exact."""
    return book.offers[int(book.offer[block])].steps[int(book.step[block])].price_eur_mwh
