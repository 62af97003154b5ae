"""The stopwatch: every call counted once and by its own part, wherever it comes from; nothing left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from coflex.grid import light, powerflow, rows
from coflex.grid.network import build
from coflex.grid.rows import AcGrid
from coflex.grid.sensitivity import Linearisation
from coflex.simulation.stopwatch import LIGHT, POWER_FLOW, SENSITIVITY, SOLVER, stopwatch
from coflex.solver import highs, quadratic
from coflex.solver.program import Program
from support.small_grids import radial

NETWORK = build(radial())


def nothing_injected(periods: int) -> tuple[Any, Any]:
    return np.zeros((periods, NETWORK.n)), np.zeros((periods, NETWORK.n))


def program() -> Program:
    from scipy import sparse

    one = np.ones(1)
    return Program(
        cost=one, lower=0 * one, upper=one, row_lower=0 * one, row_upper=one,
        matrix=sparse.csr_array(np.ones((1, 1))), integer=np.zeros(1, dtype=np.bool_),
    )  # fmt: skip


def test_calls_are_counted_by_part_and_once_for_the_outermost() -> None:
    with stopwatch() as seconds:
        powerflow.solve(NETWORK, *nothing_injected(2))  # calls state_of, which is clocked too
        rows.solve(NETWORK, *nothing_injected(1))  # the same function under the name another module has for it
        AcGrid(NETWORK, *nothing_injected(1)).believe(*nothing_injected(1))
        highs.solve(program())
        quadratic.solve(program())  # passes it on to highs
    assert seconds.calls == {SOLVER: 2, POWER_FLOW: 3, SENSITIVITY: 0, LIGHT: 0}
    assert all(seconds.parts[part] > 0 for part in (SOLVER, POWER_FLOW))
    assert sum(seconds.parts.values()) <= seconds.total
    assert seconds.outside == pytest.approx(seconds.total - seconds.parts[SOLVER] - seconds.parts[POWER_FLOW])


def test_what_a_light_asks_of_the_power_flow_is_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    state = powerflow.solve(NETWORK, *nothing_injected(1))
    node = NETWORK.not_slack[-1:]
    one = np.zeros(1, dtype=np.int64)
    agents = light.Agents(node, np.zeros(1), one + 1, one, 1)
    slow = light._Lights._splits

    def slowly(*words: Any) -> Any:
        time.sleep(0.03)
        return slow(*words)

    monkeypatch.setattr(light._Lights, "_splits", slowly)
    with stopwatch() as seconds:
        light.capability(NETWORK, state, agents, np.array([[50.0]]))
    assert seconds.calls[LIGHT] == 1
    assert seconds.calls[POWER_FLOW] >= 1
    assert seconds.parts[LIGHT] >= 0.03
    assert seconds.parts[POWER_FLOW] > 0
    assert sum(seconds.parts.values()) <= seconds.total
    assert seconds.bare == pytest.approx(seconds.total - sum(seconds.parts.values()))
    assert seconds.outside == pytest.approx(seconds.bare + seconds.parts[LIGHT] + seconds.parts[SENSITIVITY])


def test_sleep_is_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    with stopwatch() as seconds:
        time.sleep(0.05)
        powerflow.solve(NETWORK, *nothing_injected(1))
    assert seconds.outside >= 0.05


def test_everything_is_as_it_was_after_it_also_after_an_error() -> None:
    before: list[Callable[..., Any]] = [
        powerflow.solve,
        rows.solve,
        highs.solve,
        AcGrid.believe,
        Linearisation.__init__,
    ]
    with pytest.raises(ZeroDivisionError), stopwatch():
        assert powerflow.solve is not before[0]
        assert rows.solve is powerflow.solve
        raise ZeroDivisionError
    assert [powerflow.solve, rows.solve, highs.solve, AcGrid.believe, Linearisation.__init__] == before


def test_what_is_imported_meanwhile_gets_the_function_itself_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = powerflow.solve
    with stopwatch():
        # As a module does that is imported in here: it takes the name that it finds.
        monkeypatch.setattr(rows, "later", powerflow.solve, raising=False)
        assert rows.later is not before  # type: ignore[attr-defined]
    assert rows.later is before  # type: ignore[attr-defined]


def test_answers_are_those_without_it() -> None:
    p, q = nothing_injected(3)
    p[:, NETWORK.not_slack] = -0.01
    plain = powerflow.solve(NETWORK, p, q)
    with stopwatch():
        timed = powerflow.solve(NETWORK, p, q)
    assert np.array_equal(plain.u, timed.u)


def test_two_at_once_take_turns() -> None:
    inside, most = [0], [0]

    def clocked() -> None:
        with stopwatch():
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.02)
            inside[0] -= 1

    threads = [threading.Thread(target=clocked) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
