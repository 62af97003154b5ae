"""The ledger: a unit is held by at most one session in a quarter-hour.

A preliminary holding may be changed by the same buyer's next session and is closed to every other; a definitive
one is fixed (mutual unavailability, document B, section 6.3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from coflex.domain.clearing import Holding, Status
from coflex.domain.errors import CoflexError, SoldTwice
from coflex.domain.quantity import Bools, Direction, Floats, Ints
from coflex.domain.time import Axis, local_label
from coflex.market.design import SessionPlan

Cell = tuple[str, datetime]


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """What a session wants to hold: `quantity_kw`, positive, of a unit in the quarter-hour that starts at `start`."""

    unit: str
    start: datetime
    direction: Direction
    quantity_kw: int
    offer: str


def changeable(holding: Holding, buyer: str) -> bool:
    """Whether a session of this buyer may release the holding: its own, and still preliminary."""
    return holding.buyer == buyer and holding.status is Status.PRELIMINARY


def claim(
    holdings: Sequence[Holding], plan: SessionPlan, buyer: str, claims: Sequence[Claim]
) -> tuple[tuple[Holding, ...], tuple[Holding, ...], tuple[Holding, ...]]:
    """What the ledger keeps, loses and gains when a session settles on its claims: (kept, removed, added).

    The buyer's preliminary holdings inside the session's horizon are released and replaced by the claims;
    everything else is kept. What is added is definitive in the session's firm part, preliminary after it. Each
    part is sorted by unit and quarter-hour; kept + added is the new ledger, with one holding for each of them.
    Raises SoldTwice when a claim meets a kept holding or another claim, OutsideAxis when one lies outside the
    horizon, CoflexError when one is for no power.
    """
    by_cell = _by_cell(holdings, plan)
    released = {c for c, holding in by_cell.items() if changeable(holding, buyer) and plan.horizon.covers(c[1])}
    kept = {cell: holding for cell, holding in by_cell.items() if cell not in released}
    added: dict[Cell, Holding] = {}
    for wanted in sorted(claims):
        cell = (wanted.unit, wanted.start)
        holder = kept.get(cell) or added.get(cell)
        if holder:
            raise _sold_twice(holder, plan)
        added[cell] = _holding(wanted, plan, buyer)
    return _sorted(kept), _sorted({cell: by_cell[cell] for cell in released}), _sorted(added)


def free_units(holdings: Sequence[Holding], units: Sequence[str], buyer: str, axis: Axis) -> Bools:
    """Which units the buyer may still use, shape (units, periods): not held, or its own and preliminary."""
    rows = {unit: i for i, unit in enumerate(units)}
    columns = {start: t for t, start in enumerate(axis)}
    free = np.ones((len(units), len(axis)), dtype=np.bool_)
    for holding in holdings:
        row, column = rows.get(holding.unit), columns.get(holding.start)
        if row is not None and column is not None and not changeable(holding, buyer):
            free[row, column] = False
    return free


def assign(award_kw: int, members: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Which units of a group deliver an award: (unit, kW) for those that are used, in the order of the rule.

    `members`: unit and its free power in kW. Rule: the unit with the largest free power first, ids breaking
    ties, each filled before the next is touched. So no choice uses fewer units, all used ones but the last are
    used whole, and the rest stays free for later sessions. The quantities add to the award exactly.
    Raises CoflexError when the award is negative or above the free power, or a unit stands twice.
    """
    if len({unit for unit, _ in members}) < len(members):
        raise CoflexError("A group names a unit twice.", "Name each of its units once.")
    room = sum(max(0, free_kw) for _, free_kw in members)
    if not 0 <= award_kw <= room:
        raise CoflexError(f"An award of {award_kw} kW does not fit {room} kW of free units.", "Award at most the rest.")
    used, left = [], award_kw
    for unit, free_kw in sorted(members, key=lambda member: (-member[1], member[0])):
        share = min(left, max(0, free_kw))
        if share:
            used.append((unit, share))
        left -= share
    return tuple(used)


def assign_over(
    award_kw: Ints, free_kw: Ints, energy_kwh: Floats, hours: float, units: Sequence[str]
) -> tuple[Ints, int | None]:
    """Which units of a group deliver its awards over a horizon: kW (units, periods), and the first period whose award
    does not fit (None when all do).

    `award_kw[t]`, `free_kw[u, t]` whole kW; `energy_kwh[u]` what each can still give, infinite where nothing limits
    it; `hours` of a period. Rule, period by period: units without a limit first, by `assign`; then those that could
    go on longest (energy over power), which keeps the most possible for later (Evans, Tindemans and Angeli, 2018).
    """
    shares = np.zeros_like(free_kw)
    left = energy_kwh.astype(np.float64).copy()
    endless = np.isinf(left)
    for t in np.flatnonzero(award_kw > 0).tolist():
        able = np.where(endless, free_kw[:, t], np.minimum(free_kw[:, t], np.floor(left / hours + 1e-9)))
        able = able.astype(np.int64)
        if award_kw[t] > able.sum():
            return shares, t
        first = min(int(award_kw[t]), int(able[endless].sum()))
        place = {units[u]: u for u in range(len(units))}
        for unit, kw in assign(first, [(units[u], int(able[u])) for u in np.flatnonzero(endless).tolist()]):
            shares[place[unit], t] = kw
        rest = int(award_kw[t]) - first
        lasting = sorted(
            np.flatnonzero(~endless & (able > 0)).tolist(), key=lambda u: (-left[u] / free_kw[u, t], units[u])
        )
        for u in lasting:
            shares[u, t] = min(rest, int(able[u]))
            left[u] -= shares[u, t] * hours
            rest -= int(shares[u, t])
    return shares, None


def _by_cell(holdings: Sequence[Holding], plan: SessionPlan) -> dict[Cell, Holding]:
    by_cell: dict[Cell, Holding] = {}
    for holding in holdings:
        other = by_cell.setdefault((holding.unit, holding.start), holding)
        if other is not holding:
            raise _sold_twice(other, plan)
    return by_cell


def _holding(wanted: Claim, plan: SessionPlan, buyer: str) -> Holding:
    if wanted.quantity_kw <= 0:
        message = f"Session {plan.id} claims {wanted.quantity_kw} kW of unit {wanted.unit}."
        raise CoflexError(message, "Claim only units that are to change their power.")
    status = plan.status(wanted.start)
    return Holding(
        unit=wanted.unit,
        start=wanted.start,
        session=plan.id,
        buyer=buyer,
        direction=wanted.direction,
        quantity_kw=wanted.quantity_kw,
        offer=wanted.offer,
        status=status,
    )


def _sold_twice(holder: Holding, plan: SessionPlan) -> SoldTwice:
    at = local_label(holder.start, plan.zone)
    return SoldTwice(
        f"Unit {holder.unit} is held for {at} by {holder.buyer} (session {holder.session}, {holder.status.value}).",
        f"Let session {plan.id} take another unit or quarter-hour.",
    )


def _sorted(holdings: Mapping[Cell, Holding]) -> tuple[Holding, ...]:
    return tuple(holdings[cell] for cell in sorted(holdings))
