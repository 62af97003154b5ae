"""One market for every need: requests as a balance of all awards of a quarter-hour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from coflex.domain.quantity import Direction
from coflex.market.model import Demand
from support.books import book, cleared, cost_eur, offer

QUANTITIES = st.lists(
    st.tuples(st.sampled_from(list(Direction)), st.integers(1, 400), st.integers(5, 200)), min_size=1, max_size=8
)


def balance(kw: int) -> Demand:
    sign = np.array([-1 if kw < 0 else 1])
    return Demand(sign, np.array([0]), np.array([abs(kw) / 1000]), np.array([np.inf]), net=True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(QUANTITIES, st.integers(-600, 600))
@pytest.mark.spec("MKT-06")
def test_the_balance_is_met_at_the_cost_that_another_solver_finds(
    sold: list[tuple[Direction, int, int]], asked_kw: int
) -> None:
    of = book([offer(i, f"u{i}", d, (str(eur), [kw])) for i, (d, kw, eur) in enumerate(sold, start=1)], 1)
    answer = cleared(of, balance(asked_kw))
    sign = np.array([d.sign for d, _, _ in sold])
    kw = np.array([q for _, q, _ in sold], dtype=float)
    price = np.array([eur for _, _, eur in sold], dtype=float)
    penalty = 1e6
    other = linprog(
        np.r_[price, penalty, penalty],
        A_eq=[np.r_[sign, 1, -1]],
        b_eq=[asked_kw],
        bounds=[(0, q) for q in kw] + [(0, None)] * 2,
    )
    moved = int((of.sign * answer.award_kw).sum())
    missed = float(np.abs(answer.uncovered_mw).sum()) * 1000
    assert abs(asked_kw - moved) == pytest.approx(missed, abs=1.001)
    assert missed == pytest.approx(other.x[-2:].sum(), abs=1e-3)
    expected = float(price @ other.x[:-2]) * 0.25 / 1000
    assert cost_eur(of, answer.award_kw) == pytest.approx(expected, abs=0.06)
