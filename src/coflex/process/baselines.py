"""The day's baselines: of each called unit for each product it sold, by the method that the product's document says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from coflex.domain.activation import SetPoint
from coflex.domain.series import Series
from coflex.domain.time import QUARTER
from coflex.metering.baselines.compute import Asked, compute
from coflex.metering.baselines.document import MethodDocument, methods_of
from coflex.metering.baselines.record import BaselineRecord
from coflex.process.day import Day, history_days
from coflex.process.ports import Transaction

Baselines = Mapping[tuple[str, str], BaselineRecord]
"""By unit and product."""


def baselines(
    day: Day, t: Transaction, points: Sequence[SetPoint], log_size: int
) -> dict[tuple[str, str], BaselineRecord]:
    """The record of each baseline: the first of the product's methods for the unit that can be made, else the last.

    The event of a unit lasts from its first to its last call for the product, and was known when the first session
    that called it had closed. log_size: of the log that the readings come from, 0 where there is none.
    """
    sold: dict[tuple[str, str], list[SetPoint]] = {}
    for point in points:
        sold.setdefault((point.unit, day.product(day.plan(point.session)).id), []).append(point)
    technology = {unit.id: unit.technology for unit in day.units}
    kinds = {(technology[unit], product) for unit, product in sold}
    methods = {(kind, product): methods_of(kind, product=product) for kind, product in kinds}
    nominated = day.firm(t, "nomination")
    today = t.series("actual")
    assert today is not None  # written with the readings
    readings = _readings(day, today, methods)
    found = {}
    for (unit, product), mine in sorted(sold.items()):
        plans = [day.plan(point.session) for point in mine]
        asked = Asked(
            unit,
            start=min(point.start for point in mine),
            end=max(point.start for point in mine) + QUARTER,
            notice=min(plan.closes for plan in plans),
            nomination=nominated.row(unit),
            log_size=log_size,
        )
        made = (
            compute(today if document.agreed else readings, day.case.zone, asked, document)
            for document in methods[technology[unit], product]
        )
        found[unit, product] = _first(made)
    return found


def _first(made: Iterable[BaselineRecord]) -> BaselineRecord:
    """The first that has values; the last where none has."""
    record = None
    for record in made:
        if record.values_kw:
            break
    assert record is not None  # a product allows one method at least
    return record


def _readings(day: Day, today: Series, methods: Mapping[Any, tuple[MethodDocument, ...]]) -> Series:
    """What units drew on the days that methods look back to, as far as the profiles reach, and on the day itself."""
    oldest = max((one.days.oldest for many in methods.values() for one in many if not one.agreed), default=0)
    past = history_days(day, oldest)
    if not past:
        return today
    profiles, axis = day.case.profiles.axis, day.case.axis
    before = day.unit_kw(day.truth(profiles.window(past[0].start, axis.start)))
    values = np.hstack([before.rows(today.names), today.values])
    return Series(today.names, profiles.window(past[0].start, axis.end), values)
