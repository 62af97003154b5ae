"""How well the day was foreseen: sums of loads and of PV, forecast and true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coflex.domain.quantity import Floats
from coflex.domain.time import Axis
from coflex.reporting.form import number, rounded

# A sum of elements over a time axis: MW, injection positive, so loads are negative.
Total = Floats


def forecast_section(
    axis: Axis,
    actual: Mapping[str, Total],
    definitive: Mapping[str, Total],
    by_session: Sequence[tuple[str, Axis, Mapping[str, Total]]],
) -> dict[str, Any]:
    """`actual`, `definitive` [t] by name ("loads", "pv"); `by_session`: session, horizon, its forecasts [t of it].

    The error of a session is the mean absolute one of the sum over its whole horizon.
    """
    return {
        "series": [
            {"name": f"all {name}", "forecast_mw": rounded(definitive[name], 4), "actual_mw": rounded(actual[name], 4)}
            for name in actual
        ],
        "accuracy": [
            {
                "session": session,
                "load_mae_mw": _mae(made["loads"], actual["loads"][axis.slice_of(horizon)]),
                "pv_mae_mw": _mae(made["pv"], actual["pv"][axis.slice_of(horizon)]),
            }
            for session, horizon, made in by_session
        ],
    }


def _mae(made: Total, true: Total) -> float:
    return number(float(np.abs(made - true).mean()), 6)
