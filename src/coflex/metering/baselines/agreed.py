"""Baselines agreed beforehand, all ex ante: the nominated schedule, zero, the power of a drop-to contract."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coflex.domain.errors import Finding, refuse
from coflex.domain.quantity import Bools, Floats
from coflex.metering.baselines.result import BaselineResult, nothing


@dataclass(frozen=True, slots=True)
class Nominated:
    """The nominated schedule, trusted while past nominations erred by no more than these shares of mean power.

    Defaults: the limits of the French demand response rules (NEBEF) for nominated baselines. Raises Refused.
    """

    absolute_error: float = 0.35
    centring_error: float = 0.15

    def __post_init__(self) -> None:
        limits = {"absolute_error": self.absolute_error, "centring_error": self.centring_error}
        message = "A limit is a share of mean power; give 0 or more."
        refuse("Nominated baseline", [Finding(f"nominated: {k}", "out_of_range", message) for k, v in limits.items()
                                      if not v >= 0])  # fmt: skip

    @property
    def label(self) -> str:
        return "nominated"


@dataclass(frozen=True, slots=True)
class Zero:
    """No flow without the activation: idle back-up, batteries that rest."""

    @property
    def label(self) -> str:
        return "zero"


@dataclass(frozen=True, slots=True)
class ContractedMaximum:
    """The power of a contract (drop-to): what counts is that the unit stays within it during the event."""

    @property
    def label(self) -> str:
        return "contracted maximum"


def nominated(
    nomination: Floats, method: Nominated | None = None, past: tuple[Floats, Floats] | None = None
) -> BaselineResult:
    """The last schedule nominated before gate closure, as it is. Ex ante.

    past: earlier nominations and what was metered, arrays of one shape; pairs without a reading are passed over. Not
    enough when a value is missing or when the past errs beyond the method's limits:

        mean |n - m| / mean |m| <= absolute_error,   |mean (n - m)| / mean |m| <= centring_error
    """
    method = method or Nominated()
    if not np.isfinite(nomination).all():
        return nothing(method.label, len(nomination), "the nomination has a quarter-hour without a value")
    if past is not None:
        absolute, centring = nomination_errors(*past)
        if not (absolute <= method.absolute_error and centring <= method.centring_error):
            note = f"past nominations erred by {absolute:.0%}, {centring:.0%} on the mean"
            return nothing(method.label, len(nomination), note)
    return BaselineResult(method.label, nomination.astype(np.float64), (), None, True, 0)


def nomination_errors(nominations: Floats, metered: Floats) -> tuple[float, float]:
    """Mean absolute error and centring error, as shares of mean metered power; 0 where there is nothing to compare,
    infinite where something was nominated and nothing flowed."""
    known = np.isfinite(nominations) & np.isfinite(metered)
    errors, size = (nominations - metered)[known], np.abs(metered[known])
    if not len(errors) or not errors.any():
        return 0.0, 0.0
    if not size.any():
        return np.inf, np.inf
    return float(np.abs(errors).mean() / size.mean()), float(abs(errors.mean()) / size.mean())


def zero(quarters: int) -> BaselineResult:
    """0 kW in every quarter-hour."""
    return BaselineResult(Zero().label, np.zeros(quarters), (), None, True, 0)


def contracted(limit_kw: float | None, quarters: int) -> BaselineResult:
    """The contracted power in every quarter-hour: signed, injection positive; -500 means that it may draw 500 kW."""
    label = ContractedMaximum().label
    if limit_kw is None or not np.isfinite(limit_kw):
        return nothing(label, quarters, "the unit has no contracted power")
    return BaselineResult(label, np.full(quarters, float(limit_kw)), (), None, True, 0)


def within_contract(limit_kw: float, metered: Floats, event: Bools) -> Bools:
    """Whether each quarter of the event stayed within a drop-to contract: shape (event quarters,).

    A withdrawal (limit <= 0) may not go below the limit, an injection not above it; a missing reading did not.
    """
    inside: Bools = metered[event] >= limit_kw if limit_kw <= 0 else metered[event] <= limit_kw
    return inside
