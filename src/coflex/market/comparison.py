"""The same book on another grid model: what it would have bought, and what that breaks under the full power flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from coflex.domain.errors import GridFailure, SolverFailure
from coflex.domain.quantity import Bools, Floats
from coflex.grid import assess
from coflex.grid.dc import DcGrid
from coflex.grid.linear import LinearGrid
from coflex.grid.rows import AcGrid
from coflex.market.book import OrderBook
from coflex.market.certificate import certify
from coflex.market.clearing import Answer, clear, injections
from coflex.market.design import DistributionGrid
from coflex.market.model import Demand
from coflex.market.relaxed import Seen, clear_conic, operation_of, seen_by


@dataclass(frozen=True, slots=True)
class ModelOutcome:
    """An answer measured by the full power flow, against the limits themselves, without margins.

    `cost_eur`: awards at their bids; `bought_mwh`: up and down together; `uncovered`: requests and limits that the
    model itself left open. `violated`: elements and quarter-hours together, a node's voltage or a branch's loading;
    `worst_voltage_pu`, `worst_loading_share`: by how much the worst is broken, 0 where none is. `remark`: the
    certificate, or why the model has no answer; then the numbers are None.
    """

    model: str
    chosen: bool
    cost_eur: float | None
    bought_mwh: float | None
    uncovered: int | None
    violated: int | None
    worst_voltage_pu: float | None
    worst_loading_share: float | None
    remark: str = ""


def clear_on(
    model: DistributionGrid,
    book: OrderBook,
    admissible: Bools,
    demand: Demand,
    grid: Seen | None,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
    toll: Floats | None = None,
) -> Answer:
    """Clear a book on the named grid model; `grid` gives network, base injections and margin where the model sees it;
    `toll` as in `clear`. The conic model takes neither a toll nor offers of reactive power.

    Raises GridFailure where the model cannot stand for this grid or a state has none, SolverFailure when a solver gives
    up.
    """
    if grid is None or not model.sees_network:
        return clear(book, admissible, demand, None, capability_mw, toll)
    if model is DistributionGrid.CONIC:
        _refuse_beyond_conic(book, toll)
        return clear_conic(book, admissible, demand, grid, capability_mw)
    kind = {DistributionGrid.LINEAR: LinearGrid, DistributionGrid.DC: DcGrid, DistributionGrid.AC: AcGrid}[model]
    return clear(book, admissible, demand, seen_by(grid, kind), capability_mw, toll)


def _refuse_beyond_conic(book: OrderBook, toll: Floats | None) -> None:
    if toll is not None or book.reactive.any():
        what = "offers of reactive power" if toll is None else "a toll"
        raise GridFailure(f"The conic model has no answer with {what}.", "Choose ac, linear or dc.")


def compare(
    models: Sequence[DistributionGrid],
    chosen: DistributionGrid,
    answer: Answer,
    book: OrderBook,
    admissible: Bools,
    demand: Demand,
    grid: Seen,
    capability_mw: Mapping[tuple[str, int], Floats] | None = None,
    toll: Floats | None = None,
) -> tuple[ModelOutcome, ...]:
    """The chosen answer, then what each of `models` would have answered to the same book.

    With `conic` among them and an `ac` answer, that one's remark is its certificate. A model that cannot answer is
    named with its reason.
    """
    first = measured(chosen, answer, book, grid, chosen=True)
    if chosen is DistributionGrid.AC and DistributionGrid.CONIC in models:
        first = replace(first, remark=_certificate(book, answer, demand, grid, capability_mw, toll))
    found = [first]
    for model in models:
        if model is chosen:
            continue
        try:
            other = clear_on(model, book, admissible, demand, grid, capability_mw, toll)
            found.append(measured(model, other, book, grid))
        except (GridFailure, SolverFailure) as failure:
            found.append(ModelOutcome(model.value, False, None, None, None, None, None, None, str(failure)))
    return tuple(found)


def measured(
    model: DistributionGrid, answer: Answer, book: OrderBook, grid: Seen, chosen: bool = False
) -> ModelOutcome:
    """An answer under the full power flow of every quarter-hour of the book. Raises GridFailure where it has none."""
    network, hours = grid.network, book.axis.hours
    change_p, change_q = injections(book, answer.award_kw / 1000.0, network.n)
    state = operation_of(grid).solve(grid.p_mw + change_p, grid.q_mvar + change_q)
    high, low, loading = assess.margins(network, state)
    voltage = np.delete(np.maximum(high, low), network.slack, axis=1)
    return ModelOutcome(
        model=model.value,
        chosen=chosen,
        cost_eur=round(float(book.price @ answer.award_kw) * hours / 1000, 6),
        bought_mwh=round(float(answer.award_kw.sum()) * hours / 1000, 6),
        uncovered=int((answer.uncovered_mw > 1e-4).sum() + np.count_nonzero(answer.short)),
        violated=int((voltage > assess.TOLERANCE).sum() + (loading > assess.TOLERANCE).sum()),
        worst_voltage_pu=_worst(voltage),
        worst_loading_share=_worst(loading),
    )


def _worst(margin: Floats) -> float:
    worst = float(margin.max(initial=0.0))
    return round(worst, 9) if worst > assess.TOLERANCE else 0.0


def _certificate(
    book: OrderBook,
    answer: Answer,
    demand: Demand,
    grid: Seen,
    capability_mw: Mapping[tuple[str, int], Floats] | None,
    toll: Floats | None,
) -> str:
    try:
        _refuse_beyond_conic(book, toll)
        return certify(book, answer, demand, grid, capability_mw).sentence
    except (GridFailure, SolverFailure) as failure:
        return f"no certificate: {failure}"
