"""The merit order list: every block of a quarter-hour that asks for something, in economic order, with its reason.

The reasons come from the answer's prices: what the needs would pay for a block at its place, and what lights, grid
and couplings take off. A block whose worth exceeds its price and that is still refused is named as such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

import numpy as np

from coflex.domain.clearing import MeritLine, Reason, Status, Uncovered
from coflex.domain.offer import Offer
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.market.book import OrderBook, direction_of, seller
from coflex.market.clearing import Answer
from coflex.market.model import Demand
from coflex.market.pricing import bid

# EUR/MWh below which a worth is none.
NOTHING = 1e-6


def merit_order(
    session: str,
    book: OrderBook,
    answer: Answer,
    shut: Mapping[int, tuple[Reason, str]],
    capability_mw: Mapping[tuple[str, int], Floats],
    status: Callable[[datetime], Status],
) -> tuple[MeritLine, ...]:
    """Lines of all quarter-hours with a need, ranked by price within quarter-hour and direction.

    `shut[i]`: why block i was kept out of the clearing. `status` of a quarter-hour: preliminary or definitive.
    """
    wanted = asked(book, answer)
    reason = _reasons(book, answer, capability_mw)
    instants = tuple(book.axis)
    lines: list[MeritLine] = []
    rank: dict[tuple[int, int], int] = {}
    for i in np.flatnonzero(wanted[book.period]).tolist():
        offer = book.offers[int(book.offer[i])]
        key = int(book.period[i]), int(book.sign[i])
        rank[key] = rank.get(key, 0) + 1
        why, detail = shut[i] if i in shut else reason(i)
        start = instants[key[0]]
        lines.append(
            MeritLine(
                session=session,
                product=offer.product,
                direction=direction_of(key[1]),
                start=start,
                rank=rank[key],
                offer=offer.id,
                step=offer.steps[int(book.step[i])].number,
                provider=offer.provider,
                location=seller(offer),
                price_eur_mwh=bid(book, i),
                offered_kw=round(float(book.quantity_mw[i]) * 1000),
                accepted_kw=int(answer.award_kw[i]),
                status=status(start),
                reason=why,
                detail=detail,
            )
        )
    return tuple(lines)


def uncovered(session: str, book: OrderBook, demand: Demand, answer: Answer) -> tuple[Uncovered, ...]:
    """What stays uncovered: requests in kW, grid limits in their own unit, each with the rows that bind there."""
    instants = tuple(book.axis)
    found: dict[tuple[int, str], Uncovered] = {}
    for k in np.flatnonzero(answer.uncovered_mw > 1e-4).tolist():
        t, what, unit = int(demand.period[k]), f"request {direction_of(int(demand.sign[k]))}", "kW"
        if demand.is_reactive[k]:
            what, unit = f"{what} of reactive power", "kvar"
        if demand.zones[k] >= 0:
            what = f"{what} at interface {demand.zones[k] + 1}"
        kw = round(float(answer.uncovered_mw[k]) * 1000, 3)
        found[(t, what)] = Uncovered(session, instants[t], what, kw, unit, _binding_lights(book, answer, demand, k))
    if answer.rows is not None:
        pressed = answer.row_price < -NOTHING
        # A branch has a row at each end; the end that is shorter speaks for it.
        for r in np.flatnonzero(answer.short)[np.argsort(answer.short[answer.short > 0], kind="stable")].tolist():
            t = int(answer.rows.period[r])
            binding = tuple(
                sorted({answer.rows.names[b] for b in np.flatnonzero(pressed & (answer.rows.period == t)).tolist()})
            )
            unit = "pu" if answer.rows.names[r].startswith("voltage") else "share of rating"
            amount = round(float(answer.short[r]), 9)
            found[(t, answer.rows.names[r])] = Uncovered(
                session, instants[t], answer.rows.names[r], amount, unit, binding
            )
    return tuple(found[key] for key in sorted(found))


def _binding_lights(book: OrderBook, answer: Answer, demand: Demand, k: int) -> tuple[str, ...]:
    """What keeps a request uncovered: the lights that are full, or that nothing more is offered."""
    mine = (book.period == demand.period[k]) & (book.sign == demand.sign[k]) & (answer.light_worth < -NOTHING)
    perimeters = sorted({book.perimeters[p] for p in book.perimeter[mine].tolist()})
    return tuple(f"light of {name}" for name in perimeters) or ("nothing more is offered",)


def asked(book: OrderBook, answer: Answer) -> Bools:
    """Quarter-hours in which something is asked for."""
    asked = np.zeros(len(book.axis), dtype=np.bool_)
    asked[book.period[answer.award_kw > 0]] = True
    asked[book.period[np.abs(answer.request_worth) > NOTHING]] = True
    if answer.rows is not None:
        asked[answer.rows.period[answer.row_price < -NOTHING]] = True
    return asked


def _reasons(
    book: OrderBook, answer: Answer, capability_mw: Mapping[tuple[str, int], Floats]
) -> Callable[[int], tuple[Reason, str]]:
    strongest = _strongest_row(book, answer)
    need = answer.request_worth + np.maximum(answer.grid_worth, 0.0)
    worth = answer.worth

    def reason(i: int) -> tuple[Reason, str]:
        offered, accepted = round(float(book.quantity_mw[i]) * 1000), int(answer.award_kw[i])
        if accepted >= offered:
            return Reason.ACCEPTED, ""
        why, detail = refused(i)
        if accepted:
            return (Reason.MARGINAL if why in (Reason.OUT_OF_MERIT, Reason.NO_NEED) else why), detail or "need is met"
        return why, detail

    def refused(i: int) -> tuple[Reason, str]:
        price, offer = float(book.price[i]), book.offers[int(book.offer[i])]
        if need[i] <= NOTHING:
            return _without_worth(book, answer, i)
        if answer.light_worth[i] < -NOTHING and need[i] > price - NOTHING:
            return _light(book, capability_mw, i)
        if answer.grid_worth[i] < -NOTHING and need[i] > price - NOTHING:
            return Reason.GRID_LIMIT, strongest(i)
        if need[i] + min(0.0, answer.light_worth[i]) > price + NOTHING:
            return _own_terms(offer), f"worth {need[i]:.2f} EUR/MWh here, above its price"
        return Reason.OUT_OF_MERIT, f"worth {max(worth[i], 0.0):.2f} EUR/MWh here"

    return reason


def _own_terms(offer: Offer) -> Reason:
    """The term of its own that keeps an offer out although its price is good."""
    terms = (
        (offer.block, Reason.BLOCK_REFUSED),
        (offer.exclusive is not None, Reason.EXCLUSIVE),
        (offer.energy_limit_kwh is not None, Reason.ENERGY_LIMIT),
        (offer.max_periods is not None, Reason.RUN_LENGTH),
        (offer.min_quantity_kw > 0, Reason.MIN_QUANTITY),
    )
    return next((reason for stated, reason in terms if stated), Reason.OUT_OF_MERIT)


def _without_worth(book: OrderBook, answer: Answer, i: int) -> tuple[Reason, str]:
    if answer.grid_worth[i] < -NOTHING:
        return Reason.GRID_LIMIT, "it would worsen what binds"
    if answer.rows is not None and (answer.rows.period == book.period[i]).any():
        return Reason.NO_EFFECT, "no effect on what binds"
    return Reason.NO_NEED, "nothing is asked for in this direction"


def _light(book: OrderBook, capability_mw: Mapping[tuple[str, int], Floats], i: int) -> tuple[Reason, str]:
    perimeter = book.perimeters[int(book.perimeter[i])]
    capability = float(capability_mw[(perimeter, int(book.sign[i]))][int(book.period[i])])
    if capability <= 0:
        return Reason.RED_LIGHT, f"{perimeter} is red {direction_of(int(book.sign[i]))}"
    return Reason.YELLOW_LIGHT, f"{perimeter} may use {capability * 1000:.0f} kW"


def _strongest_row(book: OrderBook, answer: Answer) -> Callable[[int], str]:
    """Names the grid row that weighs most against a block."""
    rows = answer.rows

    def name(i: int) -> str:
        if rows is None or book.node[i] < 0:
            return ""
        here: Ints = np.flatnonzero(rows.period == book.period[i])
        effect = book.sign[i] * (
            book.p_share[i] * rows.dp[here, book.node[i]] + book.tan_phi[i] * rows.dq[here, book.node[i]]
        )
        return rows.names[int(here[int(np.argmin(effect * answer.row_price[here]))])] if len(here) else ""

    return name
