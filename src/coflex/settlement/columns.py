"""Settlement of many points at once, as expressions over tables: what `coflex.settlement.charges` says of one delivery.

An expression is built from Ibis tables that are handed in, and runs on whatever engine they are on. All of it is
arithmetic of 64-bit integers, for that is the one arithmetic in which every engine agrees:

    energy       Wh; what a rule makes of it in 0.0001 Wh (`GRAIN` parts of a Wh)
    price        cents per MWh
    share        in 10,000ths
    money        whole cents, rounded down, and a rest in 1e-14 of a cent (`REST` parts of a cent)

Whatever exceeds 64 bits is an error of the engine, never a wrong number. Mathematics: docs/mathematics/
city_settlement.md; the tables: docs/city.md. Ibis is imported where an expression is built, not with this module.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

Table = Any  # ibis.expr.types.Table; written so that nothing of Ibis is imported for a name
Column = Any  # ibis.expr.types.Value

GRAIN = 10_000
PICO = 10**10  # picoeuros in a cent: cents per MWh times 0.0001 Wh
REST = 10**14
KINDS = ("amount", "penalty", "fee")
CURVE = 6  # points of a payment curve, at most
MISSING = 2  # a reading's quality: 0 measured, 1 estimated, 2 missing

POINTS = {
    "point": "int32",
    "owner": "string",
    "provider": "string",
    "brp": "string",
    "owner_share": "int32",
    "owner_penalty_share": "int32",
}
READINGS = {"point": "int32", "start": "timestamp('UTC')", "wh": "int32", "quality": "int8", "version": "int16"}
BASELINES = {"point": "int32", "start": "timestamp('UTC')", "wh": "int32"}
ACTIVATIONS = {
    "point": "int32",
    "start": "timestamp('UTC')",
    "booking": "int32",
    "offer": "int32",
    "rule": "int32",
    "sign": "int8",
    "ordered_wh": "int32",
    "price": "int32",
}
BOOKINGS = {"booking": "int32", "session": "string", "buyer": "string", "provider": "string"}
RULES = {
    "rule": "int32",
    "requested": "boolean",
    "tolerance": "int32",
    "penalty_share": "int32",
    "penalty_price": "int32",
    "cap": "int32",
    "opposite_counts": "boolean",
    "two_sided": "boolean",
    "fee_share": "int32",
    "transfer": "string",
    "curve": "int32",
    **{f"{axis}{place}": "int32" for place in range(1, CURVE + 1) for axis in "xy"},
}

SLOT = ("point", "start")
ORDER = ("booking", *SLOT, "sign")
LINE = (*ORDER, "offer", "price")
LINES = (*LINE, "ordered_wh", "baseline_wh", "measured_wh", "missing", "delivered_wh", "paid", "missed", "transfer_wh")


# ---------------------------------------------------------------- energies


def latest(readings: Table, through: int | None = None) -> Table:
    """The readings that stand: of each point and interval the highest version, up to `through` where that is given.

    A version of a point and interval stands once in `readings`. Only corrected intervals are grouped, which are few.
    """
    known = readings if through is None else readings.filter(readings.version <= through)
    corrected = known.filter(known.version > 0)
    newest = corrected.group_by(point_=corrected.point, start_=corrected.start).agg(newest=corrected.version.max())
    joined = known.left_join(newest, [known.point == newest.point_, known.start == newest.start_])
    return joined.filter(joined.newest.isnull() | (joined.version == joined.newest)).select(*READINGS)


def slots(activations: Table) -> Table:
    """Points and intervals in which anything was ordered, once each."""
    return activations.select(*SLOT).distinct()


def energies_of_all(readings: Table, baselines: Table, activations: Table) -> Table:
    """Sums of every point, from all rows: one row for each activated interval, one for all others of the point.

    Columns: point, start (null for the row of what was not activated), quarters (intervals that have a reading with a
    value, and a baseline), measured_wh and baseline_wh of these. `readings` holds a point and interval once. The rows
    with a start are what `energies_of_activated` gives.
    """
    import ibis

    marks = slots(activations)
    marks = marks.select(mark=_key(marks), slot="start")
    known = _known(readings)
    known = known.select(key=_key(known), point="point", measured_wh="wh")
    base = baselines.select(base=_key(baselines), baseline_wh="wh")
    both = known.join(base, known.key == base.base)
    marked = both.left_join(marks, both.key == marks.mark)
    return marked.group_by(point=marked.point, start=marked.slot).agg(
        quarters=ibis._.count(), measured_wh=marked.measured_wh.sum(), baseline_wh=marked.baseline_wh.sum()
    )


def energies_of_activated(readings: Table, baselines: Table, activations: Table) -> Table:
    """The same of activated intervals alone, from the activated points outward; same columns."""
    marks = slots(activations).rename(slot_point="point", slot="start")
    known = _known(readings)
    ours = marks.join(baselines, [marks.slot_point == baselines.point, marks.slot == baselines.start])
    ours = ours.select(point="slot_point", start="slot", baseline_wh="wh")
    both = ours.join(known, [ours.point == known.point, ours.start == known.start])
    return both.select(
        point=both.point,
        start=both.start,
        quarters=_big(1),
        measured_wh=both.wh.cast("int64"),
        baseline_wh=both.baseline_wh.cast("int64"),
    )


def point_sums(energies: Table) -> Table:
    """What `energies_of_all` found of each point: all its intervals, and how far it was from its baseline."""
    names = ("quarters", "measured_wh", "baseline_wh")
    sums = energies.group_by("point").agg(**{name: energies[name].sum() for name in names})
    return sums.mutate(deviation_wh=sums.measured_wh - sums.baseline_wh)


def _key(rows: Table) -> Column:
    """Point and start of a row as one number, on which many rows are joined much faster than on the two: 32 bits each.

    Starts are whole seconds before 2106. An engine may give the seconds as a binary fraction, which holds them exactly.
    """
    seconds = rows.start.epoch_seconds().cast("float64").cast("int64")
    return rows.point.cast("int64") * 2**32 + seconds


def _known(readings: Table) -> Table:
    """Readings that have a value: one that is missing is none."""
    return readings.filter(readings.quality != MISSING).select(*SLOT, "wh")


# ---------------------------------------------------------------- lines


def lines(activations: Table, energies: Table, rules: Table) -> Table:
    """One exact line for each row of activations: the judgement, and its money before any rounding to cents.

    Activations of one order (booking, point, start, sign) are its price steps: it is judged once, and the cheapest
    steps are delivered and paid first. Columns: those of `LINES` and, for amount, penalty and fee, `*_cents` and
    `*_rest`. paid and missed in 0.0001 Wh. An activation without a reading or a baseline is missing: no money.
    """
    return _money(_laid(_judged(_orders(activations, energies, rules))))


def _orders(activations: Table, energies: Table, rules: Table) -> Table:
    """Every step with its whole order, what is cheaper and dearer in it, its reading and its rule."""
    import ibis

    order = ibis.window(group_by=ORDER)
    cheaper = ibis.cumulative_window(group_by=ORDER, order_by=["price", "offer"])
    ordered = activations.ordered_wh.cast("int64")
    steps = activations.mutate(
        ordered_wh=ordered, price=activations.price.cast("int64"), sign=activations.sign.cast("int64")
    )
    steps = steps.mutate(order_wh=_whole(steps.ordered_wh.sum().over(order)))
    steps = steps.mutate(before_wh=_whole(steps.ordered_wh.sum().over(cheaper)) - steps.ordered_wh)
    metered = energies.filter(energies.start.notnull()).rename(metered_point="point", metered_start="start")
    steps = steps.left_join(metered, [steps.point == metered.metered_point, steps.start == metered.metered_start]).drop(
        "metered_point", "metered_start"
    )
    terms = rules.rename(rule_="rule")
    return steps.join(terms, steps.rule == terms.rule_).drop("rule_")


def _judged(steps: Table) -> Table:
    """The whole order judged: response, delivery, what is paid of it and what was missed, 0 where nothing is known."""
    missing = steps.quarters.isnull()
    absent = missing | (steps.order_wh == 0)
    response = steps.sign * (steps.measured_wh - steps.baseline_wh)
    known = steps.mutate(
        missing=missing,
        measured_wh=steps.measured_wh.fill_null(0),
        baseline_wh=steps.baseline_wh.fill_null(0),
        response=absent.ifelse(0, response),
        due=absent.ifelse(0, steps.order_wh),
    )
    whole = known.mutate(got=_above_zero(known.response))
    counted = whole.opposite_counts.ifelse(whole.response, whole.got) * GRAIN
    short = _above_zero(whole.due * (GRAIN - whole.tolerance) - counted)
    beyond = _above_zero(whole.response * GRAIN - whole.due * (GRAIN + whole.tolerance))
    judged = whole.mutate(short=short, wrong=short + whole.two_sided.ifelse(beyond, 0), curved=_curved(whole))
    capped = _least(judged.curved, judged.due * judged.cap)
    as_ordered = judged.requested & (judged.short == 0)
    return judged.mutate(paid_of_order=as_ordered.ifelse(judged.due * GRAIN, capped))


def _curved(orders: Table) -> Column:
    """The payment curve: straight between its points, flat outside, cut off to 0.0001 Wh; without points, the delivery.

    The sum, over the curve's pieces, of what of each is delivered times its slope: a piece that is delivered whole
    gives exactly its height, so only the one that the delivery ends in is cut off.
    """

    def piece(place: int) -> Column:
        x0, x1, y0, y1 = (orders[f"{axis}{place + end}"].cast("int64") for axis in "xy" for end in (0, 1))
        inside = _least(_above_zero(orders.got * GRAIN - x0 * orders.due), (x1 - x0) * orders.due)
        return divided(inside * (y1 - y0), _most(x1 - x0, _big(1)))

    foot = orders.y1 * orders.due
    tabled = reduce(lambda total, place: total + piece(place), range(1, CURVE), foot)
    return (orders.curve == 0).ifelse(orders.got * GRAIN, tabled)


def _laid(orders: Table) -> Table:
    """The order's delivery and payment laid on its steps from the cheapest, what was missed from the dearest."""
    after = orders.order_wh - orders.before_wh - orders.ordered_wh
    filled = orders.ordered_wh > 0
    last, first = filled & (after == 0), filled & (orders.before_wh == 0)

    def share(total: Column, passed: Column, size: Column, takes_rest: Column) -> Column:
        left = _above_zero(total - passed)
        return takes_rest.ifelse(left, _least(left, size))

    size = orders.ordered_wh * GRAIN
    return orders.mutate(
        delivered_wh=share(orders.got, orders.before_wh, orders.ordered_wh, last),
        paid=share(orders.paid_of_order, orders.before_wh * GRAIN, size, last),
        missed=share(orders.wrong, after * GRAIN, size, first),
    )


def _money(steps: Table) -> Table:
    """Amount, penalty and fee of each line, as whole cents and their rest."""
    amount = steps.price * steps.paid
    agreed = steps.penalty_price.cast("int64") * GRAIN
    rate = steps.penalty_price.isnull().ifelse(steps.price.abs() * steps.penalty_share, agreed)
    steps = steps.mutate(amount=amount, size=amount.abs(), rate=rate)
    coarse = steps.rate * divided(steps.missed, GRAIN)
    steps = steps.mutate(
        amount_part=remainder(steps.amount, PICO),
        coarse=coarse,
        penalty_part=coarse % PICO * GRAIN + steps.rate * (steps.missed % GRAIN),
        share_of_cents=steps.fee_share * divided(steps.size, PICO),
    )
    steps = steps.mutate(
        fee_part=steps.share_of_cents % GRAIN * PICO + steps.fee_share * (steps.size % PICO),
    )
    none = steps.transfer == "none"
    moved = none.ifelse(0, (steps.transfer == "ordered").ifelse(steps.ordered_wh, steps.delivered_wh))
    return steps.mutate(
        transfer_wh=steps.missing.ifelse(0, steps.sign * moved),
        amount_cents=divided(steps.amount - steps.amount_part, PICO, exact=True),
        amount_rest=steps.amount_part * GRAIN,
        penalty_cents=divided(steps.coarse, PICO) + divided(steps.penalty_part, REST),
        penalty_rest=steps.penalty_part % REST,
        fee_cents=divided(steps.share_of_cents, GRAIN) + divided(steps.fee_part, REST),
        fee_rest=steps.fee_part % REST,
    ).select(*LINES, *(f"{kind}_{part}" for kind in KINDS for part in ("cents", "rest")))


# ---------------------------------------------------------------- integers


def divided(value: Column, by: Any, exact: bool = False) -> Column:
    """value / by, rounded down; both whole, value not negative (unless it is `exact`: a multiple), by above zero.

    Engines divide whole numbers in binary floating point, which is off near 2^53. Taking the remainder away first and
    aiming at the middle of the step makes it right for every value, up to quotients of 2^51: the rounding of value and
    of the quotient moves it by less than a quarter, and the aim is up to a half from either edge.
    """
    whole = value if exact else value - value % by
    return (whole + (by // 2 if isinstance(by, int) else divided_small(by))) // by


def divided_small(value: Column) -> Column:
    """Half of a small whole number, rounded down."""
    return (value - value % 2) // 2


def remainder(value: Column, by: int) -> Column:
    """value modulo by, from zero up, also for a negative value."""
    return (value % by + by) % by


def as_number(condition: Column) -> Column:
    """1 where it holds, else 0."""
    return condition.ifelse(_big(1), _big(0))


def _big(value: int) -> Column:
    import ibis

    return ibis.literal(value, type="int64")


def _whole(value: Column) -> Column:
    """A sum as a 64-bit integer: engines widen sums, Ibis does not know, and would leave a plain cast out."""
    return value.cast("decimal(38, 0)").cast("int64")


def _above_zero(value: Column) -> Column:
    return _most(value, _big(0))


def _most(one: Column, other: Column) -> Column:
    import ibis

    return ibis.greatest(one, other)


def _least(one: Column, other: Column) -> Column:
    import ibis

    return ibis.least(one, other)
