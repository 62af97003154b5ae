"""Baselines: the power that would have flowed without the activation.

Series are signed, injection positive, in kW, one value a quarter-hour of one day. Mathematics, worked examples and
sources: docs/mathematics/baselines.md. One module a family: `agreed` (nominated, zero, contracted maximum), `meter`
(before, before and after), `days` (X of Y, all days, rolling), `control` (control group), `regression`; `method` calls
any of them, `columns` those of `days` for many units, `document` reads methods, `record` keeps what was computed.
"""

from coflex.metering.alignment import align_history
from coflex.metering.baselines.adjustment import Adjust, SameDay
from coflex.metering.baselines.agreed import ContractedMaximum, Nominated, Zero, contracted, nominated, within_contract
from coflex.metering.baselines.columns import ColumnsResult, day_averages
from coflex.metering.baselines.control import Compare, ControlGroup, Match, control_group
from coflex.metering.baselines.days import AllDays, Pick, Rolling, XofY, day_average, x_of_y
from coflex.metering.baselines.meter import Between, MeterBefore, meter_before
from coflex.metering.baselines.method import Method, baseline, known
from coflex.metering.baselines.regression import Per, Regression, Temperature, regression
from coflex.metering.baselines.result import BaselineResult, Given, Peers, Weather

__all__ = [
    "Adjust",
    "AllDays",
    "BaselineResult",
    "Between",
    "ColumnsResult",
    "Compare",
    "ContractedMaximum",
    "ControlGroup",
    "Given",
    "Match",
    "MeterBefore",
    "Method",
    "Nominated",
    "Peers",
    "Per",
    "Pick",
    "Regression",
    "Rolling",
    "SameDay",
    "Temperature",
    "Weather",
    "XofY",
    "Zero",
    "align_history",
    "baseline",
    "contracted",
    "control_group",
    "day_average",
    "day_averages",
    "known",
    "meter_before",
    "nominated",
    "regression",
    "within_contract",
    "x_of_y",
]
