"""Books over many lines, as expressions: one booking for each session, buyer and provider, of up to three moves.

Lines come from `coflex.settlement.columns.lines`, with whole cents and a rest in 1e-14 of a cent. Sums of rests are
kept in two parts, so that they fit into 64 bits however many lines there are.
"""

from __future__ import annotations

from functools import reduce

from coflex.domain.statement import Cause
from coflex.settlement.columns import (
    ACTIVATIONS,
    GRAIN,
    KINDS,
    LINE,
    SLOT,
    Column,
    Table,
    as_number,
    divided,
    remainder,
)

HALF = 10**7  # a rest is two digits of this base
PENNY = 10**9  # an owner's rest is two digits of this base, in 1e-18 of a cent
POSTING = ("booking", "account", "cause", "session")
POSTINGS = {"booking": "string", "account": "string", "cause": "string", "session": "string", "cents": "int64"}
SETTLED_LINES = {
    **{name: ACTIVATIONS[name] for name in (*SLOT, "booking", "offer")},
    **dict.fromkeys(("sign", "price", "ordered_wh", "baseline_wh", "measured_wh", "delivered_wh", "paid"), "int64"),
    **dict.fromkeys(KINDS, "int64"),
}
DECIDING = (*SLOT, "sign", "ordered_wh", "delivered_wh", "paid", "price", "offer")
CAUSES = {"amount": Cause.ACTIVATION, "penalty": Cause.PENALTY, "fee": Cause.FEE}


# ---------------------------------------------------------------- rounding, once a booking


def totals(lines: Table) -> Table:
    """One row for each booking: its exact sums rounded once to cents, half to even, and what its lines still lack.

    Columns: booking, lines, missing, ordered_wh, delivered_wh, and for each kind `*` (cents) and `*_left` (cents that
    the lines' rounded-down cents lack of it).
    """
    import ibis

    exact = {}
    for kind in KINDS:
        rest = lines[f"{kind}_rest"]
        exact[f"{kind}_floor"] = lines[f"{kind}_cents"].sum()
        exact[f"{kind}_high"] = divided(rest, HALF).sum()
        exact[f"{kind}_low"] = (rest % HALF).sum()
    sums = lines.group_by("booking").agg(
        lines=ibis._.count(),
        missing=as_number(lines.missing).sum(),
        ordered_wh=lines.ordered_wh.sum(),
        delivered_wh=lines.delivered_wh.sum(),
        **exact,
    )
    found = {}
    for kind in KINDS:
        low = sums[f"{kind}_low"]
        carried = sums[f"{kind}_high"] + divided(low, HALF)
        found[f"{kind}_left"] = _rounded(carried, low % HALF, HALF, sums[f"{kind}_floor"])
    sums = sums.mutate(**found)
    return sums.mutate(**{kind: sums[f"{kind}_floor"] + sums[f"{kind}_left"] for kind in KINDS}).select(
        *("booking", "lines", "missing", "ordered_wh", "delivered_wh"),
        *(f"{kind}{end}" for kind in KINDS for end in ("", "_left")),
    )


def rounded(lines: Table, totals: Table) -> Table:
    """The lines with cents that add to their booking's: the largest rests are rounded up, as many as it lacks.

    Ties go to the earlier line, by point, start, direction, order, delivery, payment and price.
    """
    import ibis

    left = totals.select("booking", *(f"{kind}_left" for kind in KINDS)).rename(booking_="booking")
    ranked = lines.mutate(
        **{
            f"{kind}_rank": ibis.row_number().over(
                group_by="booking", order_by=[lines[f"{kind}_rest"].desc(), *(lines[name] for name in DECIDING)]
            )
            for kind in KINDS
        }
    )
    joined = ranked.join(left, ranked.booking == left.booking_)
    extra = {
        kind: joined[f"{kind}_cents"] + as_number(joined[f"{kind}_rank"] < joined[f"{kind}_left"]) for kind in KINDS
    }
    return joined.mutate(**extra).select(*lines.columns, *KINDS)


def _rounded(high: Column, low: Column, base: int, whole: Column) -> Column:
    """high + low / base, in 1 / base of a unit, rounded to units; half to the one that makes `whole` plus it even."""
    units = divided(high, base)
    part = high % base
    middle = base // 2
    even = remainder(whole + units, 2) == 0
    up = (part > middle) | ((part == middle) & ((low > 0) | ~even))
    return units + as_number(up)


# ---------------------------------------------------------------- postings


def postings(totals: Table, bookings: Table, platform: str) -> Table:
    """Both sides of every booking: the buyer pays the provider and the platform, the provider its penalties.

    Columns: booking, account, cause, session, cents (positive: credited). Nothing is posted for zero.
    """
    named = bookings.rename(number="booking")
    booked = totals.join(named, totals.booking == named.number)
    booked = booked.mutate(name=booked.session + " | " + booked.buyer + " | " + booked.provider)
    sides = {
        "amount": (booked.buyer, booked.provider),
        "penalty": (booked.provider, booked.buyer),
        "fee": (booked.buyer, _text(platform)),
    }
    return _posted(
        [
            booked.select(
                booking=booked.name,
                account=account,
                cause=_text(CAUSES[kind].value),
                session=booked.session,
                cents=sign * booked[kind],
            )
            for kind, sides_ in sides.items()
            for sign, account in zip((-1, 1), sides_, strict=True)
        ]
    )


def owner_postings(lines: Table, points: Table, bookings: Table) -> Table:
    """What providers pay on to the owners of the points: a share of the amounts, less a share of the penalties.

    One booking for each session, provider and owner, rounded once, half to even. A point that is its provider's own,
    or that is not in `points`, has nothing to pay on.
    """
    owned = points.rename(of_provider="provider", owned="point")
    ours = lines.join(owned, lines.point == owned.owned)
    named = bookings.rename(number="booking")
    ours = ours.join(named, ours.booking == named.number)
    ours = ours.filter((ours.owner != ours.provider) & (ours.of_provider == ours.provider))
    gives, bears = ours.owner_share.cast("int64"), ours.owner_penalty_share.cast("int64")
    fine = gives * ours.amount_rest - bears * ours.penalty_rest
    ours = ours.mutate(
        coarse=gives * ours.amount_cents - bears * ours.penalty_cents, low=remainder(fine, PENNY), fine=fine
    )
    sums = ours.group_by(["session", "provider", "owner"]).agg(
        coarse=ours.coarse.sum(),
        high=divided(ours.fine - ours.low, PENNY, exact=True).sum(),
        low=ours.low.sum(),
    )
    # coarse in 1e-4 of a cent, high in 1e-9, low in 1e-18.
    high = sums.coarse * (PENNY // GRAIN) + sums.high + divided(sums.low, PENNY)
    sums = sums.mutate(high=high, low=sums.low % PENNY)
    part = remainder(sums.high, PENNY)
    floor = divided(sums.high - part, PENNY, exact=True)
    sums = sums.mutate(cents=floor + _rounded(part, sums.low, PENNY, floor))
    name = sums.session + " | " + sums.provider + " | " + sums.owner
    return _posted(
        [
            sums.select(
                booking=name,
                account=sums[who],
                cause=_text(Cause.OWNER.value),
                session=sums.session,
                cents=sign * sums.cents,
            )
            for sign, who in ((-1, "provider"), (1, "owner"))
        ]
    )


def perimeters(lines: Table, points: Table) -> Table:
    """Energy by which the position of each balance responsible party is corrected, by interval: Wh, injection positive.

    What was activated at its points is no imbalance of its own.
    """
    answering = points.select(answered="point", brp="brp")
    ours = lines.join(answering, lines.point == answering.answered)
    sums = ours.group_by(["brp", "start"]).agg(correction_wh=ours.transfer_wh.sum())
    return sums.filter(sums.correction_wh != 0)


def balances(postings: Table) -> Table:
    """What every account received and paid, by cause, in cents; and the balance of both."""
    import ibis

    sums = postings.group_by(["account", "cause"]).agg(
        received=ibis.greatest(postings.cents, 0).sum(), paid=-ibis.least(postings.cents, 0).sum()
    )
    return sums.mutate(balance=sums.received - sums.paid)


def unbalanced(postings: Table) -> Table:
    """The bookings that do not add to zero: none, or the books are wrong."""
    sums = postings.group_by("booking").agg(off_by=postings.cents.sum())
    return sums.filter(sums.off_by != 0)


# ---------------------------------------------------------------- corrections


def correction(before: Table, after: Table) -> Table:
    """The postings that turn the books of one run into those of a later one: the differences alone, in balance."""
    given = [before.mutate(cents=-before.cents), after]
    both = reduce(lambda one, other: one.union(other), (one.select(*POSTING, "cents") for one in given))
    sums = both.group_by(list(POSTING)).agg(cents=both.cents.sum())
    return sums.filter(sums.cents != 0)


def changed(before: Table, after: Table) -> Table:
    """The lines of two runs whose cents or energies differ, old beside new; 0 where a run had no such line."""
    shown = ("measured_wh", "delivered_wh", *KINDS)
    old = before.select(
        **{f"{name}_": before[name] for name in LINE}, **{f"old_{name}": before[name] for name in shown}
    )
    joined = after.outer_join(old, [after[name] == old[f"{name}_"] for name in LINE])
    pairs = joined.select(
        **{name: joined[name].coalesce(joined[f"{name}_"]) for name in LINE},
        **{f"old_{name}": joined[f"old_{name}"].fill_null(0) for name in shown},
        **{f"new_{name}": joined[name].fill_null(0) for name in shown},
    )
    differs = [pairs[f"old_{name}"] != pairs[f"new_{name}"] for name in shown]
    return pairs.filter(reduce(lambda one, other: one | other, differs))


# ---------------------------------------------------------------- given data


def repeated(activations: Table) -> Table:
    """Steps that stand more than once, and could not be told apart in a correction."""
    import ibis

    return _twice(activations.group_by(list(LINE)).agg(rows=ibis._.count()))


def repeated_points(points: Table) -> Table:
    """Points that stand more than once: their owner would be paid twice."""
    import ibis

    return _twice(points.group_by("point").agg(rows=ibis._.count()))


def unknown(activations: Table, others: Table, key: str) -> Table:
    """Activations whose booking or rule (the `key`) is not in the other table: none of them would be settled."""
    given = activations.select(key).distinct()
    known = others.select(known=others[key])
    return given.anti_join(known, given[key] == known.known)


def _twice(counts: Table) -> Table:
    return counts.filter(counts.rows > 1)


def _posted(sides: list[Table]) -> Table:
    every = reduce(lambda one, other: one.union(other), sides)
    return every.filter(every.cents != 0)


def _text(value: str) -> Column:
    import ibis

    return ibis.literal(value, type="string")
