"""The market's part of the page: sessions, needs, merit order lists, and the interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coflex.domain.clearing import Award, MeritLine, Uncovered
from coflex.domain.need import LocalNeed, Request
from coflex.domain.quantity import Direction, Floats
from coflex.domain.time import Axis, local_label
from coflex.market.design import Needs, SessionPlan
from coflex.reporting.form import number, rounded, summed
from coflex.reporting.interface import Netting, netting

LINES = 120
ACTING = 5


def session_view(
    plan: SessionPlan,
    buyer: str,
    axis: Axis,
    planned: Mapping[str, Any],
    cleared: Mapping[str, Any],
    requests: Sequence[Request],
    short: Sequence[Uncovered],
) -> dict[str, Any]:
    """One session: what its planning and its clearing noted, laid on the day (zero outside its horizon)."""
    horizon, firm = axis.slice_of(plan.horizon), axis.slice_of(plan.firm)
    asks = plan.session.needs is Needs.REQUESTS
    netted = netting(requests, axis)
    after = len(axis) - horizon.stop
    awarded = {side: [0] * horizon.start + list(kw) + [0] * after for side, kw in cleared["awarded_kw"].items()}
    kept = ("offers", "offered_mwh", "awards", "definitive_mwh", "preliminary_mwh", "cost_eur", "passes", "gap")
    return {
        "id": plan.id,
        "number": plan.number,
        "scope": plan.scope.value,
        "buyer": buyer,
        "opens": local_label(plan.opens, plan.zone),
        "closes": local_label(plan.closes, plan.zone),
        "horizon": [horizon.start, horizon.stop],
        "firm": [firm.start, firm.stop],
        "violations_foreseen": planned["violations"],
        "needs": planned["needs"],
        "requested_kw": rounded(netted.asked_kw, 0) if asks else None,
        "netted_kw": rounded(-netted.local_kw, 0) if asks else None,
        "uncovered": [_uncovered(one, plan) for one in short],
        "awarded_kw": awarded,
        "reasons": cleared["reasons"],
        "models": [dict(model) for model in cleared["models"]],
    } | {name: cleared[name] for name in kept}


def _uncovered(one: Uncovered, plan: SessionPlan) -> dict[str, Any]:
    return {
        "start": local_label(one.start, plan.zone),
        "what": one.what,
        "amount": number(one.amount, 6),
        "unit": one.unit,
        "binding": list(one.binding),
    }


def needs_section(needs: Sequence[LocalNeed], plans: Mapping[str, SessionPlan], axis: Axis) -> list[dict[str, Any]]:
    """The needs of the definitive parts, in the order of time."""
    firm = [need for need in needs if plans[need.session].firm.covers(need.start)]
    return [
        {
            "session": need.session,
            "start": local_label(need.start, plans[need.session].zone),
            "t": axis.position(need.start),
            "element": need.element,
            "kind": need.kind.value,
            "perimeter": need.perimeter,
            "direction": need.direction.value,
            "value": need.value,
            "bound": need.bound,
            "volume_kw": need.volume_kw,
            "coverable": need.coverable,
            "acting": [{"unit": a.unit, "effect_per_kw": a.effect_per_kw} for a in need.acting[:ACTING]],
        }
        for need in sorted(firm, key=lambda need: (need.start, need.kind, need.element, need.session))
    ]


def merit_section(
    lines: Sequence[MeritLine], requests: Sequence[Request], plans: Mapping[str, SessionPlan], axis: Axis
) -> list[dict[str, Any]]:
    """Of each session and direction the definitive quarter-hour of the largest accepted power, the first of equals."""
    volume = summed(((line.session, line.product, line.direction, line.start), line.accepted_kw) for line in lines)
    chosen: dict[tuple[str, str, Direction], Any] = {}
    for cell, kw in sorted(volume.items(), key=lambda item: (-item[1], item[0])):
        if kw:
            chosen.setdefault(cell[:3], cell)
    asked = {(r.session, r.product, r.direction, r.start): r.quantity_kw for r in requests}
    by_cell: dict[Any, list[MeritLine]] = {cell: [] for cell in chosen.values()}
    for line in lines:
        cell = line.session, line.product, line.direction, line.start
        if cell in by_cell:
            by_cell[cell].append(line)
    order = {name: i for i, name in enumerate(plans)}
    found = []
    for cell in sorted(by_cell, key=lambda cell: (order[cell[0]], cell[3], cell[1:3])):
        session, product, direction, start = cell
        found.append(
            {
                "session": session,
                "product": product,
                "direction": direction.value,
                "start": local_label(start, plans[session].zone),
                "t": axis.position(start),
                "asked_kw": asked.get(cell),
                "lines": [_merit_line(line) for line in _shown(by_cell[cell])],
            }
        )
    return found


def _shown(lines: Sequence[MeritLine]) -> list[MeritLine]:
    """At most so many lines in the order of their ranks: those that were taken, then the first of the others."""
    first = sorted(lines, key=lambda line: (line.accepted_kw == 0, line.rank))[:LINES]
    return sorted(first, key=lambda line: line.rank)


def _merit_line(line: MeritLine) -> dict[str, Any]:
    return {
        "rank": line.rank,
        "offer": line.offer,
        "provider": line.provider,
        "location": line.location,
        "price": number(float(line.price_eur_mwh), 2),
        "offered_kw": line.offered_kw,
        "accepted_kw": line.accepted_kw,
        "reason": line.reason.value,
        "detail": line.detail,
    }


def interface_section(
    netted: Netting,
    global_awards: Sequence[Award],
    axis: Axis,
    flows: Mapping[str, Floats],
    losses_mwh: Mapping[str, float],
) -> dict[str, Any]:
    """`flows[state]` [t]: MW that the grid above delivers. `global_awards`: the definitive ones."""
    return {
        "p_mw": {name: rounded(flow, 4) for name, flow in flows.items()},
        "losses_mwh": {name: number(energy, 4) for name, energy in losses_mwh.items()},
        "asked_kw": rounded(netted.asked_kw, 0),
        "local_kw": rounded(netted.local_kw, 0),
        "bought_kw": signed_kw(global_awards, axis),
        "concordant_mwh": number(netted.concordant_mwh, 4),
        "discordant_mwh": number(netted.discordant_mwh, 4),
    }


def signed_kw(awards: Sequence[Award], axis: Axis) -> list[int]:
    """What awards buy in each quarter-hour, kW, up positive."""
    bought = np.zeros(len(axis), dtype=np.int64)
    for award in awards:
        bought[axis.position(award.start)] += award.direction.sign * award.quantity_kw
    found: list[int] = bought.tolist()
    return found
