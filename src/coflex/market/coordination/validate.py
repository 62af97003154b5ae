"""The DSO's walk over a merit order list, with substitution until it is safe (MKT-07; document T, offering 5; O, TLQ).

The list is walked in economic order by AC power flow (`grid.validation`): a line is green and stays, yellow and is
limited, or red and goes. The clearing then replaces what is missing by the next lines, and the list is walked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.clearing import Reason
from coflex.domain.quantity import Bools, Floats, Ints
from coflex.grid.network import Network
from coflex.grid.powerflow import GridState
from coflex.grid.validation import Activations, validate
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer
from coflex.market.coordination.lights import ready_kw
from coflex.market.coordination.state import State
from coflex.market.coordination.supply import Supply, in_terms
from coflex.market.coordination.view import View

# Walks of one list after which nothing new is taken up any more: what has passed is only cut further.
WALKS = 12


@dataclass(frozen=True, slots=True)
class Walked:
    """How often the list was walked, and how many kWh of lines that were selected did not pass."""

    rounds: int
    limited_kwh: float


def walk(
    view: View, state: State, given: Supply, clear: Callable[[Supply], Answer], *, ready: bool = False
) -> tuple[Answer, Supply, Walked]:
    """Clear, walk, limit and clear again until every line of a distribution grid is green.

    `ready`: the lines are of capacity, and each direction is walked by itself, as if all of it were called with all
    that is kept ready already. Guarantees: the awards of distribution units, called in the order of the list, keep
    every limit of the distribution grids that holds without them; what those grids break already is not broken further
    (`grid.validation`).
    """
    lists = _lists(view, state, ready)
    limited, rounds = 0.0, 0
    while True:
        rounds += 1
        answer = clear(given)
        lines = _lines(view, given.book, answer.award_kw)
        allowed, reason = answer.award_kw[lines].astype(np.float64), [""] * len(lines)
        for sign, parts in lists:
            mine = np.flatnonzero((given.book.sign[lines] == sign) | (sign == 0))
            allowed[mine], why = _walked(parts, given.book, lines[mine], answer.award_kw)
            for line, name in zip(mine.tolist(), why, strict=True):
                reason[line] = name
        short = allowed < answer.award_kw[lines] - 0.5
        if not short.any():
            return answer, given, Walked(rounds, limited)
        lost = answer.award_kw[lines][short] - allowed[short]
        limited += float(lost.sum()) * given.book.axis.hours
        given = _cut(given, lines[short], allowed[short], [reason[k] for k in np.flatnonzero(short).tolist()])
        if rounds >= WALKS:
            # What the list took up instead has not held so often that it stays with what has.
            given = _kept(view, given, lines, allowed if rounds < 2 * WALKS else np.zeros(len(lines)))


_Parts = tuple[tuple[Network, GridState, Ints], ...]


def _lists(view: View, state: State, ready: bool) -> list[tuple[int, _Parts]]:
    """The states that lines are walked on: of each direction with what is kept ready in it called, or of all (0)."""
    if not ready:
        return [(0, tuple(view.below(state)))]
    kept = ready_kw(view, state)
    return [(sign, tuple(view.below(state, sign * kept[:, way]))) for way, sign in ((0, 1), (1, -1))]


def _kept(view: View, given: Supply, lines: Ints, kw: Floats) -> Supply:
    """The supply with no more of distribution units than lines that have passed."""
    book = given.book
    quantity = book.quantity_mw.copy()
    below = _below(view, book)
    quantity[below] = 0.0
    quantity[lines] = np.floor(kw) / 1000.0
    return replace(given, book=replace(book, quantity_mw=quantity), admissible=given.admissible & (quantity > 0))


def _below(view: View, book: OrderBook) -> Bools:
    """Blocks of units in distribution grids."""
    found = np.zeros(len(book), dtype=np.bool_)
    placed = np.flatnonzero(book.node >= 0)
    found[placed] = view.world.node_grid[book.node[placed]] >= 0
    return found


def _lines(view: View, book: OrderBook, award_kw: Ints) -> Ints:
    """Selected blocks of distribution units in the order of the list: quarter-hour, price, receipt."""
    rows = np.flatnonzero(_below(view, book) & (award_kw > 0))
    order = np.lexsort((book.step[rows], book.offer[rows], book.price[rows], book.period[rows]))
    return rows[order]


def _walked(
    parts: Sequence[tuple[Network, GridState, Ints]], book: OrderBook, lines: Ints, award_kw: Ints
) -> tuple[Floats, list[str]]:
    """Whole kW that each line may be called for, and what stops it; each part of the day on its own network."""
    allowed, reason = np.zeros(len(lines)), [""] * len(lines)
    for network, solved, at in parts:
        mine = np.flatnonzero(np.isin(book.period[lines], at))
        rows = lines[mine]
        called = Activations(
            node=book.node[rows],
            signed_kw=(book.sign[rows] * award_kw[rows]).astype(np.float64),
            tan_phi=book.tan_phi[rows],
            period=np.searchsorted(at, book.period[rows]),
        )
        seen = validate(network, solved, called)
        allowed[mine] = np.floor(seen.allowed_kw + 1e-6)
        for line, name in zip(mine.tolist(), seen.reason, strict=True):
            reason[line] = name
    return allowed, reason


def _cut(given: Supply, lines: Ints, kw: Floats, names: list[str]) -> Supply:
    """The supply with lines limited, and why."""
    left = np.round(given.book.quantity_mw * 1000)
    left[lines] = kw
    quantity = in_terms(given.book, left) / 1000.0
    shut = dict(given.shut)
    for line, name in zip(lines.tolist(), names, strict=True):
        shut[line] = Reason.GRID_LIMIT, name or "what others on the list leave"
    admissible = given.admissible & (quantity > 0)
    return replace(given, book=replace(given.book, quantity_mw=quantity), admissible=admissible, shut=shut)
