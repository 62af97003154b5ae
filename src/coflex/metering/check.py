"""Methods checked on a history: how well they tell, their bias, and what steering them would bring."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coflex.metering.accuracy import Accuracy, Placebo, accuracy, placed
from coflex.metering.baselines.document import MethodDocument
from coflex.metering.gaming import Attempt, gains
from coflex.metering.history import History

WITHIN = 0.02


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """Figures of `accuracy.Accuracy` in percent of mean power, None where there was no baseline at all.

    unbiased: the mean bias of the kind is within the limit.
    """

    method: str
    kind: str
    units: int
    answered_percent: float
    bias_percent: float | None
    worst_bias_percent: float | None
    mae_percent: float | None
    rrmse_percent: float | None
    unbiased: bool


@dataclass(frozen=True, slots=True)
class GainRow:
    """What a trick gains and spends, in percent of the energy in the events; leverage: gained for each unit spent."""

    method: str
    trick: str
    gained_percent: float
    spent_percent: float
    leverage: float | None


@dataclass(frozen=True, slots=True)
class Checked:
    """units, kinds, days: of the history. events: placebo events. within_percent: what counts as unbiased.

    accuracy: units one by one, and what is told of a kind is the mean of its units. portfolios: the units of a kind
    added up, as an aggregator sells them. gains: what steering the baseline would bring.
    """

    units: int
    kinds: int
    days: int
    events: int
    within_percent: float
    accuracy: tuple[AccuracyRow, ...]
    portfolios: tuple[AccuracyRow, ...]
    gains: tuple[GainRow, ...]


def check(
    history: History,
    documents: Sequence[MethodDocument],
    placebo: Placebo,
    attempt: Attempt | None,
    progress: Callable[[str], None],
    within: float = WITHIN,
) -> Checked:
    """Every method on the placebo events of a history; gaming only with an attempt to try.

    Raises CoflexError when the history is too short for a placebo event.
    """
    together = history.portfolios()
    single: list[AccuracyRow] = []
    added: list[AccuracyRow] = []
    tried: list[GainRow] = []
    for one in documents:
        progress(f"check {one.id}")
        single += [_row(one.id, row, within) for row in accuracy(history, placebo, one.method, one.days)]
        added += [_row(one.id, row, within) for row in accuracy(together, placebo, one.method, one.days)]
        if attempt is not None:
            found = gains(history, placebo, one.method, one.days, attempt)
            tried += [GainRow(one.id, g.trick.value, _percent(g.gained) or 0.0, _percent(g.spent) or 0.0,
                              None if g.leverage is None else round(g.leverage, 2)) for g in found]  # fmt: skip
    events = sum(1 for _ in placed(history, placebo))
    kinds = len(set(history.kinds))
    return Checked(
        len(history.units), kinds, len(history.days), events, 100 * within, tuple(single), tuple(added), tuple(tried)
    )


def _row(method: str, row: Accuracy, within: float) -> AccuracyRow:
    return AccuracyRow(
        method,
        row.kind,
        row.units,
        _percent(row.answered) or 0.0,
        _percent(row.bias),
        _percent(row.worst_bias),
        _percent(row.mae),
        _percent(row.rrmse),
        bool(abs(row.bias) <= within),
    )


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else round(100 * share, 2)
