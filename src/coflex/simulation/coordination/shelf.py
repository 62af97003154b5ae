"""Cases by name, so that another process can build the same one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from coflex.domain.errors import CoflexError
from coflex.market.coordination.world import World
from coflex.simulation.coordination.reference import reference
from coflex.simulation.coordination.small import small


class _Builder(Protocol):
    def __call__(self, *, liquidity: float, congestion: float, forecast_error: float, seed: int) -> World: ...


CASES: Mapping[str, _Builder] = {"reference": reference, "small": small}


class CaseNotKnown(CoflexError):
    """A case was asked for by a name that none has."""

    code = "CASE_NOT_KNOWN"


def case(
    name: str, *, liquidity: float = 1.0, congestion: float = 1.0, forecast_error: float = 0.0, seed: int = 1
) -> World:
    """The case of a name at its levers; the same values make the same case in every process.

    `liquidity`: share of the sellers that offer, each share holding those of the smaller ones. `congestion`: how far
    the grids are loaded towards and beyond their limits, 0 without a violation in distribution. `forecast_error`: the
    case's `error_level`. `seed`: what is drawn by chance, where anything is.
    Raises CaseNotKnown on an unknown name, CoflexError on a lever out of its range.
    """
    builder = CASES.get(name)
    if builder is None:
        raise CaseNotKnown(f"There is no case '{name}'.", f"Choose one of {', '.join(sorted(CASES))}.")
    return builder(liquidity=liquidity, congestion=congestion, forecast_error=forecast_error, seed=seed)
