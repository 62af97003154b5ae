"""How far an answer may be from the best there is: the conic relaxation as a lower bound, where it proves to be one
worth having.

The relaxation holds every answer that stands under the power flow, so its least cost is below theirs. It may hold
more: where a limit is relieved by losses that are not there, most often voltages under export, it is cheaper than any
real answer and says little. The gap test of its branches tells the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from coflex.domain.errors import SolverFailure
from coflex.domain.quantity import Floats
from coflex.grid.conic import TIGHT
from coflex.market.book import OrderBook
from coflex.market.clearing import Answer
from coflex.market.model import Demand, assemble
from coflex.market.relaxed import LOSS_PRICE, Relaxed, Seen, relax

NAMED = 3


class Verdict(StrEnum):
    """What the relaxation proves of an answer."""

    CERTIFIED = "certified"
    NOT_TIGHT = "not_tight"
    IMPOSSIBLE = "impossible"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Invented:
    """A branch on which the relaxation has a current that is not there, and the energy it loses by it."""

    branch: str
    mwh: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """A lower bound beside an answer.

    `cost_eur`: what the answer's awards cost as the clearing counts it; `bound_eur`: what no answer of the same offers
    that keeps the same limits undercuts; nan where there is none. `gap`: the largest excess of a cone, as a share of
    the branch's squared rating. `invented`: where, the largest loss first.

    Verdicts: CERTIFIED, the relaxation is tight. NOT_TIGHT, it invents losses; the bound holds but says little.
    IMPOSSIBLE, the answer leaves something uncovered, and no injections of these offers cover everything. OPEN, the
    answer leaves something uncovered, and the relaxation does not prove that it must.
    """

    verdict: Verdict
    cost_eur: float
    bound_eur: float
    gap: float
    invented: tuple[Invented, ...]

    @property
    def share(self) -> float:
        """By how much of its cost the answer may miss the best; 0 for an answer without cost, nan without a bound."""
        if np.isnan(self.bound_eur):
            return float("nan")
        return max(0.0, self.cost_eur - self.bound_eur) / abs(self.cost_eur) if self.cost_eur else 0.0

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.verdict is Verdict.CERTIFIED:
            return f"certified: within {self.share:.2%} of any answer"
        if self.verdict is Verdict.IMPOSSIBLE:
            return "certified: no answer of these offers covers everything"
        if self.verdict is Verdict.OPEN:
            return "no certificate: something stays uncovered that the relaxation could cover"
        names = [one.branch for one in self.invented[:NAMED]]
        more = f" and {len(self.invented) - NAMED} more" if len(self.invented) > NAMED else ""
        least = f"no answer costs less than {round(self.bound_eur, 2) + 0.0:.2f} EUR, {self.share:.2%} below"
        return f"no certificate: the relaxation invents losses at {', '.join(names)}{more}; {least}"


def certify(
    book: OrderBook,
    answer: Answer,
    demand: Demand,
    grid: Seen,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
) -> Certificate:
    """The certificate of an answer to the clearing of `book` and `demand` on `grid` (network, base injections, guard).

    Blocks are those that the clearing considered; integers are relaxed, so the share covers what they cost too.
    Raises GridFailure on a meshed grid, SolverFailure when the solver gives up.
    """
    blocks = np.flatnonzero(answer.considered)
    model = assemble(book, blocks, demand, capability_mw)
    cost = float(model.fixed.cost[: len(blocks)] @ (answer.award_kw[blocks] / 1000))
    limited = np.zeros(0, dtype=np.int64) if answer.rows is None else answer.rows.period
    periods = np.unique(np.concatenate([book.period[blocks], demand.period, limited]))
    if not len(periods):
        return Certificate(Verdict.CERTIFIED, cost, cost, 0.0, ())
    covered = not (answer.uncovered_mw > 1e-6).any() and not answer.short.any()
    bound = relax(model, grid, periods, 0.0, soft=False)
    if bound is None and covered:
        raise SolverFailure(
            "The relaxation was found to have no solution, though the answer is one.",
            "Clear again; if it stays so, the limits are nearer to each other than the solver's accuracy.",
        )
    if bound is None:
        return Certificate(Verdict.IMPOSSIBLE, cost, float("nan"), 0.0, ())
    if not covered:
        return Certificate(Verdict.OPEN, cost, bound.bound, 0.0, ())
    shown = relax(model, grid, periods, LOSS_PRICE, soft=False)
    shown = bound if shown is None else shown
    invented = _invented(grid, shown, book.axis.hours)
    verdict = Verdict.CERTIFIED if shown.flow.tight else Verdict.NOT_TIGHT
    return Certificate(verdict, cost, bound.bound, float(shown.flow.gap.max(initial=0.0)), invented)


def _invented(grid: Seen, found: Relaxed, hours: float) -> tuple[Invented, ...]:
    """Branches whose cones are not tight, by the energy that they lose for nothing."""
    loose = found.flow.gap > TIGHT
    mwh = hours * np.where(loose, found.flow.invented_mw, 0.0).sum(axis=0)
    branches = np.flatnonzero(loose.any(axis=0))
    order = branches[np.lexsort((branches, -mwh[branches]))]
    return tuple(Invented(grid.network.branch_names[b], float(mwh[b])) for b in order.tolist())
