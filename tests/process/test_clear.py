"""Clear: awards, list and ledger in one transaction, once a session."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import yaml

from coflex.domain.clearing import Award, Holding, MeritLine
from coflex.domain.errors import CoflexError
from coflex.market.design import load_design, read_design
from coflex.market.engine import SessionState
from coflex.process import clear as verb
from coflex.process.clear import Cleared, clear
from coflex.process.day import Day, states
from coflex.process.ports import Event
from coflex.process.profile import sent_in
from support.verbs import VERBS, before, everything, refusal, small_day


@pytest.mark.spec("MKT-05", "MKT-09")
def test_awards_the_ledger_and_the_list_tell_the_same_quantities_and_the_session_is_published() -> None:
    store = before("clear")
    told = VERBS["clear"](store)
    sums: dict[str, Counter] = {"award": Counter(), "ledger": Counter(), "list": Counter()}
    with store.transaction() as t:
        assert states(t) == {told.session: SessionState.PUBLISHED}
        for award in t.all(Award):
            sums["award"][award.start, award.direction] += award.quantity_kw
        for holding in t.all(Holding):
            sums["ledger"][holding.start, holding.direction] += holding.quantity_kw
        for line in t.all(MeritLine):
            sums["list"][line.start, line.direction] += line.accepted_kw
    assert sums["award"]
    assert sums["award"] == sums["ledger"] == +sums["list"]


@pytest.mark.spec("MKT-02")
def test_who_was_awarded_is_told_and_both_operators_get_the_list_and_the_units_that_are_gone() -> None:
    store = before("clear")
    VERBS["clear"](store)
    with store.transaction() as t:
        awarded, events = {award.provider for award in t.all(Award)}, t.all(Event)
    assert {event.receiver for event in events if event.kind == "award"} == awarded
    for kind in ("merit_order_list", "unavailable_units"):
        assert {event.receiver for event in events if event.kind == kind} == {"dso", "tso"}


@pytest.mark.spec("GRID-09")
def test_the_system_operator_is_sent_the_profile_that_the_awards_make_of_the_substation() -> None:
    store, day = before("clear"), small_day()
    session = day.plans[0]
    with store.transaction() as t:
        (earlier,) = sent_in(t, session)
    VERBS["clear"](store)
    with store.transaction() as t:
        (now,) = sent_in(t, session)
        told = [event for event in t.all(Event) if event.kind == "substation_profile"]
        held = day.held_kw(t.all(Holding), session.horizon).sum(axis=0) / 1000
    assert [(event.receiver, event.at) for event in told] == [("tso", session.opens), ("tso", session.closes)]
    # What is injected in the grid need not come from above, but for the losses that change with it.
    assert held.any()
    assert np.abs(earlier.p_mw - now.p_mw - held).max() < 0.1 * np.abs(held).max()
    assert np.abs(earlier.p_mw - now.p_mw)[held == 0].max() < 1e-9


@pytest.mark.spec("MKT-02")
@pytest.mark.parametrize("stage", ["register", "plan", "activate"])
def test_only_an_open_session_is_cleared_and_only_once(stage: str) -> None:
    assert small_day().plans[0].id in refusal("clear", stage).message


@pytest.mark.spec("PLAT-05")
def test_a_clearing_that_breaks_down_on_its_way_leaves_nothing_and_can_be_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, undisturbed = before("clear"), before("clear")
    held = everything(store)

    def breaks(*_: object) -> None:
        raise CoflexError("The power is gone.")

    with monkeypatch.context() as patch:
        patch.setattr(verb, "_summary", breaks)  # after awards and ledger were written
        with pytest.raises(CoflexError, match="power is gone"):
            VERBS["clear"](store)
    assert everything(store) == held
    VERBS["clear"](store)
    VERBS["clear"](undisturbed)
    with store.transaction() as t, undisturbed.transaction() as u:
        assert t.all(Award) == u.all(Award)
        assert t.all(Holding) == u.all(Holding)


def test_a_session_nobody_offers_to_is_cleared_with_what_stays_uncovered() -> None:
    told = VERBS["clear"](before("offer"))
    assert (told.offers, told.awards) == (0, 0)
    assert told.uncovered > 0


# ---------------------------------------------------------------- the model of the grid


def day_on(model: str, compare: list[str]) -> Day:
    """The small day, whose local sessions clear on a grid model and name others to compare."""
    document = load_design("beflexible_six").model_dump(mode="json")
    for session in document["sessions"]:
        if session["grid"]["distribution"] == "ac":
            session["grid"] |= {"distribution": model, "compare": compare}
    return Day(small_day().case, read_design(yaml.safe_dump(document), "mine.yaml"))


def models_of(day: Day) -> tuple[Cleared, list[dict[str, Any]]]:
    """What the first session decides, and what its note tells of grid models."""
    store, session = before("clear"), day.plans[0]
    told = clear(day, store, session, session.closes)
    with store.transaction() as t:
        note = t.document(f"cleared/{session.id}")
    assert note is not None
    return told, note["models"]


@pytest.mark.spec("MKT-01", "MKT-06")
def test_a_session_on_the_grid_notes_what_its_answer_breaks_under_the_full_power_flow() -> None:
    told, (only,) = models_of(day_on("ac", []))
    assert (only["model"], only["chosen"], only["violated"], only["remark"]) == ("ac", True, 0, "")
    assert only["cost_eur"] == pytest.approx(float(told.cost_eur), abs=0.01)
    assert only["bought_mwh"] == pytest.approx(told.definitive_mwh + told.preliminary_mwh)


@pytest.mark.spec("MKT-01", "MKT-06")
def test_models_to_compare_are_noted_and_change_no_award() -> None:
    alone, _ = models_of(day_on("ac", []))
    told, models = models_of(day_on("ac", ["none", "linear", "conic", "dc"]))
    assert (told.cost_eur, told.awards, told.definitive_mwh) == (alone.cost_eur, alone.awards, alone.definitive_mwh)
    found = {one["model"]: one for one in models}
    assert list(found) == ["ac", "none", "linear", "conic", "dc"]
    assert found["none"]["cost_eur"] == 0.0 and found["none"]["violated"] > 0
    # The small day exports at noon: flows without losses see higher voltages, and the relaxation loses them away.
    assert found["linear"]["cost_eur"] > 1.1 * found["ac"]["cost_eur"]
    assert found["ac"]["remark"].startswith("no certificate: the relaxation invents losses at")
    assert found["conic"]["cost_eur"] < found["ac"]["cost_eur"] and found["conic"]["violated"] > 0


@pytest.mark.spec("MKT-01")
@pytest.mark.parametrize("model", ["linear", "conic", "dc"])
def test_the_model_that_the_design_names_decides_the_awards(model: str) -> None:
    told, (only,) = models_of(day_on(model, []))
    _, others = models_of(day_on("ac", [model]))
    assert only | {"chosen": False} == others[1]
    assert float(told.cost_eur) == pytest.approx(only["cost_eur"], abs=0.01)


def test_a_session_that_sees_no_network_has_no_models_to_tell_of() -> None:
    session = small_day().plans[1]
    assert not session.session.grid.distribution.sees_network
    with before("activate").transaction() as t:
        note = t.document(f"cleared/{session.id}")
    assert note is not None and note["models"] == []
