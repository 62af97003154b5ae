"""Clear: awards, list and ledger in one transaction, once a session."""

from __future__ import annotations

from collections import Counter

import pytest

from coflex.domain.clearing import Award, Holding, MeritLine
from coflex.domain.errors import CoflexError
from coflex.market.engine import SessionState
from coflex.process import clear as verb
from coflex.process.day import states
from coflex.process.ports import Event
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
