"""Every method under one name: which there are, what each may read, and one call for any of them."""

from __future__ import annotations

import numpy as np

from coflex.domain.errors import CoflexError
from coflex.metering.baselines.agreed import ContractedMaximum, Nominated, Zero, contracted, nominated, zero
from coflex.metering.baselines.control import ControlGroup, control_group
from coflex.metering.baselines.days import AllDays, Rolling, XofY, day_average
from coflex.metering.baselines.meter import MeterBefore, meter_before
from coflex.metering.baselines.regression import Regression, Temperature, regression
from coflex.metering.baselines.result import BaselineResult, Given, bounds, nothing

Method = Nominated | Zero | ContractedMaximum | MeterBefore | XofY | AllDays | Rolling | ControlGroup | Regression


def baseline(given: Given, method: Method) -> BaselineResult:
    """The baseline of one unit on one day by any method. The same result in any order of the readings' arrival.

    Raises CoflexError on shapes that do not fit or an event without a quarter.
    """
    bounds(given.event)
    quarters = len(given.event)
    if any(one is not None and len(one) != quarters for one in (given.nomination, given.today)):
        raise CoflexError("Nomination, readings and event are of different days.", "Give them to fit the event's day.")
    if isinstance(method, Nominated):
        if given.nomination is None:
            return nothing(method.label, quarters, "nothing was nominated")
        return nominated(given.nomination, method, given.nominated_before)
    if isinstance(method, Zero):
        return zero(quarters)
    if isinstance(method, ContractedMaximum):
        return contracted(given.contracted_kw, quarters)
    if isinstance(method, MeterBefore):
        today = np.full(quarters, np.nan) if given.today is None else given.today
        return meter_before(today, given.event, given.notice, method)
    if isinstance(method, ControlGroup):
        return control_group(given, method)
    if isinstance(method, Regression):
        return regression(given, method)
    return day_average(given.history, given.eligible, given.event, given.today, given.notice, method)


def known(method: Method) -> str:
    """When a baseline by this method can be known, in words."""
    if isinstance(method, ControlGroup) or (isinstance(method, MeterBefore) and method.after):
        return "ex post"
    if isinstance(method, Regression) and method.by_weather and method.temperature == Temperature.MEASURED:
        return "ex post"
    if isinstance(method, MeterBefore) or getattr(method, "adjustment", None) is not None:
        return "at notice"
    return "ex ante"
