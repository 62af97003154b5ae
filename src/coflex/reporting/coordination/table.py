"""Designs side by side on a terminal: the columns that decide, designs as rows, best first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from math import sqrt

from coflex.reporting.coordination.kpis import Kpis

WIDTH = 150
NOTHING = "-"
_NAME = 34
RULE = (
    "Best first: fewest limits that mending leaves, then least total cost, then fewest violations left, then by name."
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: two lines of heading, decimals, and the value of a row (None where it has none)."""

    head: str
    unit: str
    digits: int
    value: Callable[[Kpis], Decimal | float | int | None]


COLUMNS = (
    Column("DSO", "EUR", 0, lambda row: row.cost_dso_eur),
    Column("TSO", "EUR", 0, lambda row: row.cost_tso_eur),
    Column("BRP", "EUR", 0, lambda row: row.cost_brp_eur),
    Column("Mending", "EUR", 0, lambda row: row.cost_mending_eur),
    Column("Total", "EUR", 0, lambda row: row.cost_total_eur),
    Column("Up", "MWh", 1, lambda row: row.bought_up_distribution_mwh + row.bought_up_transmission_mwh),
    Column("Down", "MWh", 1, lambda row: row.bought_down_distribution_mwh + row.bought_down_transmission_mwh),
    Column("Counter", "MWh", 1, lambda row: row.counter_activated_mwh),
    Column("Left", "D", 0, lambda row: row.violations_left_distribution_count),
    Column("Left", "T", 0, lambda row: row.violations_left_transmission_count),
    Column("Unused", "%", 0, lambda row: row.unused_pct),
    Column("Effic.", "%", 1, lambda row: row.efficiency_pct),
    Column("Mess.", "", 0, lambda row: row.messages_count),
    Column("Time", "s", 1, lambda row: row.run_s),
)


def rank(row: Kpis) -> tuple[int, Decimal, int, str, str]:
    """The order of the tables, as `RULE` says it."""
    left = row.violations_left_distribution_count + row.violations_left_transmission_count
    return row.unmended_count, row.cost_total_eur, left, row.design, row.case


def ranked(rows: Sequence[Kpis]) -> list[Kpis]:
    """Best first by `RULE`."""
    return sorted(rows, key=rank)


def comparison_table(rows: Sequence[Kpis]) -> str:
    """Designs of each case side by side, at most 150 characters wide.

    Guarantee: the same for any order of the rows. Costs in whole EUR, volumes in MWh; `Left`: violations before mending
    in distribution (D) and transmission (T); a dash where an indicator has no value.
    """
    if not rows:
        return "No design was run.\n"
    parts = []
    for case, members in groupby(sorted(rows, key=lambda row: (row.case, *rank(row))), key=lambda row: row.case):
        found = list(members)
        body = [[_cut(row.design), *(_cell(column.value(row), column.digits) for column in COLUMNS)] for row in found]
        parts.append("\n".join([*_opening(case, found), *_aligned(_heads("Design"), body)]))
    return "\n\n".join(parts) + f"\n{RULE}\n"


def cases_table(rows: Sequence[Kpis]) -> str:
    """Designs over several cases: the mean, and below it the standard deviation between cases (of the sample; a dash
    for a single case), at most 150 characters wide.

    Guarantee: the same for any order of the rows. A mean is over the cases in which the indicator has a value.
    """
    if not rows:
        return "No design was run.\n"
    designs: dict[str, list[Kpis]] = {}
    for row in sorted(rows, key=lambda row: (row.design, row.case)):
        designs.setdefault(row.design, []).append(row)
    body = []
    for name in sorted(designs, key=lambda name: _mean_rank(designs[name])):
        spreads = [_spread([column.value(row) for row in designs[name]]) for column in COLUMNS]
        pairs = list(zip(COLUMNS, spreads, strict=True))
        body.append([_cut(name), *(_cell(mean, column.digits) for column, (mean, _) in pairs)])
        spread = [_cell(deviation, column.digits) for column, (_, deviation) in pairs]
        body.append([f"  +- over {len(designs[name])}", *spread])
    cases = sorted({row.case for row in rows})
    opening = f"Mean and standard deviation over {len(cases)} cases: {', '.join(cases)}."
    opening = opening if len(opening) <= WIDTH else f"Mean and standard deviation over {len(cases)} cases."
    return "\n".join([opening, *_aligned(_heads("Design"), body), RULE.replace("total cost", "mean total cost")]) + "\n"


def _mean_rank(rows: Sequence[Kpis]) -> tuple[int, Decimal, float, str]:
    left = sum(row.violations_left_distribution_count + row.violations_left_transmission_count for row in rows)
    total = sum((row.cost_total_eur for row in rows), Decimal(0)) / len(rows)
    return sum(row.unmended_count for row in rows), total, left / len(rows), rows[0].design


def _spread(values: Sequence[Decimal | float | int | None]) -> tuple[float | None, float | None]:
    known = sorted(float(value) for value in values if value is not None)
    if not known:
        return None, None
    mean = sum(known) / len(known)
    if len(known) == 1:
        return mean, None
    return mean, sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))


def _opening(case: str, rows: Sequence[Kpis]) -> list[str]:
    """The case, and what is broken without a market, where all rows agree on it."""
    before = {(row.violations_before_distribution_count, row.violations_before_transmission_count) for row in rows}
    if len(before) != 1:
        return [f"Case {case}"]
    ((local, central),) = before
    return [f"Case {case}: without a market {local} violations in distribution, {central} in transmission."]


def _heads(first: str) -> list[list[str]]:
    return [[first, *(column.head for column in COLUMNS)], ["", *(column.unit for column in COLUMNS)]]


def _aligned(heads: list[list[str]], body: list[list[str]]) -> list[str]:
    """Lines with the first column to the left and numbers to the right, two spaces between if the width lets."""
    lines = [*heads, *body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads[0]))]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    widths[0] = min(widths[0], WIDTH - sum(widths[1:]) - len(gap) * (len(widths) - 1))
    written = [
        gap.join(
            [
                _cut(line[0], widths[0]).ljust(widths[0]),
                *(x.rjust(w) for x, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    ]
    rule = gap.join("-" * width for width in widths)
    return [*(line.rstrip() for line in written[: len(heads)]), rule, *written[len(heads) :]]


def _cut(text: str, most: int = _NAME) -> str:
    return text if len(text) <= most else f"{text[: max(most - 2, 0)]}.."


def _cell(value: Decimal | float | int | None, digits: int) -> str:
    if value is None:
        return NOTHING
    text = f"{value:,.{digits}f}".replace(",", " ")
    return text[1:] if text.startswith("-") and not text.strip("-0. ") else text
