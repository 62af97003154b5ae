"""Indicators of delivery and participation (KPI-01) over many points, as expressions over tables.

What they mean is written in `coflex.reporting.kpi`, which computes the same of one day. Here each is a row of whole
numbers: `part`, and `whole` where it is a share or a mean (0 where it is a count). Ibis is imported where an
expression is built. Tables: docs/city.md.
"""

from __future__ import annotations

from functools import reduce

from coflex.settlement.columns import Column, Table, as_number

MESSAGES = {"sent": "timestamp('UTC')", "kind": "string", "sender": "string", "receiver": "string"}
SET_POINTS = {"point": "int32", "start": "timestamp('UTC')", "ordered_kw": "int32", "hop": "int8"}
MERIT = {
    "session": "string",
    "start": "timestamp('UTC')",
    "offer": "int32",
    "whole_system": "boolean",
    "limited": "boolean",
}
LIGHTS = {"perimeter": "string", "start": "timestamp('UTC')", "sign": "int8", "colour": "string"}
LIMITATIONS = {"point": "int32", "start": "timestamp('UTC')", "from_kw": "int32", "to_kw": "int32"}

LAST_HOP = 4  # the energy management system; 3 light node, 2 DSO platform, 1 market, 0 nobody
DSO = "dso"
MEGA = 1000

MEANINGS = {
    "messages_exchanged": ("messages", "Messages between the parties."),
    "messages_dso": ("%", "Messages that the distribution operator sends or receives, of all."),
    "set_points_sent": ("set points", "One a point and quarter-hour."),
    "set_points_delivered": ("%", "Set points that the customer's energy management system confirmed, of all."),
    "activated_peak": ("MW", "Highest quarter-hour of the ordered power, both directions added."),
    "activated_mean": ("MW", "Mean of the same over the quarter-hours in which any point was called."),
    "activated_offers": ("offers", "Different offers of which something was activated."),
    "lines_limited_by_lights": (
        "%",
        "Lines of the whole system's merit orders that a light limited or refused, of all.",
    ),
    "lights_not_green": ("lights", "Yellow or red, one a perimeter, direction and quarter-hour."),
    "limitations": ("limitations", "Activations that the distribution operator took back, in whole or in part."),
    "delivered_of_ordered": ("%", "Energy delivered in the ordered direction, of what was ordered; surplus included."),
    "lines_missing": ("%", "Settlement lines without a reading, of all."),
    "paid": ("EUR", "Amounts of all lines, less penalties."),
}
"""Unit and meaning of every indicator."""

PARTS_OF_A_WHOLE = frozenset(name for name, (unit, _) in MEANINGS.items() if unit in ("%", "MW"))


def participation(
    messages: Table, set_points: Table, activations: Table, merit: Table, lights: Table, limitations: Table
) -> Table:
    """Messages exchanged and delivered, activated power and offers, and the DSO's part (KPI-01): id, part, whole."""
    import ibis

    arrived, dsos = set_points.hop == LAST_HOP, (messages.sender == DSO) | (messages.receiver == DSO)
    power = set_points.filter(set_points.ordered_kw > 0).group_by("start").agg(kw=ibis._.ordered_kw.cast("int64").sum())
    system = merit.filter(merit.whole_system)
    called = activations.filter(activations.ordered_wh > 0)
    return _together(
        _row("messages_exchanged", messages, messages.count()),
        _row("messages_dso", messages, as_number(dsos).sum(), messages.count()),
        _row("set_points_sent", set_points, set_points.count()),
        _row("set_points_delivered", set_points, as_number(arrived).sum(), set_points.count()),
        _row("activated_peak", power, power.kw.max(), ibis.literal(MEGA, type="int64")),
        _row("activated_mean", power, power.kw.sum(), power.count() * MEGA),
        _row("activated_offers", called, called.offer.nunique()),
        _row("lines_limited_by_lights", system, as_number(system.limited).sum(), system.count()),
        _row("lights_not_green", lights, as_number(lights.colour != "green").sum()),
        _row("limitations", limitations, limitations.count()),
    )


def delivery(lines: Table) -> Table:
    """What came of the orders and what was paid for it, of lines with their cents: id, part, whole."""
    return _together(
        _row("delivered_of_ordered", lines, lines.delivered_wh.sum(), lines.ordered_wh.sum()),
        _row("lines_missing", lines, as_number(lines.missing).sum(), lines.count()),
        _row("paid", lines, lines.amount.sum() - lines.penalty.sum()),
    )


def value(name: str, part: int, whole: int) -> float:
    """An indicator's figure in its unit; 0 where it is a share or a mean of nothing."""
    unit, _ = MEANINGS[name]
    if name not in PARTS_OF_A_WHOLE:
        return part / 100 if unit == "EUR" else float(part)
    figure = part / whole if whole else 0.0
    return 100 * figure if unit == "%" else figure


def _row(name: str, table: Table, part: Column, whole: Column | None = None) -> Table:
    import ibis

    zero = ibis.literal(0, type="int64")
    sums = table.aggregate(part=part, whole=zero if whole is None else whole)
    return sums.select(
        id=ibis.literal(name, type="string"), part=sums.part.fill_null(zero), whole=sums.whole.fill_null(zero)
    )


def _together(*rows: Table) -> Table:
    return reduce(lambda one, other: one.union(other), rows)
